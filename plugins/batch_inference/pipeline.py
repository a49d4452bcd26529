"""One batch through the model: staged, copied in, computed, copied out, written at its rows' place.

`CudaPipeline` keeps `RING` batches in flight on three streams:

    host      fill 0 | fill 1 | fill 2 | wait 0, write 0, fill 3 | ...
    copy in            in 0   | in 1   | in 2 ...
    compute                     run 0  | run 1 ...
    copy out                             out 0 ...

A slot owns everything a batch touches (pinned staging, device buffers, the model's outputs) and holds it until the
host has seen the event after the copy out, so no memory is reused while a stream may still use it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch

from batch_inference.batches import Leaf
from batch_inference.outputs import OutputBuffer, flatten_outputs
from batch_inference.trees import Flat, Rebuild

RING = 3

Forward = Callable[[list[torch.Tensor], Rebuild, int], Flat]


class Pipeline(Protocol):
    """Runs batches of `size` rows; `latencies_ms` has one forward pass a batch."""

    size: int
    latencies_ms: list[float]

    def submit(self, leaves: list[Leaf], rebuild: Rebuild, start: int) -> None:
        """Score `leaves`, at most `size` rows, whose outputs are rows `start` and on. May return before they are."""

    def drain(self) -> None:
        """Wait until the outputs of every submitted batch are written."""


def make_forward(model: Callable[..., Any], widen: bool) -> Forward:
    """A function of input leaves, their rebuild and their rows that gives the outputs taken apart.

    With `widen`, outputs that autocast left in half precision come back as float32.
    """

    def forward(leaves: list[torch.Tensor], rebuild: Rebuild, rows: int) -> Flat:
        flat = flatten_outputs(call(model, rebuild(list(leaves))), rows)
        if not widen:
            return flat
        wide = [leaf.float() if leaf.dtype in (torch.bfloat16, torch.float16) else leaf for leaf in flat.leaves]
        return Flat(wide, flat.names, flat.rebuild)

    return forward


def call(model: Callable[..., Any], inputs: Any) -> Any:
    """The model's answer: a tuple or list is its positional arguments, a mapping of names its keyword arguments."""
    if isinstance(inputs, tuple | list):
        return model(*inputs)
    if isinstance(inputs, dict) and all(isinstance(name, str) for name in inputs):
        return model(**inputs)
    return model(inputs)


