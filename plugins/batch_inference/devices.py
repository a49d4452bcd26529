"""Which device scores, and what it is called. The description needs no torch, whose import costs two seconds."""

from __future__ import annotations

import ctypes
import os
import platform
import runpy
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch_inference.errors import DeviceError

if TYPE_CHECKING:
    import torch

ALLOWED = "'auto' (CUDA, then CPU), 'cpu', 'cuda' or 'cuda:N'"
_NAME_BYTES = 256


@dataclass(frozen=True)
class DeviceDescription:
    """A device: `kind` is `"cuda"` or `"cpu"`, `index` counts CUDA devices, `name` tells one model from another."""

    kind: str
    index: int
    name: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.name})"


def describe_device(device: str = "auto") -> DeviceDescription:
    """The device that `device` stands for on this machine, asked of the driver and of /proc, without torch.

    Raises:
        DeviceError: no such device.
    """
    kind, index = _parse(device)
    names = cuda_device_names() if kind in ("auto", "cuda") else ()
    if kind == "cpu" or (kind == "auto" and not names):
        return DeviceDescription("cpu", 0, cpu_name())
    if index >= len(names):
        raise DeviceError(_absent(device, len(names)))
    return DeviceDescription("cuda", index, names[index])


def resolve_device(device: str) -> torch.device:
    """The torch device that `device` stands for.

    Raises:
        DeviceError: no such device.
    """
    import torch

    kind, index = _parse(device)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cpu" or (kind == "auto" and not count):
        return torch.device("cpu")
    if index >= count:
        raise DeviceError(_absent(device, count))
    return torch.device("cuda", index)


def library_versions() -> dict[str, str | None]:
    """Versions of torch and of the CUDA and cuDNN it was built with (`None` on a CPU build), without importing it."""
    return dict(_library_versions())


def thread_count() -> int:
    """The threads torch computes with on this machine's CPU, unless a program sets another number."""
    stated = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(stated) if stated.isdigit() and int(stated) > 0 else usable_cores()


def usable_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """The processor's model and the threads used of it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(models, platform.processor() or platform.machine())}, {thread_count()} threads"


@lru_cache(maxsize=1)
def cuda_device_names() -> tuple[str, ...]:
    """Names of the CUDA devices that torch would see, by index; empty without a driver or with a CPU build of torch."""
    built_for = library_versions()["cuda"]
    driver = _driver() if built_for else None
    if driver is None or built_for is None or driver.cuInit(0) != 0:
        return ()
    supports = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(supports))
    if supports.value // 1000 < int(built_for.split(".")[0]):  # torch refuses a driver older than its own CUDA
        return ()
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    return tuple(_device_name(driver, ordinal) for ordinal in range(count.value))


def _device_name(driver: Any, ordinal: int) -> str:
    handle = ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(handle), ordinal)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGetName(name, _NAME_BYTES, handle)
    return name.value.decode()


def _driver() -> Any:
    """CUDA's driver library, or `None` on a machine without one."""
    library = "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"
    try:
        return ctypes.CDLL(library)
    except OSError:  # the loader's answer for "there is no such library"
        return None


@lru_cache(maxsize=1)
def _library_versions() -> tuple[tuple[str, str | None], ...]:
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        raise DeviceError("torch is not installed; install it with `pip install torch`")
    stated = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    cuda: str | None = stated["cuda"]
    return ("torch", str(stated["__version__"])), ("cuda", cuda), ("cudnn", _cudnn_version() if cuda else None)


def _cudnn_version() -> str | None:
    found = (d.version for d in distributions() if (d.metadata["Name"] or "").startswith("nvidia-cudnn-cu"))
    return next(found, None)


def _parse(device: str) -> tuple[str, int]:
    kind, colon, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and index.isdigit())):
        raise DeviceError(f"device {device!r} is not known; allowed are {ALLOWED}")
    return kind, int(index) if index else 0


def _absent(device: str, count: int) -> str:
    return (
        f"device {device!r} is not on this machine: torch sees {count} CUDA devices; allowed are {ALLOWED}. "
        "Use device='auto' to score on the CPU where there is no GPU"
    )
