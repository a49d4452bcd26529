"""The panel of a snapshot: closes by instrument and session, read point in time.

The rule, in one place (`read_bars`): of each instrument and session, the bar with the greatest `known_at` not later
than the snapshot's cut-off; no bar of a later session. A stored snapshot adds one: no bar loaded after it was taken,
so that it reads the same for ever.

Speed: the server packs a session's bars into one array (`array_send`), so that ten thousand instruments over five
years are 1,260 rows on the wire and no loop in Python over bars.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from risk.market_data.errors import SnapshotChanged, SnapshotMissing
from risk.storage import wire

if TYPE_CHECKING:
    import psycopg

Floats = NDArray[np.float64]
Ids = NDArray[np.int32]

_SESSIONS_A_QUERY = 64
_READ = """
    SELECT session_date, array_send(array_agg(instrument_id)), array_send(array_agg(known_at)),
           array_send(array_agg(batch_id)), array_send(array_agg(coalesce(close, 'NaN')))
    FROM market_bar
    WHERE session_date BETWEEN %(first)s AND %(last)s AND known_at <= %(cutoff)s
      AND instrument_id = ANY(%(ids)s::int[]) AND batch_id <> ALL(%(without)s::int[])
    GROUP BY session_date
"""


@dataclass(frozen=True, eq=False)
class Panel:
    """Closes of some of a snapshot's instruments over its last sessions.

    Attributes:
        instrument_ids: `(instruments,)` in the snapshot's order, that is by symbol.
        symbols: their symbols.
        sessions: ascending; the last one is the snapshot's session.
        closes: `(instruments, sessions)` float64 in the source's unit, NaN where there is none.
        market_return: `(sessions,)` equal-weight mean return of the whole universe in percent.
        market_rms: `(sessions,)` root mean square of the whole universe's returns in percent.
    """

    instrument_ids: Ids
    symbols: tuple[str, ...]
    sessions: tuple[date, ...]
    closes: Floats
    market_return: Floats
    market_rms: Floats


@dataclass(frozen=True, eq=False)
class SessionBars:
    """The bars of one session that the rule chooses.

    Attributes:
        column: the session's position among those asked for.
        rows: `(bars,)` positions among the instruments asked for.
        known_at: `(bars,)` microseconds; `batch_ids` and `closes` go with it.
    """

    column: int
    rows: NDArray[np.intp]
    known_at: NDArray[np.int64]
    batch_ids: Ids
    closes: Floats


def read_bars(
    connection: psycopg.Connection[Any],
    instrument_ids: Ids,
    sessions: Sequence[date],
    cutoff: datetime,
    without: Sequence[int] = (),
) -> Iterator[SessionBars]:
    """The bars of some instruments and sessions, as known at a moment.

    Args:
        instrument_ids: `(instruments,)`, each once.
        sessions: ascending.
        cutoff: bars known later are not read.
        without: batches not to be read.
    """
    by_id = np.argsort(instrument_ids)
    sorted_ids = instrument_ids[by_id]
    columns = {session: column for column, session in enumerate(sessions)}
    cursor = connection.cursor(binary=True)
    for start in range(0, len(sessions), _SESSIONS_A_QUERY):
        block = sessions[start : start + _SESSIONS_A_QUERY]
        facts = {
            "first": block[0], "last": block[-1], "cutoff": cutoff, "ids": sorted_ids.tolist(), "without": list(without)
        }  # fmt: skip
        cursor.execute(_READ, facts)
        for session, *arrays in cursor:
            if session not in columns:
                continue
            ids, known_at, batch_ids, closes = map(wire.sent_array, arrays, ("i4", "i8", "i4", "f8"))
            chosen = _newest(ids, known_at)
            rows = by_id[np.searchsorted(sorted_ids, ids[chosen])]
            yield SessionBars(columns[session], rows, known_at[chosen], batch_ids[chosen], closes[chosen])


def _newest(ids: Ids, known_at: NDArray[np.int64]) -> NDArray[np.intp]:
    """Positions of the row with the greatest `known_at` of each id."""
    order = np.lexsort((known_at, ids))
    ordered = ids[order]
    newest: NDArray[np.intp] = order[np.append(ordered[1:] != ordered[:-1], True)]
    return newest


def read_panel(
    connection: psycopg.Connection[Any],
    snapshot_id: int,
    first: int = 0,
    last: int | None = None,
    sessions: int | None = None,
) -> Panel:
    """The panel of a snapshot, or the part of it that a shard needs.

    Args:
        snapshot_id: a stored snapshot.
        first, last: positions in the snapshot's instruments, `last` excluded; None: to the end.
        sessions: how many of the last sessions; None: all.

    Raises:
        SnapshotMissing: there is no such snapshot.
    """
    found = connection.execute(
        "SELECT source, cutoff, last_loaded_at, sessions, instruments[%s:coalesce(%s::int, cardinality(instruments))], "
        "market_return, market_rms FROM snapshot WHERE snapshot_id = %s",
        (first + 1, last, snapshot_id),
    ).fetchone()
    if found is None:
        raise SnapshotMissing(snapshot_id)
    source, cutoff, loaded, days, ids, market_return, market_rms = found
    days = days if sessions is None else days[max(0, len(days) - sessions) :]
    later = connection.execute(
        "SELECT batch_id FROM ingest_batch WHERE source = %s AND loaded_at > coalesce(%s, '-infinity'::timestamptz)",
        (source, loaded),
    )
    instrument_ids = np.array(ids, dtype=np.int32)
    closes = np.full((len(ids), len(days)), np.nan)
    for bars in read_bars(connection, instrument_ids, days, cutoff, [row[0] for row in later]):
        closes[bars.rows, bars.column] = bars.closes
    return Panel(
        instrument_ids,
        _symbols(connection, ids),
        tuple(days),
        closes,
        np.array(market_return[len(market_return) - len(days) :]),
        np.array(market_rms[len(market_rms) - len(days) :]),
    )


def verify_snapshot(connection: psycopg.Connection[Any], snapshot_id: int) -> None:
    """Read the whole panel again and compare its hash with the stored one.

    Raises:
        SnapshotMissing: there is no such snapshot.
        SnapshotChanged: the bars are no longer what was hashed.
    """
    panel = read_panel(connection, snapshot_id)
    row = connection.execute("SELECT content_hash FROM snapshot WHERE snapshot_id = %s", (snapshot_id,)).fetchone()
    found = content_hash(panel.sessions, panel.symbols, panel.closes)
    if row is None or row[0] != found:
        raise SnapshotChanged(snapshot_id, row[0] if row else "", found)


def content_hash(sessions: Sequence[date], symbols: Sequence[str], closes: Floats) -> str:
    """SHA-256 of a panel: its sessions, its symbols and the bytes of its closes, every NaN alike.

    It doesn't depend on the instruments' numbers, nor on the order in which bars were loaded.

    Args:
        sessions: ascending.
        symbols: `(instruments,)`.
        closes: `(instruments, sessions)`.
    """
    digest = hashlib.sha256(f"{len(symbols)} x {len(sessions)}\n".encode())
    for session in sessions:
        digest.update(f"{session}\n".encode())
    for symbol, row in zip(symbols, closes, strict=True):
        digest.update(f"{len(symbol)} {symbol}\n".encode())
        digest.update(np.where(np.isnan(row), np.nan, row + 0.0).astype("<f8").tobytes())
    return digest.hexdigest()


def _symbols(connection: psycopg.Connection[Any], ids: Sequence[int]) -> tuple[str, ...]:
    rows = connection.execute(
        "SELECT instrument_id, symbol FROM instrument WHERE instrument_id = ANY(%s::int[])", (list(ids),)
    )
    names = dict(rows.fetchall())
    return tuple(names[number] for number in ids)