class Staging:
    """Host buffers of `size` rows, allocated at the first use and filled again for every batch that needs them."""

    def __init__(self, size: int, pinned: bool) -> None:
        self._size, self._pinned = size, pinned
        self._buffers: dict[int, torch.Tensor] = {}

    def fill(self, index: int, leaf: Leaf) -> torch.Tensor:
        """Copy `leaf`, `(n, ...)` on the host, into buffer `index` and repeat its last row up to `size` rows."""
        rows = leaf.shape[0]
        if isinstance(leaf, np.ndarray) and leaf.flags.writeable and leaf.flags.c_contiguous:
            leaf = torch.from_numpy(leaf)  # torch copies with several threads, numpy with one
        is_tensor = isinstance(leaf, torch.Tensor)
        buffer = self.buffer(index, leaf.shape[1:], leaf.dtype if is_tensor else _torch_type(leaf.dtype))
        if is_tensor:
            buffer[:rows].copy_(leaf)
        else:
            np.copyto(buffer[:rows].numpy(), leaf)
        if rows < self._size:
            buffer[rows:].copy_(buffer[rows - 1].expand_as(buffer[rows:]))
        return buffer

    def buffer(self, index: int, row_shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Buffer `index` for `size` rows of this shape and type."""
        shape = (self._size, *row_shape)
        buffer = self._buffers.get(index)
        if buffer is None or buffer.shape != shape or buffer.dtype != dtype:
            buffer = self._buffers[index] = torch.empty(shape, dtype=dtype, pin_memory=self._pinned)
        return buffer


def _torch_type(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


class CpuPipeline:
    """Slices straight into the model; only a short last batch and read-only memory are copied first."""

    def __init__(self, forward: Forward, output: OutputBuffer, size: int) -> None:
        self.size = size
        self.latencies_ms: list[float] = []
        self._forward, self._output = forward, output
        self._staging = Staging(size, pinned=False)

    def submit(self, leaves: list[Leaf], rebuild: Rebuild, start: int) -> None:
        rows = leaves[0].shape[0]
        inputs = [self._tensor(index, leaf) for index, leaf in enumerate(leaves)]
        began = time.perf_counter()
        flat = self._forward(inputs, rebuild, self.size)
        self.latencies_ms.append((time.perf_counter() - began) * 1e3)
        self._output.write(start, [leaf[:rows] for leaf in flat.leaves], flat)

    def drain(self) -> None:
        """Nothing is in flight."""

    def _tensor(self, index: int, leaf: Leaf) -> torch.Tensor:
        if leaf.shape[0] == self.size:
            if isinstance(leaf, torch.Tensor):
                return leaf.cpu()
            if leaf.flags.writeable and leaf.flags.c_contiguous:
                return torch.from_numpy(leaf)
        return self._staging.fill(index, leaf)


def timed_event() -> torch.cuda.Event:
    """An event whose distance to another can be asked for."""
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


@lru_cache(maxsize=8)
def _streams(device: torch.device) -> tuple[torch.cuda.Stream, ...]:
    """The process's streams for copies in, compute and copies out.

    The same for every run: cuBLAS keeps a workspace for each stream that it has seen, 32 MiB on recent devices.
    """
    return tuple(torch.cuda.Stream(device) for _ in range(3))  # type: ignore[no-untyped-call]


class _Slot:
    """What one batch in flight owns."""

    def __init__(self, size: int, pinned: bool) -> None:
        self.staging, self.results = Staging(size, pinned), Staging(size, pinned)
        self.device_inputs: dict[int, torch.Tensor] = {}
        self.copied, self.done = timed_event(), timed_event()
        self.begun, self.computed = timed_event(), timed_event()
        self.leaves: list[Leaf] = []
        self.outputs: Flat | None = None
        self.host_outputs: list[torch.Tensor] = []
        self.start = self.rows = 0


class CudaPipeline:
    """A ring of slots on three streams, as drawn above."""

    def __init__(
        self, forward: Forward, output: OutputBuffer, size: int, device: torch.device, pin_memory: bool
    ) -> None:
        self.size = size
        self.latencies_ms: list[float] = []
        self._forward, self._output, self._device = forward, output, device
        self._slots = [_Slot(size, pin_memory) for _ in range(RING)]
        self._turn = 0
        self._copy_in, self._compute, self._copy_out = _streams(device)

    def submit(self, leaves: list[Leaf], rebuild: Rebuild, start: int) -> None:
        slot = self._slots[self._turn % RING]
        self._collect(slot)
        slot.leaves, slot.start, slot.rows = leaves, start, leaves[0].shape[0]
        callers = torch.cuda.current_stream(self._device)
        self._copy_in.wait_stream(callers)  # weights and device inputs may still be on their way
        with torch.cuda.stream(self._copy_in):
            inputs = [self._upload(slot, index, leaf) for index, leaf in enumerate(leaves)]
            slot.copied.record()
        with torch.cuda.stream(self._compute):
            self._compute.wait_event(slot.copied)
            slot.begun.record()
            outputs = self._forward(inputs, rebuild, self.size)
            slot.computed.record()
        with torch.cuda.stream(self._copy_out):
            self._copy_out.wait_event(slot.computed)
            slot.host_outputs = [self._download(slot, index, leaf) for index, leaf in enumerate(outputs.leaves)]
            slot.done.record()
        slot.outputs = outputs
        self._turn += 1

    def drain(self) -> None:
        for turn in range(self._turn, self._turn + RING):  # the oldest first
            self._collect(self._slots[turn % RING])
        torch.cuda.synchronize(self._device)

    def _collect(self, slot: _Slot) -> None:
        """Wait for the slot's batch and write its outputs; nothing if it is free."""
        if slot.outputs is None:
            return
        slot.done.synchronize()
        self._output.write(slot.start, [leaf[: slot.rows] for leaf in slot.host_outputs], slot.outputs)
        self.latencies_ms.append(slot.begun.elapsed_time(slot.computed))
        slot.outputs, slot.leaves, slot.host_outputs = None, [], []

    def _upload(self, slot: _Slot, index: int, leaf: Leaf) -> torch.Tensor:
        """`size` rows on the device: the leaf itself if it is there, else a copy that doesn't hold up the host."""
        on_host = not isinstance(leaf, torch.Tensor) or leaf.device.type == "cpu"
        whole = leaf.shape[0] == self.size
        if isinstance(leaf, torch.Tensor) and whole and leaf.device == self._device:
            return leaf
        if on_host and not (whole and isinstance(leaf, torch.Tensor) and leaf.is_pinned()):
            leaf = slot.staging.fill(index, leaf)
        buffer = slot.device_inputs.get(index)
        shape = (self.size, *leaf.shape[1:])
        if buffer is None or buffer.shape != shape or buffer.dtype != leaf.dtype:
            buffer = slot.device_inputs[index] = torch.empty(shape, dtype=leaf.dtype, device=self._device)
        rows = leaf.shape[0]
        buffer[:rows].copy_(leaf, non_blocking=True)
        if rows < self.size:  # a short batch that came from a device
            buffer[rows:].copy_(buffer[rows - 1].expand_as(buffer[rows:]))
        return buffer

    def _download(self, slot: _Slot, index: int, leaf: torch.Tensor) -> torch.Tensor:
        host = slot.results.buffer(index, tuple(leaf.shape[1:]), leaf.dtype)
        return host.copy_(leaf, non_blocking=True)
