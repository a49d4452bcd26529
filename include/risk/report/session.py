"""One published session as the database holds it, in frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from risk.report.errors import NotPublished
from risk.report.provenance import Provenance, read_provenance

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[Any]

Row = TypeVar("Row")


@dataclass(frozen=True)
class Forecast:
    """The next session's log return of one instrument, all in percent; es025 is the mean of its worst 2.5%."""

    symbol: str
    mu: float
    sigma: float
    q01: float
    q025: float
    q05: float
    q50: float
    q95: float
    es025: float


@dataclass(frozen=True)
class RiskMeasure:
    """One figure of one book: a loss in its currency, positive when money is lost."""

    book: str
    measure: str
    confidence: float
    horizon: int
    value: float
    book_value: float
    currency: str
    scenarios: int
    basis: str
    run_id: int


@dataclass(frozen=True)
class Order:
    """Whole shares to buy or sell; price and value in the book's currency."""

    symbol: str
    side: str
    quantity: int
    price: float
    value: float
    reason: str


@dataclass(frozen=True)
class Rebalance:
    """One book's rebalance of the session; money in the book's currency."""

    rebalance_id: int
    book: str
    currency: str
    state: str
    reason: str
    book_value: float | None
    cash_before: float | None
    cash_after: float | None
    orders: tuple[Order, ...] = ()


@dataclass(frozen=True)
class Quarantined:
    """An instrument without a forecast, and why."""

    symbol: str
    reason: str
    sentence: str


@dataclass(frozen=True)
class Check:
    """One audit of the run."""

    stage: str
    name: str
    subject: str
    observed: float | None
    threshold: float | None
    severity: str
    passed: bool
    sentence: str


@dataclass(frozen=True)
class SessionReport:
    """Everything published of one session; `risk_gap` says why its risk is not, where it is not."""

    exchange: str
    session: date
    revision: int
    published_at: datetime
    forecasts: tuple[Forecast, ...]
    risk: tuple[RiskMeasure, ...]
    risk_gap: str | None
    rebalances: tuple[Rebalance, ...]
    quarantine: tuple[Quarantined, ...]
    provenance: Provenance
    checks: tuple[Check, ...]


def read_session(connection: Connection, exchange: str, session: date) -> SessionReport:
    """Read what readers see of a session now: its newest revision.

    Raises:
        NotPublished: it has no published forecasts; the sentence says which state it is in and what to do.
    """
    published = connection.execute(
        "SELECT run_id, revision, valid_from AT TIME ZONE 'UTC' FROM publication_interval "
        "WHERE kind = 'forecast' AND exchange = %s AND session_date = %s AND valid_to IS NULL",
        (exchange, session),
    ).fetchone()
    if published is None:
        raise _why_not(connection, exchange, session)
    run_id, revision, published_at = published
    key = {"exchange": exchange, "session": session, "run": run_id}
    return SessionReport(
        exchange,
        session,
        revision,
        published_at,
        forecasts=_rows(connection, Forecast, FORECASTS, key),
        risk=_rows(connection, RiskMeasure, RISK, key),
        risk_gap=_risk_gap(connection, key),
        rebalances=_rebalances(connection, key),
        quarantine=_rows(connection, Quarantined, QUARANTINE, key),
        provenance=read_provenance(connection, run_id),
        checks=_rows(connection, Check, CHECKS, key),
    )


