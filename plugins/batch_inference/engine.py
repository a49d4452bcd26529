"""`BatchInference`: any number of rows through a model, in batches, in order.

1. `open_rows` turns what was given into blocks of rows (`batches`).
2. `_Run._decide` proves a reduced precision on real rows (`precision`).
3. `_Run._score_block` cuts each block into batches of one fixed size and submits them (`pipeline`).
4. `_Run._shrink` answers an out-of-memory: the batch is halved and the same rows are submitted again.
5. `_Run._statistics` states rates and latencies by the formulas of the package's docstring.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from batch_inference import memory
from batch_inference.batches import Block, RowStream, open_rows, to_tensor
from batch_inference.devices import describe_device, resolve_device
from batch_inference.errors import ConfigurationError, DeviceLostError, TooLargeError
from batch_inference.outputs import OutputBuffer
from batch_inference.pipeline import CpuPipeline, CudaPipeline, Forward, Pipeline, make_forward
from batch_inference.precision import (
    AUTOCAST,
    FLOAT32,
    PrecisionDecision,
    PrecisionTrial,
    applied,
    check_precision,
    choose,
)
from batch_inference.progress import Progress, Reporter

DEFAULT_BATCH_SIZE = 1024
SAMPLE_ROWS = 1024  # that prove a reduced precision
_SAMPLE_BATCH = 256


@dataclass(frozen=True)
class RunStatistics:
    """What a run did and how fast. Times are of scoring: reading, copying, computing and writing into the output."""

    rows: int
    batches: int
    batch_size: int
    """Rows the model got at a time: the size asked for, or all rows where they are fewer and their number is known
    beforehand; the last size where an out-of-memory made it smaller."""
    computed_rows: int
    """Rows the model computed, the padding of short batches included: batch size x batches."""
    total_time_s: float
    latency_ms_per_batch: float
    """Median time of a batch's forward pass."""
    device: str
    precision: str
    precision_reason: str
    precision_trials: tuple[PrecisionTrial, ...]
    peak_memory_bytes: int
    """CUDA: what torch's allocator held at its peak. CPU: growth of resident memory, the outputs included."""
    out_of_memory_sizes: tuple[int, ...]
    """Batch sizes that did not fit; each was halved and its rows were scored again."""

    @property
    def throughput(self) -> float:
        """Batch size x batches / total time, in rows a second; padding counts as rows."""
        return self.computed_rows / self.total_time_s if self.total_time_s > 0 else 0.0

    @property
    def rows_per_second(self) -> float:
        """Rows scored / total time; padding doesn't count."""
        return self.rows / self.total_time_s if self.total_time_s > 0 else 0.0

    @property
    def latency_ms_per_sample(self) -> float:
        """Batch latency / batch size."""
        return self.latency_ms_per_batch / self.batch_size

    def __str__(self) -> str:
        return (
            f"{self.rows:,} rows in {self.batches:,} batches of {self.batch_size:,} on {self.device} "
            f"in {self.precision}: {self.rows_per_second:,.0f} rows/s, {self.latency_ms_per_batch:.3g} ms a batch, "
            f"{self.latency_ms_per_sample:.3g} ms a sample"
        )


@dataclass(frozen=True)
class InferenceResult:
    """`outputs` in the model's own structure, `(rows, ...)` tensors on the host in the order of the inputs."""

    outputs: Any
    statistics: RunStatistics


