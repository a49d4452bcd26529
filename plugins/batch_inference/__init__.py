"""Score any number of rows with any torch model, in batches, at the speed of the device.

    rows ──▶ batches ──▶ pipeline (staging, copy in, forward, copy out) ──▶ outputs ──▶ InferenceResult

1. `batches.open_rows` sees an array, tensor, memory map, tuple or dict of them, Dataset, DataLoader or iterator of
   batches as a stream of blocks of rows. A block is cut by slices, never row by row.
2. `precision.choose` proves a reduced precision on real rows against float32, or falls back to float32 and says why.
3. `pipeline.CpuPipeline` and `pipeline.CudaPipeline` run the model on batches of one fixed shape (the last one is
   padded and cut). On CUDA a ring of pinned buffers overlaps copies in, compute and copies out on three streams.
4. `outputs.OutputBuffer` is allocated once and written by slices: the order of outputs is the order of inputs.
5. `engine.BatchInference.run` is the loop over these, and answers an out-of-memory by halving the batch and
   repeating the same rows. `engine.RunStatistics` carries throughput and latency by the formulas
   throughput = batch size x batches / total time, latency per sample = batch latency / batch size.
6. `profiler.profile_batch_size` measures sizes 1, 2, 4, ... on the device; `profiles.choose_batch_size` takes the
   smallest within 2% of the best; `profiles.profile_key` says when a stored profile may be used again.
7. `tables` reads a SELECT and stores results in PostgreSQL by COPY BINARY; `operators` brings it all into Airflow.

Only `operators` imports Airflow, only `tables` a database; the rest is torch, numpy and the standard library. Names
are loaded when first used, so that a DAG file may import `batch_inference.operators` without paying for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "BatchInference": "engine",
    "InferenceResult": "engine",
    "Progress": "progress",
    "RunStatistics": "engine",
    "batch_inference": "shortcuts",
    "find_optimal_batch_size": "shortcuts",
    "profile_batch_size": "profiler",
    "BatchProfile": "profiles",
    "ProfileRow": "profiles",
    "choose_batch_size": "profiles",
    "format_profile": "profiles",
    "profile_key": "profiles",
    "describe_device": "devices",
    "Outcome": "exchange",
    "Source": "exchange",
    "BatchInferenceError": "errors",
}

__all__ = [
    "BatchInference",
    "BatchInferenceError",
    "BatchProfile",
    "InferenceResult",
    "Outcome",
    "ProfileRow",
    "Progress",
    "RunStatistics",
    "Source",
    "batch_inference",
    "choose_batch_size",
    "describe_device",
    "find_optimal_batch_size",
    "format_profile",
    "profile_batch_size",
    "profile_key",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; its public names are {', '.join(__all__)}"
        )
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
