"""What is told on the terminal while runs go on."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from rich.console import Console

from risk.system import watch
from risk.system.api import AirflowApi
from risk.system.watch import watch_backfill, watch_session

SESSION = date(2022, 12, 28)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_S", 0.001)
    monkeypatch.setattr(watch, "REBALANCE_PATIENCE_S", 0.05)


def task(name: str, state: str | None, map_index: int = -1, seconds: float | None = 0.5) -> dict[str, Any]:
    return {"task_id": name, "map_index": map_index, "state": state, "duration": seconds, "try_number": 1}


def dag_run(session: str, state: str, run_type: str = "backfill") -> dict[str, Any]:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    return {
        "partition_key": session, "dag_run_id": f"{run_type}__{session}", "state": state, "run_type": run_type,
        "queued_at": soon.isoformat(),
    }  # fmt: skip


def night(airflow: Any, states: list[str], tasks: list[dict[str, Any]]) -> None:
    """A night by hand whose run goes through these states."""
    asked = count()
    base = "/dags/nightly_risk/dagRuns"
    airflow.says("POST", base, {"dag_run_id": "n"})
    airflow.says("GET", f"{base}/n", lambda *_: {"state": states[min(next(asked), len(states) - 1)]})
    airflow.says("GET", f"{base}/n/taskInstances", {"task_instances": tasks})


def test_a_night_is_followed_to_its_rebalance(airflow: Any, api: AirflowApi, console: Console) -> None:
    tasks = [task("resolve_session", "success"), task("run_inference", "success", 2, None), task("skip", "skipped")]
    night(airflow, ["running", "running", "success"], tasks)
    base = "/dags/rebalance/dagRuns"
    airflow.says("GET", base, {"dag_runs": [dag_run("2022-12-27", "running"), dag_run("2022-12-28", "running")]})
    airflow.says("GET", f"{base}/backfill__2022-12-28", {"state": "success"})
    airflow.says("GET", f"{base}/backfill__2022-12-28/taskInstances", {"task_instances": [task("book", "success")]})
    assert watch_session(api, console, SESSION) is True
    text = console.export_text()
    assert "Session 2022-12-28: run n of nightly_risk" in text
    assert text.count("resolve_session") == 1
    assert "run_inference[2]" in text
    assert "skipped" in text
    assert "Session 2022-12-28: run backfill__2022-12-28 of rebalance" in text


def test_a_failed_task_is_told_with_its_sentence(airflow: Any, api: AirflowApi, console: Console) -> None:
    tasks = [task("check_inputs", "failed"), task("publish", "upstream_failed"), task("other", None)]
    night(airflow, ["failed"], tasks)
    log = {"content": [{"error_detail": [{"exc_value": "[half] of the universe is missing"}]}]}
    airflow.says("GET", "/dags/nightly_risk/dagRuns/n/taskInstances/check_inputs/logs/1", log)
    assert watch_session(api, console, SESSION) is False
    text = console.export_text()
    assert "[half] of the universe is missing" in text
    assert "publish" not in text


def test_a_failed_task_without_a_log_is_told(airflow: Any, api: AirflowApi, console: Console) -> None:
    night(airflow, ["failed"], [task("check_inputs", "failed")])
    assert watch_session(api, console, SESSION) is False
    assert "its log says why" in console.export_text()


def test_a_rebalance_that_never_begins_is_told(airflow: Any, api: AirflowApi, console: Console) -> None:
    night(airflow, ["success"], [])
    airflow.says("GET", "/dags/rebalance/dagRuns", {"dag_runs": []})
    assert watch_session(api, console, SESSION) is False
    assert "No rebalance of 2022-12-28 began within" in console.export_text()


def backfill(airflow: Any, nights: list[dict[str, Any]], rebalances: list[dict[str, Any]]) -> None:
    by_hand = dag_run("2022-12-01", "running", "manual")
    running = [{**run, "state": "running"} for run in nights]
    asked = count()
    airflow.says("GET", "/dags/nightly_risk/dagRuns", lambda *_: {
        "dag_runs": [by_hand, *(nights if next(asked) > 1 else running)]
    })  # fmt: skip
    airflow.says("GET", "/dags/rebalance/dagRuns", {"dag_runs": rebalances})


def test_a_backfill_is_counted_to_its_end(airflow: Any, api: AirflowApi, console: Console) -> None:
    runs = [dag_run("2022-11-21", "success"), dag_run("2022-11-22", "success")]
    backfill(airflow, runs, runs)
    assert watch_backfill(api, console, 7, datetime.now(UTC)) is True
    text = console.export_text()
    assert "Backfill 7: 2 sessions from 2022-11-21 to 2022-11-22" in text
    assert "2022-11-22 published: 2 of 2" in text
    assert "2022-11-22 rebalanced: 2 of 2" in text


def test_failed_sessions_of_a_backfill_are_named(airflow: Any, api: AirflowApi, console: Console) -> None:
    good, bad = dag_run("2022-11-21", "success"), dag_run("2022-11-22", "failed")
    backfill(airflow, [good, bad], [good])
    assert watch_backfill(api, console, 7, datetime.now(UTC)) is False
    text = console.export_text()
    assert "Session 2022-11-22 failed: `risk show 2022-11-22` says why" in text
    assert "Session 2022-11-21 failed" not in text


def test_a_failed_rebalance_ends_the_watch(airflow: Any, api: AirflowApi, console: Console) -> None:
    nights = [dag_run("2022-11-21", "success"), dag_run("2022-11-22", "success")]
    backfill(airflow, nights, [dag_run("2022-11-21", "failed")])
    assert watch_backfill(api, console, 7, datetime.now(UTC)) is False
    assert "The sessions after it wait until it is mended" in console.export_text()


def test_a_backfill_with_nothing_to_run_says_so(airflow: Any, api: AirflowApi, console: Console) -> None:
    airflow.says("GET", "/dags/nightly_risk/dagRuns", {"dag_runs": []})
    assert watch_backfill(api, console, 7, datetime.now(UTC)) is True
    assert "Backfill 7: nothing to run" in console.export_text()
