"""Vintages and their assignment, and what a fresh database is given."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from risk.context import session_calendar
from risk.errors import ModelError
from risk.forecasts import vintage_model
from risk.model.vintages import SHIPPED
from risk.registry import assigned_vintage, load_assigned, register_vintages
from risk.setup import prepare, record_sessions

Connection = psycopg.Connection[Any]


def assign(connection: Connection, name: str, trained_through: str, *effective_from: str) -> None:
    row = connection.execute(
        "INSERT INTO model_version (name, architecture, trained_through, weights_sha256, card) "
        "VALUES (%s, 'a', %s, %s, '{}') RETURNING vintage_id",
        (name, trained_through, f"sha of {name}"),
    ).fetchone()
    for day in effective_from:
        connection.execute(
            "INSERT INTO model_assignment (vintage_id, effective_from, decided_at, basis, decided_by, reason) "
            "VALUES (%s, %s, now(), 'observed', 'test', 'test')",
            (*(row or ()), day),
        )


def test_the_vintage_in_force_is_the_latest_effective_one_trained_before_the_session(connection: Connection) -> None:
    assign(connection, "old", "2020-12-31", "2021-01-01")
    assign(connection, "new", "2021-12-31", "2022-01-03")
    assign(connection, "hasty", "2022-06-30", "2022-06-01")  # in force before it was trained through
    named = {
        "2021-01-01": "old",
        "2021-12-31": "old",
        "2022-01-02": "old",
        "2022-01-03": "new",
        "2022-06-01": "new",
        "2022-06-30": "new",  # trained through that very session: not before it
        "2022-07-01": "hasty",
    }
    assert {day: assigned_vintage(connection, date.fromisoformat(day)).name for day in named} == named


def test_of_two_assignments_of_one_day_the_later_one_counts(connection: Connection) -> None:
    assign(connection, "first", "2020-12-31", "2021-01-01")
    assign(connection, "second", "2020-06-30", "2021-01-01")
    found = assigned_vintage(connection, date(2021, 5, 5))
    assert (found.name, found.weights_sha256, found.trained_through) == (
        "second", "sha of second", date(2020, 6, 30)
    )  # fmt: skip


def test_a_session_that_no_vintage_may_serve_is_refused(connection: Connection) -> None:
    with pytest.raises(ModelError, match=r"no vintage may serve session 1999-12-31: .*; the registry is empty"):
        assigned_vintage(connection, date(1999, 12, 31))
    assert register_vintages(connection, None) == 23  # 2000 to 2022
    with pytest.raises(
        ModelError, match=r"the registry serves sessions from 2000-01-01 on. Train one with `make train`"
    ):
        assigned_vintage(connection, date(1999, 12, 31))
    assert assigned_vintage(connection, date(2008, 9, 15)).name == "2008"


def test_preparing_twice_adds_nothing(job: Any, configure: Callable[..., Any]) -> None:
    before = job.written()
    prepare(configure())
    assert job.written() == before
    assert before["model_version"][0] == before["model_assignment"][0] == 23
    assert job.all("SELECT name FROM book ORDER BY book_id") == ["equal", "paper"]
    # 1990-01-02 to 2022-12-28: the rows of the bundled history
    assert before["trading_session"][0] == 8313


def test_sessions_are_carried_on_from_the_last_one_written(connection: Connection) -> None:
    calendar = session_calendar()
    assert record_sessions(connection, calendar, date(2022, 11, 21), date(2022, 11, 23)) == 3
    assert record_sessions(connection, calendar, date(2022, 11, 21), date(2022, 11, 28)) == 2  # no Thanksgiving
    rows = connection.execute("SELECT session_date, closes_at, runs_after, cutoff FROM trading_session ORDER BY 1")
    days = rows.fetchall()
    assert [row[0].day for row in days] == [21, 22, 23, 25, 28]
    assert days[3][1:] == (  # the day after Thanksgiving closes at 13:00 in New York
        datetime(2022, 11, 25, 18, 0, tzinfo=UTC),
        datetime(2022, 11, 25, 19, 0, tzinfo=UTC),
        datetime(2022, 11, 28, 14, 30, tzinfo=UTC),
    )
    assert record_sessions(connection, calendar, date(2022, 12, 1), date(2022, 11, 1)) == 0


def test_a_run_s_network_is_the_one_that_the_registry_names(job: Any) -> None:
    run = job.opened()
    assert vintage_model(run).training is False
    with pytest.raises(ModelError, match="run 4711 does not exist"):
        vintage_model(4711)


def test_weights_that_are_gone_or_changed_are_refused(job: Any, tmp_path: Path, configure: Callable[..., Any]) -> None:
    run = job.opened()
    folder = tmp_path / "vintages"
    shutil.copytree(SHIPPED, folder)
    configure(RISK_VINTAGES_DIR=folder)
    weights = folder / "2022.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(ModelError, match=r"2022\.safetensors have SHA-256 \w+, but the manifest names \w+"):
        vintage_model(run)
    weights.unlink()
    with pytest.raises(ModelError, match=r"2022\.safetensors is missing"):
        vintage_model(run)


def test_a_vintage_that_left_the_folder_is_refused(connection: Connection, tmp_path: Path) -> None:
    assign(connection, "lost", "2020-12-31", "2021-01-01")
    connection.execute(
        "INSERT INTO snapshot (session_date, source, cutoff, content_hash, sessions, instruments, market_return, "
        "market_rms, bars, assumed_bars) VALUES ('2022-12-28', 't', now(), 'h', '{}', '{}', '{}', '{}', 0, 0)"
    )
    row = connection.execute(
        "INSERT INTO run (exchange, session_date, snapshot_id, vintage_id, configuration_hash, configuration, door, "
        "dag_run_id, lineage) SELECT 'XNYS', '2022-12-28', snapshot_id, vintage_id, 'c', '{}', 'h', 'd', '{}' "
        "FROM snapshot, model_version RETURNING run_id"
    ).fetchone()
    sentence = "vintage lost with weights sha of lost is in the registry and not in the folder of vintages"
    with pytest.raises(ModelError, match=sentence):
        load_assigned(connection, int((row or (0,))[0]), None)
