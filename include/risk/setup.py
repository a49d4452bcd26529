"""What a fresh risk database needs before the first session: schema, sessions, vintages, books."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from risk.books import ensure_books
from risk.context import market_data_source, session_calendar
from risk.registry import register_vintages
from risk.settings import Settings
from risk.storage.database import connect, database_url
from risk.storage.schema import upgrade

if TYPE_CHECKING:
    import psycopg

    from risk.sessions import SessionCalendar


def prepare(settings: Settings) -> None:
    """Bring the risk database to the newest schema and fill in what is missing; safe to repeat."""
    url = database_url(settings)
    upgrade(url)
    calendar, source = session_calendar(settings), market_data_source(settings)
    with connect(url) as connection:
        register_vintages(connection, settings.vintages_dir)
        ensure_books(connection, settings)
        record_sessions(connection, calendar, source.first_session, source.last_session)


def record_sessions(
    connection: psycopg.Connection[Any], calendar: SessionCalendar, first: date | None, last: date | None
) -> int:
    """Write the calendar's sessions that the source can have and that are not written yet.

    Returns:
        How many sessions are new.
    """
    today = datetime.now(UTC).date()
    begin = max(first or calendar.first, calendar.first)
    written = connection.execute(
        "SELECT max(session_date) FROM trading_session WHERE exchange = %s", (calendar.exchange,)
    ).fetchone()
    if written and written[0]:
        begin = max(begin, written[0])
    end = min(last or today, today, calendar.last)
    rows = [
        (calendar.exchange, s, calendar.open(s), calendar.close(s), calendar.run_after(s), calendar.cutoff(s))
        for s in (calendar.sessions(begin, end) if begin <= end else [])
    ]
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO trading_session VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING", rows)
        return max(cursor.rowcount, 0)
