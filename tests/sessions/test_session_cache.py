"""The stored schedule: the same answers, without pandas; a damaged or stale file is made again."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from risk.sessions import SessionCalendar

PROBE = """
import sys
from datetime import date
from pathlib import Path
from risk.sessions import SessionCalendar
calendar = SessionCalendar("XNYS", cache_dir=Path(sys.argv[1]), first=date(2022, 1, 1))
print(calendar.close(date(2022, 11, 25)), calendar.timezone)
print(sorted({"pandas", "exchange_calendars", "numpy", "torch"} & set(sys.modules)))
"""


def calendar_in(folder: Path, **changes: object) -> SessionCalendar:
    return SessionCalendar("XNYS", **({"cache_dir": folder, "first": date(2022, 1, 1)} | changes))  # type: ignore[arg-type]


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def answers(calendar: SessionCalendar) -> list[object]:
    sessions = calendar.sessions(date(2022, 1, 1), date(2022, 12, 31))
    return [(day, calendar.open(day), calendar.close(day)) for day in sessions]


def test_a_stored_schedule_answers_alike_and_imports_no_pandas(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    stored = answers(calendar_in(folder))
    assert stored == answers(calendar_in(folder)) == answers(calendar_in(folder, cache_dir=None))
    assert only_file(folder).name.startswith("sessions-XNYS-")
    probe = subprocess.run(
        [sys.executable, "-c", PROBE, str(folder)], capture_output=True, text=True, check=True, timeout=60
    )
    assert probe.stdout.splitlines() == ["2022-11-25 18:00:00+00:00 America/New_York", "[]"]


def test_an_exchange_with_a_slash_in_its_name(tmp_path: Path) -> None:
    always = SessionCalendar("24/7", cache_dir=tmp_path, first=date(2022, 1, 1))
    assert always.next(date(2022, 12, 24)) == date(2022, 12, 25)
    assert always.timezone == "UTC"
    assert only_file(tmp_path).name.startswith("sessions-24_7-")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"not json\n" + content.split(b"\n", 1)[1],
        lambda content: content.replace(b"America/New_York", b"America/New_Jork"),
        lambda content: content.replace(b'"exchange": "XNYS"', b'"exchange": "XLON"'),
    ],
    ids=["empty", "cut short", "no header", "another zone", "another exchange's"],
)
def test_a_damaged_file_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object) -> None:
    good = answers(calendar_in(tmp_path))
    file = only_file(tmp_path)
    content = file.read_bytes()
    file.write_bytes(damage(content))  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert answers(calendar_in(tmp_path)) == good
    assert [record.message.split(", so")[0] for record in caplog.records] == [
        f"The schedule stored in {file} is damaged"
    ]
    assert file.read_bytes() == content


def test_a_new_year_makes_a_new_file(tmp_path: Path) -> None:
    old = calendar_in(tmp_path, clock=lambda: datetime(2022, 12, 31, 23, tzinfo=UTC))
    new = calendar_in(tmp_path, clock=lambda: datetime(2023, 1, 1, tzinfo=UTC))
    assert (old.last, new.last) == (date(2023, 12, 31), date(2024, 12, 31))
    assert len(list(tmp_path.iterdir())) == 2


def test_overrides_have_a_file_of_their_own(tmp_path: Path) -> None:
    overrides, folder = tmp_path / "overrides.toml", tmp_path / "cache"
    overrides.write_text(
        '[[override]]\nexchange = "XNYS"\ndate = 2022-07-12\nclosed = true\n'
        'announced_at = 2022-07-01\nsource = "a notice"\n'
    )
    assert calendar_in(folder).is_session(date(2022, 7, 12))
    for _ in range(2):
        assert not calendar_in(folder, overrides=overrides).is_session(date(2022, 7, 12))
    assert len(list(folder.iterdir())) == 2


def test_another_package_version_does_not_read_this_file(tmp_path: Path) -> None:
    good = answers(calendar_in(tmp_path))
    file = only_file(tmp_path)
    head, body = file.read_bytes().split(b"\n", 1)
    stamp = json.loads(head)
    stamp["key"]["package"] = "3.0"
    file.write_bytes(json.dumps(stamp).encode() + b"\n" + body)
    assert answers(calendar_in(tmp_path)) == good
    assert json.loads(file.read_bytes().split(b"\n", 1)[0])["key"]["package"] != "3.0"


def test_a_folder_that_cannot_be_used_costs_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("in the way")
    assert calendar_in(blocked).is_session(date(2022, 11, 25))
    assert any("Could not store the schedule of XNYS" in record.message for record in caplog.records)


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calendar_in(tmp_path).is_session(date(2022, 11, 25))
    file = only_file(tmp_path)
    file.unlink()
    file.mkdir()
    (file / "in the way").touch()
    assert calendar_in(tmp_path).is_session(date(2022, 11, 25))
    assert [record.message.split(" ")[2] for record in caplog.records] == ["read", "store"]
    assert only_file(tmp_path) == file
