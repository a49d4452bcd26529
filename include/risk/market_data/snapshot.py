"""The snapshot: the immutable, content-hashed panel that one run reads.

1. `_sessions` lists the last sessions up to the run's, from the first bar that may be seen.
2. `_universe` lists the instruments with a bar in the last `RECENT_SESSIONS`.
3. `_closes` reads the panel point in time, through `risk.market_data.panel.read_bars`.
4. `_market` computes the universe fields once, over the whole universe.
5. `take_snapshot` hashes it and stores the row, or finds the one that says the same.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from risk.market_data.fields import log_returns_percent, universe_fields
from risk.market_data.panel import Floats, Ids, content_hash, read_bars
from risk.storage import wire

if TYPE_CHECKING:
    import psycopg

    from risk.sessions import SessionCalendar

log = logging.getLogger(__name__)

RECENT_SESSIONS = 10
"""An instrument without a bar in so many last sessions is no longer in the universe."""

_BLOCK = 128
_NEVER = int(np.iinfo(np.int64).min)


@dataclass(frozen=True)
class Snapshot:
    """A stored snapshot.

    Attributes:
        snapshot_id: its number.
        session: the session of the run; the last of `sessions`.
        cutoff: no bar known later was read.
        content_hash: SHA-256 of sessions, symbols and closes.
        sessions: ascending.
        instrument_ids: the universe's, ordered by symbol.
        bars: how many bars it holds.
        assumed_bars: those of `bars` whose `known_at` is assumed (history bought in bulk).
        last_loaded_at: when the newest batch it was read from was loaded; None without bars.
        created: whether this call stored it; False: the same was stored before.
    """

    snapshot_id: int
    session: date
    cutoff: datetime
    content_hash: str
    sessions: tuple[date, ...]
    instrument_ids: tuple[int, ...]
    bars: int
    assumed_bars: int
    last_loaded_at: datetime | None
    created: bool


@dataclass(frozen=True, eq=False)
class _Closes:
    """`closes` is `(instruments, sessions)`; the counts are those of `Snapshot`."""

    closes: Floats
    bars: int
    assumed_bars: int
    last_loaded_at: datetime | None


def take_snapshot(
    connection: psycopg.Connection[Any],
    *,
    source_name: str,
    calendar: SessionCalendar,
    session: date,
    history_sessions: int,
) -> Snapshot:
    """The snapshot of a session as known at its cut-off; a second call on the same data writes nothing.

    Args:
        connection: the caller's transaction.
        source_name: `Source.name`.
        calendar: decides the sessions and the cut-off.
        session: the session to be run.
        history_sessions: how many sessions it reaches back, at most.

    Raises:
        SessionError: the day is no session.
    """
    cutoff = calendar.cutoff(session)
    sessions = _sessions(connection, source_name, calendar, session, cutoff, history_sessions)
    ids, symbols = _universe(connection, source_name, sessions[-RECENT_SESSIONS:], cutoff)
    read = _closes(connection, source_name, ids, sessions, cutoff)
    digest = content_hash(sessions, symbols, read.closes)
    found = _find(connection, source_name, session, digest)
    if found is not None:
        return found
    market_return, market_rms = _market(read.closes)
    stored = connection.execute(
        "INSERT INTO snapshot (session_date, source, cutoff, content_hash, sessions, instruments, market_return, "
        "market_rms, bars, assumed_bars, last_loaded_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (session_date, source, content_hash) DO NOTHING RETURNING snapshot_id",
        (
            session, source_name, cutoff, digest, sessions, ids.tolist(), market_return.tolist(), market_rms.tolist(),
            read.bars, read.assumed_bars, read.last_loaded_at,
        ),
    ).fetchone()  # fmt: skip
    snapshot = _find(connection, source_name, session, digest, created=stored is not None)
    if snapshot is None:
        raise RuntimeError(f"the snapshot of {session} vanished while it was stored; run the session again")
    log.info(
        "Took snapshot %d of %s: %d instruments, %d sessions, %d bars (%d assumed), hash %s",
        snapshot.snapshot_id, session, len(ids), len(sessions), read.bars, read.assumed_bars, digest[:12],
    )  # fmt: skip
    return snapshot


def _sessions(
    connection: psycopg.Connection[Any],
    source: str,
    calendar: SessionCalendar,
    session: date,
    cutoff: datetime,
    history_sessions: int,
) -> list[date]:
    back_to = max(calendar.first, session - timedelta(days=2 * history_sessions + 30))
    sessions = calendar.sessions(back_to, session)[-history_sessions:]
    row = connection.execute(
        "SELECT session_date FROM market_bar JOIN instrument USING (instrument_id) WHERE source = %s "
        "AND session_date BETWEEN %s AND %s AND known_at <= %s ORDER BY session_date LIMIT 1",
        (source, sessions[0], session, cutoff),
    ).fetchone()
    return [day for day in sessions if row is not None and day >= row[0]] or [session]


def _universe(
    connection: psycopg.Connection[Any], source: str, recent: Sequence[date], cutoff: datetime
) -> tuple[Ids, tuple[str, ...]]:
    rows = connection.execute(
        "SELECT instrument_id, symbol FROM instrument WHERE source = %s AND instrument_id IN "
        "(SELECT instrument_id FROM market_bar WHERE session_date BETWEEN %s AND %s AND known_at <= %s) "
        'ORDER BY symbol COLLATE "C"',
        (source, recent[0], recent[-1], cutoff),
    ).fetchall()
    return np.array([row[0] for row in rows], dtype=np.int32), tuple(row[1] for row in rows)


def _closes(
    connection: psycopg.Connection[Any], source: str, ids: Ids, sessions: Sequence[date], cutoff: datetime
) -> _Closes:
    rows = connection.execute(
        "SELECT batch_id, loaded_at FROM ingest_batch WHERE source = %s ORDER BY batch_id", (source,)
    ).fetchall()
    loaded = {number: wire.to_microseconds(moment) for number, moment in rows}
    closes = np.full((len(ids), len(sessions)), np.nan)
    bars = assumed = 0
    newest = _NEVER
    for chosen in read_bars(connection, ids, sessions, cutoff):
        closes[chosen.rows, chosen.column] = chosen.closes
        batches, inverse = np.unique(chosen.batch_ids, return_inverse=True)
        stamps = np.array([loaded.get(number, _NEVER) for number in batches.tolist()])
        bars += len(chosen.rows)
        assumed += int((chosen.known_at != stamps[inverse]).sum())
        newest = max(newest, int(stamps.max()))
    return _Closes(closes, bars, assumed, None if newest == _NEVER else wire.from_microseconds(newest))


def _market(closes: Floats) -> tuple[Floats, Floats]:
    """The universe fields `(sessions,)`, in blocks of sessions to save memory."""
    sessions = closes.shape[1]
    market = np.zeros((2, sessions))
    for start in range(0, sessions, _BLOCK):
        before = min(start, 1)
        returns, present = log_returns_percent(closes[:, start - before : start + _BLOCK])
        market[:, start : start + _BLOCK] = np.stack(universe_fields(returns, present))[:, before:]
    return market[0], market[1]


def _find(
    connection: psycopg.Connection[Any], source: str, session: date, digest: str, created: bool = False
) -> Snapshot | None:
    row = connection.execute(
        "SELECT snapshot_id, cutoff, sessions, instruments, bars, assumed_bars, last_loaded_at FROM snapshot "
        "WHERE session_date = %s AND source = %s AND content_hash = %s",
        (session, source, digest),
    ).fetchone()
    if row is None:
        return None
    number, cutoff, sessions, instruments, bars, assumed_bars, loaded = row
    return Snapshot(
        snapshot_id=number,
        session=session,
        cutoff=cutoff.astimezone(UTC),
        content_hash=digest,
        sessions=tuple(sessions),
        instrument_ids=tuple(instruments),
        bars=bars,
        assumed_bars=assumed_bars,
        last_loaded_at=None if loaded is None else loaded.astimezone(UTC),
        created=created,
    )
