"""Sessions: which days an exchange trades, when a session may run, and which session a run is for.

1. `load_overrides` reads the local file of days that the calendar package gets wrong.
2. `build_schedule` asks `exchange_calendars` for every session's open and close and applies the overrides;
   `cached_schedule` keeps the answer on disk, so that most processes import neither pandas nor the package.
3. `SessionCalendar` answers questions about that schedule.
4. `resolve_session` decides which session a run is for, whichever door it came through, or refuses.
"""

from __future__ import annotations

from risk.sessions.calendar import SessionCalendar
from risk.sessions.errors import (
    BrokenCalendarError,
    MalformedSessionError,
    NotASessionError,
    NotClosedYetError,
    NothingClosedError,
    OutsideCalendarError,
    OutsideSourceError,
    OverrideError,
    SessionsDisagreeError,
    UnknownExchangeError,
)
from risk.sessions.overrides import Override, load_overrides
from risk.sessions.resolve import require_session, resolve_session

__all__ = [
    "BrokenCalendarError",
    "MalformedSessionError",
    "NotASessionError",
    "NotClosedYetError",
    "NothingClosedError",
    "OutsideCalendarError",
    "OutsideSourceError",
    "Override",
    "OverrideError",
    "SessionCalendar",
    "SessionsDisagreeError",
    "UnknownExchangeError",
    "load_overrides",
    "require_session",
    "resolve_session",
]
