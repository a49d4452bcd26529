"""Measures batch sizes 1, 2, 4, ... of a model on the device it will run on, and chooses one.

1. `sweep` doubles the size until memory, `max_batch_size` or the time budget ends it, and says which.
2. `_Bench.measure` runs one size: 5 warm-ups and at most 50 timed runs, fewer where a run is slow, never under 3.
   CUDA is timed by events on the device, inputs already there.
3. `profiles.choose_batch_size` takes the smallest size within 2% of the best throughput.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from batch_inference import memory
from batch_inference.batches import Block, block_of, to_tensor
from batch_inference.devices import describe_device, library_versions, resolve_device
from batch_inference.engine import evaluating
from batch_inference.errors import ConfigurationError, DeviceLostError, InputError, TooLargeError
from batch_inference.pipeline import make_forward, timed_event
from batch_inference.precision import applied, check_precision
from batch_inference.profiles import (
    BatchProfile,
    ProfileRow,
    choose_batch_size,
    describe_shape,
    explain_choice,
    measured_row,
    profile_key,
)

LARGEST_BATCH = 32_768
"""Above it some kernels index past 2^31 and take the process down; ask for more where that is known to work."""
MEMORY_SHARE = 0.85
LEAST_RUNS = 3
_SIZES_IN_BUDGET = 8  # one size takes at most this part of the time budget


@dataclass(frozen=True)
class Sweep:
    """The sizes measured and, in a clause, what ended the search."""

    rows: tuple[ProfileRow, ...]
    ended: str


Measure = Callable[[int], ProfileRow | None]


def profile_batch_size(
    model: Callable[..., Any],
    input_shape_or_example: Any,
    *,
    device: str = "auto",
    precision: str = "float32",
    max_batch_size: int = LARGEST_BATCH,
    memory_limit: int | None = None,
    warmup_runs: int = 5,
    timed_runs: int = 50,
    time_budget_s: float = 20.0,
    seed: int = 0,
    model_key: str | None = None,
) -> BatchProfile:
    """Measure batch sizes and choose the smallest within 2% of the best throughput.

    Args:
        model: an `nn.Module` or any callable; a module is moved to the device and stays there.
        input_shape_or_example: the shape of one row (normal random numbers of the model's floating type are made), or
            example rows: an array, tensor, tuple or dict of them, repeated to every size.
        device: `"auto"` (CUDA, then CPU), `"cpu"`, `"cuda"` or `"cuda:N"`.
        precision: `"float32"`, `"tf32"`, `"bfloat16"` or `"float16"`.
        max_batch_size: the largest size tried.
        memory_limit: bytes a batch may take (CUDA: torch's allocator in all). `None`: 85% of what is free.
        warmup_runs: untimed runs a size.
        timed_runs: timed runs a size at most.
        time_budget_s: seconds in all; a size that would pass it is not begun.
        seed: of the random numbers.
        model_key: the caller's own name for the model's code and shape, for the profile's key.

    Raises:
        ConfigurationError: an argument that can't be right, or a device that isn't there.
        TooLargeError: one row alone doesn't fit into memory.
        DeviceLostError: a size took the device down; the error names it.
    """
    if max_batch_size < 1 or warmup_runs < 0 or timed_runs < LEAST_RUNS:
        raise ConfigurationError(
            f"max_batch_size {max_batch_size}, warmup_runs {warmup_runs} and timed_runs {timed_runs} must be at least "
            f"1, 0 and {LEAST_RUNS}"
        )
    if check_precision(precision) == "auto":
        raise ConfigurationError(
            "a profile is of one precision, not 'auto'; allowed are float32, tf32, bfloat16, float16"
        )
    target = resolve_device(device)
    limit = memory_limit if memory_limit is not None else int(MEMORY_SHARE * memory.available_bytes(target))
    with (
        evaluating(model, target),
        torch.inference_mode(),
        memory.limited(target, memory_limit),
        applied(precision, target),
    ):
        example = _example(model, input_shape_or_example, seed)
        bench = _Bench(model, example, target, warmup_runs, timed_runs, time_budget_s / _SIZES_IN_BUDGET)
        found = sweep(bench.measure, max_batch_size=max_batch_size, memory_limit=limit, time_budget_s=time_budget_s)
    if not found.rows:
        raise TooLargeError(str(describe_device(str(target))))
    return _profile(model, model_key, example, str(target), precision, found)


def sweep(
    measure: Measure,
    *,
    max_batch_size: int,
    memory_limit: int,
    time_budget_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Sweep:
    """Measure sizes 1, 2, 4, ... until something ends it.

    Args:
        measure: gives a size's row, or `None` where it doesn't fit into memory.
        max_batch_size: the largest size tried.
        memory_limit: bytes; a size whose memory, drawn on from the last two sizes, would pass it is not tried.
        time_budget_s: a size that would pass it, judged by the one before, is not begun.
        clock: seconds.
    """
    rows: list[ProfileRow] = []
    start, size, last = clock(), 1, 0.0
    while size <= max_batch_size:
        needed = _predicted_memory(rows, size)
        if needed > memory_limit:
            return Sweep(tuple(rows), f"{size} would need {_mib(needed)} of the {_mib(memory_limit)} allowed")
        begun = clock()
        if rows and begun - start + last > time_budget_s:
            return Sweep(tuple(rows), f"the time budget of {time_budget_s:g} s ended the search before {size}")
        row = measure(size)
        if row is None:
            return Sweep(tuple(rows), f"{size} didn't fit into memory")
        rows.append(row)
        last = (clock() - begun) * (2 if row.runs <= LEAST_RUNS else 1)
        size *= 2
    return Sweep(tuple(rows), f"{max_batch_size} was the largest size allowed")


class _Bench:
    """Runs one model at a batch size and measures it."""

    def __init__(
        self, model: Callable[..., Any], example: Block, device: torch.device, warmups: int, runs: int, seconds: float
    ) -> None:
        self._forward, self._example, self._device = make_forward(model, widen=False), example, device
        self._warmups, self._runs, self._seconds = warmups, runs, seconds

    def measure(self, size: int) -> ProfileRow | None:
        """The row of `size`, or `None` where it doesn't fit. The failed batch is freed when this returns."""
        try:
            return self._measure(size)
        except (torch.OutOfMemoryError, torch.AcceleratorError, MemoryError) as error:
            if memory.is_out_of_memory(error):
                return None
            raise DeviceLostError(size, error) from error

    def _measure(self, size: int) -> ProfileRow:
        meter = memory.PeakMeter(self._device)
        inputs = [_repeated(leaf, size).to(self._device) for leaf in self._example.leaves]
        result_bytes = self._warm_up(inputs, size)
        times = self._cuda_times(inputs, size) if self._device.type == "cuda" else self._cpu_times(inputs, size)
        own = memory.tensor_bytes(inputs) + result_bytes
        return measured_row(size, times, max(own, meter.bytes()))

    def _run(self, inputs: list[torch.Tensor], size: int) -> list[torch.Tensor]:
        return self._forward(inputs, self._example.rebuild, size).leaves

    def _warm_up(self, inputs: list[torch.Tensor], size: int) -> int:
        """Run untimed, at least once, within half of the size's time; bytes of a result."""
        started, result_bytes = time.perf_counter(), 0
        for _ in range(max(1, self._warmups)):
            result_bytes = memory.tensor_bytes(self._run(inputs, size))
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            if time.perf_counter() - started > self._seconds / 2:
                break
        return result_bytes

    def _cpu_times(self, inputs: list[torch.Tensor], size: int) -> list[float]:
        times: list[float] = []
        while len(times) < self._runs and (len(times) < LEAST_RUNS or sum(times) < self._seconds):
            began = time.perf_counter()
            self._run(inputs, size)
            times.append(time.perf_counter() - began)
        return times

    def _cuda_times(self, inputs: list[torch.Tensor], size: int) -> list[float]:
        """Event times of back-to-back runs, asked for in rounds so that a slow size can end early."""
        times: list[float] = []
        while len(times) < self._runs and (len(times) < LEAST_RUNS or sum(times) < self._seconds):
            marks = [timed_event() for _ in range(min(10, self._runs - len(times)) + 1)]
            marks[0].record()
            for mark in marks[1:]:
                self._run(inputs, size)
                mark.record()
            marks[-1].synchronize()
            times += [a.elapsed_time(b) / 1e3 for a, b in pairwise(marks)]
        return times


def random_rows(shape: Sequence[int], dtype: str = "float32", seed: int = 0) -> torch.Tensor:
    """`(64, *shape)` rows to measure with: normal random numbers, or zeros where `dtype` is of whole numbers.

    Raises:
        ConfigurationError: torch has no such type.
    """
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ConfigurationError(f"input type {dtype!r} is not known to torch; give one as in 'float32' or 'int64'")
    if not kind.is_floating_point:
        return torch.zeros((64, *shape), dtype=kind)
    return torch.randn((64, *shape), generator=torch.Generator().manual_seed(seed)).to(kind)


def _example(model: Callable[..., Any], given: Any, seed: int) -> Block:
    """Rows to repeat: the caller's, or random ones of a shape."""
    if isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(size, int) for size in given):
        given = random_rows(given, str(_floating_type(model)).removeprefix("torch."), seed)
    block = block_of(given)
    if block.rows == 0:
        raise InputError("the example has no row; give at least one, or the shape of a row")
    return Block([to_tensor(leaf) for leaf in block.leaves], block.rebuild, block.rows)


def _floating_type(model: Callable[..., Any]) -> torch.dtype:
    parameters = model.parameters() if isinstance(model, torch.nn.Module) else iter(())
    return next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)


