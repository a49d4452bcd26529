"""`TradingSessionTimetable`: one run for each session of an exchange, after its close plus a delay.

Airflow asks it four things, and each answer comes from `risk.sessions`:

1. `next_dagrun_info_v2`: which session the scheduler runs next;
2. `iter_partition_dagrun_infos`: which sessions a backfill of two dates holds;
3. `_decode_partition_date`: whether a partition key that a person typed is a session that can run;
4. `generate_run_id`: a run's name, with its session in it.

A run's partition key is the session (`2022-11-25`); its partition date is that day at midnight UTC, whatever the
exchange; it has no logical date and no data interval. The module imports neither pandas nor the calendar package:
both wait until the first question.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from secrets import token_hex
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
from airflow.exceptions import InvalidPartitionKeyError
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from airflow.utils.types import DagRunType

from risk.errors import SessionError
from risk.sessions import SessionCalendar, require_session
from risk.sessions.resolve import parse_session

log = logging.getLogger(__name__)

FIRST_RUN_GRACE = timedelta(minutes=10)
"""A DAG without a start and without a run yet begins with the next close, or with one that is younger than this.

Without it, a DAG file parsed between a close and the scheduler's next look would push that session away.
"""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@lru_cache(maxsize=16)
def _calendar(exchange: str, close_delay: timedelta, overrides: str | None, cache_dir: str | None) -> SessionCalendar:
    return SessionCalendar(
        exchange,
        close_delay=close_delay,
        overrides=None if overrides is None else Path(overrides),
        cache_dir=None if cache_dir is None else Path(cache_dir),
    )


class TradingSessionTimetable(Timetable):
    """Runs a DAG once for each session of an exchange; the run's partition key is the session.

    Args:
        exchange: a code of `exchange_calendars`, such as XNYS, XLON, XTKS, XHKG.
        close_delay_minutes: a session runs this long after its close.
        first_session: ISO date of the first session that the data source holds; None: as far back as the calendar.
        last_session: ISO date of a finite source's last session, after which nothing runs; None: no end.
        overrides: path of the TOML file of days that the calendar package has wrong.
        cache_dir: folder for the stored schedule; None keeps it in memory, at about a second a process.

    The DAG's `start_date`, `end_date` and `catchup` bound what the scheduler starts, day by day: the session of the
    start day and that of the end day are included. With `catchup` it runs every session from the start, or after
    the last run; without it, the last closed one and then each as it closes. A DAG that has neither a start nor a
    run yet begins with the next close.
    """

    partitioned = True
    run_ordering: Sequence[str] = ("run_after",)

    def __init__(
        self,
        exchange: str = "XNYS",
        close_delay_minutes: int = 60,
        first_session: str | None = None,
        last_session: str | None = None,
        overrides: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        self.exchange = exchange
        self.close_delay = timedelta(minutes=close_delay_minutes)
        self.first_session = None if first_session is None else parse_session(first_session)
        self.last_session = None if last_session is None else parse_session(last_session)
        self.overrides = overrides
        self.cache_dir = cache_dir
        self.clock: Callable[[], datetime] = _utc_now
        self.description = f"Each {exchange} session, {close_delay_minutes} minutes after its close"

    def serialize(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON values."""
        return {
            "exchange": self.exchange,
            "close_delay_minutes": self.close_delay // timedelta(minutes=1),
            "first_session": None if self.first_session is None else self.first_session.isoformat(),
            "last_session": None if self.last_session is None else self.last_session.isoformat(),
            "overrides": self.overrides,
            "cache_dir": self.cache_dir,
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Timetable:
        """The timetable that `serialize` described."""
        return cls(**data)

    @property
    def summary(self) -> str:
        """What the UI shows beside the DAG's name, such as `XNYS close + 60 min`."""
        return f"{self.exchange} close + {self.close_delay // timedelta(minutes=1)} min"

    @property
    def calendar(self) -> SessionCalendar:
        """The exchange's calendar, shared by every timetable of this process with the same settings."""
        return _calendar(self.exchange, self.close_delay, self.overrides, self.cache_dir)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The older question: a partitioned timetable has no data intervals, so it is asked without a last run."""
        return self.next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction)

    def next_dagrun_info_v2(
        self, *, last_dagrun_info: DagRunInfo | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The session that the scheduler runs next; None when the source or the DAG ends before it."""
        session = self.calendar.on_or_after(self._not_before(last_dagrun_info, restriction))
        if session is None or (self.last_session is not None and session > self.last_session):
            return None
        if restriction.latest is not None and session > self._day(restriction.latest):
            return None
        return self._info(session)

    def iter_partition_dagrun_infos(self, *, earliest: datetime, latest: datetime) -> Iterator[DagRunInfo]:
        """The sessions of a backfill: closed, held by the source, and between two days, both included."""
        calendar, now = self.calendar, self.clock()
        first = max(self._day(earliest), self.first_session or calendar.first, calendar.first)
        last = min(self._day(latest), self.last_session or calendar.last, calendar.last)
        sessions = calendar.sessions(first, last) if first <= last else []
        yield from (self._info(session) for session in sessions if calendar.run_after(session) <= now)

    def _decode_partition_date(self, partition_key: str) -> datetime:
        """Midnight UTC of the session that a key names; `InvalidPartitionKeyError` says why it can't run."""
        try:
            session = require_session(
                self.calendar,
                partition_key,
                now=self.clock(),
                first_session=self.first_session,
                last_session=self.last_session,
            )
        except SessionError as error:
            raise InvalidPartitionKeyError(str(error)) from error
        return _midnight(session)

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        """The moment itself: a run that was given a logical date covers no interval."""
        return DataInterval.exact(run_after)

    def generate_run_id(
        self,
        *,
        run_type: DagRunType,
        run_after: pendulum.DateTime,
        data_interval: DataInterval | None,
        **extra: Any,
    ) -> str:
        """A new name each time, such as `backfill__2022-11-25__3f9a01c7`.

        A trigger is named before Airflow looks at its key: it carries the moment instead of the session.
        """
        what = extra.get("partition_key") or run_after.in_timezone("UTC").format("YYYY-MM-DDTHH:mm:ss")
        return run_type.generate_run_id(suffix=f"{what}__{token_hex(4)}")

    def _not_before(self, last: DagRunInfo | None, restriction: TimeRestriction) -> date:
        """The first day whose session may be next."""
        bounds = [self.calendar.first]
        if self.first_session is not None:
            bounds.append(self.first_session)
        if restriction.earliest is not None:
            bounds.append(self._day(restriction.earliest))
        if last is not None:
            bounds.append(self._session_of(last) + timedelta(days=1))
        if last is None and restriction.earliest is None:
            bounds.append(self.calendar.last_closed(self.clock() - FIRST_RUN_GRACE) + timedelta(days=1))
        elif not restriction.catchup:
            bounds.append(self.calendar.last_closed(self.clock()))
        return max(bounds)

    def _session_of(self, info: DagRunInfo) -> date:
        """The session of an earlier run; one made under another schedule counts by the moment it was due."""
        try:
            return parse_session(info.partition_key or "")
        except SessionError:
            session = self.calendar.last_closed(info.run_after)
            log.info("The last run's key %r is no session; its moment gives %s", info.partition_key, session)
            return session

    def _day(self, bound: datetime) -> date:
        """The day that a bound means: the exchange's, for its midnight; else the one that the bound spells out.

        A person at the exchange who picks 21 November sends that day's local midnight, the command line sends
        midnight UTC: both mean the session of the 21st.
        """
        local = bound.astimezone(ZoneInfo(self.calendar.timezone))
        return local.date() if local.time() == time(0) else bound.date()

    def _info(self, session: date) -> DagRunInfo:
        return DagRunInfo(
            run_after=pendulum.instance(self.calendar.run_after(session)),
            data_interval=None,
            partition_date=_midnight(session),
            partition_key=session.isoformat(),
        )


def _midnight(session: date) -> pendulum.DateTime:
    return pendulum.datetime(session.year, session.month, session.day, tz="UTC")
