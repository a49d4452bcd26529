"""The schedule of an exchange: every session with its open and close, made once and kept on disk.

1. `schedule_key` names what a schedule depends on: exchange, package version, bounds, overrides.
2. `cached_schedule` returns the stored one of that key; a file that is missing or damaged is made again.
3. `build_schedule` makes it from `exchange_calendars`: the one place that imports the package (and pandas, a second).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from risk.sessions.errors import BrokenCalendarError, OutsideCalendarError, OverrideError, UnknownExchangeError
from risk.sessions.overrides import Override, overrides_digest

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

log = logging.getLogger(__name__)

Hours = tuple[int, int]
"""Open and close of a session in seconds since 1970, UTC."""


@dataclass(frozen=True)
class ScheduleKey:
    """What a stored schedule depends on.

    `overrides` is the digest of every entry of the file, other exchanges' included, so that each edit is checked;
    `layout` is the version of the file's own form.
    """

    exchange: str
    package: str
    first: str
    last: str
    overrides: str
    layout: int = 1

    @property
    def file_name(self) -> str:
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"sessions-{self.exchange.replace('/', '_')}-{digest[:16]}.json"


@dataclass(frozen=True)
class Schedule:
    """Every session of an exchange between two days, both included.

    `days` are ordinals (`date.toordinal`), `opens` and `closes` seconds since 1970, UTC; all three `(sessions,)`,
    increasing. `timezone` is the exchange's own.
    """

    timezone: str
    first: date
    last: date
    days: tuple[int, ...]
    opens: tuple[int, ...]
    closes: tuple[int, ...]


def schedule_key(exchange: str, first: date, last: date, overrides: Sequence[Override]) -> ScheduleKey:
    """The key of the schedule that the installed package makes."""
    package = metadata.version("exchange_calendars")
    return ScheduleKey(exchange, package, first.isoformat(), last.isoformat(), overrides_digest(overrides))


def cached_schedule(
    exchange: str, first: date, last: date, overrides: Sequence[Override], *, path: Path | None, cache_dir: Path | None
) -> Schedule:
    """The schedule from `cache_dir`, or built and stored there. No folder: built.

    `path` is the overrides file, for error sentences. A folder that can't be written costs time, not the run.
    """
    if cache_dir is None:
        return build_schedule(exchange, first, last, overrides, path=path)
    key = schedule_key(exchange, first, last, overrides)
    file = cache_dir / key.file_name
    stored = _read(file, key)
    if stored is not None:
        return stored
    schedule = build_schedule(exchange, first, last, overrides, path=path)
    try:
        _write(file, key, schedule)
    except OSError as error:
        log.warning("Could not store the schedule of %s in %s: %s", exchange, cache_dir, error)
    return schedule


def build_schedule(
    exchange: str, first: date, last: date, overrides: Sequence[Override], *, path: Path | None = None
) -> Schedule:
    """The schedule by `exchange_calendars`, clipped to what that package knows, with the overrides applied.

    Raises `UnknownExchangeError` for a name without a calendar, `OverrideError` for an entry that can't apply.
    """
    for name in (exchange, *(override.exchange for override in overrides)):
        _check_exchange(name)
    start, end, calendar = _open_clipped(exchange, first, last)
    hours = _apply(_hours(calendar), calendar, exchange, (start, end), overrides, str(path))
    days = sorted(hours)
    opens, closes = tuple(hours[day][0] for day in days), tuple(hours[day][1] for day in days)
    return Schedule(calendar.tz.key, start, end, tuple(day.toordinal() for day in days), opens, closes)


def _open_clipped(exchange: str, first: date, last: date) -> tuple[date, date, ExchangeCalendar]:
    """The package's calendar between two days, or between those of them that it knows, and these days."""
    try:
        return first, last, _open_calendar(exchange, start=first.isoformat(), end=last.isoformat())
    except (ValueError, NotImplementedError):
        try:
            known = type(_open_calendar(exchange))  # with bounds of its own
        except (ValueError, NotImplementedError) as error:
            raise BrokenCalendarError(exchange, metadata.version("exchange_calendars"), str(error)) from error
    low, high = known.bound_min(), known.bound_max()
    start = first if low is None else max(first, low.date())
    end = last if high is None else min(last, high.date())
    if start > end:
        raise OutsideCalendarError(exchange, first, start, end)
    return start, end, _open_calendar(exchange, start=start.isoformat(), end=end.isoformat())