def _repeated(leaf: torch.Tensor, size: int) -> torch.Tensor:
    """`size` rows of `leaf`, over again from the first when they run out."""
    return leaf[torch.arange(size, device=leaf.device) % leaf.shape[0]]


def _profile(
    model: Callable[..., Any], model_key: str | None, example: Block, device: str, precision: str, found: Sweep
) -> BatchProfile:
    shape = ", ".join(describe_shape(leaf.shape[1:], str(leaf.dtype)) for leaf in example.leaves)
    chosen = choose_batch_size(found.rows)
    return BatchProfile(
        rows=found.rows,
        chosen=chosen,
        reason=explain_choice(found.rows, chosen, found.ended),
        key=profile_key(model=model, model_key=model_key, input_shape=shape, device=device, precision=precision),
        model=model_key or str(getattr(model, "__qualname__", type(model).__qualname__)),
        device=str(describe_device(device)),
        precision=precision,
        input_shape=shape,
        versions=library_versions(),
    )


def _predicted_memory(rows: Sequence[ProfileRow], size: int) -> int:
    """Memory of the next size, on the line through the last two."""
    if len(rows) < 2:
        return 0
    before, last = rows[-2], rows[-1]
    slope = (last.memory_bytes - before.memory_bytes) / (last.batch_size - before.batch_size)
    return int(last.memory_bytes + max(0.0, slope) * (size - last.batch_size))


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
