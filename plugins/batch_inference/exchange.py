"""What goes in and out of a scored table: `Source` from a source callable, `Outcome` to a sink callable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batch_inference.engine import RunStatistics


@dataclass(frozen=True)
class Source:
    """Rows to score and the keys that name them.

    `keys` maps a key column to an array of one value a row (empty where the sink needs no keys). `rows` is anything
    that `BatchInference.run` takes, in the same order.
    """

    keys: Mapping[str, Any]
    rows: Any


@dataclass(frozen=True)
class Outcome:
    """Scored rows: the source's `keys`, the model's `outputs` in the same order, and the run's `statistics`."""

    keys: Mapping[str, Any]
    outputs: Any
    statistics: RunStatistics
