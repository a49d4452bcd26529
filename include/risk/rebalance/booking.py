"""One night's rebalance of a book, from published risk to orders and positions, in one transaction.

1. `rebalance_book` takes the book's lock, finds what was written already, and refuses what may not be traded on:
   `_settled`, `current_run`, `risk.rebalance.order.unsettled_before`.
2. `risk.rebalance.holdings` reads the book as the last settled session left it, and marks it at tonight's closes.
3. `risk.rebalance.trades.propose_trades` decides, `_write` stores: rebalance, target weights, orders, positions.

Orders are taken as filled at the session's close, without costs, though the sigmas that they follow from are known
after that close only: the paper book shows what the job would hold, and is no record of trading.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from risk.books import Book, read_book
from risk.rebalance.errors import EarlierUnsettled, NotRebalanced, RiskNotCurrent
from risk.rebalance.holdings import Carried, Market, read_carried, read_market
from risk.rebalance.order import unsettled_before
from risk.rebalance.trades import Proposal, propose_trades

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """A line of the order list: `side` is `buy` or `sell`, `quantity` whole shares, `price` the session's close."""

    instrument_id: int
    symbol: str
    side: str
    quantity: int
    price: float
    reason: str


@dataclass(frozen=True)
class RebalanceOutcome:
    """What `rebalance_book` did; where the session was settled before, `written` is False and `orders` is empty."""

    rebalance_id: int
    run_id: int
    session: date
    written: bool
    book_value: float | None
    cash_before: float | None
    cash_after: float | None
    orders: tuple[Order, ...]
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class _Night:
    """Which book is rebalanced, on which run's risk."""

    book: Book
    exchange: str
    session: date
    run_id: int
    dag_run_id: str


def rebalance_book(
    connection: psycopg.Connection[Any],
    session: date,
    exchange: str,
    book_name: str,
    dag_run_id: str,
) -> RebalanceOutcome:
    """Bring a book to inverse-volatility weights on a session's published risk, once.

    One transaction, committed at its end unless the caller has begun one. A session that is settled already is told
    and nothing is written.

    Raises:
        OrderError: unpublished or outdated risk, an earlier session not settled, a book that is not rebalanced, a
            book that is worth nothing; nothing is written then.
        UnknownBook: with the names that there are.
    """
    with connection.transaction():
        book = read_book(connection, book_name)
        if book.kind != "inverse_volatility":
            raise NotRebalanced(book.name, book.kind)
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('rebalance'), %s)", (book.book_id,))
        settled = _settled(connection, book, exchange, session)
        if settled is not None:
            return settled
        run_id, snapshot_id = current_run(connection, exchange, session)
        earlier = unsettled_before(connection, exchange, session, book.name)
        if earlier is not None:
            raise EarlierUnsettled(book.name, session, earlier)
        carried = read_carried(connection, book, exchange, session)
        market = read_market(connection, run_id, snapshot_id, session, carried)
        proposal = propose_trades(market.holdings)
        orders = tuple(_orders(market, proposal))
        night = _Night(book, exchange, session, run_id, dag_run_id)
        reason = _reason(connection, night, carried, market, orders)
        rebalance_id = _write(connection, night, carried, proposal, reason)
        _write_rows(connection, night, rebalance_id, market, proposal, orders)
    sentence = f"Rebalance {rebalance_id} of book {book.name} for session {session}, run {run_id}: {reason}"
    return RebalanceOutcome(
        rebalance_id, run_id, session, True, proposal.book_value, carried.cash, proposal.cash, orders, sentence
    )


def _settled(connection: psycopg.Connection[Any], book: Book, exchange: str, session: date) -> RebalanceOutcome | None:
    row = connection.execute(
        "SELECT rebalance_id, run_id, state, book_value, cash_before, cash_after FROM rebalance "
        "WHERE book_id = %s AND exchange = %s AND session_date = %s",
        (book.book_id, exchange, session),
    ).fetchone()
    if row is None:
        return None
    number, run_id, state, value, before, after = row
    sentence = f"Book {book.name} for session {session} is already {state} as rebalance {number}: nothing is written"
    return RebalanceOutcome(number, run_id, session, False, value, before, after, (), sentence)


