"""The client of Airflow's REST API, against a real HTTP server with Airflow's own answers."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from risk.errors import ServiceError
from risk.system.api import AirflowApi, TaskState, wait_until

HEALTHY = {
    "metadatabase": {"status": "healthy"},
    "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": "2026-01-05T10:00:00+00:00"},
    "triggerer": {"status": "healthy"},
    "dag_processor": {"status": None},
}
SINCE = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)


def test_health_is_told_for_each_component(airflow: Any, api: AirflowApi) -> None:
    assert set(api.healthy().values()) == {False}  # 404 so far
    airflow.says("GET", "/monitor/health", HEALTHY)
    assert api.healthy() == {"metadatabase": True, "scheduler": True, "triggerer": True, "dag_processor": False}
    airflow.says("GET", "/monitor/health", b"<html>starting</html>")
    assert set(api.healthy().values()) == {False}


def test_nothing_is_healthy_where_nobody_answers() -> None:
    with AirflowApi("http://127.0.0.1:1") as nobody:
        assert set(nobody.healthy().values()) == {False}
        with pytest.raises(ServiceError, match=r"does not answer at http://127.0.0.1:1 .*start it with `make up`"):
            nobody.run_state("nightly_risk", "x")


def test_a_trigger_carries_the_session_as_partition_key(airflow: Any, api: AirflowApi) -> None:
    airflow.says("POST", "/dags/nightly_risk/dagRuns", {"dag_run_id": "manual__1"})
    assert api.trigger("nightly_risk", date(2022, 12, 28)) == "manual__1"
    assert airflow.asked[-1][2] == {"logical_date": None, "partition_key": "2022-12-28"}
    assert airflow.tokens[-1] == "Bearer secret"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"detail": "session 2022-11-24 is not a trading day of XNYS"}, "session 2022-11-24 is not a trading day"),
        ({"detail": [{"msg": "Field required"}]}, "Field required"),
        (b"Bad gateway", "Bad gateway"),
    ],
)
def test_a_refusal_has_airflow_s_own_sentence(airflow: Any, api: AirflowApi, body: Any, sentence: str) -> None:
    airflow.says("POST", "/dags/nightly_risk/dagRuns", body, status=400)
    with pytest.raises(ServiceError, match=f"Airflow refused POST /dags/nightly_risk/dagRuns: .*{sentence}"):
        api.trigger("nightly_risk", date(2022, 11, 24))


def test_an_airflow_without_tokens_is_refused_with_a_sentence(airflow: Any, api: AirflowApi) -> None:
    airflow.answers[("GET", "/auth/token")] = (401, {"detail": "Invalid credentials"})
    with pytest.raises(ServiceError, match="gives no token: Invalid credentials"):
        api.run_state("nightly_risk", "x")


def test_a_backfill_covers_both_days_whole(airflow: Any, api: AirflowApi) -> None:
    airflow.says("POST", "/backfills", {"id": 7})
    for again, behaviour in ((False, "failed"), (True, "completed")):
        found = api.backfill("nightly_risk", date(2022, 11, 21), date(2022, 12, 2), active_runs=6, again=again)
        assert found == 7
        assert airflow.asked[-1][2] == {
            "dag_id": "nightly_risk", "from_date": "2022-11-21T00:00:00Z", "to_date": "2022-12-02T23:59:59Z",
            "max_active_runs": 6, "reprocess_behavior": behaviour, "run_backwards": False,
        }  # fmt: skip
    airflow.says("GET", "/backfills/7", {"completed_at": None})
    assert not api.backfill_ended(7)
    airflow.says("GET", "/backfills/7", {"completed_at": "2026-01-05T10:00:00Z"})
    assert api.backfill_ended(7)


def test_runs_are_read_page_by_page_from_the_moment_on(airflow: Any, api: AirflowApi) -> None:
    moments = [None, SINCE - timedelta(seconds=1), *(SINCE + timedelta(seconds=n) for n in range(248))]
    everything = [{"n": n, "queued_at": moment and moment.isoformat()} for n, moment in enumerate(moments)]

    def page(query: dict[str, str], _body: Any) -> dict[str, Any]:
        assert query["updated_at_gte"] == "2026-01-05T10:00:00.000000Z"
        first = int(query["offset"])
        return {"dag_runs": everything[first : first + int(query["limit"])]}

    airflow.says("GET", "/dags/nightly_risk/dagRuns", page)
    assert [run["n"] for run in api.runs("nightly_risk", SINCE)] == list(range(2, 250))


def test_a_pool_is_made_once(airflow: Any, api: AirflowApi) -> None:
    airflow.says("POST", "/pools", {"name": "gpu"}, status=201)
    api.ensure_pool("gpu", 2, "accelerator")
    body = {"name": "gpu", "slots": 2, "description": "accelerator", "include_deferred": False}
    assert airflow.asked[-1] == ("POST", "/api/v2/pools", body)
    airflow.says("GET", "/pools/gpu", {"name": "gpu"})
    api.ensure_pool("gpu", 9, "accelerator")
    assert airflow.asked[-1][0] == "GET"


def test_dags_and_import_errors_are_told(airflow: Any, api: AirflowApi) -> None:
    assert not api.has_dag("nightly_risk")
    airflow.says("GET", "/dags/nightly_risk", {"dag_id": "nightly_risk"})
    assert api.has_dag("nightly_risk")
    trace = "Traceback ...\n  File x\nImportError: no torch\n"
    airflow.says("GET", "/importErrors", {"import_errors": [{"filename": "a.py", "stack_trace": trace}]})
    assert api.import_errors() == ["a.py: ImportError: no torch"]


def test_tasks_and_the_sentence_of_a_failed_one(airflow: Any, api: AirflowApi) -> None:
    base = "/dags/nightly_risk/dagRuns/r/taskInstances"
    task = {"task_id": "check_inputs", "map_index": -1, "state": "failed", "duration": 1.5, "try_number": 2}
    airflow.says("GET", base, {"task_instances": [task]})
    (found,) = api.tasks("nightly_risk", "r")
    assert found == TaskState("check_inputs", -1, "failed", 1.5, 2)
    assert api.failure("nightly_risk", "r", found) is None  # no log yet
    log = [
        "text",
        {"event": "x"},
        {"error_detail": [{"exc_value": "first"}]},
        {"error_detail": [{"exc_value": "last"}]},
    ]
    airflow.says("GET", f"{base}/check_inputs/logs/2", {"content": log})
    assert api.failure("nightly_risk", "r", found) == "last"
    airflow.says("GET", f"{base}/check_inputs/logs/2", {"content": None})
    assert api.failure("nightly_risk", "r", found) is None


def test_waiting_ends_with_the_condition_or_the_patience() -> None:
    answers = iter([False, False, True])
    assert wait_until(lambda: next(answers), patience_s=5, interval_s=0.001)
    assert not wait_until(lambda: False, patience_s=0.01, interval_s=0.001)
