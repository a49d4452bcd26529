"""Loading: what is stored, when it counts as known, and that nothing is loaded twice."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from risk.errors import SourceError
from risk.market_data import ingest as module
from risk.market_data.bundled import BundledSource
from risk.market_data.files import FilesSource
from risk.market_data.ingest import IngestSummary, Progress, ingest
from risk.sessions import SessionCalendar
from risk.storage.database import connect

Connection = psycopg.Connection[Any]
Deliver = Callable[..., Path]
At = Callable[[str], datetime]

WEDNESDAY, FRIDAY, MONDAY = date(2022, 11, 23), date(2022, 11, 25), date(2022, 11, 28)
# New York closed at 18:00 UTC on the Friday after Thanksgiving and opened at 14:30 UTC on the Monday.
FRIDAY_RUNS, FRIDAY_CUTOFF = "2022-11-25 19:00", "2022-11-28 14:30"


@pytest.fixture
def load(connection: Connection, folder: Path, nyse: SessionCalendar, at: At) -> Callable[..., IngestSummary]:
    def run(session: date, now: str) -> IngestSummary:
        return ingest(connection, FilesSource(folder), nyse, session, at(now))

    return run


def bars(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT session_date, symbol, close, to_char(known_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), "
        "CASE WHEN known_at = loaded_at THEN 'observed' ELSE 'assumed' END "
        "FROM market_bar JOIN instrument USING (instrument_id) JOIN ingest_batch USING (batch_id) "
        "ORDER BY session_date, symbol, known_at"
    ).fetchall()


def test_a_drop_on_time_is_observed_and_an_old_one_is_assumed(
    connection: Connection, deliver: Deliver, load: Callable[..., IngestSummary]
) -> None:
    deliver(WEDNESDAY, {"AAA": 10, "BBB": 20})
    deliver(FRIDAY, {"AAA": 11, "BBB": 21})
    summary = load(FRIDAY, "2022-11-25 20:00")
    assert bars(connection) == [
        (WEDNESDAY, "AAA", 10.0, "2022-11-23 22:00", "assumed"),
        (WEDNESDAY, "BBB", 20.0, "2022-11-23 22:00", "assumed"),
        (FRIDAY, "AAA", 11.0, "2022-11-25 20:00", "observed"),
        (FRIDAY, "BBB", 21.0, "2022-11-25 20:00", "observed"),
    ]
    assert (summary.batches, summary.bars, summary.instruments) == (2, 4, 2)
    assert (summary.observed_bars, summary.assumed_bars, summary.corrected_bars) == (2, 2, 0)
    assert (summary.first_session, summary.last_session) == (WEDNESDAY, FRIDAY)
    batches = connection.execute(
        "SELECT location, first_session, last_session, bars, basis, conflicts, loaded_at FROM ingest_batch "
        "ORDER BY batch_id"
    ).fetchall()
    assert [row[:6] for row in batches] == [
        ("2022-11-23.csv", WEDNESDAY, WEDNESDAY, 2, "assumed", []),
        ("2022-11-25.csv", FRIDAY, FRIDAY, 2, "observed", []),
    ]
    assert all(row[6].astimezone(UTC).isoformat().startswith("2022-11-25T20:00:00") for row in batches)


@pytest.mark.parametrize(
    ("now", "known", "basis"),
    [
        (FRIDAY_CUTOFF, FRIDAY_CUTOFF, "observed"),
        ("2022-11-28 14:31", FRIDAY_RUNS, "assumed"),
    ],
)
def test_the_cut_off_parts_observed_from_assumed(
    connection: Connection, deliver: Deliver, load: Callable[..., IngestSummary], now: str, known: str, basis: str
) -> None:
    deliver(FRIDAY, {"AAA": 11})
    load(FRIDAY, now)
    assert bars(connection) == [(FRIDAY, "AAA", 11.0, known, basis)]


def test_an_assumed_time_is_never_past_the_cut_off(
    connection: Connection, deliver: Deliver, folder: Path, at: At
) -> None:
    deliver(WEDNESDAY, {"AAA": 10})  # closed at 21:00 UTC; the Friday's open is 14:30 UTC, 41.5 hours later
    slow = SessionCalendar("XNYS", close_delay=timedelta(hours=60))
    ingest(connection, FilesSource(folder), slow, WEDNESDAY, at("2022-12-01 00:00"))
    assert bars(connection) == [(WEDNESDAY, "AAA", 10.0, "2022-11-25 14:30", "assumed")]


def test_a_correction_is_observed_whenever_it_comes_and_a_new_name_in_it_is_history(
    connection: Connection, deliver: Deliver, load: Callable[..., IngestSummary]
) -> None:
    deliver(FRIDAY, {"AAA": 11, "BBB": 21})
    load(FRIDAY, "2022-11-25 20:00")
    deliver(FRIDAY, {"AAA": 11.5, "CCC": 31}, "v2")
    deliver(MONDAY, {"AAA": 12})
    summary = load(MONDAY, "2022-11-28 23:00")
    assert bars(connection) == [
        (FRIDAY, "AAA", 11.0, "2022-11-25 20:00", "observed"),
        (FRIDAY, "AAA", 11.5, "2022-11-28 23:00", "observed"),
        (FRIDAY, "BBB", 21.0, "2022-11-25 20:00", "observed"),
        (FRIDAY, "CCC", 31.0, FRIDAY_RUNS, "assumed"),
        (MONDAY, "AAA", 12.0, "2022-11-28 23:00", "observed"),
    ]
    assert (summary.bars, summary.corrected_bars, summary.assumed_bars, summary.instruments) == (3, 1, 1, 1)


def test_versions_that_come_together_keep_their_order_and_their_own_times(
    connection: Connection, deliver: Deliver, load: Callable[..., IngestSummary]
) -> None:
    for version, close in (("", 11), ("v2", 12), ("v10", 13)):
        deliver(FRIDAY, {"AAA": close}, version)
    assert load(FRIDAY, "2022-11-25 20:00").corrected_bars == 2
    deliver(FRIDAY, {"AAA": 14}, "v11")
    load(FRIDAY, "2022-11-25 20:00")  # the clock has not moved
    deliver(FRIDAY, {"AAA": 15}, "v12")
    load(FRIDAY, "2022-11-25 19:59")  # the clock has gone back
    ordered = connection.execute("SELECT close, known_at FROM market_bar ORDER BY known_at").fetchall()
    assert [row[0] for row in ordered] == [11, 12, 13, 14, 15]
    assert len({row[1] for row in ordered}) == 5


def test_a_second_call_writes_nothing(
    connection: Connection, deliver: Deliver, load: Callable[..., IngestSummary]
) -> None:
    deliver(FRIDAY, {"AAA": 11})
    load(FRIDAY, "2022-11-25 20:00")
    connection.commit()
    again = load(FRIDAY, "2022-11-25 21:00")
    assert (again.batches, again.bars, again.first_session) == (0, 0, None)
    assert connection.execute("SELECT pg_current_xact_id_if_assigned()").fetchone() == (None,)


def test_old_drops_may_be_moved_away_once_they_are_loaded(deliver: Deliver, load: Callable[..., IngestSummary]) -> None:
    deliver(FRIDAY, {"AAA": 11})
    load(FRIDAY, "2022-11-25 20:00")
    deliver(FRIDAY, {"AAA": 11}).unlink()
    assert load(FRIDAY, "2022-11-25 21:00").batches == 0


def test_without_the_session_s_own_drop_nothing_is_stored(
    connection: Connection, deliver: Deliver, load: Callable[..., IngestSummary]
) -> None:
    deliver(WEDNESDAY, {"AAA": 10})
    with pytest.raises(SourceError, match=r"^session 2022-11-25 has no drop in .*last drop before it is of 2022-11-23"):
        load(FRIDAY, "2022-11-25 20:00")
    assert connection.execute("SELECT count(*) FROM ingest_batch").fetchone() == (0,)


def test_one_bad_drop_and_nothing_is_stored(
    connection: Connection, deliver: Deliver, load: Callable[..., IngestSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BARS", 1)  # so that the good drop is written before the bad one is read
    deliver(WEDNESDAY, {"AAA": 10})
    deliver(FRIDAY, {"AAA": "eleven"})
    with pytest.raises(SourceError, match=r"2022-11-25\.csv has 'eleven' as the close of row 1"):
        load(FRIDAY, "2022-11-25 20:00")
    for table in ("market_bar", "ingest_batch", "instrument"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_bad_prices_are_stored_as_they_are_and_conflicts_without_a_price(
    connection: Connection,
    folder: Path,
    load: Callable[..., IngestSummary],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (folder / f"{FRIDAY}.csv").write_text("symbol,close\nAAA,0\nBBB,-3\nCCC,\nDDD,1\nDDD,2\n")
    with caplog.at_level(logging.WARNING):
        summary = load(FRIDAY, "2022-11-25 20:00")
    stored = {row[1]: row[2] for row in bars(connection)}
    assert (stored["AAA"], stored["BBB"]) == (0.0, -3.0)
    assert math.isnan(stored["CCC"])
    assert math.isnan(stored["DDD"])
    assert summary.conflicts == ((FRIDAY, "DDD"),)
    assert caplog.messages == [
        "The drop of 2022-11-25 has DDD twice with different values: its bar is stored without values"
    ]
    assert connection.execute("SELECT conflicts FROM ingest_batch").fetchall() == [(["DDD"],)]


def test_columns_that_no_drop_has_stay_null(
    connection: Connection, folder: Path, load: Callable[..., IngestSummary]
) -> None:
    (folder / f"{FRIDAY}.csv").write_text("symbol,close,volume\nAAA,1,100\n")
    load(FRIDAY, "2022-11-25 20:00")
    row = connection.execute("SELECT open, high, low, close, volume FROM market_bar").fetchone()
    assert row == (None, None, None, 1.0, 100.0)


def test_two_at_once_take_turns(
    database_url: str, deliver: Deliver, folder: Path, nyse: SessionCalendar, at: At
) -> None:
    deliver(FRIDAY, {"AAA": 11})
    second: list[IngestSummary] = []

    def other() -> None:
        with connect(database_url) as connection:
            second.append(ingest(connection, FilesSource(folder), nyse, FRIDAY, at("2022-11-25 20:00")))

    thread = threading.Thread(target=other)
    with connect(database_url) as connection, connection.transaction():
        first = ingest(connection, FilesSource(folder), nyse, FRIDAY, at("2022-11-25 20:00"))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()  # it waits for this transaction
    thread.join(30)
    assert (first.bars, [summary.bars for summary in second]) == (1, [0])
    with connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM market_bar").fetchone() == (1,)


def test_the_bundled_history_comes_whole_and_assumed(
    connection: Connection, nyse: SessionCalendar, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Progress] = []
    now = datetime.now(UTC)
    with caplog.at_level(logging.INFO):
        summary = ingest(connection, BundledSource(), nyse, date(2010, 1, 4), now, seen.append)
    assert (summary.bars, summary.assumed_bars, summary.instruments) == (166_260, 166_260, 20)
    assert (summary.first_session, summary.last_session) == (date(1990, 1, 2), date(2022, 12, 28))
    found = connection.execute("SELECT min(known_at), max(known_at), count(*), count(open) FROM market_bar").fetchone()
    assert found is not None
    first, last, count, opens = found
    # The exchange closed at 16:00 in New York, 21:00 UTC in winter; an hour's delay.
    assert first.astimezone(UTC) == datetime(1990, 1, 2, 22, tzinfo=UTC)
    assert last.astimezone(UTC) == datetime(2022, 12, 28, 22, tzinfo=UTC)
    assert (count, opens) == (166_260, 0)
    assert connection.execute("SELECT basis, loaded_at FROM ingest_batch").fetchone() == ("assumed", now)
    assert [(one.batches_done, one.batches_total, one.bars) for one in seen] == [(1, 1, 166_260)]
    assert caplog.messages[-1].startswith(
        "Loaded 166260 bars of 1990-01-02 to 2022-12-28 from source bundled (1 batches, 20 new instruments, 166260 "
        "bars "
        "assumed known at close plus delay, 0 corrections) in "
    )
    again = ingest(connection, BundledSource(), nyse, date(2022, 12, 28), now)
    assert again.batches == 0
    with pytest.raises(SourceError, match="session 2023-01-03 is outside the bundled history"):
        ingest(connection, BundledSource(), nyse, date(2023, 1, 3), now)


def test_the_bundled_history_of_another_exchange_is_refused(connection: Connection) -> None:
    with pytest.raises(SourceError) as raised:
        ingest(connection, BundledSource(), SessionCalendar("XLON"), date(2022, 12, 28), datetime.now(UTC))
    assert str(raised.value).startswith("skfolio sp500_dataset holds bars of ")
    assert "no session of XLON, the first 1990-04-16; set RISK_EXCHANGE" in str(raised.value)  # Easter Monday


def test_drops_from_before_the_calendar_are_left_alone(deliver: Deliver, load: Callable[..., IngestSummary]) -> None:
    deliver("1985-01-02", {"AAA": 1})
    deliver(FRIDAY, {"AAA": 11})
    assert load(FRIDAY, "2022-11-25 20:00").bars == 1


def test_a_long_load_says_how_far_it_is(
    deliver: Deliver,
    load: Callable[..., IngestSummary],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "CHUNK_BARS", 1)
    monkeypatch.setattr(module, "_LOG_AFTER_SECONDS", 0.0)
    deliver(WEDNESDAY, {"AAA": 10})
    deliver(FRIDAY, {"AAA": 11})
    with caplog.at_level(logging.INFO):
        load(FRIDAY, "2022-11-25 20:00")
    assert caplog.messages[0].startswith("Loaded 1 of 2 batches of source files: 1 bars, ")
    assert str(Progress("files", 30, 120, 6000, 2.0)) == (
        "Loaded 30 of 120 batches of source files: 6,000 bars, 3,000 bars/s, about 6 s left"
    )
