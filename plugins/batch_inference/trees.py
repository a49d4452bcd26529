"""Nested inputs and outputs as flat lists: a leaf, or a tuple, list, mapping or dataclass of trees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

Rebuild = Callable[[list[Any]], Any]


@dataclasses.dataclass(frozen=True)
class Flat:
    """A tree taken apart: `leaves` in order, their `names` for messages, and the way back."""

    leaves: list[Any]
    names: tuple[str, ...]
    rebuild: Rebuild


def flatten(tree: Any) -> Flat:
    """Take a tree apart. `flatten(t).rebuild(flatten(t).leaves)` equals `t`.

    `None` is an empty subtree (dataclasses of outputs often have fields that are not filled).
    """
    if tree is None:
        return Flat([], (), lambda _: None)
    children = _children(tree)
    if children is None:
        return Flat([tree], ("",), lambda leaves: leaves[0])
    names, values, build = children
    flats = [flatten(value) for value in values]

    def rebuild(leaves: list[Any]) -> Any:
        rebuilt, start = [], 0
        for flat in flats:
            rebuilt.append(flat.rebuild(leaves[start : start + len(flat.leaves)]))
            start += len(flat.leaves)
        return build(rebuilt)

    return Flat(
        [leaf for flat in flats for leaf in flat.leaves],
        tuple(f"{name}{rest}" for name, flat in zip(names, flats, strict=True) for rest in flat.names),
        rebuild,
    )


def _children(tree: Any) -> tuple[list[str], list[Any], Rebuild] | None:
    """Names, values and constructor of a node; `None` for a leaf."""
    if isinstance(tree, Mapping):
        keys = list(tree)
        return [f"[{key!r}]" for key in keys], [tree[key] for key in keys], lambda values: _mapping(tree, keys, values)
    if isinstance(tree, tuple | list):
        named = getattr(tree, "_fields", None)
        names = [f".{name}" for name in named] if named else [f"[{i}]" for i in range(len(tree))]
        sequence = type(tree)
        return names, list(tree), (lambda values: sequence(*values)) if named else sequence
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = [field.name for field in dataclasses.fields(tree)]
        kind = type(tree)
        return (
            [f".{name}" for name in fields],
            [getattr(tree, name) for name in fields],
            lambda values: kind(**dict(zip(fields, values, strict=True))),
        )
    return None


def _mapping(like: Mapping[Any, Any], keys: list[Any], values: list[Any]) -> Any:
    items = dict(zip(keys, values, strict=True))
    if type(like) is dict:
        return items
    if dataclasses.is_dataclass(like):
        return type(like)(**items)
    return type(like)(items)  # type: ignore[call-arg]