class BatchInference:
    """Scores rows with a model in batches.

    Args:
        model: an `nn.Module` or any callable. A module is moved to the device and stays there; while it scores it is
            in evaluation mode, after it in the mode it had.
        device: `"auto"` (CUDA, then CPU), `"cpu"`, `"cuda"` or `"cuda:N"`.
        batch_size: rows a batch, at most: an array or dataset of fewer rows is one batch of just those. Every batch of
            a run has the same shape, a short one is padded and its outputs cut. `None` takes the size of the caller's
            own batches, else at most 1,024. The same run twice gives the same bits; another batch size, or another
            number of rows where they are fewer than it, may change the last ones.
        precision: `"float32"`, or one of `"tf32"`, `"bfloat16"`, `"float16"`, `"auto"` where it is proven on real rows.
        precision_tolerance: the largest error of a reduced precision, in units of each output column's spread.
        memory_limit: bytes. CUDA: torch's allocator takes no more (weights included), and a batch that would is halved.
            CPU: a batch takes no more than this by its inputs, or by the memory's growth in the first batch.
        num_workers: worker processes that read a `Dataset`; a `DataLoader` has its own.
        pin_memory: on CUDA, stage batches in page-locked memory, allocated once.
        progress: called with a `Progress` every five seconds and at the end.

    Raises:
        ConfigurationError: an argument that can't be right, or a device that isn't there.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        device: str = "auto",
        batch_size: int | None = None,
        precision: str = "float32",
        precision_tolerance: float = 1e-3,
        memory_limit: int | None = None,
        num_workers: int = 0,
        pin_memory: bool = True,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        if not callable(model):
            raise ConfigurationError(f"model is a {type(model).__name__}; it must be an nn.Module or another callable")
        _at_least("batch_size", batch_size, 1)
        _at_least("memory_limit", memory_limit, 1)
        _at_least("num_workers", num_workers, 0)
        if not precision_tolerance >= 0:
            raise ConfigurationError(f"precision_tolerance is {precision_tolerance}; it must be 0 or more, as in 1e-3")
        self.model = model
        self.device = resolve_device(device)
        self.batch_size = batch_size
        self.precision = check_precision(precision)
        self.precision_tolerance = precision_tolerance
        self.memory_limit = memory_limit
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.progress = progress

    def run(self, rows: Any) -> InferenceResult:
        """Score an array, tensor, memory map, tuple or dict of them, Dataset, DataLoader or iterable of batches.

        Raises:
            InputError: rows that can't be cut into batches.
            OutputError: a model whose outputs don't fit its rows.
            TooLargeError: one row alone doesn't fit into the device's memory.
            DeviceLostError: the device stopped answering; this process can't use it any more.
        """
        stream = open_rows(rows, self.batch_size or DEFAULT_BATCH_SIZE, self.num_workers)
        with (
            evaluating(self.model, self.device),
            torch.inference_mode(),
            memory.limited(self.device, self.memory_limit),
        ):
            return _Run(self, stream).score()


class _Run:
    """One pass over a stream of rows."""

    def __init__(self, job: BatchInference, stream: RowStream) -> None:
        self._job, self._stream = job, stream
        self._meter = memory.PeakMeter(job.device)
        self._size = _fixed_size(job, stream)
        self._output = OutputBuffer(stream.rows)
        self._done = self._batches = self._computed_rows = 0
        self._latencies: list[float] = []
        self._failed_sizes: list[int] = []

    def score(self) -> InferenceResult:
        decision = self._decide()
        with applied(decision.used, self._job.device):
            self._forward = make_forward(self._job.model, widen=decision.used in AUTOCAST)
            self._pipeline = self._new_pipeline()
            reporter = Reporter(self._job.progress, self._stream.rows)
            started = time.perf_counter()
            for block in self._stream.blocks():
                self._score_block(block, reporter)
            if self._done == 0:
                self._learn_shape(self._stream.first)
            self._pipeline.drain()
            elapsed = time.perf_counter() - started
        reporter.rows_done(self._done, last=True)
        return InferenceResult(self._output.finish(), self._statistics(decision, elapsed))

    def _score_block(self, block: Block, reporter: Reporter) -> None:
        start = 0
        while start < block.rows:
            stop = min(start + self._size, block.rows)
            if not self._submit(block, start, stop):
                self._shrink()
                continue
            start = stop
            self._keep_within_limit()
            reporter.rows_done(self._done)

    def _submit(self, block: Block, start: int, stop: int) -> bool:
        """Whether the device had memory for these rows. The failed batch is freed when this returns."""
        try:
            self._pipeline.submit(block.cut(start, stop), block.rebuild, self._done)
        except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
            if memory.is_out_of_memory(error):
                return False
            raise DeviceLostError(self._size, error) from error
        self._done += stop - start
        self._batches += 1
        self._computed_rows += self._size
        return True

    def _shrink(self) -> None:
        """Halve the batch; what was submitted before is kept."""
        if self._size == 1:
            raise TooLargeError(str(describe_device(str(self._job.device))))
        self._failed_sizes.append(self._size)
        self._size = max(1, self._size // 2)
        self._pipeline.drain()
        self._latencies = []  # of another size
        if self._job.device.type == "cuda":
            del self._pipeline
            torch.cuda.empty_cache()
        self._pipeline = self._new_pipeline()

    def _keep_within_limit(self) -> None:
        """On a CPU: shrink if the first batch took more than the limit."""
        limit = self._job.memory_limit
        if self._batches != 1 or limit is None or self._job.device.type != "cpu":
            return
        first_size, growth = self._size, self._meter.bytes()
        while self._size > 1 and growth * self._size / first_size > limit:
            self._shrink()

    def _learn_shape(self, block: Block) -> None:
        """No row was given: score one batch of zeros and keep none of it."""
        none = [to_tensor(leaf).to(self._job.device) for leaf in block.leaves]
        zeros = [leaf.new_zeros((self._size, *leaf.shape[1:])) for leaf in none]
        flat = self._forward(zeros, block.rebuild, self._size)
        self._output.write(0, [leaf[:0].cpu() for leaf in flat.leaves], flat)

    def _decide(self) -> PrecisionDecision:
        job = self._job
        if job.precision == FLOAT32:
            return choose(job.precision, job.device, job.precision_tolerance, None)
        sample = self._stream.first.sample(SAMPLE_ROWS)
        names: list[str] = []

        def evaluate(used: str) -> list[torch.Tensor]:
            forward = make_forward(job.model, widen=used in AUTOCAST)
            with applied(used, job.device):
                parts = list(_in_parts(sample, forward, job.device, names))
            return [torch.cat(leaves) for leaves in zip(*parts, strict=True)]

        return choose(job.precision, job.device, job.precision_tolerance, evaluate if sample.rows else None, names)

    def _new_pipeline(self) -> Pipeline:
        job = self._job
        if job.device.type == "cpu":
            pipeline: Pipeline = CpuPipeline(self._forward, self._output, self._size)
        else:
            pipeline = CudaPipeline(self._forward, self._output, self._size, job.device, job.pin_memory)
        pipeline.latencies_ms = self._latencies
        return pipeline

    def _statistics(self, decision: PrecisionDecision, elapsed: float) -> RunStatistics:
        return RunStatistics(
            rows=self._done,
            batches=self._batches,
            batch_size=self._size,
            computed_rows=self._computed_rows,
            total_time_s=elapsed,
            latency_ms_per_batch=statistics.median(self._latencies) if self._latencies else 0.0,
            device=str(describe_device(str(self._job.device))),
            precision=decision.used,
            precision_reason=decision.reason,
            precision_trials=decision.trials,
            peak_memory_bytes=self._meter.bytes(),
            out_of_memory_sizes=tuple(self._failed_sizes),
        )


@contextmanager
def evaluating(model: Callable[..., Any], device: torch.device) -> Iterator[None]:
    """Move a module to `device` and keep it in evaluation mode within the block; then restore each part's mode."""
    if not isinstance(model, torch.nn.Module):
        yield
        return
    model.to(device)
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
    except NotImplementedError:  # an exported program: its mode was fixed when it was exported
        modes = []
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _in_parts(sample: Block, forward: Forward, device: torch.device, names: list[str]) -> Iterator[list[torch.Tensor]]:
    """Outputs of the sample on the host, a small batch at a time; fills `names` with theirs."""
    for start in range(0, sample.rows, _SAMPLE_BATCH):
        stop = min(start + _SAMPLE_BATCH, sample.rows)
        flat = forward([to_tensor(leaf).to(device) for leaf in sample.cut(start, stop)], sample.rebuild, stop - start)
        names[:] = flat.names
        yield [leaf.cpu() for leaf in flat.leaves]


def _fixed_size(job: BatchInference, stream: RowStream) -> int:
    """Rows of every batch of the run: never more than there are, so that a few rows cost no large batch."""
    if stream.block_rows is not None:
        size = min(job.batch_size or stream.block_rows, stream.block_rows)
    else:
        size = min(job.batch_size or DEFAULT_BATCH_SIZE, stream.rows or DEFAULT_BATCH_SIZE)
    if job.memory_limit is not None and job.device.type == "cpu" and stream.first.rows:
        row_bytes = sum(leaf[:1].nbytes for leaf in stream.first.leaves)
        size = min(size, job.memory_limit // max(1, row_bytes))
    return max(1, size)


def _at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise ConfigurationError(f"{name} is {value!r}; it must be a whole number of {least} or more")
