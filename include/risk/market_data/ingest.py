"""Loading what a source has and the database has not, with the time at which each bar became known.

1. `ingest` asks the source for its new batches, takes the source's lock and loads them in one transaction.
2. `_chunks` reads them in pieces of a bounded size, no session twice in one piece.
3. `_write` numbers new instruments, finds the bars that correct others (`_known_bars`), decides `known_at`
   (`_known_at`) and copies the rows in key order.

When a bar counts as known:
- *observed*, our clock: a drop loaded before its session's cut-off, and every correction (the bar has a row already);
- *assumed*, close plus delay, with the loading time kept in `ingest_batch.loaded_at`: history bought in bulk, and a
  drop first loaded after its session's cut-off.
A bar is assumed exactly where its `known_at` is not its batch's `loaded_at`. Loading times of a source only grow, so
two rows of a bar never tie.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from risk.market_data.bars import VALUES, Bars, Batch
from risk.market_data.errors import ForeignSessions
from risk.market_data.source import Source
from risk.storage import wire

if TYPE_CHECKING:
    import psycopg

    from risk.sessions import SessionCalendar

log = logging.getLogger(__name__)

CHUNK_BARS = 200_000
_LOG_AFTER_SECONDS = 2.0
_ANALYZE_FROM_BARS = 50_000
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class IngestSummary:
    """What one call loaded; all zero when there was nothing new.

    Attributes:
        source: the source's name.
        batches, bars, instruments: how many are new.
        observed_bars, assumed_bars: the bars by their basis; together `bars`.
        corrected_bars: those of `observed_bars` that had a row already.
        conflicts: `(session, symbol)` given twice with different values in one drop, stored without values.
        first_session, last_session: of the bars; None without one.
        seconds: how long it took.
    """

    source: str
    batches: int = 0
    bars: int = 0
    instruments: int = 0
    observed_bars: int = 0
    assumed_bars: int = 0
    corrected_bars: int = 0
    conflicts: tuple[tuple[date, str], ...] = ()
    first_session: date | None = None
    last_session: date | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Progress:
    """How far a load has come."""

    source: str
    batches_done: int
    batches_total: int
    bars: int
    seconds: float

    @property
    def bars_per_second(self) -> float:
        """The rate so far."""
        return self.bars / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        """The time left, should the other batches be like those done."""
        return self.seconds * (self.batches_total - self.batches_done) / max(self.batches_done, 1)

    def __str__(self) -> str:
        return (
            f"Loaded {self.batches_done:,} of {self.batches_total:,} batches of source {self.source}: {self.bars:,} "
            f"bars, {self.bars_per_second:,.0f} bars/s, about {self.seconds_left:.0f} s left"
        )


def ingest(
    connection: psycopg.Connection[Any],
    source: Source,
    calendar: SessionCalendar,
    session: date,
    now: datetime,
    progress: Callable[[Progress], None] | None = None,
) -> IngestSummary:
    """Load the batches of sessions up to `session` that are not loaded yet, all or nothing.

    Two calls at once for one source take turns, until the transaction of the first ends. A call with nothing new
    only compares content hashes, and waits for nobody.

    Args:
        connection: the load is part of the transaction that is open on it, else one of its own, committed here.
        source: where bars come from.
        calendar: decides what is a session, and its cut-off.
        session: the session to be run.
        now: our clock, aware.
        progress: told after each piece of the load; None writes a line to the log every few seconds.

    Raises:
        SourceError: the source can't be read, or has no bars of `session`.
    """
    started = said = time.monotonic()
    with connection.transaction():
        batches = _new_batches(connection, source, calendar, session)
        load = _Load(connection, source.name, calendar, _first_clock(connection, source.name, now))
        for chunk in _chunks(batches):
            load.write(chunk)
            done = load.summary
            so_far = Progress(source.name, done.batches, len(batches), done.bars, time.monotonic() - started)
            if progress is not None:
                progress(so_far)
            elif time.monotonic() - said > _LOG_AFTER_SECONDS:
                log.info("%s", so_far)
                said = time.monotonic()
        if load.summary.bars >= _ANALYZE_FROM_BARS:
            connection.execute("ANALYZE market_bar")
    return _finish(load.summary, time.monotonic() - started)


def _new_batches(
    connection: psycopg.Connection[Any], source: Source, calendar: SessionCalendar, session: date
) -> Sequence[Batch]:
    """The source's batches to load, under its lock where there are any."""
    trades = partial(_trades, calendar)
    batches = source.batches(session, _loaded(connection, source.name), trades)
    if batches:
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('ingest ' || %s, 0))", (source.name,))
        batches = source.batches(session, _loaded(connection, source.name), trades)
    if not any(batch.first_session <= session <= batch.last_session for batch in batches) and not _covers(
        connection, source.name, session
    ):
        raise source.missing(session)
    return batches


