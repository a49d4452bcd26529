"""Rows of every kind as a stream of blocks, which the engine cuts into batches by slices.

| rows | block | a batch is |
|---|---|---|
| array, tensor, memory map, tuple or mapping of them, `TensorDataset` | all rows | a slice |
| `DataLoader` over a `TensorDataset` in order, default collation | all rows | a slice, no collation |
| `DataLoader` | one of its batches | the batch, or slices of it |
| `Dataset`, `IterableDataset` | a batch of a `DataLoader` made here | the same |
| iterable (a list too) of batches of the kinds of the first line | one item | the same |

A block that is a tuple or list is passed to the model as positional arguments, one that is a mapping of names as
keyword arguments, anything else as the one argument. An iterable gives a new batch each time: memory that it fills
again while the device still reads the batch before would mix the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler, TensorDataset, default_collate

from batch_inference.errors import InputError
from batch_inference.trees import Rebuild, flatten

Leaf = Any  # torch.Tensor or numpy.ndarray; their slices share memory with them


@dataclass(frozen=True)
class Block:
    """Rows in memory: `leaves` are arrays or tensors with `rows` rows each; `rebuild` makes a model's input of them."""

    leaves: list[Leaf]
    rebuild: Rebuild
    rows: int

    def cut(self, start: int, stop: int) -> list[Leaf]:
        """Rows `start` to `stop` of every leaf, without a copy."""
        return [leaf[start:stop] for leaf in self.leaves]

    def sample(self, count: int) -> Block:
        """At most `count` rows, evenly spread over the block."""
        if self.rows <= count:
            return self
        positions = np.linspace(0, self.rows - 1, count).astype(np.int64)
        picked = [
            leaf[torch.from_numpy(positions).to(leaf.device)] if isinstance(leaf, torch.Tensor) else leaf[positions]
            for leaf in self.leaves
        ]
        return Block(picked, self.rebuild, count)


class RowStream:
    """Blocks in order. `rows` is their number if known beforehand, `block_rows` the size of a caller-made batch."""

    def __init__(self, blocks: Iterable[Block], rows: int | None, caller_batches: bool) -> None:
        self._blocks = iter(blocks)
        self.rows = rows
        self._first = next(self._blocks, None)
        self.block_rows = self._first.rows if caller_batches and self._first is not None else None

    @property
    def first(self) -> Block:
        """The first block; it tells shapes and types even when it has no row.

        Raises:
            InputError: there is no block.
        """
        if self._first is None:
            raise InputError(
                "there is no batch to score, so the shape of a result isn't known; for an empty result pass an array "
                "or tensor of shape (0, ...)"
            )
        return self._first

    def blocks(self) -> Iterator[Block]:
        """Every block, once."""
        return chain([self.first], self._blocks)


def open_rows(rows: Any, batch_size: int, num_workers: int) -> RowStream:
    """See any of the kinds above as a stream of blocks.

    Args:
        rows: the rows.
        batch_size: rows a block where this package makes the blocks of a `Dataset`.
        num_workers: worker processes that read a `Dataset`.

    Raises:
        InputError: rows of another kind, leaves of different lengths, or a type that torch lacks.
    """
    if isinstance(rows, DataLoader):
        return _open_loader(rows)
    if isinstance(rows, TensorDataset):
        return _whole(tuple(rows.tensors))
    if isinstance(rows, IterableDataset):  # read in this process: each worker would give every row
        return _open_dataset(rows, None, batch_size, 0)
    if isinstance(rows, np.ndarray | torch.Tensor | tuple | Mapping):
        return _whole(rows)
    if hasattr(rows, "to_numpy"):
        raise InputError(f"rows is a {type(rows).__name__}; pass its numbers, as in rows.to_numpy('float32')")
    if hasattr(rows, "__getitem__") and hasattr(rows, "__len__") and not isinstance(rows, str | bytes | list):
        return _open_dataset(rows, len(rows), batch_size, num_workers)
    if isinstance(rows, Iterable) and not isinstance(rows, str | bytes):
        return RowStream((block_of(batch) for batch in rows), None, caller_batches=True)
    raise InputError(
        f"rows is a {type(rows).__name__}; allowed are an array, a tensor, a tuple or dict of them, a Dataset, a "
        "DataLoader, or an iterable of batches"
    )


def block_of(tree: Any) -> Block:
    """A block of a tree of arrays and tensors.

    Raises:
        InputError: a leaf that is neither, has no row axis, another number of rows, or a type that torch lacks.
    """
    flat = flatten(tree)
    if not flat.leaves:
        raise InputError(
            "a batch has no array and no tensor in it; allowed are arrays, tensors, and tuples or dicts of them"
        )
    counts = [_rows_of(leaf, name) for leaf, name in zip(flat.leaves, flat.names, strict=True)]
    if len(set(counts)) > 1:
        found = ", ".join(f"{name}: {count}" for name, count in zip(flat.names, counts, strict=True))
        raise InputError(
            f"the inputs of a batch have different numbers of rows ({found}); give every input the same rows"
        )
    return Block(flat.leaves, flat.rebuild, counts[0])


def to_tensor(leaf: Leaf) -> torch.Tensor:
    """A leaf as a tensor; of an array, a copy."""
    return leaf if isinstance(leaf, torch.Tensor) else torch.from_numpy(np.array(leaf))


def _rows_of(leaf: Any, name: str) -> int:
    if not isinstance(leaf, np.ndarray | torch.Tensor):
        raise InputError(
            f"input {name or 'of a batch'} is a {type(leaf).__name__}; allowed are numpy arrays, torch tensors, and "
            "tuples or dicts of them"
        )
    if leaf.ndim == 0:
        raise InputError(f"input {name or 'of a batch'} is a single number; its first axis must be the rows")
    if isinstance(leaf, np.ndarray):
        try:
            torch.from_numpy(np.empty(0, leaf.dtype))
        except (TypeError, ValueError) as error:  # ValueError: a byte order that isn't the machine's
            raise InputError(
                f"input {name or 'array'} has type {leaf.dtype}, which torch doesn't have; convert it, as in "
                "array.astype('float32')"
            ) from error
    return int(leaf.shape[0])


def _whole(tree: Any) -> RowStream:
    block = block_of(tree)
    return RowStream([block], block.rows, caller_batches=False)


def _open_dataset(dataset: Any, rows: int | None, batch_size: int, num_workers: int) -> RowStream:
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=batch_size, shuffle=False, num_workers=num_workers)
    return RowStream((block_of(batch) for batch in loader), rows, caller_batches=False)


def sliceable(loader: Any) -> tuple[torch.Tensor, ...] | None:
    """The tensors of a DataLoader whose batches are slices of them, in order; `None` for any other."""
    if not isinstance(loader, DataLoader) or type(loader.dataset) is not TensorDataset:
        return None
    in_order = type(loader.sampler) is SequentialSampler and loader.batch_size is not None and not loader.drop_last
    return tuple(loader.dataset.tensors) if in_order and loader.collate_fn is default_collate else None


def _open_loader(loader: DataLoader[Any]) -> RowStream:
    tensors = sliceable(loader)
    if tensors is not None:
        stream = _whole(tensors)
        stream.block_rows = loader.batch_size
        return stream
    known = loader.batch_size is not None and not isinstance(loader.dataset, IterableDataset) and not loader.drop_last
    rows = len(loader.sampler) if known else None  # type: ignore[arg-type]
    return RowStream((block_of(batch) for batch in loader), rows, caller_batches=True)
