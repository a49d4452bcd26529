"""The job's collaborators as the settings name them: the calendar and the market data source."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from risk.sessions import SessionCalendar, resolve_session
from risk.settings import Settings, get_settings

if TYPE_CHECKING:
    from risk.market_data.source import Source


def session_calendar(settings: Settings | None = None) -> SessionCalendar:
    """The calendar of the exchange, its schedule cached in the state folder."""
    settings = settings or get_settings()
    return SessionCalendar(
        settings.exchange,
        close_delay=timedelta(minutes=settings.close_delay_minutes),
        overrides=settings.overrides,
        cache_dir=settings.state_dir / "cache",
    )


def market_data_source(settings: Settings | None = None) -> Source:
    """The source of bars."""
    from risk.market_data.source import make_source

    return make_source(settings or get_settings())


def session_to_run(
    settings: Settings | None = None,
    *,
    partition_key: str | None = None,
    session_param: str | None = None,
    run_after: datetime | None = None,
) -> date:
    """The session of a run, whichever door it came through; by default the last one that can be run now.

    Raises:
        SessionError: the day is no session, has not closed, or is outside the source.
    """
    settings = settings or get_settings()
    source = market_data_source(settings)
    return resolve_session(
        session_calendar(settings),
        partition_key=partition_key,
        session_param=session_param,
        run_after=run_after,
        now=datetime.now(UTC),
        first_session=source.first_session,
        last_session=source.last_session,
    )