def _trades(calendar: SessionCalendar, day: date) -> bool:
    """Whether the exchange trades on a day; a day that its calendar doesn't reach is none."""
    return calendar.first <= day <= calendar.last and calendar.is_session(day)


def _finish(summary: IngestSummary, seconds: float) -> IngestSummary:
    for day, symbol in summary.conflicts:
        log.warning("The drop of %s has %s twice with different values: its bar is stored without values", day, symbol)
    if summary.batches:
        log.info(
            "Loaded %d bars of %s to %s from source %s (%d batches, %d new instruments, %d bars assumed known at close "
            "plus delay, %d corrections) in %.1f s",
            summary.bars, summary.first_session, summary.last_session, summary.source, summary.batches,
            summary.instruments, summary.assumed_bars, summary.corrected_bars, seconds,
        )  # fmt: skip
    return replace(summary, seconds=seconds)


def _loaded(connection: psycopg.Connection[Any], source: str) -> set[str]:
    rows = connection.execute("SELECT content_hash FROM ingest_batch WHERE source = %s", (source,))
    return {row[0] for row in rows}


def _covers(connection: psycopg.Connection[Any], source: str, session: date) -> bool:
    found = connection.execute(
        "SELECT FROM ingest_batch WHERE source = %s AND %s BETWEEN first_session AND last_session LIMIT 1",
        (source, session),
    )
    return found.fetchone() is not None


def _first_clock(connection: psycopg.Connection[Any], source: str, now: datetime) -> datetime:
    """The loading time of the next batch: `now`, or just after the last one where the clock has not moved on."""
    row = connection.execute("SELECT max(loaded_at) FROM ingest_batch WHERE source = %s", (source,)).fetchone()
    last: datetime | None = row[0] if row else None
    return now if last is None else max(now, last + _MICROSECOND)


def _chunks(batches: Sequence[Batch]) -> Iterator[list[tuple[Batch, Bars]]]:
    """Pieces of about `CHUNK_BARS` bars, no session twice in one: a correction must find what it corrects."""
    chunk: list[tuple[Batch, Bars]] = []
    last: date | None = None
    for batch in batches:
        if chunk and (sum(len(bars) for _, bars in chunk) >= CHUNK_BARS or (last and batch.first_session <= last)):
            yield chunk
            chunk, last = [], None
        chunk.append((batch, batch.read()))
        last = batch.last_session
    if chunk:
        yield chunk


