"""A profile of batch sizes: its rows, the choice among them, its text, and the key by which it is found again.

Nothing here needs torch: a task that reuses a stored profile doesn't pay for its import.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from batch_inference.devices import describe_device, library_versions
from batch_inference.errors import ConfigurationError

NEAR_BEST = 0.02
_BAR = 24


@dataclass(frozen=True)
class ProfileRow:
    """One batch size, measured. `spread` is the median absolute deviation of a run's time over its median."""

    batch_size: int
    throughput: float
    """Rows a second: batch size / median time of a run."""
    latency_ms_per_batch: float
    latency_ms_per_sample: float
    """Batch latency / batch size."""
    memory_bytes: int
    """At the peak. CUDA: torch's allocator, weights included. CPU: an estimate of what a batch adds."""
    runs: int
    spread: float


@dataclass(frozen=True)
class BatchProfile:
    """A measured curve and the choice on it. Every size in `rows` was really run."""

    rows: tuple[ProfileRow, ...]
    chosen: ProfileRow
    reason: str
    """The choice and what ended the search, in a sentence."""
    key: str
    model: str
    device: str
    precision: str
    input_shape: str
    versions: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        return self.chosen.batch_size

    def curve(self) -> list[dict[str, Any]]:
        """`rows` as JSON."""
        return [asdict(row) for row in self.rows]


def measured_row(batch_size: int, times_s: Sequence[float], memory_bytes: int) -> ProfileRow:
    """The row of a batch size whose timed runs took `times_s` seconds each."""
    middle = _median(times_s)
    deviation = _median([abs(time - middle) for time in times_s])
    return ProfileRow(
        batch_size=batch_size,
        throughput=batch_size / middle,
        latency_ms_per_batch=middle * 1e3,
        latency_ms_per_sample=middle * 1e3 / batch_size,
        memory_bytes=memory_bytes,
        runs=len(times_s),
        spread=deviation / middle,
    )


def choose_batch_size(rows: Sequence[ProfileRow], near: float = NEAR_BEST) -> ProfileRow:
    """The smallest batch whose throughput is within `near` of the best: it costs less memory and latency.

    Raises:
        ConfigurationError: no size was measured.
    """
    if not rows:
        raise ConfigurationError(
            "no batch size was measured, so there is none to choose; raise memory_limit or time_budget_s"
        )
    best = max(row.throughput for row in rows)
    return min((row for row in rows if row.throughput >= (1 - near) * best), key=lambda row: row.batch_size)


def explain_choice(rows: Sequence[ProfileRow], chosen: ProfileRow, ended: str, near: float = NEAR_BEST) -> str:
    """The sentence that goes with a choice."""
    best = max(rows, key=lambda row: row.throughput)
    return (
        f"{chosen.batch_size} is the smallest batch within {near:.0%} of the best throughput "
        f"({chosen.throughput:,.0f} of {best.throughput:,.0f} rows/s, at {best.batch_size}); {ended}"
    )


def format_profile(rows: Sequence[ProfileRow] | Sequence[Mapping[str, Any]], chosen: int) -> str:
    """The curve as a text table, the chosen size marked, with a bar of each throughput against the best."""
    known = [row if isinstance(row, ProfileRow) else ProfileRow(**row) for row in rows]
    best = max(row.throughput for row in known)
    lines = [f"{'batch':>8} {'rows/s':>14} {'ms/batch':>10} {'ms/sample':>10} {'MiB':>10} {'runs':>5} {'spread':>7}"]
    for row in known:
        mark = "<- chosen" if row.batch_size == chosen else ""
        lines.append(
            f"{row.batch_size:>8} {row.throughput:>14,.0f} {row.latency_ms_per_batch:>10.4g} "
            f"{row.latency_ms_per_sample:>10.3g} {row.memory_bytes / 2**20:>10,.1f} {row.runs:>5} {row.spread:>7.1%} "
            f"{'#' * round(_BAR * row.throughput / best):<{_BAR}} {mark}".rstrip()
        )
    return "\n".join(lines)


def profile_key(
    *,
    input_shape: Sequence[int] | str,
    model: Any = None,
    model_key: str | None = None,
    dtype: str = "float32",
    device: str = "auto",
    precision: str = "float32",
) -> str:
    """What a profile depends on, as a hash: model, device, precision, input, versions of torch, CUDA and cuDNN.

    The same with and without torch imported; without it `model_key` must name the model.

    Args:
        input_shape: of one row, as numbers or as `describe_shape`'s text.
        model: the model; its class's source and its parameters' shapes and types are its identity.
        model_key: the caller's own name for the model's code and shape, instead.
        dtype: of one row.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`.
        precision: the precision that is profiled.

    Raises:
        ConfigurationError: neither `model` nor `model_key`.
    """
    if model_key is None and model is None:
        raise ConfigurationError("a profile's key needs model or model_key; give one of them")
    described = describe_device(device)
    shape = input_shape if isinstance(input_shape, str) else describe_shape(input_shape, dtype)
    parts = {
        "model": model_key if model_key is not None else model_identity(model),
        "device": [described.kind, described.name],
        "precision": precision,
        "input": shape,
        "versions": library_versions(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def describe_shape(shape: Sequence[int], dtype: str) -> str:
    """One row's shape and type as text: `"64x8 float32"`."""
    return f"{'x'.join(str(size) for size in shape) or 'scalar'} {dtype.removeprefix('torch.')}"


def model_identity(model: Any) -> str:
    """A hash of what makes a model fast or slow: its classes' source, structure, parameters' shapes and types."""
    modules = list(model.modules()) if hasattr(model, "modules") else [model]
    classes = {type(module) if hasattr(model, "modules") else module for module in modules}
    shapes = (
        {name: [list(p.shape), str(p.dtype)] for name, p in model.named_parameters()}
        if hasattr(model, "modules")
        else {}
    )
    text = json.dumps([sorted(_source(kind) for kind in classes), str(model) if shapes else "", shapes])
    return hashlib.sha256(text.encode()).hexdigest()


def _source(thing: type | Callable[..., Any]) -> str:
    name = f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', type(thing).__name__)}"
    if name.startswith("torch."):  # its version is in the key
        return name
    try:
        return name + inspect.getsource(thing)
    except (OSError, TypeError):  # typed at a prompt, or no function: its name must do
        return name


def _median(values: Sequence[float]) -> float:
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2
