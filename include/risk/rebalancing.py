"""The tasks of a published session's rebalance, in their order; each may run twice and leaves the same rows.

1. `check_risk_is_current` refuses a session whose risk is not what readers see now, and names the books.
2. `waits_for` says which earlier session a book has to settle first; the session waits for it without a worker.
3. `rebalance_book` writes the orders of one book.
"""

from __future__ import annotations

import logging
from datetime import date

from risk.books import book_names
from risk.context import session_to_run
from risk.rebalance import current_run, unsettled_before
from risk.rebalance import rebalance_book as rebalance
from risk.settings import get_settings
from risk.storage.database import connect

log = logging.getLogger(__name__)


def check_risk_is_current(partition_key: str | None, session_param: str | None) -> list[dict[str, str]]:
    """Refuse a session whose risk is not published, or was overtaken by newer forecasts.

    Returns:
        The session and a book each: the arguments of the mapped rebalance task.

    Raises:
        SessionError: the day is no session that can be run.
        OrderError: its risk is not published, or not current.
    """
    settings = get_settings()
    session = session_to_run(settings, partition_key=partition_key, session_param=session_param)
    with connect() as connection:
        run_id, _ = current_run(connection, settings.exchange, session)
        books = book_names(connection, "inverse_volatility")
    log.info("The risk of session %s is current: run %d; to rebalance: %s", session, run_id, ", ".join(books))
    return [{"session": session.isoformat(), "book": book} for book in books]


def waits_for(session: str) -> str | None:
    """The earlier session that has to be settled first, as a sentence; `None`: the session may go on."""
    settings = get_settings()
    with connect() as connection:
        for book in book_names(connection, "inverse_volatility"):
            earlier = unsettled_before(connection, settings.exchange, date.fromisoformat(session), book)
            if earlier is not None:
                return f"book {book} has to settle session {earlier} first: its risk is published, its orders are not"
    return None


def rebalance_book(session: str, book: str, dag_run_id: str) -> int:
    """Write the orders of one book for a session, once; returns the rebalance's id."""
    settings = get_settings()
    with connect() as connection:
        outcome = rebalance(connection, date.fromisoformat(session), settings.exchange, book, dag_run_id)
    for order in outcome.orders:
        log.info("%s", order)
    return outcome.rebalance_id