FORECASTS = (
    "SELECT symbol, mu, sigma, q01, q025, q05, q50, q95, es025 FROM prediction_current "
    "WHERE session_date = %(session)s AND exchange = %(exchange)s ORDER BY es025, symbol"
)
RISK = (
    "SELECT book, measure, confidence, horizon, value, book_value, currency, scenarios, basis, run_id "
    "FROM risk_current WHERE session_date = %(session)s AND exchange = %(exchange)s "
    "ORDER BY book, confidence, horizon, measure DESC"
)
QUARANTINE = (
    "SELECT i.symbol, q.reason, q.sentence FROM quarantine q JOIN instrument i USING (instrument_id) "
    "WHERE q.run_id = %(run)s ORDER BY i.symbol, q.reason"
)
CHECKS = (
    "SELECT stage, name, subject, observed, threshold, severity, passed, sentence FROM audit_check "
    "WHERE run_id = %(run)s ORDER BY array_position(ARRAY['inputs', 'predictions', 'risk'], stage), checked_at, name"
)
REBALANCES = (
    "SELECT r.rebalance_id, k.name AS book, k.currency, r.state, r.reason, r.book_value, r.cash_before, r.cash_after "
    "FROM rebalance r JOIN book k USING (book_id) "
    "WHERE r.exchange = %(exchange)s AND r.session_date = %(session)s ORDER BY k.name"
)
ORDERS = (
    "SELECT i.symbol, o.side, o.quantity, o.price, o.quantity * o.price AS value, o.reason "
    "FROM order_line o JOIN instrument i USING (instrument_id) WHERE o.rebalance_id = %(rebalance)s "
    "ORDER BY o.side DESC, value DESC, i.symbol"
)
GAP = (
    "SELECT state, run_id, refusal FROM publication_gap "
    "WHERE exchange = %(exchange)s AND session_date = %(session)s AND kind = %(kind)s"
)


def _rows(connection: Connection, kind: type[Row], query: str, key: dict[str, Any]) -> tuple[Row, ...]:
    from psycopg.rows import class_row

    with connection.cursor(row_factory=class_row(kind)) as cursor:
        return tuple(cursor.execute(query.encode(), key).fetchall())


def _rebalances(connection: Connection, key: dict[str, Any]) -> tuple[Rebalance, ...]:
    return tuple(
        replace(found, orders=_rows(connection, Order, ORDERS, {"rebalance": found.rebalance_id}))
        for found in _rows(connection, Rebalance, REBALANCES, key)
    )


def _risk_gap(connection: Connection, key: dict[str, Any]) -> str | None:
    gap = connection.execute(GAP.encode(), {**key, "kind": "risk"}).fetchone()
    if gap is None:
        return None
    state, run_id, refusal = gap
    if state == "refused":
        return f"The risk of the session is refused (run {run_id}): {_sentence(connection, run_id, refusal)}"
    return f"The risk of the session is {state}: run {run_id} has published its forecasts only"


def _why_not(connection: Connection, exchange: str, session: date) -> NotPublished:
    """The state of a session without forecasts, as the error that says so."""
    due = connection.execute(
        "SELECT runs_after AT TIME ZONE 'UTC', runs_after > now() FROM trading_session "
        "WHERE exchange = %s AND session_date = %s",
        (exchange, session),
    ).fetchone()
    if due is None:
        before = connection.execute(
            "SELECT max(session_date) FROM trading_session WHERE exchange = %s AND session_date < %s",
            (exchange, session),
        ).fetchone()
        return NotPublished.no_session(exchange, session, before[0] if before else None)
    if due[1]:
        return NotPublished.not_due(exchange, session, due[0].replace(tzinfo=UTC))
    gap = connection.execute(GAP.encode(), {"exchange": exchange, "session": session, "kind": "forecast"}).fetchone()
    if gap is None or gap[0] == "missing":
        return NotPublished.missing(exchange, session)
    state, run_id, refusal = gap
    if state == "refused":
        return NotPublished.refused(exchange, session, run_id, _sentence(connection, run_id, refusal))
    shards = connection.execute(
        "SELECT count(done_at), count(*) FROM run_shard WHERE run_id = %s", (run_id,)
    ).fetchone()
    return NotPublished.unfinished(exchange, session, run_id, *(shards or (0, 0)))


def _sentence(connection: Connection, run_id: int, refusal: str | None) -> str:
    """The sentences of the run's failed blocking checks, or what the run noted as its refusal."""
    failed = connection.execute(
        "SELECT string_agg(sentence, '; ' ORDER BY checked_at, name) FROM audit_check "
        "WHERE run_id = %s AND severity = 'block' AND NOT passed",
        (run_id,),
    ).fetchone()
    return ((failed and failed[0]) or refusal or "its run does not say why").rstrip(".")
