"""The books, and the risk of each of them for one run.

1. `ensure_books` makes the two example books once: `equal`, whose risk is measured, and `paper`, which is rebalanced.
2. `measured_books` names the books that a run measures: one mapped task each.
3. `measure_book` reads what it needs (`read_inputs`), computes (`equal_weight_losses`), and writes the book's
   `risk_measure` rows, in one transaction.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from risk.errors import RiskError
from risk.market_data.fields import log_returns_percent
from risk.measures import WARM_UP, Scenarios, book_losses, expected_shortfall, filtered_scenarios, value_at_risk
from risk.measures.errors import NotForecast, TooFewScenarios, UnknownBook
from risk.settings import Settings

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)

MIN_SCENARIOS = 250
"""A year: fewer leave less than three losses in a 1% tail."""
HORIZON = 1
EXAMPLES = (("equal", "equal_weight"), ("paper", "inverse_volatility"))


@dataclass(frozen=True)
class Book:
    """A portfolio; `capital` is its starting value, in `currency`."""

    book_id: int
    name: str
    kind: str
    currency: str
    capital: float


@dataclass(frozen=True)
class BookRisk:
    """What `measure_book` did: the measures in the book's currency, None where nothing was written."""

    run_id: int
    book: str
    value_at_risk: float | None
    expected_shortfall: float | None
    scenarios: int
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, eq=False)
class RiskInputs:
    """What a run's risk is computed from: `sigma` `(instruments,)` in percent, `closes` `(instruments, sessions)`."""

    instrument_ids: NDArray[np.int64]
    sigma: NDArray[np.float64]
    closes: NDArray[np.float64]
    sessions: tuple[date, ...]
    quarantined: list[str]


def ensure_books(connection: psycopg.Connection[Any], settings: Settings) -> None:
    """Make the example books that don't exist yet; the caller commits. An existing book keeps its capital."""
    for name, kind in EXAMPLES:
        connection.execute(
            "INSERT INTO book (name, kind, currency, capital) SELECT %(name)s, %(kind)s, 'USD', %(capital)s "
            "WHERE NOT EXISTS (SELECT FROM book WHERE name = %(name)s) ON CONFLICT (name) DO NOTHING",
            {"name": name, "kind": kind, "capital": settings.book_capital},
        )


def book_names(connection: psycopg.Connection[Any], kind: str | None = None) -> list[str]:
    """The names of all books, or of one kind, in the order they were made."""
    rows = connection.execute(
        "SELECT name FROM book WHERE %(kind)s::text IS NULL OR kind = %(kind)s ORDER BY book_id", {"kind": kind}
    )
    return [str(name) for (name,) in rows]


def measured_books(connection: psycopg.Connection[Any]) -> list[str]:
    """The names of the books whose risk is measured: those of equal weight."""
    return book_names(connection, "equal_weight")


def read_book(connection: psycopg.Connection[Any], name: str) -> Book:
    """The book of that name.

    Raises:
        UnknownBook: with the names that there are.
    """
    row = connection.execute(
        "SELECT book_id, name, kind, currency, capital FROM book WHERE name = %s", (name,)
    ).fetchone()
    if row is None:
        raise UnknownBook(name, book_names(connection))
    return Book(*row)


def measure_book(connection: psycopg.Connection[Any], run_id: int, book_name: str, settings: Settings) -> BookRisk:
    """Measure VaR and ES of an equal-weight book over the next session, and write them in place of the run's old ones.

    Each instrument that the run forecast takes `capital / n`; one in quarantine is out of the book, and the row's
    `basis` names it. One transaction, committed at its end unless the caller has begun one. New rows need a new
    audit: the run's `risk_state` is open again. Where the run's risk is published nothing is written.

    Raises:
        RiskError: unknown run or book, a book of another kind, forecasts not published or replaced, a history too
            short for `MIN_SCENARIOS`.
    """
    with connection.transaction():
        book = read_book(connection, book_name)
        if book.kind != "equal_weight":
            raise RiskError(
                f"book {book.name} is of kind {book.kind}; the risk of equal_weight books is measured: "
                f"{', '.join(measured_books(connection)) or 'there is none yet'}"
            )
        session, snapshot_id = _lock_run(connection, run_id)
        if published(connection, run_id, "risk"):
            sentence = f"the risk of {book.name} is already published as run {run_id}: nothing is written"
            return BookRisk(run_id, book.name, None, None, 0, sentence)
        _require_forecast(connection, run_id)
        inputs = read_inputs(connection, run_id, session, snapshot_id, settings.scenarios + WARM_UP + 1)
        scenarios, losses = equal_weight_losses(inputs, book.capital, settings.scenarios)
        if losses.size < MIN_SCENARIOS:
            raise TooFewScenarios(run_id, losses.size, MIN_SCENARIOS, len(inputs.sessions))
        var = value_at_risk(losses, settings.confidence)
        shortfall = expected_shortfall(losses, settings.confidence)
        _store(connection, run_id, book, {"VaR": var, "ES": shortfall}, settings, scenarios, inputs)
    sentence = (
        f"Measured {book.name} of run {run_id}: VaR {var:,.0f} and ES {shortfall:,.0f} {book.currency} at "
        f"{settings.confidence:.1%} over {HORIZON} session, from {losses.size} scenarios"
    )
    return BookRisk(run_id, book.name, var, shortfall, losses.size, sentence)


