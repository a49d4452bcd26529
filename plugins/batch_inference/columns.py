"""A model's outputs as table columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batch_inference.errors import OutputError
from batch_inference.trees import flatten


def output_columns(outputs: Any, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Arrays of one value a row, by column name.

    An output of `(rows,)` or `(rows, 1)` is a column, one of `(rows, k)` is `k` columns, in the model's order. Without
    `names` a column is called after its key or field, and numbered where an output has several.

    Args:
        outputs: a tensor, or a tuple, dict or dataclass of tensors.
        names: the columns' names, as many as there are columns.

    Raises:
        OutputError: another number of names than of columns, or two columns of the same name.
    """
    flat = flatten(outputs)
    found: list[tuple[str, Any]] = []
    for label, leaf in zip(flat.names, flat.leaves, strict=True):
        table = (
            leaf.detach().cpu().numpy().reshape(len(leaf), -1) if len(leaf) else leaf.numpy().reshape(0, _width(leaf))
        )
        base = "".join(c if c.isalnum() or c == "_" else " " for c in label).strip().replace(" ", "_")
        base = f"output_{base}" if base.isdigit() else base or "output"
        found += [(base if table.shape[1] == 1 else f"{base}_{i}", table[:, i]) for i in range(table.shape[1])]
    titles = list(names) if names is not None else [title for title, _ in found]
    if len(titles) != len(found) or len(set(titles)) != len(titles):
        raise OutputError(
            f"the model gives {len(found)} columns ({', '.join(title for title, _ in found)}) and output_columns names "
            f"{len(titles)} ({', '.join(titles)}); give one name, used once, to each"
        )
    return {title: values for title, (_, values) in zip(titles, found, strict=True)}


def _width(leaf: Any) -> int:
    width = 1
    for size in leaf.shape[1:]:
        width *= size
    return width
