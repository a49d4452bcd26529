"""A book before its trades, read from the database: what it carries, and what the names are worth tonight.

1. `read_carried` is the book as its last settled session left it; the first session starts from its capital in cash.
2. `read_market` marks every name that is held or may be bought, and says why one can't be traded tonight: it is in
   quarantine, has no forecast, has no close, or is no longer in the universe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from risk.books import Book
from risk.rebalance.trades import Holdings

if TYPE_CHECKING:
    import psycopg

    from risk.market_data.panel import Panel

MARK_SESSIONS = 10
"""How far back a close is looked for when tonight's is missing; a name without one keeps its last mark."""


@dataclass(frozen=True)
class Carried:
    """The book before tonight: its cash, and shares and last mark by instrument; ids None where it begins."""

    previous_id: int | None
    session: date | None
    cash: float
    quantity: Mapping[int, int]
    mark: Mapping[int, float]


@dataclass(frozen=True, eq=False)
class Market:
    """Tonight's names with the book's holdings of them; `kept` says why a held one is not traded."""

    instrument_ids: tuple[int, ...]
    symbols: tuple[str, ...]
    holdings: Holdings
    kept: Mapping[str, str]


def read_carried(connection: psycopg.Connection[Any], book: Book, exchange: str, session: date) -> Carried:
    """The book as its last published rebalance before the session left it (a refused one traded nothing)."""
    row = connection.execute(
        "SELECT rebalance_id, session_date, cash_after FROM rebalance WHERE book_id = %s AND exchange = %s "
        "AND session_date < %s AND state = 'published' ORDER BY session_date DESC LIMIT 1",
        (book.book_id, exchange, session),
    ).fetchone()
    if row is None:
        return Carried(None, None, book.capital, {}, {})
    positions = connection.execute(
        "SELECT instrument_id, quantity, price FROM position WHERE rebalance_id = %s", (row[0],)
    ).fetchall()
    quantity = {int(number): int(shares) for number, shares, _ in positions}
    return Carried(row[0], row[1], row[2], quantity, {int(number): float(price) for number, _, price in positions})


def read_market(
    connection: psycopg.Connection[Any], run_id: int, snapshot_id: int, session: date, carried: Carried
) -> Market:
    """Every name of the snapshot that has a price, and every held one, marked at its close or its last known price."""
    from risk.market_data.panel import read_panel

    panel = read_panel(connection, snapshot_id, sessions=MARK_SESSIONS)
    sigma: dict[int, float] = dict(
        connection.execute(
            "SELECT instrument_id, sigma FROM prediction WHERE session_date = %s AND run_id = %s", (session, run_id)
        ).fetchall()
    )
    barred = _quarantined(connection, run_id)
    marks = _marks(panel, carried, sigma, barred)
    symbols = _symbols(connection, panel, marks)
    names = tuple(sorted(marks, key=lambda number: (symbols[number], number)))
    holdings = Holdings(
        prices=np.array([marks[number] for number in names], dtype=np.float64),
        sigma=np.array([sigma.get(number, np.nan) for number in names], dtype=np.float64),
        quantity=np.array([carried.quantity.get(number, 0) for number in names], dtype=np.int64),
        tradable=np.array([number not in barred for number in names], dtype=np.bool_),
        cash=carried.cash,
    )
    kept = {symbols[number]: barred[number] for number in names if number in barred and number in carried.quantity}
    return Market(names, tuple(symbols[number] for number in names), holdings, kept)


def _marks(panel: Panel, carried: Carried, sigma: Mapping[int, float], barred: dict[int, str]) -> dict[int, float]:
    """The price of each name of the panel and of each held one; adds to `barred` what can't be traded, and why."""
    marks = dict(carried.mark)
    for number in marks.keys() - set(panel.instrument_ids.tolist()):
        barred[number] = _and(barred.get(number), "no longer in the universe, at its last mark")
    for number, closes in zip(panel.instrument_ids.tolist(), panel.closes, strict=True):
        usable = np.flatnonzero(np.isfinite(closes) & (closes > 0))
        last = int(usable[-1]) if usable.size else -1
        if last >= 0:
            marks[number] = float(closes[last])
        if last != len(panel.sessions) - 1:
            where = f"its close of {panel.sessions[last]}" if last >= 0 else "its last mark"
            barred[number] = _and(barred.get(number), f"no close tonight, at {where}")
        elif number not in sigma:
            barred.setdefault(number, "no forecast tonight")
    return marks


def _and(said: str | None, more: str) -> str:
    return f"{said}; {more}" if said else more


def _quarantined(connection: psycopg.Connection[Any], run_id: int) -> dict[int, str]:
    rows = connection.execute(
        "SELECT instrument_id, 'in quarantine: ' || string_agg(reason, ', ' ORDER BY reason) FROM quarantine "
        "WHERE run_id = %s GROUP BY instrument_id",
        (run_id,),
    ).fetchall()
    return {int(number): str(why) for number, why in rows}


def _symbols(connection: psycopg.Connection[Any], panel: Panel, marks: Mapping[int, float]) -> dict[int, str]:
    symbols = dict(zip(panel.instrument_ids.tolist(), panel.symbols, strict=True))
    gone = [number for number in marks if number not in symbols]
    rows = connection.execute("SELECT instrument_id, symbol FROM instrument WHERE instrument_id = ANY(%s)", (gone,))
    return {**symbols, **{int(number): str(symbol) for number, symbol in rows.fetchall()}}
