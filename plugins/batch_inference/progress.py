"""How far a run has come: count, rate and time left, told every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """A run on its way. `rows_total` is `None` for an iterator of unknown length."""

    rows_done: int
    rows_total: int | None
    seconds: float

    @property
    def rows_per_second(self) -> float:
        return self.rows_done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        if self.rows_total is None or self.rows_per_second == 0:
            return None
        return (self.rows_total - self.rows_done) / self.rows_per_second

    def __str__(self) -> str:
        total = "" if self.rows_total is None else f" of {self.rows_total:,}"
        left = "" if self.seconds_left is None else f", {self.seconds_left:.0f} s left"
        return f"{self.rows_done:,}{total} rows, {self.rows_per_second:,.0f} rows/s{left}"


class Reporter:
    """Calls `listener` at most every `interval_s` seconds."""

    def __init__(
        self,
        listener: Callable[[Progress], None] | None,
        rows_total: int | None,
        interval_s: float = 5.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._listener, self._total, self._interval, self._clock = listener, rows_total, interval_s, clock
        self._start = self._last = clock()

    def rows_done(self, rows: int, last: bool = False) -> None:
        """Tell the listener, if it is time or the run is over."""
        now = self._clock()
        if self._listener is None or (now - self._last < self._interval and not last):
            return
        self._last = now
        self._listener(Progress(rows, self._total, now - self._start))
