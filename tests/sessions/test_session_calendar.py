"""Sessions, opens and closes against calendars that the exchanges published, with the reason beside each."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from importlib import metadata

import exchange_calendars
import pytest
from exchange_calendars.exchange_calendar_xnys import XNYSExchangeCalendar
from hypothesis import given, settings
from hypothesis import strategies as st

from risk.errors import RiskError, SessionError
from risk.sessions import (
    BrokenCalendarError,
    NotASessionError,
    NothingClosedError,
    OutsideCalendarError,
    SessionCalendar,
    UnknownExchangeError,
)

CalendarOf = Callable[[str], SessionCalendar]


def day(text: str) -> date:
    return date.fromisoformat(text)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


CLOSED = [
    ("XNYS", "2022-11-24"),  # Thanksgiving
    ("XNYS", "2022-11-26"),  # a Saturday
    ("XNYS", "2022-06-20"),  # Juneteenth, observed on the Monday
    ("XNYS", "2022-04-15"),  # Good Friday
    ("XNYS", "2012-10-29"),  # Hurricane Sandy
    ("XNYS", "2012-10-30"),  # Hurricane Sandy
    ("XNYS", "2001-09-11"),  # the attacks
    ("XNYS", "2001-09-14"),
    ("XNYS", "2018-12-05"),  # mourning George H. W. Bush
    ("XNYS", "2025-01-09"),  # mourning Jimmy Carter
    ("XLON", "2022-06-02"),  # the Spring holiday, moved for the Platinum Jubilee
    ("XLON", "2022-09-19"),  # the Queen's funeral
    ("XLON", "2023-05-08"),  # the Coronation
    ("XTKS", "2022-11-23"),  # Labour Thanksgiving
    ("XTKS", "2019-05-01"),  # the Emperor's accession
    ("XHKG", "2017-08-23"),  # typhoon Hato
]

OPEN = [
    ("XNYS", "2022-11-25"),  # the day after Thanksgiving
    ("XNYS", "2021-12-31"),  # New Year's Day fell on a Saturday: not observed (rule 7.2)
    ("XNYS", "2001-09-17"),  # trading resumed
    ("XLON", "2022-11-24"),  # Thanksgiving is not London's
    ("XTKS", "2022-11-24"),
    ("XHKG", "2022-12-28"),
]

HOURS_UTC = [
    ("XNYS", "2022-11-23", "2022-11-23 14:30", "2022-11-23 21:00"),  # 09:30 to 16:00 New York, winter
    ("XNYS", "2022-11-25", "2022-11-25 14:30", "2022-11-25 18:00"),  # closes 13:00 after Thanksgiving
    ("XNYS", "2022-03-11", "2022-03-11 14:30", "2022-03-11 21:00"),  # the Friday before summer time
    ("XNYS", "2022-03-14", "2022-03-14 13:30", "2022-03-14 20:00"),  # the Monday after
    ("XNYS", "2022-11-04", "2022-11-04 13:30", "2022-11-04 20:00"),  # the Friday before winter time
    ("XNYS", "2022-11-07", "2022-11-07 14:30", "2022-11-07 21:00"),  # the Monday after
    ("XLON", "2022-12-22", "2022-12-22 08:00", "2022-12-22 16:30"),
    ("XLON", "2022-12-23", "2022-12-23 08:00", "2022-12-23 12:30"),  # the last one before Christmas
    ("XLON", "2022-07-01", "2022-07-01 07:00", "2022-07-01 15:30"),  # British summer time
    ("XTKS", "2022-11-24", "2022-11-24 00:00", "2022-11-24 06:00"),  # 15:00 Tokyo: not the midday break at 11:30
    ("XTKS", "2024-11-01", "2024-11-01 00:00", "2024-11-01 06:00"),
    ("XTKS", "2024-11-05", "2024-11-05 00:00", "2024-11-05 06:30"),  # Tokyo's close moved to 15:30
    ("XHKG", "2022-12-28", "2022-12-28 01:30", "2022-12-28 08:00"),  # 16:00 Hong Kong, past the break at 12:00
    ("XHKG", "2021-12-24", "2021-12-24 01:30", "2021-12-24 04:00"),  # Christmas Eve closes at 12:00
    ("XHKG", "2022-01-31", "2022-01-31 01:30", "2022-01-31 04:00"),  # the eve of the Lunar New Year
]


@pytest.mark.parametrize(("exchange", "text"), CLOSED)
def test_closed_days_are_no_sessions(calendar_of: CalendarOf, exchange: str, text: str) -> None:
    assert not calendar_of(exchange).is_session(day(text))


@pytest.mark.parametrize(("exchange", "text"), OPEN)
def test_open_days_are_sessions(calendar_of: CalendarOf, exchange: str, text: str) -> None:
    assert calendar_of(exchange).is_session(day(text))


@pytest.mark.parametrize(("exchange", "text", "opens", "closes"), HOURS_UTC)
def test_hours(calendar_of: CalendarOf, exchange: str, text: str, opens: str, closes: str) -> None:
    calendar = calendar_of(exchange)
    assert (calendar.open(day(text)), calendar.close(day(text))) == (utc(opens), utc(closes))
    assert calendar.run_after(day(text)) == utc(closes) + timedelta(hours=1)


@pytest.mark.parametrize(
    ("exchange", "zone"),
    [
        ("XNYS", "America/New_York"),
        ("XLON", "Europe/London"),
        ("XTKS", "Asia/Tokyo"),
        ("XHKG", "Asia/Hong_Kong"),
    ],
)
def test_time_zone(calendar_of: CalendarOf, exchange: str, zone: str) -> None:
    assert calendar_of(exchange).timezone == zone


@pytest.mark.parametrize(
    ("year", "count"),
    [
        (2022, 251),
        (2020, 253),
        (2012, 250),  # two days lost to Hurricane Sandy
        (2001, 248),  # four days lost after 11 September
    ],
)
def test_sessions_of_a_year(nyse: SessionCalendar, year: int, count: int) -> None:
    assert len(nyse.sessions(date(year, 1, 1), date(year, 12, 31))) == count


def test_the_two_weeks_around_thanksgiving(nyse: SessionCalendar) -> None:
    found = [session.isoformat() for session in nyse.sessions(day("2022-11-21"), day("2022-12-02"))]
    assert found == [
        "2022-11-21", "2022-11-22", "2022-11-23", "2022-11-25",
        "2022-11-28", "2022-11-29", "2022-11-30", "2022-12-01", "2022-12-02",
    ]  # fmt: skip


def test_neighbours(calendar_of: CalendarOf, nyse: SessionCalendar) -> None:
    assert nyse.previous(day("2022-11-25")) == day("2022-11-23")
    assert nyse.next(day("2022-11-25")) == day("2022-11-28")
    tokyo = calendar_of("XTKS")  # the ten days of 2019's Golden Week
    assert tokyo.next(day("2019-04-26")) == day("2019-05-07")
    assert tokyo.previous(day("2019-05-07")) == day("2019-04-26")


def test_around_a_day(nyse: SessionCalendar) -> None:
    assert nyse.on_or_before(day("2022-11-24")) == day("2022-11-23")
    assert nyse.on_or_after(day("2022-11-24")) == day("2022-11-25")
    assert nyse.on_or_before(day("2022-11-25")) == nyse.on_or_after(day("2022-11-25")) == day("2022-11-25")
    assert nyse.on_or_before(day("1980-01-02")) is None
    assert nyse.on_or_after(day("2100-01-04")) is None


def test_the_cutoff_is_the_next_sessions_open(nyse: SessionCalendar) -> None:
    assert nyse.cutoff(day("2022-11-23")) == utc("2022-11-25 14:30")  # over Thanksgiving
    assert nyse.cutoff(day("2022-03-11")) == utc("2022-03-14 13:30")  # over the change to summer time


@pytest.mark.parametrize(
    ("at", "session"),
    [
        ("2022-11-25 18:59:59", "2022-11-23"),
        ("2022-11-25 19:00:00", "2022-11-25"),  # an early close and an hour
        ("2022-11-27 12:00:00", "2022-11-25"),
        ("2022-11-28 21:59:59", "2022-11-25"),
        ("2022-11-28 22:00:00", "2022-11-28"),
    ],
)
def test_last_closed(nyse: SessionCalendar, at: str, session: str) -> None:
    assert nyse.last_closed(utc(at)) == day(session)


def test_last_closed_counts_the_delay() -> None:
    at_once = SessionCalendar("XNYS", close_delay=timedelta(0))
    assert at_once.last_closed(utc("2022-11-25 18:00")) == day("2022-11-25")
    assert at_once.last_closed(utc("2022-11-25 17:59")) == day("2022-11-23")


@settings(database=None, deadline=None)
@given(st.dates(day("1990-01-03"), day("2026-12-30")))
def test_neighbours_and_moments_agree(nyse: SessionCalendar, any_day: date) -> None:
    session = nyse.on_or_after(any_day)
    assert session is not None
    assert nyse.previous(nyse.next(session)) == session
    assert nyse.next(nyse.previous(session)) == session
    assert nyse.open(session) < nyse.close(session) < nyse.run_after(session) < nyse.cutoff(session)
    assert nyse.last_closed(nyse.run_after(session)) == session
    assert nyse.last_closed(nyse.run_after(session) - timedelta(seconds=1)) == nyse.previous(session)
    assert session in nyse.sessions(any_day, session)
    assert len(nyse.sessions(any_day, session)) == 1


def test_a_holiday_has_no_close(nyse: SessionCalendar) -> None:
    with pytest.raises(NotASessionError) as refused:
        nyse.close(day("2022-11-24"))
    assert str(refused.value) == (
        "session 2022-11-24 is not a trading day of XNYS; the last one before it is 2022-11-23 "
        "and the next is 2022-11-25"
    )


def test_a_refusal_at_the_edge_names_the_neighbour_there_is() -> None:
    this_year = SessionCalendar("XNYS", first=day("2022-01-01"), clock=lambda: utc("2021-06-01 00:00"))
    with pytest.raises(NotASessionError, match=r"not a trading day of XNYS; the next is 2022-01-03$"):
        this_year.close(day("2022-01-01"))
    with pytest.raises(NotASessionError, match=r"not a trading day of XNYS; the last one before it is 2022-12-30$"):
        this_year.close(day("2022-12-31"))


def test_a_refusal_survives_pickling(nyse: SessionCalendar) -> None:
    with pytest.raises(NotASessionError) as refused:
        nyse.close(day("2022-11-24"))
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
    assert isinstance(refused.value, RiskError)


def test_the_calendars_ends(nyse: SessionCalendar) -> None:
    assert (nyse.first, nyse.last) == (day("1990-01-01"), date(datetime.now(UTC).year + 1, 12, 31))
    first = nyse.on_or_after(nyse.first)
    last = nyse.on_or_before(nyse.last)
    assert first is not None
    assert last is not None
    for ask in (
        lambda: nyse.previous(first),
        lambda: nyse.next(last),
        lambda: nyse.is_session(day("1989-12-29")),
        lambda: nyse.sessions(day("2022-01-03"), day("2100-01-04")),
        lambda: nyse.last_closed(utc("2100-01-04 00:00")),
    ):
        with pytest.raises(OutsideCalendarError, match="is outside the calendar of XNYS, which knows 1990-01-01 to"):
            ask()
    with pytest.raises(NothingClosedError, match=r"no session of XNYS could run by 1990-01-02 12:00 UTC; the first is"):
        nyse.last_closed(utc("1990-01-02 12:00"))


def test_a_calendar_reaches_no_further_than_its_package(calendar_of: CalendarOf) -> None:
    assert calendar_of("XTKS").first == day("1997-01-01")  # where exchange_calendars' Tokyo begins
    late = SessionCalendar("XTKS", first=day("1996-01-01"), clock=lambda: utc("1995-06-01 00:00"))
    with pytest.raises(OutsideCalendarError, match="is outside the calendar of XTKS"):
        late.is_session(day("1996-06-03"))


def test_the_calendar_grows_with_the_year(calendar_of: CalendarOf) -> None:
    now = [utc("2024-12-31 23:00")]
    calendar = SessionCalendar("XNYS", first=day("2024-01-01"), clock=lambda: now[0])
    assert calendar.last == day("2025-12-31")
    now[0] = utc("2025-01-01 00:00")
    assert calendar.last == day("2026-12-31")


@pytest.mark.parametrize(
    ("exchange", "sentence"),
    [
        ("NASDAK", "exchange 'NASDAK' has no calendar; the known codes are "),
        ("NYSE", "exchange 'NYSE' is another name of 'XNYS'; write 'XNYS'"),
    ],
)
def test_an_unknown_exchange(exchange: str, sentence: str) -> None:
    with pytest.raises(UnknownExchangeError) as refused:
        SessionCalendar(exchange).is_session(day("2022-11-25"))
    assert str(refused.value).startswith(sentence)


def test_a_calendar_that_the_package_names_but_cannot_make() -> None:
    """So it went with Athens and Tel Aviv in exchange_calendars 4.13.2 under pandas 3.1."""

    class Unmade(XNYSExchangeCalendar):  # type: ignore[misc]
        def __init__(self, *_args: object, **_bounds: object) -> None:
            raise NotImplementedError("implemented by subclasses")

    exchange_calendars.register_calendar_type("XUNM", Unmade)
    try:
        with pytest.raises(BrokenCalendarError) as refused:
            SessionCalendar("XUNM").is_session(day("2022-11-25"))
    finally:
        exchange_calendars.deregister_calendar("XUNM")
    package = metadata.version("exchange_calendars")
    assert str(refused.value) == (
        f"exchange_calendars {package} can't make the calendar of XUNM (implemented by subclasses); "
        "choose another exchange or another version of the package"
    )


def test_moments_need_a_time_zone_and_delays_a_sign(nyse: SessionCalendar) -> None:
    with pytest.raises(SessionError, match="has no time zone"):
        nyse.last_closed(datetime(2022, 11, 25, 20))
    with pytest.raises(SessionError, match="can't run before its close"):
        SessionCalendar("XNYS", close_delay=timedelta(minutes=-1))


def test_a_calendar_says_what_it_is(nyse: SessionCalendar) -> None:
    assert repr(nyse) == "SessionCalendar('XNYS', close_delay=1:00:00)"
    assert nyse.version.startswith("exchange_calendars 4.")
    assert nyse.version.endswith(", overrides none")
