"""The order of a book's sessions: which earlier one has to be settled first."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from risk.books import read_book

if TYPE_CHECKING:
    import psycopg

_UNSETTLED = """
    SELECT min(p.session_date)
    FROM publication p
    WHERE p.kind = 'risk' AND p.exchange = %(exchange)s AND p.session_date < %(session)s
      AND p.session_date > coalesce(
          (SELECT max(r.session_date) FROM rebalance r
           WHERE r.book_id = %(book)s AND r.exchange = %(exchange)s AND r.session_date < %(session)s),
          '-infinity')
"""


def unsettled_before(connection: psycopg.Connection[Any], exchange: str, session: date, book_name: str) -> date | None:
    """The earliest session that a book has to settle before `session`; None: it may go on.

    That is the earliest session before `session` whose risk is published and which lies after the book's last
    settled session before `session`; for a book without any, the earliest published one of all. A session is settled
    by a rebalance, published or refused. Later sessions don't count, settled or not: a range that is run after the
    newest session goes in its own order. A gap before the last settled session is left behind: its orders would
    change positions that others were made from.

    Raises:
        UnknownBook: with the names that there are.
    """
    book = read_book(connection, book_name)
    row = connection.execute(_UNSETTLED, {"exchange": exchange, "session": session, "book": book.book_id}).fetchone()
    return None if row is None else row[0]
