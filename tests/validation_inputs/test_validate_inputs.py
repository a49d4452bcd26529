"""The audit of a run's snapshot in the database: what is stored, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from risk.errors import CheckError, RiskError
from risk.market_data.bundled import BundledSource
from risk.market_data.files import FilesSource
from risk.market_data.ingest import ingest
from risk.market_data.simulated import write_drops
from risk.market_data.snapshot import take_snapshot
from risk.sessions import SessionCalendar
from risk.settings import Settings
from risk.validation.check import Check, Quarantined, store_checks, store_quarantine
from risk.validation.inputs import validate_inputs

Connection = psycopg.Connection[Any]
LAST = date(2022, 12, 28)
PASSED = Check("coverage", 1.0, 0.9, "block", True, "All are there.")


@pytest.fixture(scope="session")
def nyse() -> SessionCalendar:
    return SessionCalendar("XNYS")


@pytest.fixture
def open_run(connection: Connection, nyse: SessionCalendar) -> Callable[..., int]:
    """The id of a run of a session, on a snapshot of that source."""

    def run(session: date = LAST, source: str = "bundled") -> int:
        snapshot = take_snapshot(connection, source_name=source, calendar=nyse, session=session, history_sessions=520)
        connection.execute(
            "INSERT INTO model_version (name, architecture, trained_through, weights_sha256, card) "
            "VALUES ('v', 'a', '2021-12-31', 'w', '{}') ON CONFLICT DO NOTHING"
        )
        row = connection.execute(
            "INSERT INTO run (exchange, session_date, snapshot_id, vintage_id, configuration_hash, configuration, "
            "door, "
            "dag_run_id, lineage) SELECT 'XNYS', %s, %s, vintage_id, 'c', %s, 'hand', 'd', '{}' FROM model_version "
            "RETURNING run_id",
            (session, snapshot.snapshot_id, json.dumps({})),
        ).fetchone()
        assert row is not None
        return int(row[0])

    return run


@pytest.fixture
def run_id(connection: Connection, nyse: SessionCalendar, open_run: Callable[..., int]) -> int:
    ingest(connection, BundledSource(), nyse, LAST, datetime.now(UTC))
    return open_run()


def count(connection: Connection, table: str, run_id: int) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table} WHERE run_id = %s".encode(), (run_id,)).fetchone()
    assert row is not None
    return int(row[0])


def publish(connection: Connection, run_id: int, session: date) -> None:
    connection.execute("UPDATE run SET state = 'audited' WHERE run_id = %s", (run_id,))
    connection.execute("INSERT INTO run_shard VALUES (%s, 0, 0, 1, now())", (run_id,))
    connection.execute(
        "INSERT INTO publication (kind, exchange, session_date, revision, run_id) VALUES ('forecast', 'XNYS', %s, 1, "
        "%s)",
        (session, run_id),
    )


def test_the_real_data_pass_and_the_second_audit_leaves_the_same_rows(
    connection: Connection, run_id: int, settings: Settings
) -> None:
    checks = validate_inputs(connection, run_id, settings)
    assert [check.name for check in checks if not check.passed] == []
    stored = connection.execute(
        "SELECT stage, name, observed, threshold, severity, passed, sentence FROM audit_check WHERE run_id = %s",
        (run_id,),
    ).fetchall()
    assert {row[0] for row in stored} == {"inputs"}
    assert sorted(row[1:] for row in stored) == sorted(
        (c.name, c.observed, c.threshold, c.severity, c.passed, c.sentence) for c in checks
    )
    assert validate_inputs(connection, run_id, settings) == checks
    assert (count(connection, "audit_check", run_id), count(connection, "quarantine", run_id)) == (len(checks), 0)
    assert connection.execute("SELECT state FROM run").fetchone() == ("open",)


def test_a_published_run_is_left_alone(connection: Connection, run_id: int, settings: Settings) -> None:
    validate_inputs(connection, run_id, settings)
    publish(connection, run_id, LAST)
    connection.execute("DELETE FROM audit_check")
    (check,) = validate_inputs(connection, run_id, settings)
    assert "already published" in check.sentence
    assert count(connection, "audit_check", run_id) == 0


def test_the_universe_is_compared_with_the_last_publication_of_the_source(
    connection: Connection, run_id: int, settings: Settings, open_run: Callable[..., int]
) -> None:
    earlier = open_run(date(2022, 12, 27))
    connection.execute("UPDATE snapshot SET instruments = instruments[2:] WHERE session_date = '2022-12-27'")
    store_checks(connection, earlier, "inputs", [PASSED])
    publish(connection, earlier, date(2022, 12, 27))
    failed = [check for check in validate_inputs(connection, run_id, settings) if not check.passed]
    assert [(check.name, check.observed) for check in failed] == [("universe_change", 1)]
    assert failed[0].sentence == (
        "The universe differs from the last published session's: new AAPL; see that this is meant."
    )


def test_a_failed_check_refuses_the_run_and_is_stored(
    connection: Connection,
    database_url: str,
    tmp_path: Path,
    nyse: SessionCalendar,
    open_run: Callable[..., int],
    settings: Settings,
) -> None:
    days = nyse.sessions(LAST - timedelta(days=430), LAST)
    drops = write_drops(tmp_path, names=10, sessions=days, seed=1)
    drops[-1].write_text("\n".join(drops[-1].read_text().splitlines()[:7]) + "\n")  # half of the names
    for drop in drops[:-100]:
        drop.write_text(
            "\n".join(line for line in drop.read_text().splitlines() if "SIM003" not in line)
        )  # a young name
    ingest(connection, FilesSource(tmp_path), nyse, LAST, datetime.now(UTC))
    run_id = open_run(source="files")
    with pytest.raises(CheckError, match=r"6 of 10 instruments \(60\.0%\) have a usable close on 2022-12-28; at least"):
        validate_inputs(connection, run_id, settings)
    with psycopg.connect(database_url.replace("+psycopg", "")) as other:  # it is committed
        state, refusal = other.execute("SELECT state, refusal FROM run WHERE run_id = %s", (run_id,)).fetchone() or ()
        assert state == "refused"
        assert refusal.startswith("6 of 10 instruments")
        held = other.execute("SELECT symbol, reason FROM quarantine JOIN instrument USING (instrument_id) ORDER BY 1")
        assert held.fetchall() == [
            ("SIM003", "insufficient_history"), *((f"SIM{number:03d}", "missing_price") for number in range(7, 11))
        ]  # fmt: skip


def test_a_name_given_twice_in_the_session_s_drop_is_told_until_it_is_corrected(
    connection: Connection,
    tmp_path: Path,
    nyse: SessionCalendar,
    open_run: Callable[..., int],
    settings: Settings,
) -> None:
    days = nyse.sessions(LAST - timedelta(days=430), LAST)
    drops = write_drops(tmp_path, names=10, sessions=days, seed=1)
    for drop, name in ((drops[-1], "SIM004"), (drops[-2], "SIM007")):  # the second is of the session before
        closes = drop.read_text()
        twice = next(line for line in closes.splitlines() if line.startswith(name))
        drop.write_text(f"{closes.rstrip()}\n{twice.replace(',', ',9', 1)}\n")
    on_time = datetime(2022, 12, 28, 23, tzinfo=UTC)
    ingest(connection, FilesSource(tmp_path), nyse, LAST, on_time)
    run_id = open_run(source="files")
    told = {check.name: check for check in validate_inputs(connection, run_id, settings)}["conflicting_bars"]
    assert (told.passed, told.severity, told.observed) == (False, "warn", 1)
    assert told.sentence == (
        "SIM004 came twice with different values in the drop of 2022-12-28; one row a symbol is allowed; they have no "
        "price until a correction is delivered."
    )
    held = connection.execute(
        "SELECT symbol, reason FROM quarantine JOIN instrument USING (instrument_id) WHERE run_id = %s", (run_id,)
    )
    assert held.fetchall() == [("SIM004", "conflicting_bars")]
    rows = connection.execute("SELECT passed FROM audit_check WHERE name = 'conflicting_bars'").fetchall()
    assert rows == [(False,)]

    lines = drops[-1].read_text().splitlines()
    one = next(line for line in lines if line.startswith("SIM004"))
    (tmp_path / f"{LAST}.v2.csv").write_text(f"{lines[0]}\n{one}\n")
    ingest(connection, FilesSource(tmp_path), nyse, LAST, on_time + timedelta(hours=1))
    corrected = open_run(source="files")
    assert corrected != run_id
    for run, passed in ((corrected, True), (run_id, False)):  # a snapshot reads what was loaded before it was taken
        checks = {check.name: check.passed for check in validate_inputs(connection, run, settings)}
        assert checks["conflicting_bars"] is passed
    assert count(connection, "quarantine", corrected) == 0


def test_a_run_that_does_not_exist(connection: Connection, settings: Settings) -> None:
    with pytest.raises(RiskError, match="run 99 does not exist"):
        validate_inputs(connection, 99, settings)


def test_stored_checks_replace_those_of_their_stage_alone(connection: Connection, run_id: int) -> None:
    store_checks(connection, run_id, "risk", [PASSED])
    store_checks(connection, run_id, "inputs", [PASSED, Check("x", None, None, "warn", False, "No.", "AAPL")])
    store_checks(connection, run_id, "inputs", [PASSED])
    rows = connection.execute("SELECT stage, name FROM audit_check ORDER BY 1").fetchall()
    assert rows == [("inputs", "coverage"), ("risk", "coverage")]


def test_no_check_and_two_alike_are_refused_and_nothing_is_replaced(connection: Connection, run_id: int) -> None:
    store_checks(connection, run_id, "inputs", [PASSED])
    with pytest.raises(ValueError, match="has no check of its inputs; a stage without checks can't be audited"):
        store_checks(connection, run_id, "inputs", [])
    with pytest.raises(ValueError, match="has the check 'coverage' of its inputs twice; give each a subject"):
        store_checks(connection, run_id, "inputs", [PASSED, PASSED])
    assert count(connection, "audit_check", run_id) == 1


def test_a_reason_given_again_replaces_its_sentence(connection: Connection, run_id: int) -> None:
    for sentence in ("one", "two"):
        store_quarantine(connection, run_id, [Quarantined(1, "missing_price", sentence)])
    store_quarantine(connection, run_id, [])
    assert connection.execute("SELECT instrument_id, reason, sentence FROM quarantine").fetchall() == [
        (1, "missing_price", "two")
    ]
