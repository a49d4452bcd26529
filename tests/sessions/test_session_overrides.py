"""The local overrides file: what it changes, and what it refuses."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, time
from pathlib import Path

import pytest

from risk.sessions import (
    NotASessionError,
    Override,
    OverrideError,
    SessionCalendar,
    UnknownExchangeError,
    load_overrides,
)

REMARKS = 'announced_at = 2024-12-30\nsource = "the exchange\'s notice"\n'


def written(folder: Path, *entries: str, remarks: str = REMARKS) -> Path:
    path = folder / "overrides.toml"
    path.write_text("".join(f"[[override]]\n{entry}\n{remarks}" for entry in entries))
    return path


def nyse_with(folder: Path, *entries: str) -> SessionCalendar:
    return SessionCalendar("XNYS", overrides=written(folder, *entries), first=date(2020, 1, 1))


def test_a_day_of_mourning_that_the_calendar_lacks(tmp_path: Path) -> None:
    calendar = nyse_with(tmp_path, 'exchange = "XNYS"\ndate = 2024-07-10\nclosed = true')
    assert calendar.sessions(date(2024, 7, 8), date(2024, 7, 12)) == [
        date(2024, 7, 8), date(2024, 7, 9), date(2024, 7, 11), date(2024, 7, 12),
    ]  # fmt: skip
    assert calendar.cutoff(date(2024, 7, 9)) == datetime(2024, 7, 11, 13, 30, tzinfo=UTC)
    with pytest.raises(NotASessionError, match="the last one before it is 2024-07-09 and the next is 2024-07-11"):
        calendar.close(date(2024, 7, 10))


def test_a_typhoon_that_the_calendar_package_has_missed_for_years(tmp_path: Path) -> None:
    """Hong Kong stayed closed on Friday 2023-09-01 (typhoon Saola); exchange_calendars 4.13.2 has it open."""
    path = written(tmp_path, 'exchange = "XHKG"\ndate = 2023-09-01\nclosed = true')
    hong_kong = SessionCalendar("XHKG", overrides=path, first=date(2023, 1, 1))
    assert hong_kong.next(date(2023, 8, 31)) == date(2023, 9, 4)


def test_a_closure_that_the_calendar_has_already_changes_nothing(tmp_path: Path) -> None:
    calendar = nyse_with(tmp_path, 'exchange = "XNYS"\ndate = "2025-01-09"\nclosed = true')  # mourning Jimmy Carter
    assert not calendar.is_session(date(2025, 1, 9))
    assert calendar.next(date(2025, 1, 8)) == date(2025, 1, 10)


def test_an_early_close_is_in_the_exchanges_own_time(tmp_path: Path) -> None:
    calendar = nyse_with(tmp_path, 'exchange = "XNYS"\ndate = 2024-07-10\nclose = "13:00"')
    assert calendar.close(date(2024, 7, 10)) == datetime(2024, 7, 10, 17, tzinfo=UTC)  # New York's summer: UTC-4
    assert calendar.run_after(date(2024, 7, 10)) == datetime(2024, 7, 10, 18, tzinfo=UTC)
    assert calendar.close(date(2024, 7, 11)) == datetime(2024, 7, 11, 20, tzinfo=UTC)


def test_a_session_that_the_calendar_lacks(tmp_path: Path) -> None:
    saturday, short = date(2024, 7, 13), date(2024, 7, 14)
    calendar = nyse_with(
        tmp_path,
        'exchange = "XNYS"\ndate = 2024-07-13\nopen = true',
        'exchange = "XNYS"\ndate = 2024-07-14\nopen = true\nclose = "12:00"',
    )
    assert calendar.next(date(2024, 7, 12)) == saturday
    assert calendar.open(saturday) == datetime(2024, 7, 13, 13, 30, tzinfo=UTC)
    assert calendar.close(saturday) == datetime(2024, 7, 13, 20, tzinfo=UTC)
    assert calendar.close(short) == datetime(2024, 7, 14, 16, tzinfo=UTC)


def test_regular_hours_are_those_of_the_day(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        'exchange = "XTKS"\ndate = 2024-11-02\nopen = true',  # Tokyo closed at 15:00 until 2024-11-05
        'exchange = "XTKS"\ndate = 2024-11-09\nopen = true',  # and at 15:30 from then on
    )
    tokyo = SessionCalendar("XTKS", overrides=path, first=date(2024, 1, 1))
    assert tokyo.close(date(2024, 11, 2)) == datetime(2024, 11, 2, 6, tzinfo=UTC)
    assert tokyo.close(date(2024, 11, 9)) == datetime(2024, 11, 9, 6, 30, tzinfo=UTC)


def test_another_exchanges_entries_and_far_days_do_nothing(tmp_path: Path) -> None:
    calendar = nyse_with(
        tmp_path,
        'exchange = "XLON"\ndate = 2024-07-10\nclosed = true',
        'exchange = "XNYS"\ndate = 2001-07-10\nclose = "13:00"',
    )
    assert calendar.close(date(2024, 7, 10)) == datetime(2024, 7, 10, 20, tzinfo=UTC)


def test_the_version_names_what_applies(tmp_path: Path) -> None:
    def version(entry: str, remarks: str = REMARKS) -> str:
        path = written(tmp_path, entry, remarks=remarks)
        return SessionCalendar("XNYS", overrides=path, first=date(2024, 1, 1)).version

    closed = 'exchange = "XNYS"\ndate = 2024-07-10\nclosed = true'
    assert version(closed) != version(closed.replace("07-10", "07-11"))
    assert version(closed) == version(closed, remarks='announced_at = 2024-07-01T09:00:00Z\nsource = "a letter"\n')
    assert version(closed.replace("XNYS", "XLON")).endswith("overrides none")


def test_an_edit_counts_at_once(tmp_path: Path) -> None:
    calendar = nyse_with(tmp_path)
    before = calendar.version
    assert calendar.is_session(date(2024, 7, 10))
    written(tmp_path, 'exchange = "XNYS"\ndate = 2024-07-10\nclosed = true')
    assert not calendar.is_session(date(2024, 7, 10))
    assert calendar.version != before


def test_every_field_is_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        'exchange = "XNYS"\ndate = 2024-07-10\nclose = "13:00"',
        remarks='announced_at = "2024-07-09T18:30:00-04:00"\nsource = " a notice "\n',
    )
    assert load_overrides(path) == (
        Override("XNYS", date(2024, 7, 10), False, False, time(13), "2024-07-09T18:30:00-04:00", "a notice"),
    )


BAD_ENTRIES = [
    ('exchange = "XNYS"\ndate = 2024-07-10', 'says nothing; write one of closed = true, close = "13:00", open = true'),
    ('exchange = "XNYS"\ndate = 2024-07-10\nclosed = true\nclose = "13:00"', "excludes `open` and `close`"),
    ('exchange = "XNYS"\ndate = 2024-07-10\nclosed = "yes"', "`closed` must be true or false, not 'yes'"),
    ('exchange = "XNYS"\ndate = 2024-07-10\nclose = "1 pm"', "local time as text, such as \"13:00\", not '1 pm'"),
    ('exchange = "XNYS"\ndate = 2024-07-10\nclose = 13:00:00', "local time as text"),
    ('exchange = "XNYS"\ndate = "10 July"\nclosed = true', "`date` must be a day such as 2025-01-09, not '10 July'"),
    ('exchange = "XNYS"\nclosed = true', "`date` must be a day such as 2025-01-09, not None"),
    ('exchange = " "\ndate = 2024-07-10\nclosed = true', "`exchange` must be a text that is not empty"),
    ('exchange = "XNYS"\ndate = 2024-07-10\nclsoed = true', "unknown field clsoed; the fields are announced_at, "),
]


@pytest.mark.parametrize(("entry", "problem"), BAD_ENTRIES)
def test_an_entry_that_makes_no_sense(tmp_path: Path, entry: str, problem: str) -> None:
    path = written(tmp_path, 'exchange = "XNYS"\ndate = 2024-07-09\nclosed = true', entry)
    with pytest.raises(OverrideError) as refused:
        load_overrides(path)
    assert str(refused.value).startswith(f"entry 2 of {path}: ")
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("remarks", "problem"),
    [
        ('source = "a notice"\n', "`announced_at` must be a day or a moment in ISO form, not None"),
        ("announced_at = 2024-07-09\n", "`source` must be a text that is not empty"),
    ],
)
def test_an_entry_says_when_and_where_it_was_announced(tmp_path: Path, remarks: str, problem: str) -> None:
    path = written(tmp_path, 'exchange = "XNYS"\ndate = 2024-07-10\nclosed = true', remarks=remarks)
    with pytest.raises(OverrideError, match=problem):
        load_overrides(path)


def test_a_day_said_twice(tmp_path: Path) -> None:
    entry = 'exchange = "XNYS"\ndate = 2024-07-10\nclosed = true'
    path = written(tmp_path, entry, entry.replace("XNYS", "XLON"), entry)
    with pytest.raises(OverrideError, match=r"entry 3 of .*: XNYS 2024-07-10 stands in entry 1 already"):
        load_overrides(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[override]\n", "is not TOML"),
        ("[[overrides]]\nclosed = true\n", r"may only hold \[\[override\]\] tables"),
        ("override = 3\n", r"may only hold \[\[override\]\] tables"),
        ("override = [1]\n", r"may only hold \[\[override\]\] tables"),
    ],
)
def test_a_file_that_is_something_else(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "overrides.toml"
    path.write_text(text)
    with pytest.raises(OverrideError, match=problem):
        load_overrides(path)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OverrideError, match="can't be read"):
        load_overrides(tmp_path / "overrides.toml")
    with pytest.raises(OverrideError, match="can't be read"):
        SessionCalendar("XNYS", overrides=tmp_path / "overrides.toml").is_session(date(2022, 11, 25))


def test_what_only_the_calendar_can_judge(tmp_path: Path) -> None:
    with pytest.raises(OverrideError, match="2024-07-13 is no session of XNYS, so it can't close early"):
        nyse_with(tmp_path, 'exchange = "XNYS"\ndate = 2024-07-13\nclose = "13:00"').is_session(date(2024, 7, 12))
    with pytest.raises(OverrideError, match="XNYS opens after 09:00 on 2024-07-12"):
        nyse_with(tmp_path, 'exchange = "XNYS"\ndate = 2024-07-12\nclose = "09:00"').is_session(date(2024, 7, 12))
    with pytest.raises(UnknownExchangeError, match="exchange 'XNYX' has no calendar"):
        nyse_with(tmp_path, 'exchange = "XNYX"\ndate = 2024-07-12\nclosed = true').is_session(date(2024, 7, 12))


def test_an_edit_is_seen_even_under_an_old_date(tmp_path: Path) -> None:
    """A file unpacked with an older date and another size counts too."""
    calendar = nyse_with(tmp_path)
    assert calendar.is_session(date(2024, 7, 10))
    path = written(tmp_path, 'exchange = "XNYS"\ndate = 2024-07-10\nclosed = true')
    os.utime(path, (0, 0))
    assert not calendar.is_session(date(2024, 7, 10))
