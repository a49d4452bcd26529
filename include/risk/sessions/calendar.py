"""`SessionCalendar`: the sessions of one exchange, when each may run and what its run may know."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from importlib import metadata
from pathlib import Path

from risk.errors import SessionError
from risk.sessions.errors import NotASessionError, NothingClosedError, OutsideCalendarError, OverrideError
from risk.sessions.overrides import Override, load_overrides, overrides_digest
from risk.sessions.schedule import Schedule, cached_schedule

FIRST_DAY = date(1990, 1, 1)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SessionCalendar:
    """The sessions of an exchange from 1990 to the end of next year, or as far as `exchange_calendars` knows.

    Every moment is aware and in UTC; a session is a `date`, the exchange's local day. Nothing is read before the
    first question. A calendar may live as long as its process: when the year changes or the overrides file does,
    it reads again.

    Args:
        exchange: a code of `exchange_calendars`, such as XNYS, XLON, XTKS, XHKG.
        close_delay: how long after its close a session may run.
        overrides: TOML file of days that the package has wrong; see `risk.sessions.overrides`.
        cache_dir: folder for the stored schedule; None keeps it in memory only, at about a second a process.
        first: first day that the calendar should reach back to.
        clock: the present moment; the horizon depends on its year.
    """

    def __init__(
        self,
        exchange: str = "XNYS",
        *,
        close_delay: timedelta = timedelta(minutes=60),
        overrides: Path | None = None,
        cache_dir: Path | None = None,
        first: date = FIRST_DAY,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        if close_delay < timedelta(0):
            raise SessionError(f"a session can't run before its close: close_delay is {close_delay}")
        self.exchange = exchange
        self.close_delay = close_delay
        self._path = overrides
        self._cache_dir = cache_dir
        self._first = first
        self._clock = clock
        self._overrides: tuple[Override, ...] = ()
        self._state: tuple[int, tuple[int, int] | None] | None = None
        self._loaded: Schedule | None = None

    def __repr__(self) -> str:
        return f"SessionCalendar({self.exchange!r}, close_delay={self.close_delay})"

    @property
    def first(self) -> date:
        """The first day the calendar knows, a session or not."""
        return self._schedule().first

    @property
    def last(self) -> date:
        """The last day the calendar knows, a session or not."""
        return self._schedule().last

    @property
    def timezone(self) -> str:
        """The exchange's time zone, such as America/New_York."""
        return self._schedule().timezone

    @property
    def version(self) -> str:
        """What decided the sessions, for lineage: the package's version and a hash of this exchange's overrides."""
        self._schedule()
        digest = overrides_digest([o for o in self._overrides if o.exchange == self.exchange])
        return f"exchange_calendars {metadata.version('exchange_calendars')}, overrides {digest[:12] or 'none'}"

    def is_session(self, day: date) -> bool:
        """Whether the exchange trades on that day. Raises `OutsideCalendarError` for a day it doesn't know."""
        schedule = self._reaching(day)
        at = bisect_left(schedule.days, day.toordinal())
        return at < len(schedule.days) and schedule.days[at] == day.toordinal()

    def sessions(self, first: date, last: date) -> list[date]:
        """The sessions from `first` to `last`, both included, in order."""
        schedule = self._reaching(first)
        self._reaching(last)
        start, stop = bisect_left(schedule.days, first.toordinal()), bisect_right(schedule.days, last.toordinal())
        return [date.fromordinal(day) for day in schedule.days[start:stop]]

    def open(self, session: date) -> datetime:
        """The moment the session opens."""
        schedule, at = self._locate(session)
        return datetime.fromtimestamp(schedule.opens[at], UTC)

    def close(self, session: date) -> datetime:
        """The moment the session closes, early closes included."""
        schedule, at = self._locate(session)
        return datetime.fromtimestamp(schedule.closes[at], UTC)

    def run_after(self, session: date) -> datetime:
        """The moment from which the session may run: its close plus the delay."""
        return self.close(session) + self.close_delay

    def cutoff(self, session: date) -> datetime:
        """The moment up to which the session's run may know data: the next session's open.

        The forecast is for the next session: made with later data it would be no forecast.
        """
        return self.open(self.next(session))

    def previous(self, session: date) -> date:
        """The session before this one."""
        schedule, at = self._locate(session)
        if at == 0:
            raise OutsideCalendarError(self.exchange, session - timedelta(days=1), schedule.first, schedule.last)
        return date.fromordinal(schedule.days[at - 1])

    def next(self, session: date) -> date:
        """The session after this one."""
        schedule, at = self._locate(session)
        if at + 1 == len(schedule.days):
            raise OutsideCalendarError(self.exchange, session + timedelta(days=1), schedule.first, schedule.last)
        return date.fromordinal(schedule.days[at + 1])

    def on_or_before(self, day: date) -> date | None:
        """The last session not after that day; None where the calendar begins later."""
        days = self._schedule().days
        at = bisect_right(days, day.toordinal()) - 1
        return date.fromordinal(days[at]) if at >= 0 else None

    def on_or_after(self, day: date) -> date | None:
        """The first session not before that day; None where the calendar ends earlier."""
        days = self._schedule().days
        at = bisect_left(days, day.toordinal())
        return date.fromordinal(days[at]) if at < len(days) else None

    def last_closed(self, at: datetime) -> date:
        """The last session that may run at that moment.

        Raises `NothingClosedError` before the calendar's first, and `OutsideCalendarError` for a moment past its end.
        """
        if at.tzinfo is None:
            raise SessionError(f"the moment {at.isoformat()} has no time zone; give an aware one, such as in UTC")
        schedule = self._schedule()
        if at.astimezone(UTC).date() > schedule.last:
            raise OutsideCalendarError(self.exchange, at.astimezone(UTC).date(), schedule.first, schedule.last)
        found = bisect_right(schedule.closes, (at - self.close_delay).timestamp()) - 1
        if found < 0:
            raise NothingClosedError(self.exchange, at.astimezone(UTC), self.on_or_after(schedule.first))
        return date.fromordinal(schedule.days[found])

    def _locate(self, session: date) -> tuple[Schedule, int]:
        schedule = self._reaching(session)
        at = bisect_left(schedule.days, session.toordinal())
        if at == len(schedule.days) or schedule.days[at] != session.toordinal():
            raise NotASessionError(self.exchange, session, self.on_or_before(session), self.on_or_after(session))
        return schedule, at

    def _reaching(self, day: date) -> Schedule:
        schedule = self._schedule()
        if not schedule.first <= day <= schedule.last:
            raise OutsideCalendarError(self.exchange, day, schedule.first, schedule.last)
        return schedule

    def _schedule(self) -> Schedule:
        state = (self._clock().year + 1, self._stamp())
        if self._loaded is None or state != self._state:
            self._overrides = () if self._path is None else load_overrides(self._path)
            self._loaded = cached_schedule(
                self.exchange,
                self._first,
                date(state[0], 12, 31),
                self._overrides,
                path=self._path,
                cache_dir=self._cache_dir,
            )
            self._state = state
        return self._loaded

    def _stamp(self) -> tuple[int, int] | None:
        """When the overrides file was last written, and its size; None without one."""
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except OSError as error:
            problem = f"can't be read ({error.strerror}); correct or clear the setting"
            raise OverrideError(str(self._path), problem) from error
        return stat.st_mtime_ns, stat.st_size
