"""What makes a run another run, and what happens where two doors open one at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from typing import Any

import pytest

from risk import nightly
from risk.errors import RiskError
from risk.runs import open_run, publish, read_run
from risk.settings import get_settings
from risk.storage.database import connect

SESSION = date(2022, 12, 28)


def test_another_configuration_or_vintage_is_a_new_run_and_a_new_revision(
    job: Any, configure: Callable[..., Any]
) -> None:
    first = job.forecast()
    configure(RISK_MIN_COVERAGE="0.8")
    second = job.forecast()
    job.all(
        "INSERT INTO model_assignment (vintage_id, effective_from, decided_at, basis, decided_by, reason) "
        "SELECT vintage_id, '2022-12-01', now(), 'assumed', 'the test', 'a step back' FROM model_version "
        "WHERE name = '2021'"
    )
    third = job.forecast()
    assert len({first, second, third}) == 3
    names = "SELECT v.name FROM run JOIN model_version v USING (vintage_id) ORDER BY run_id"
    assert job.all(names) == ["2022", "2022", "2021"]
    assert job.one("SELECT count(DISTINCT snapshot_id) FROM run") == 1
    intervals = job.all(
        "SELECT DISTINCT revision, run_id, valid_from, valid_to FROM prediction_published ORDER BY revision"
    )
    assert [row[:2] for row in intervals] == [(1, first), (2, second), (3, third)]
    assert [row[3] for row in intervals] == [intervals[1][2], intervals[2][2], None]
    assert all(begin < end for _, _, begin, end in intervals[:2])
    assert job.all("SELECT DISTINCT revision, run_id FROM prediction_current") == [(3, third)]
    assert job.one("SELECT count(*) FROM prediction_current") == 20
    known_then = "SELECT DISTINCT run_id FROM prediction_published WHERE valid_from <= %s AND %s < valid_to"
    assert job.all(known_then, intervals[1][2], intervals[1][2]) == [second]


@pytest.mark.parametrize(
    ("door", "stored"),
    [("scheduled", "schedule"), ("backfill", "backfill"), ("manual", "hand"), ("asset_triggered", "asset"), ("x", "x")],
)
def test_the_door_is_stored_with_the_run(job: Any, door: str, stored: str) -> None:
    session, snapshot = job.extracted()
    run = nightly.check_inputs(session, snapshot, door, "dag run 7")
    assert job.one("SELECT door, dag_run_id FROM run WHERE run_id = %s", run) == (stored, "dag run 7")
    assert nightly.check_inputs(session, snapshot, "manual", "dag run 8") == run
    assert job.one("SELECT door, dag_run_id FROM run") == (stored, "dag run 7")


def test_a_run_that_is_not_there_is_refused_with_a_sentence(job: Any) -> None:
    with connect() as connection, pytest.raises(RiskError, match="run 4711 does not exist; `risk status` lists"):
        read_run(connection, 4711)


def opened(connection: Any, snapshot: int) -> tuple[int, bool]:
    run, new = open_run(
        connection, session=SESSION, snapshot_id=snapshot, settings=get_settings(), calendar_version="1",
        door="manual", dag_run_id="x",
    )  # fmt: skip
    return run.run_id, new


@contextmanager
def second_door(action: Callable[[Any], Any]) -> Iterator[Future[Any]]:
    """Another thread does the same on a connection of its own; it has begun and waits for a lock."""
    ready = threading.Event()

    def work() -> Any:
        with connect() as connection:
            connection.execute("SET application_name = 'second door'")
            ready.set()
            return action(connection)

    with ThreadPoolExecutor(1) as pool, connect() as watch:
        future = pool.submit(work)
        assert ready.wait(10)
        waiting = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE application_name = 'second door'"
        deadline = time.monotonic() + 10
        while watch.execute(waiting).fetchone() != (True,) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield future


def test_two_doors_open_one_run(job: Any) -> None:
    _, snapshot = job.extracted()
    with connect() as connection:
        run, new = opened(connection, snapshot)
        assert new
        with second_door(lambda other: opened(other, snapshot)) as second:
            assert not second.done()
            connection.commit()
            assert second.result(10) == (run, False)
    assert job.all("SELECT run_id FROM run") == [run]


def test_the_second_door_opens_the_run_that_the_first_one_gave_up(job: Any) -> None:
    _, snapshot = job.extracted()
    with connect() as connection:
        opened(connection, snapshot)
        with second_door(lambda other: opened(other, snapshot)) as second:
            connection.rollback()
            run, new = second.result(10)
    assert new
    assert job.all("SELECT run_id FROM run") == [run]


def test_two_doors_publish_one_run_once(job: Any) -> None:
    run = nightly.validate_predictions(job.scored())
    with connect() as connection:
        assert publish(connection, run, "forecast") == (1, True)
        with second_door(lambda other: publish(other, run, "forecast")) as second:
            assert not second.done()
            connection.commit()
            assert second.result(10) == (1, False)
    assert job.all("SELECT run_id, revision FROM publication") == [(run, 1)]


def test_two_runs_of_a_session_published_at_once_are_two_revisions(job: Any, configure: Callable[..., Any]) -> None:
    runs = [nightly.validate_predictions(job.scored())]
    configure(RISK_MIN_COVERAGE="0.8")
    runs.append(nightly.validate_predictions(job.scored()))
    with connect() as connection:
        assert publish(connection, runs[0], "forecast") == (1, True)
        with second_door(lambda other: publish(other, runs[1], "forecast")) as second:
            connection.commit()
            assert second.result(10) == (2, True)
    assert job.all("SELECT run_id FROM publication ORDER BY revision") == runs