def _open_calendar(exchange: str, **bounds: str) -> ExchangeCalendar:
    """The package's calendar, without what pandas has to say about the package's own calls."""
    from exchange_calendars import get_calendar

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return get_calendar(exchange, **bounds)


def _check_exchange(exchange: str) -> None:
    from exchange_calendars import get_calendar_names, resolve_alias

    known = get_calendar_names(include_aliases=False)
    if exchange not in known:
        alias = exchange in get_calendar_names(include_aliases=True)
        raise UnknownExchangeError(exchange, resolve_alias(exchange) if alias else None, sorted(known))


def _hours(calendar: ExchangeCalendar) -> dict[date, Hours]:
    table = calendar.schedule
    opens = table["open"].to_numpy("datetime64[s]").astype("int64").tolist()
    closes = table["close"].to_numpy("datetime64[s]").astype("int64").tolist()
    return {day.date(): pair for day, pair in zip(table.index, zip(opens, closes, strict=True), strict=True)}


def _apply(
    hours: dict[date, Hours],
    calendar: ExchangeCalendar,
    exchange: str,
    bounds: tuple[date, date],
    overrides: Sequence[Override],
    path: str,
) -> dict[date, Hours]:
    changed = dict(hours)
    for number, override in enumerate(overrides, start=1):
        day = override.day
        if override.exchange != exchange or not bounds[0] <= day <= bounds[1]:
            continue
        if override.closed:
            changed.pop(day, None)
            continue
        if override.opened:
            changed.setdefault(day, _regular_hours(calendar, day))
        if day not in changed:
            problem = f"{day} is no session of {exchange}, so it can't close early; add open = true if it trades"
            raise OverrideError(path, problem, number)
        if override.close is not None:
            opens = changed[day][0]
            closes = _seconds(calendar, day, override.close)
            if closes <= opens:
                raise OverrideError(path, f"{exchange} opens after {override.close:%H:%M} on {day}", number)
            changed[day] = (opens, closes)
    return changed


def _regular_hours(calendar: ExchangeCalendar, day: date) -> Hours:
    opens, closes = (
        [at for start, at in times if start is None or start.date() <= day][-1]
        for times in (calendar.open_times, calendar.close_times)
    )
    return (
        _seconds(calendar, day + timedelta(days=calendar.open_offset), opens),
        _seconds(calendar, day + timedelta(days=calendar.close_offset), closes),
    )


def _seconds(calendar: ExchangeCalendar, day: date, at: time) -> int:
    return int(datetime.combine(day, at, calendar.tz).astimezone(UTC).timestamp())


def _read(file: Path, key: ScheduleKey) -> Schedule | None:
    """The stored schedule; None when there is none, or (with a line in the log) when it is damaged."""
    try:
        head, _, body = file.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("Could not read %s, so the schedule is made again: %s", file, error)
        return None
    try:
        stamp: Mapping[str, object] = json.loads(head)
        if stamp != {"key": asdict(key), "sha256": hashlib.sha256(body).hexdigest()}:
            raise ValueError("its hash or its key is not the expected one")
        raw = json.loads(body)
        bounds = date.fromisoformat(raw["first"]), date.fromisoformat(raw["last"])
        return Schedule(raw["timezone"], *bounds, tuple(raw["days"]), tuple(raw["opens"]), tuple(raw["closes"]))
    except ValueError as error:
        log.warning("The schedule stored in %s is damaged, so it is made again: %s", file, error)
        return None


def _write(file: Path, key: ScheduleKey, schedule: Schedule) -> None:
    """Store it whole or not at all: a reader never sees half a file."""
    facts = asdict(schedule) | {"first": schedule.first.isoformat(), "last": schedule.last.isoformat()}
    body = json.dumps(facts, separators=(",", ":")).encode()
    head = json.dumps({"key": asdict(key), "sha256": hashlib.sha256(body).hexdigest()}).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(head + b"\n" + body)
        os.chmod(name, 0o644)
        os.replace(name, file)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