def current_run(connection: psycopg.Connection[Any], exchange: str, session: date) -> tuple[int, int]:
    """The run and the snapshot of the session's current risk.

    Raises:
        RiskNotCurrent: no risk of the session is published, or its forecasts were replaced since.
    """
    rows = connection.execute(
        "SELECT kind, p.run_id, snapshot_id FROM publication_interval p JOIN run USING (run_id) "
        "WHERE p.exchange = %s AND p.session_date = %s AND valid_to IS NULL",
        (exchange, session),
    ).fetchall()
    current = {str(kind): (int(run_id), int(snapshot)) for kind, run_id, snapshot in rows}
    risk, forecast = current.get("risk"), current.get("forecast")
    if risk is None or risk != forecast:
        raise RiskNotCurrent(session, exchange, risk and risk[0], forecast and forecast[0])
    return risk


def _orders(market: Market, proposal: Proposal) -> Iterator[Order]:
    book = market.holdings
    for at in proposal.trades.tolist():
        held, wanted = int(book.quantity[at]), int(proposal.quantity[at])
        yield Order(
            instrument_id=market.instrument_ids[at],
            symbol=market.symbols[at],
            side="buy" if wanted > held else "sell",
            quantity=abs(wanted - held),
            price=float(book.prices[at]),
            reason=f"target {proposal.weights[at]:.2%} of the book by inverse volatility "
            f"(sigma {book.sigma[at]:.2f}%): {wanted} shares, held {held}",
        )


def _reason(
    connection: psycopg.Connection[Any], night: _Night, carried: Carried, market: Market, orders: tuple[Order, ...]
) -> str:
    """What was done and on what ground, with every name that was kept without trading."""
    begun = f"from the positions of {carried.session}" if carried.session else "from its capital in cash"
    sells = sum(order.side == "sell" for order in orders)
    parts = [f"{len(orders)} orders ({sells} sells, {len(orders) - sells} buys) to inverse volatility, {begun}"]
    parts += [f"{symbol} kept ({why})" for symbol, why in market.kept.items()]
    later = connection.execute(
        "SELECT min(session_date) FROM rebalance WHERE book_id = %s AND exchange = %s AND session_date > %s",
        (night.book.book_id, night.exchange, night.session),
    ).fetchone()
    if later is not None and later[0] is not None:
        parts.append(f"session {later[0]} was settled before this one: its orders don't follow from these")
    return "; ".join(parts)


def _write(
    connection: psycopg.Connection[Any], night: _Night, carried: Carried, proposal: Proposal, reason: str
) -> int:
    """The rebalance's own row; returns its number."""
    row = connection.execute(
        "INSERT INTO rebalance (book_id, exchange, session_date, run_id, previous_id, state, reason, book_value, "
        "cash_before, cash_after, dag_run_id) VALUES (%s, %s, %s, %s, %s, 'published', %s, %s, %s, %s, %s) "
        "RETURNING rebalance_id",
        (
            night.book.book_id, night.exchange, night.session, night.run_id, carried.previous_id, reason,
            proposal.book_value, carried.cash, proposal.cash, night.dag_run_id,
        ),
    ).fetchall()  # fmt: skip
    return int(row[0][0])


def _write_rows(
    connection: psycopg.Connection[Any],
    night: _Night,
    rebalance_id: int,
    market: Market,
    proposal: Proposal,
    orders: tuple[Order, ...],
) -> None:
    """Target weights, orders, and the positions after them."""
    held = zip(market.instrument_ids, proposal.quantity.tolist(), market.holdings.prices.tolist(), strict=True)
    weights = zip(market.instrument_ids, proposal.weights.tolist(), strict=True)
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO target_weight (rebalance_id, instrument_id, weight) VALUES (%s, %s, %s)",
            [(rebalance_id, number, weight) for number, weight in weights if weight > 0],
        )
        cursor.executemany(
            "INSERT INTO order_line (rebalance_id, instrument_id, side, quantity, price, reason) "
            "VALUES (%s, %s, %s, %s, %s, %s)",
            [(rebalance_id, o.instrument_id, o.side, o.quantity, o.price, o.reason) for o in orders],
        )
        cursor.executemany(
            "INSERT INTO position (book_id, session_date, instrument_id, rebalance_id, quantity, price) "
            "VALUES (%s, %s, %s, %s, %s, %s)",
            [
                (night.book.book_id, night.session, number, rebalance_id, shares, price)
                for number, shares, price in held
                if shares > 0
            ],
        )
