"""Memory of a device: what is free, what a piece of work took at its peak, and a limit on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_CUDA_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
_RESET_PEAK = "5"  # proc(5), clear_refs: set the peak resident size to the present one


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device had no memory left, by the error's type and code, never by its text."""
    if isinstance(error, torch.AcceleratorError):
        return getattr(error, "error_code", None) == _CUDA_OUT_OF_MEMORY
    return isinstance(error, torch.OutOfMemoryError | MemoryError)


def available_bytes(device: torch.device) -> int:
    """Memory that this process may still take on `device`."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_machine_available(), _group_available())


@contextmanager
def limited(device: torch.device, limit: int | None) -> Iterator[None]:
    """Let torch's allocator take at most `limit` bytes of a CUDA device in this process; past it, out of memory.

    Elsewhere there is no allocator to limit, and the engine measures instead.
    """
    if limit is None or device.type != "cuda":
        yield
        return
    before = torch.cuda.get_per_process_memory_fraction(device)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()  # blocks cached beyond the limit would count against it
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(before, device)


class PeakMeter:
    """Bytes at the peak since the meter was made.

    CUDA: what torch's allocator held, weights included. CPU: growth of the process's resident memory.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _reset_resident_peak()
            self._resident = _status_bytes("VmRSS")

    def bytes(self) -> int:
        """The peak so far."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return max(0, _status_bytes("VmHWM") - self._resident)


def tensor_bytes(leaves: list[torch.Tensor]) -> int:
    """Bytes of the elements of `leaves`."""
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves)


def _reset_resident_peak() -> None:
    clear_refs = Path("/proc/self/clear_refs")
    if clear_refs.exists() and os.access(clear_refs, os.W_OK):
        clear_refs.write_text(_RESET_PEAK, encoding="ascii")


def _status_bytes(field: str) -> int:
    """A memory line of /proc/self/status; 0 on a system without it."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def _machine_available() -> int:
    info = Path("/proc/meminfo")
    lines = info.read_text(encoding="ascii").splitlines() if info.exists() else []
    kib = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if kib is None else kib * 1024


def _group_available() -> int:
    """What a container's memory limit leaves; the machine's own where there is none."""
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if not (limit.exists() and used.exists()) or (stated := limit.read_text(encoding="ascii").strip()) == "max":
        return _machine_available()
    return max(0, int(stated) - int(used.read_text(encoding="ascii")))