class _Load:
    """The state of one load: instruments known so far, the clock, the tally."""

    def __init__(
        self, connection: psycopg.Connection[Any], source: str, calendar: SessionCalendar, clock: datetime
    ) -> None:
        self.connection, self.source, self.calendar, self.clock = connection, source, calendar, clock
        self.summary = IngestSummary(source)
        rows = connection.execute("SELECT symbol, instrument_id FROM instrument WHERE source = %s", (source,))
        self.ids: dict[str, int] = dict(rows.fetchall())

    def write(self, chunk: Sequence[tuple[Batch, Bars]]) -> None:
        days = (
            np.concatenate([bars.session_dates for _, bars in chunk]).astype("datetime64[D]")
            - np.datetime64(wire.EPOCH_DAY, "D")
        ).astype(np.int32)
        owner = np.repeat(np.arange(len(chunk)), [len(bars) for _, bars in chunk])
        stamps = [self.clock + at * _MICROSECOND for at in range(len(chunk))]
        self.clock = stamps[-1] + _MICROSECOND
        loaded_at = np.array([wire.to_microseconds(stamp) for stamp in stamps])[owner]
        had = len(self.ids)
        instruments = self._instruments([bars.symbols for _, bars in chunk])
        corrects = self._known_bars(days, instruments) if had else np.zeros(len(days), dtype=np.bool_)
        known_at = self._known_at(chunk, days, owner, loaded_at, corrects)
        assumed = known_at != loaded_at
        batch_ids = self._batches(chunk, stamps, np.bincount(owner, assumed, len(chunk)) > 0)
        values = np.concatenate([bars.values for _, bars in chunk])
        columns: list[tuple[str, NDArray[Any]]] = [
            ("session_date", days),
            ("instrument_id", instruments),
            ("known_at", known_at),
            ("batch_id", batch_ids[owner]),
        ]
        columns += [(name, values[:, at]) for at, name in enumerate(VALUES) if not np.isnan(values[:, at]).all()]
        wire.copy_rows(self.connection, "market_bar", columns, np.lexsort((instruments, days)))
        self._count(chunk, days, len(self.ids) - had, assumed, corrects)

    def _instruments(self, symbols: Sequence[NDArray[np.object_]]) -> NDArray[np.int32]:
        """The number of each row's instrument; instruments seen for the first time are stored."""
        new = sorted({symbol for part in symbols for symbol in set(part.tolist())} - self.ids.keys())
        if new:
            rows = self.connection.execute(
                "INSERT INTO instrument (source, symbol) SELECT %s, symbol FROM unnest(%s::text[]) AS symbol "
                "RETURNING symbol, instrument_id",
                (self.source, new),
            )
            self.ids.update(rows.fetchall())
        return np.fromiter((self.ids[symbol] for part in symbols for symbol in part), dtype=np.int32)

    def _known_bars(self, days: NDArray[np.int32], instruments: NDArray[np.int32]) -> NDArray[np.bool_]:
        """`(rows,)`: whether a bar of that session and instrument is stored already."""
        found = np.zeros(len(days), dtype=np.bool_)
        cursor = self.connection.cursor(binary=True)
        cursor.execute(
            "SELECT session_date, array_send(array_agg(instrument_id)) FROM market_bar "
            "WHERE session_date = ANY(%s::date[]) AND instrument_id = ANY(%s::int[]) GROUP BY session_date",
            ([wire.from_day(int(day)) for day in np.unique(days)], np.unique(instruments).tolist()),
        )
        for session, stored in cursor:
            rows = np.flatnonzero(days == wire.to_day(session))
            found[rows] = np.isin(instruments[rows], wire.sent_array(stored, "i4"))
        return found

    def _known_at(
        self,
        chunk: Sequence[tuple[Batch, Bars]],
        days: NDArray[np.int32],
        owner: NDArray[np.intp],
        loaded_at: NDArray[np.int64],
        corrects: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """`(rows,)` microseconds; the rule of this module's head."""
        unique, inverse = np.unique(days, return_inverse=True)
        sessions = [wire.from_day(int(day)) for day in unique]
        foreign = [day for day in sessions if not _trades(self.calendar, day)]
        if foreign:
            raise ForeignSessions(chunk[0][0].location, self.calendar.exchange, foreign)
        cutoff = np.array([wire.to_microseconds(self.calendar.cutoff(day)) for day in sessions])
        runs_after = np.array([wire.to_microseconds(self.calendar.run_after(day)) for day in sessions])
        in_bulk = np.array([batch.history for batch, _ in chunk])[owner] | (loaded_at > cutoff[inverse])
        assumed = np.minimum(runs_after, cutoff)[inverse]
        return np.where(in_bulk & ~corrects, assumed, loaded_at)

    def _batches(
        self, chunk: Sequence[tuple[Batch, Bars]], stamps: Sequence[datetime], assumed: NDArray[np.bool_]
    ) -> NDArray[np.int32]:
        """The numbers of the chunk's batches, stored now."""
        cursor = self.connection.cursor()
        ids = []
        for (batch, bars), stamp, is_assumed in zip(chunk, stamps, assumed, strict=True):
            cursor.execute(
                "INSERT INTO ingest_batch (source, location, content_hash, first_session, last_session, bars, basis, "
                "loaded_at, conflicts) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING batch_id",
                (
                    self.source, batch.location, batch.content_hash, batch.first_session, batch.last_session, len(bars),
                    "assumed" if is_assumed else "observed", stamp, list(bars.conflicts),
                ),
            )  # fmt: skip
            ids += [row[0] for row in cursor]
        return np.array(ids, dtype=np.int32)

    def _count(
        self,
        chunk: Sequence[tuple[Batch, Bars]],
        days: NDArray[np.int32],
        instruments: int,
        assumed: NDArray[np.bool_],
        corrects: NDArray[np.bool_],
    ) -> None:
        so_far = self.summary
        first, last = wire.from_day(int(days.min())), wire.from_day(int(days.max()))
        conflicts = tuple((batch.first_session, symbol) for batch, bars in chunk for symbol in bars.conflicts)
        self.summary = IngestSummary(
            source=self.source,
            batches=so_far.batches + len(chunk),
            bars=so_far.bars + len(days),
            instruments=so_far.instruments + instruments,
            observed_bars=so_far.observed_bars + int((~assumed).sum()),
            assumed_bars=so_far.assumed_bars + int(assumed.sum()),
            corrected_bars=so_far.corrected_bars + int(corrects.sum()),
            conflicts=so_far.conflicts + conflicts,
            first_session=first if so_far.first_session is None else min(first, so_far.first_session),
            last_session=last if so_far.last_session is None else max(last, so_far.last_session),
        )
