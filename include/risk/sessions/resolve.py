"""Which session a run is for: one function for the scheduler, a trigger, a backfill and the command line."""

from __future__ import annotations

from datetime import UTC, date, datetime

from risk.sessions.calendar import SessionCalendar
from risk.sessions.errors import (
    MalformedSessionError,
    NotASessionError,
    NotClosedYetError,
    NothingClosedError,
    OutsideSourceError,
    SessionsDisagreeError,
)


def resolve_session(
    calendar: SessionCalendar,
    *,
    partition_key: str | None,
    session_param: str | None,
    run_after: datetime | None,
    now: datetime,
    first_session: date | None = None,
    last_session: date | None = None,
) -> date:
    """The session of a run: the partition key, else the `session` field, else the last one closed at `run_after`.

    `first_session` and `last_session` bound the source's data (None: open). Without key and field, a source that
    ends earlier gives its own last session. `run_after` None means `now`; a moment later than `now` counts as `now`.
    An empty text counts as none.

    Raises a `SessionError` whose sentence says what is wrong and what is allowed: not a date, not a trading day, not
    closed yet, outside the source, a key and a field that disagree.
    """
    key, param = (partition_key or "").strip(), (session_param or "").strip()
    if key and param and parse_session(key) != parse_session(param):
        raise SessionsDisagreeError(parse_session(key), parse_session(param))
    if key or param:
        return require_session(calendar, key or param, now=now, first_session=first_session, last_session=last_session)
    at = now if run_after is None else min(run_after, now)
    closed = calendar.last_closed(at)
    session = calendar.on_or_before(closed if last_session is None else min(closed, last_session))
    if session is None or (first_session is not None and session < first_session):
        raise NothingClosedError(calendar.exchange, at.astimezone(UTC), first_session)
    return session


def require_session(
    calendar: SessionCalendar,
    text: str,
    *,
    now: datetime,
    first_session: date | None = None,
    last_session: date | None = None,
) -> date:
    """The session that a text names, if it can run `now` with the source's data; else a `SessionError`."""
    session = parse_session(text)
    too_early = first_session is not None and session < first_session
    if too_early or (last_session is not None and session > last_session):
        raise OutsideSourceError(session, first_session, last_session)
    if not calendar.is_session(session):
        raise NotASessionError(
            calendar.exchange, session, calendar.on_or_before(session), calendar.on_or_after(session)
        )
    if calendar.run_after(session) > now:
        close, run_after = calendar.close(session), calendar.run_after(session)
        last = _last_closed(calendar, now)
        raise NotClosedYetError(calendar.exchange, session, close, run_after, now.astimezone(UTC), last)
    return session


def parse_session(text: str) -> date:
    """A day written as YYYY-MM-DD, the one spelling that Airflow's keys and our tables use."""
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise MalformedSessionError(text) from error
    if day.isoformat() != text:
        raise MalformedSessionError(text)
    return day


def _last_closed(calendar: SessionCalendar, now: datetime) -> date | None:
    try:
        return calendar.last_closed(now)
    except NothingClosedError:
        return None
