"""What can be wrong with a session: each error takes the facts and writes the sentence.

    SessionError
    ├── MalformedSessionError   not an ISO date
    ├── NotASessionError        a holiday or a weekend
    ├── NotClosedYetError       a session whose close, plus the delay, lies ahead
    ├── NothingClosedError      a moment before the first session that could run
    ├── OutsideSourceError      no data of that day in the source
    ├── OutsideCalendarError    a day that the calendar doesn't reach
    ├── SessionsDisagreeError   a partition key and a `session` field that name two days
    ├── UnknownExchangeError    no calendar of that name
    ├── BrokenCalendarError     a calendar that the installed package can't make
    └── OverrideError           an overrides file that can't be read or makes no sense

The facts are the exception's `args`, so that it survives pickling; the sentence is `str(error)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from risk.errors import SessionError


class MalformedSessionError(SessionError):
    """A text that is no ISO date."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"session {self.text!r} is not a date; write it as YYYY-MM-DD, such as 2022-11-25"


class NotASessionError(SessionError):
    """A day on which the exchange doesn't trade; `before` and `after` are the sessions around it."""

    def __init__(self, exchange: str, session: date, before: date | None, after: date | None) -> None:
        super().__init__(exchange, session, before, after)
        self.exchange, self.session, self.before, self.after = exchange, session, before, after

    def __str__(self) -> str:
        near = []
        if self.before is not None:
            near.append(f"the last one before it is {self.before}")
        if self.after is not None:
            near.append(f"the next is {self.after}")
        return f"session {self.session} is not a trading day of {self.exchange}; {' and '.join(near)}"


class NotClosedYetError(SessionError):
    """A session whose close plus the delay lies after `now`; `last` is the last one that can run."""

    def __init__(
        self, exchange: str, session: date, close: datetime, run_after: datetime, now: datetime, last: date | None
    ) -> None:
        super().__init__(exchange, session, close, run_after, now, last)
        self.exchange, self.session, self.close = exchange, session, close
        self.run_after, self.now, self.last = run_after, now, last

    def __str__(self) -> str:
        possible = "no session can run yet" if self.last is None else f"the last one that can run is {self.last}"
        return (
            f"session {self.session} of {self.exchange} closes at {self._clock(self.close)} and runs after "
            f"{self._clock(self.run_after)}; it is {self.now:%Y-%m-%d %H:%M} UTC, and {possible}"
        )

    def _clock(self, at: datetime) -> str:
        return f"{at:%H:%M} UTC" if at.date() == self.session else f"{at:%Y-%m-%d %H:%M} UTC"


class NothingClosedError(SessionError):
    """A moment at which no session could run yet; `first` is the first that will."""

    def __init__(self, exchange: str, at: datetime, first: date | None) -> None:
        super().__init__(exchange, at, first)
        self.exchange, self.at, self.first = exchange, at, first

    def __str__(self) -> str:
        first = "" if self.first is None else f"; the first is {self.first}"
        return f"no session of {self.exchange} could run by {self.at:%Y-%m-%d %H:%M} UTC{first}"


class OutsideSourceError(SessionError):
    """A day outside what a market data source holds; None is an open end."""

    def __init__(self, session: date, first: date | None, last: date | None) -> None:
        super().__init__(session, first, last)
        self.session, self.first, self.last = session, first, last

    def __str__(self) -> str:
        if self.first is None:
            what = f"after the source's last one, {self.last}"
        elif self.last is None:
            what = f"before the source's first one, {self.first}"
        else:
            what = f"outside the source's {self.first} to {self.last}"
        return f"session {self.session} is {what}; choose a session it has data for"


class OutsideCalendarError(SessionError):
    """A day that the exchange's calendar doesn't reach."""

    def __init__(self, exchange: str, day: date, first: date, last: date) -> None:
        super().__init__(exchange, day, first, last)
        self.exchange, self.day, self.first, self.last = exchange, day, first, last

    def __str__(self) -> str:
        return (
            f"{self.day} is outside the calendar of {self.exchange}, which knows {self.first} to {self.last}; "
            "a newer exchange_calendars may reach further"
        )


class SessionsDisagreeError(SessionError):
    """A partition key and a `session` field that name two different days."""

    def __init__(self, key: date, param: date) -> None:
        super().__init__(key, param)
        self.key, self.param = key, param

    def __str__(self) -> str:
        return (
            f"the partition key says session {self.key} and the field `session` says {self.param}; "
            "give one of them, or the same day in both"
        )


class UnknownExchangeError(SessionError):
    """A name that `exchange_calendars` has no calendar for; `code` is what it is an alias of, if it is one."""

    def __init__(self, exchange: str, code: str | None, known: Sequence[str]) -> None:
        super().__init__(exchange, code, tuple(known))
        self.exchange, self.code, self.known = exchange, code, tuple(known)

    def __str__(self) -> str:
        if self.code is not None:
            return f"exchange {self.exchange!r} is another name of {self.code!r}; write {self.code!r}"
        return f"exchange {self.exchange!r} has no calendar; the known codes are {', '.join(self.known)}"


class BrokenCalendarError(SessionError):
    """A calendar that the installed `exchange_calendars` names but can't make."""

    def __init__(self, exchange: str, package: str, problem: str) -> None:
        super().__init__(exchange, package, problem)
        self.exchange, self.package, self.problem = exchange, package, problem

    def __str__(self) -> str:
        return (
            f"exchange_calendars {self.package} can't make the calendar of {self.exchange} ({self.problem:.100}); "
            "choose another exchange or another version of the package"
        )


class OverrideError(SessionError):
    """An overrides file that can't be read, or an entry in it that makes no sense; `entry` counts from 1."""

    def __init__(self, path: str, problem: str, entry: int | None = None) -> None:
        super().__init__(path, problem, entry)
        self.path, self.problem, self.entry = path, problem, entry

    def __str__(self) -> str:
        where = f"overrides file {self.path}" if self.entry is None else f"entry {self.entry} of {self.path}"
        return f"{where}: {self.problem}"