def equal_weight_losses(inputs: RiskInputs, capital: float, scenarios: int) -> tuple[Scenarios, NDArray[np.float64]]:
    """The scenarios, and the losses `(scenarios,)` of `capital` spread evenly over the instruments."""
    returns, present = log_returns_percent(inputs.closes)
    drawn = filtered_scenarios(returns, present, inputs.sigma, scenarios=scenarios)
    count = len(inputs.sigma)
    return drawn, book_losses(np.full(count, capital / max(count, 1)), drawn.returns)


def read_inputs(
    connection: psycopg.Connection[Any], run_id: int, session: date, snapshot_id: int, sessions: int
) -> RiskInputs:
    """The run's sigmas and the last `sessions` closes of the instruments that have one and are not in quarantine."""
    from risk.market_data.panel import read_panel

    rows = connection.execute(
        "SELECT instrument_id, sigma FROM prediction p WHERE session_date = %s AND run_id = %s AND NOT EXISTS "
        "(SELECT FROM quarantine q WHERE q.run_id = p.run_id AND q.instrument_id = p.instrument_id)",
        (session, run_id),
    ).fetchall()
    sigma_of = {int(instrument): float(sigma) for instrument, sigma in rows}
    quarantined = connection.execute(
        "SELECT DISTINCT symbol FROM quarantine JOIN instrument USING (instrument_id) WHERE run_id = %s "
        "ORDER BY symbol",
        (run_id,),
    ).fetchall()
    panel = read_panel(connection, snapshot_id, sessions=sessions)
    positions = [at for at, instrument in enumerate(panel.instrument_ids) if int(instrument) in sigma_of]
    chosen = np.asarray(panel.instrument_ids, dtype=np.int64)[positions]
    return RiskInputs(
        instrument_ids=chosen,
        sigma=np.array([sigma_of[int(instrument)] for instrument in chosen], dtype=np.float64),
        closes=panel.closes[positions],
        sessions=tuple(panel.sessions),
        quarantined=[str(symbol) for (symbol,) in quarantined],
    )


def published(connection: psycopg.Connection[Any], run_id: int, kind: str) -> bool:
    """Whether the run's forecasts (`"forecast"`) or risk (`"risk"`) were ever published."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM publication WHERE run_id = %s AND kind = %s)", (run_id, kind)
    ).fetchone()
    return row is not None and bool(row[0])


def _lock_run(connection: psycopg.Connection[Any], run_id: int) -> tuple[date, int]:
    """The run's session and snapshot; nobody publishes or measures the run until this transaction ends."""
    row = connection.execute(
        "SELECT session_date, snapshot_id FROM run WHERE run_id = %s FOR NO KEY UPDATE", (run_id,)
    ).fetchone()
    if row is None:
        raise RiskError(f"run {run_id} does not exist; `risk status` lists the runs of each session")
    return row[0], int(row[1])


def _require_forecast(connection: psycopg.Connection[Any], run_id: int) -> None:
    rows = connection.execute(
        "SELECT p.run_id FROM publication p JOIN run USING (exchange, session_date) "
        "WHERE run.run_id = %s AND kind = 'forecast' ORDER BY revision DESC",
        (run_id,),
    ).fetchall()
    revisions = [int(row[0]) for row in rows]
    if run_id not in revisions:
        raise NotForecast(run_id, None)
    if revisions[0] != run_id:
        raise NotForecast(run_id, revisions[0])


def _store(
    connection: psycopg.Connection[Any],
    run_id: int,
    book: Book,
    values: dict[str, float],
    settings: Settings,
    scenarios: Scenarios,
    inputs: RiskInputs,
) -> None:
    connection.execute("DELETE FROM risk_measure WHERE run_id = %s AND book_id = %s", (run_id, book.book_id))
    count, basis = len(scenarios.columns), _basis(scenarios, inputs)
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO risk_measure (run_id, book_id, measure, confidence, horizon, value, book_value, scenarios, "
            "basis) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (run_id, book.book_id, measure, settings.confidence, HORIZON, value, book.capital, count, basis)
                for measure, value in values.items()
            ],
        )
    connection.execute("UPDATE run SET risk_state = 'open' WHERE run_id = %s", (run_id,))


def _basis(scenarios: Scenarios, inputs: RiskInputs) -> str:
    """How the numbers came about, in a sentence a report can print."""
    first, last = (inputs.sessions[scenarios.columns[at]] for at in (0, -1))
    parts = [
        f"filtered historical simulation, sessions {first} to {last}",
        f"equal weight in {len(inputs.sigma)} instruments",
    ]
    if inputs.quarantined:
        parts.append(f"in quarantine and out of the book: {', '.join(inputs.quarantined)}")
    if scenarios.filled:
        parts.append(f"{scenarios.filled} missing residuals took the market's")
    if scenarios.dropped:
        parts.append(f"{scenarios.dropped} sessions left out, with less than half of the instruments")
    return "; ".join(parts)
