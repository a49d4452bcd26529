"""Bars as plain arrays, and the batch that carries them from a source to the database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

VALUES = ("open", "high", "low", "close", "volume")
CLOSE = VALUES.index("close")

Days = NDArray[np.datetime64]


@dataclass(frozen=True, eq=False)
class Bars:
    """Rows of a source, one a session and symbol, in any order.

    Attributes:
        session_dates: `(rows,)` datetime64[D].
        symbols: `(rows,)` of str.
        values: `(rows, 5)` float64 in the order of `VALUES`, as the source has them; NaN where it has none.
        conflicts: symbols that the source gave twice in one session with different values; their values are NaN.
    """

    session_dates: Days
    symbols: NDArray[np.object_]
    values: NDArray[np.float64]
    conflicts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.symbols)


@dataclass(frozen=True)
class Batch:
    """What a source delivers at once: one drop, or a whole history.

    Attributes:
        location: where it came from, for people.
        content_hash: SHA-256 of what it says; a batch is loaded once a source.
        history: True for history bought in bulk: each bar then counts as known when its session could run.
        first_session, last_session: what it covers, both included.
        read: reads it; raises a `SourceError` where that fails.
    """

    location: str
    content_hash: str
    history: bool
    first_session: date
    last_session: date
    read: Callable[[], Bars]


def merge_repeats(bars: Bars) -> Bars:
    """One row a symbol for the bars of one session.

    A row that repeats another is left out. Where two rows of a symbol differ, nobody can say which one is right: the
    symbol keeps one row without values, and is among the `conflicts`.
    """
    symbols, first, inverse = np.unique(bars.symbols.astype(str), return_index=True, return_inverse=True)
    if len(symbols) == len(bars):
        return bars
    values = bars.values[first].copy()
    same = (bars.values == values[inverse]) | (np.isnan(bars.values) & np.isnan(values[inverse]))
    differs = np.zeros(len(symbols), dtype=np.bool_)
    np.logical_or.at(differs, inverse, ~same.all(axis=1))
    values[differs] = np.nan
    return Bars(bars.session_dates[first], symbols.astype(object), values, tuple(symbols[differs].tolist()))
