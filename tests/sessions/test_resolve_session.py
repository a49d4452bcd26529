"""Which session a run is for, whichever door it came through, and the sentence of each refusal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime

import pytest

from risk.errors import SessionError
from risk.sessions import (
    MalformedSessionError,
    NotASessionError,
    NotClosedYetError,
    NothingClosedError,
    OutsideCalendarError,
    OutsideSourceError,
    SessionCalendar,
    SessionsDisagreeError,
    resolve_session,
)

NOW = datetime(2026, 11, 23, 20, 19, tzinfo=UTC)  # a Monday, 41 minutes before New York's close
SOURCE = {"first_session": date(1990, 1, 2), "last_session": date(2022, 12, 28)}


def resolve(
    calendar: SessionCalendar,
    key: str | None = None,
    param: str | None = None,
    run_after: datetime | None = None,
    now: datetime = NOW,
    **source: date,
) -> str:
    return resolve_session(
        calendar, partition_key=key, session_param=param, run_after=run_after, now=now, **source
    ).isoformat()


@pytest.mark.parametrize(
    ("key", "param"),
    [("2022-11-25", None), (None, "2022-11-25"), ("2022-11-25", "2022-11-25"), ("2022-11-25", ""), ("", "2022-11-25 ")],
)
def test_key_and_field_are_two_doors_to_one_session(nyse: SessionCalendar, key: str, param: str) -> None:
    assert resolve(nyse, key, param) == "2022-11-25"
    assert resolve(nyse, key, param, **SOURCE) == "2022-11-25"


@pytest.mark.parametrize(
    ("run_after", "session"),
    [
        (datetime(2022, 11, 25, 19, tzinfo=UTC), "2022-11-25"),  # an early close and its hour: the scheduler's moment
        (datetime(2022, 11, 25, 18, 59, tzinfo=UTC), "2022-11-23"),
        (datetime(2022, 11, 27, tzinfo=UTC), "2022-11-25"),
        (None, "2026-11-20"),  # the Friday before `now`
        (datetime(2030, 1, 1, tzinfo=UTC), "2026-11-20"),  # no run is later than now
    ],
)
def test_neither_means_the_last_one_closed(nyse: SessionCalendar, run_after: datetime | None, session: str) -> None:
    assert resolve(nyse, run_after=run_after) == session


def test_a_finite_source_gives_its_last_session(nyse: SessionCalendar) -> None:
    assert resolve(nyse, **SOURCE) == "2022-12-28"
    assert resolve(nyse, run_after=datetime(2022, 11, 27, tzinfo=UTC), **SOURCE) == "2022-11-25"
    assert resolve(nyse, last_session=date(2022, 11, 27)) == "2022-11-25"  # a source that ends on a Sunday


REFUSALS = [
    ("25.11.2022", {}, MalformedSessionError,
     "session '25.11.2022' is not a date; write it as YYYY-MM-DD, such as 2022-11-25"),
    ("20221125", {}, MalformedSessionError,
     "session '20221125' is not a date; write it as YYYY-MM-DD, such as 2022-11-25"),
    ("2022-11-24", {}, NotASessionError,  # Thanksgiving
     "session 2022-11-24 is not a trading day of XNYS; the last one before it is 2022-11-23 "
     "and the next is 2022-11-25"),
    ("2026-11-23", {}, NotClosedYetError,
     "session 2026-11-23 of XNYS closes at 21:00 UTC and runs after 22:00 UTC; it is 2026-11-23 20:19 UTC, "
     "and the last one that can run is 2026-11-20"),
    ("2023-01-03", SOURCE, OutsideSourceError,
     "session 2023-01-03 is outside the source's 1990-01-02 to 2022-12-28; choose a session it has data for"),
    ("2026-11-23", SOURCE, OutsideSourceError,
     "session 2026-11-23 is outside the source's 1990-01-02 to 2022-12-28; choose a session it has data for"),
    ("2020-01-02", {"first_session": date(2024, 11, 25)}, OutsideSourceError,
     "session 2020-01-02 is before the source's first one, 2024-11-25; choose a session it has data for"),
    ("2023-01-03", {"last_session": date(2022, 12, 28)}, OutsideSourceError,
     "session 2023-01-03 is after the source's last one, 2022-12-28; choose a session it has data for"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "source", "error", "sentence"), REFUSALS)
def test_refusals(
    nyse: SessionCalendar, text: str, source: dict[str, date], error: type[SessionError], sentence: str
) -> None:
    for key, param in ((text, None), (None, text), (text, text)):
        with pytest.raises(error) as refused:
            resolve(nyse, key, param, **source)
        assert str(refused.value) == sentence


def test_key_and_field_that_disagree(nyse: SessionCalendar) -> None:
    with pytest.raises(SessionsDisagreeError) as refused:
        resolve(nyse, "2022-11-25", "2022-11-23")
    assert str(refused.value) == (
        "the partition key says session 2022-11-25 and the field `session` says 2022-11-23; "
        "give one of them, or the same day in both"
    )


def test_a_close_on_the_next_utc_day_is_dated(calendar_of: Callable[[str], SessionCalendar]) -> None:
    """Round-the-clock trading: the session of the 23rd closes at midnight."""
    with pytest.raises(NotClosedYetError) as refused:
        resolve(calendar_of("24/7"), "2026-11-23")
    assert "closes at 2026-11-24 00:00 UTC and runs after 2026-11-24 01:00 UTC" in str(refused.value)


def test_the_moment_after_the_delay_is_enough(nyse: SessionCalendar) -> None:
    assert resolve(nyse, "2026-11-23", now=datetime(2026, 11, 23, 22, tzinfo=UTC)) == "2026-11-23"
    with pytest.raises(NotClosedYetError):
        resolve(nyse, "2026-11-23", now=datetime(2026, 11, 23, 21, 59, 59, tzinfo=UTC))


def test_before_the_first_session(nyse: SessionCalendar) -> None:
    early = datetime(1990, 1, 2, 12, tzinfo=UTC)
    with pytest.raises(NotClosedYetError, match="and no session can run yet"):
        resolve(nyse, "1990-01-02", now=early)
    with pytest.raises(NothingClosedError, match="no session of XNYS could run by 2022-11-25 19:00 UTC; the first is"):
        resolve(nyse, run_after=datetime(2022, 11, 25, 19, tzinfo=UTC), first_session=date(2022, 11, 28))
    with pytest.raises(NothingClosedError, match=r"no session of XNYS could run by 2026-11-23 20:19 UTC$"):
        resolve(nyse, last_session=date(1985, 1, 2))


def test_a_day_that_the_calendar_does_not_know(nyse: SessionCalendar) -> None:
    with pytest.raises(OutsideCalendarError, match="1987-10-19 is outside the calendar of XNYS"):
        resolve(nyse, "1987-10-19")
