"""Two plain functions over the engine and the profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from batch_inference.batches import sliceable
from batch_inference.engine import BatchInference
from batch_inference.profiler import profile_batch_size


def batch_inference(
    model: Callable[..., Any], dataloader: DataLoader[Any] | Iterable[Any], device: str = "cpu"
) -> torch.Tensor:
    """Score every batch of a DataLoader; of a batch that is a tuple or list the first element is the input.

    Args:
        model: an `nn.Module` or any callable that gives a tensor; a module is moved to `device`.
        dataloader: gives the batches.
        device: `"cpu"`, `"cuda"`, `"cuda:N"` or `"auto"`.

    Returns:
        `(rows, ...)` on the host, in the loader's order.
    """
    tensors = sliceable(dataloader)
    rows = _inputs(dataloader) if tensors is None else tensors[0]
    batch_size = None if tensors is None else getattr(dataloader, "batch_size", None)
    outputs: torch.Tensor = BatchInference(model, device=device, batch_size=batch_size).run(rows).outputs
    return outputs


def find_optimal_batch_size(
    model: Callable[..., Any], input_shape: tuple[int, ...], device: str = "cuda", max_batch_size: int = 1024
) -> dict[int, dict[str, float]]:
    """Measure batch sizes 1, 2, 4, ... and print the fastest.

    Args:
        model: an `nn.Module` or any callable; a module is moved to `device`.
        input_shape: of one row.
        device: `"cuda"`, `"cuda:N"`, `"cpu"` or `"auto"`.
        max_batch_size: the largest size tried.

    Returns:
        By batch size: `throughput` and `samples_per_sec` (rows a second), and `latency_ms` of a batch.
    """
    profile = profile_batch_size(model, input_shape, device=device, max_batch_size=max_batch_size)
    best = max(profile.rows, key=lambda row: row.throughput)
    print(f"Optimal batch size: {best.batch_size} ({best.throughput:.0f} samples/sec)")
    return {
        row.batch_size: {
            "throughput": row.throughput,
            "latency_ms": row.latency_ms_per_batch,
            "samples_per_sec": row.throughput,
        }
        for row in profile.rows
    }


def _inputs(batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        yield batch[0] if isinstance(batch, tuple | list) else batch
