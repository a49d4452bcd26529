"""The result, allocated once and written by slices: a tensor, tuple, mapping or dataclass of `(rows, ...)` tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from batch_inference.errors import OutputError, RowCountError
from batch_inference.trees import Flat, Rebuild, flatten

_FIRST_ROWS = 4096  # rows of the first allocation where their number is not known


def flatten_outputs(outputs: Any, rows: int) -> Flat:
    """Take a model's answer to a batch of `rows` rows apart.

    Raises:
        OutputError: something in it is no tensor, or has another number of rows.
    """
    flat = flatten(outputs)
    if not flat.leaves:
        raise OutputError("the model gave nothing; return a tensor, or a tuple, dict or dataclass of tensors")
    for leaf, name in zip(flat.leaves, flat.names, strict=True):
        if not isinstance(leaf, torch.Tensor):
            raise OutputError(
                f"the model's output {name or 'of a batch'} is a {type(leaf).__name__}; return a tensor, or a tuple, "
                "dict or dataclass of tensors"
            )
        if leaf.ndim == 0 or leaf.shape[0] != rows:
            raise RowCountError(name or "tensor", rows, leaf.shape)
    return flat


class OutputBuffer:
    """Host memory for the outputs of every row.

    With `rows` known it is allocated once, at the first write; else in blocks that double. Ordinary tensors, which
    may take part in autograd later, not inference tensors.
    """

    def __init__(self, rows: int | None) -> None:
        self._capacity = rows
        self._leaves: list[torch.Tensor] = []
        self._names: tuple[str, ...] = ()
        self._rebuild: Rebuild | None = None
        self._written = 0

    def write(self, start: int, leaves: Sequence[torch.Tensor], like: Flat) -> None:
        """Store `leaves`, `(n, ...)` each on the host, as rows `start` to `start + n`.

        Raises:
            OutputError: another shape or type than the first batch had.
        """
        if self._rebuild is None:
            self._allocate(leaves, like)
        self._check(leaves, like.names)
        stop = start + leaves[0].shape[0]
        if stop > self._leaves[0].shape[0]:
            self._grow(stop)
        for kept, leaf in zip(self._leaves, leaves, strict=True):
            kept[start:stop].copy_(leaf)
        self._written = max(self._written, stop)

    def finish(self) -> Any:
        """The outputs of all rows written, in the structure that the model gave."""
        if self._rebuild is None:
            raise OutputError("no batch was scored, so there is no output")
        return self._rebuild([leaf[: self._written] for leaf in self._leaves])

    def _allocate(self, leaves: Sequence[torch.Tensor], like: Flat) -> None:
        rows = _FIRST_ROWS if self._capacity is None else self._capacity
        with torch.inference_mode(False):
            self._leaves = [torch.empty((rows, *leaf.shape[1:]), dtype=leaf.dtype) for leaf in leaves]
        self._names, self._rebuild = like.names, like.rebuild

    def _grow(self, needed: int) -> None:
        rows = max(needed, 2 * self._leaves[0].shape[0])
        with torch.inference_mode(False):
            grown = [torch.empty((rows, *leaf.shape[1:]), dtype=leaf.dtype) for leaf in self._leaves]
        for new, old in zip(grown, self._leaves, strict=True):
            new[: self._written].copy_(old[: self._written])
        self._leaves = grown

    def _check(self, leaves: Sequence[torch.Tensor], names: tuple[str, ...]) -> None:
        if names != self._names:
            raise OutputError(
                f"the model gave outputs {', '.join(names)} for one batch and {', '.join(self._names)} for the first; "
                "they must be the same for every batch"
            )
        for kept, leaf, name in zip(self._leaves, leaves, names, strict=True):
            if kept.shape[1:] != leaf.shape[1:] or kept.dtype != leaf.dtype:
                raise OutputError(
                    f"the model's output {name or 'tensor'} has rows of {tuple(leaf.shape[1:])} {leaf.dtype} in one "
                    f"batch and of {tuple(kept.shape[1:])} {kept.dtype} in the first; they must be the "
                    "same for every batch"
                )
