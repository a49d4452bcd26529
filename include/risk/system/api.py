"""Airflow's REST API, as far as the job's commands need it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import httpx

from risk.errors import ServiceError

ENDED = frozenset({"success", "failed"})
HEALTHY = ("metadatabase", "scheduler", "dag_processor", "triggerer")


@dataclass(frozen=True)
class TaskState:
    """One task instance as the API tells it; `map_index` is -1 for a task that is not mapped."""

    task_id: str
    map_index: int
    state: str | None
    duration_s: float | None
    try_number: int


class AirflowApi:
    """A client of one Airflow on this machine.

    Raises:
        ServiceError: Airflow does not answer, or refuses; the sentence is Airflow's own.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._http = httpx.Client(base_url=base_url, timeout=30.0)
        self._token: str | None = None

    def __enter__(self) -> AirflowApi:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    def healthy(self) -> dict[str, bool]:
        """Each component's health; all of them false while nothing answers."""
        try:
            answer = self._http.get("/api/v2/monitor/health", timeout=5.0).json()
        except (httpx.HTTPError, ValueError):
            return dict.fromkeys(HEALTHY, False)
        return {name: (answer.get(name) or {}).get("status") == "healthy" for name in HEALTHY}

    def has_dag(self, dag_id: str) -> bool:
        """Whether Airflow has read the DAG."""
        return self._send("GET", f"/dags/{dag_id}", refuse=False).status_code == httpx.codes.OK

    def import_errors(self) -> list[str]:
        """What Airflow could not read in the DAG folder."""
        errors = self._json("GET", "/importErrors")["import_errors"]
        return [f"{error['filename']}: {error['stack_trace'].strip().splitlines()[-1]}" for error in errors]

    def ensure_pool(self, name: str, slots: int, description: str) -> None:
        """Make the pool if it isn't there; one that is there keeps its slots."""
        if self._send("GET", f"/pools/{name}", refuse=False).status_code == httpx.codes.NOT_FOUND:
            body = {"name": name, "slots": slots, "description": description, "include_deferred": False}
            self._json("POST", "/pools", body)

    def trigger(self, dag_id: str, session: date) -> str:
        """Start one run for a session; returns its run id."""
        body = {"logical_date": None, "partition_key": session.isoformat()}
        return str(self._json("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def backfill(self, dag_id: str, first: date, last: date, *, active_runs: int, again: bool) -> int:
        """Start a backfill of every session from `first` to `last`; returns its id.

        Args:
            again: run sessions once more that have a successful run already.
        """
        body = {
            "dag_id": dag_id,
            "from_date": f"{first}T00:00:00Z",
            "to_date": f"{last}T23:59:59Z",
            "max_active_runs": active_runs,
            "reprocess_behavior": "completed" if again else "failed",
            "run_backwards": False,
        }
        return int(self._json("POST", "/backfills", body)["id"])

    def backfill_ended(self, backfill_id: int) -> bool:
        """Whether every run of the backfill has ended."""
        return self._json("GET", f"/backfills/{backfill_id}")["completed_at"] is not None

    def runs(self, dag_id: str, since: datetime) -> list[dict[str, Any]]:
        """Runs of a DAG that were made at `since` or later, the oldest first."""
        moment = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        found: list[dict[str, Any]] = []
        while True:
            query = f"?limit=100&order_by=id&updated_at_gte={moment}&offset={len(found)}"
            page = self._json("GET", f"/dags/{dag_id}/dagRuns{query}")["dag_runs"]
            found += page
            if len(page) < 100:
                return [run for run in found if run["queued_at"] and datetime.fromisoformat(run["queued_at"]) >= since]

    def run_state(self, dag_id: str, run_id: str) -> str:
        """`queued`, `running`, `success` or `failed`."""
        return str(self._json("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def tasks(self, dag_id: str, run_id: str) -> list[TaskState]:
        """The run's task instances."""
        page = self._json("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=1000")["task_instances"]
        return [
            TaskState(task["task_id"], task["map_index"], task["state"], task["duration"], task["try_number"])
            for task in page
        ]

    def failure(self, dag_id: str, run_id: str, task: TaskState) -> str | None:
        """The sentence with which a task failed, from its log."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task.task_id}/logs/{max(task.try_number, 1)}"
        answer = self._send("GET", f"{path}?map_index={task.map_index}&full_content=true", refuse=False)
        if answer.status_code != httpx.codes.OK:
            return None
        return _last_error(answer.json().get("content") or [])

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer: dict[str, Any] = self._send(method, path, body).json()
        return answer

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, refuse: bool = True
    ) -> httpx.Response:
        try:
            response = self._http.request(method, f"/api/v2{path}", json=body, headers=self._authorization())
        except httpx.HTTPError as error:
            raise ServiceError(
                f"Airflow does not answer at {self.base_url} ({error}); start it with `make up`"
            ) from error
        if refuse and response.is_error:
            raise ServiceError(f"Airflow refused {method} {path.partition('?')[0]}: {_detail(response)}")
        return response

    def _authorization(self) -> dict[str, str]:
        if self._token is None:
            response = self._http.get("/auth/token")
            if response.is_error:
                raise ServiceError(f"Airflow at {self.base_url} gives no token: {_detail(response)}")
            self._token = str(response.json()["access_token"])
        return {"Authorization": f"Bearer {self._token}"}


def wait_until(condition: Any, *, patience_s: float, interval_s: float = 0.3) -> bool:
    """Whether the condition came true within the patience."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval_s)
    return True


def _detail(response: httpx.Response) -> str:
    try:
        detail = response.json().get("detail", response.text)
    except ValueError:
        return response.text
    return detail if isinstance(detail, str) else str(detail)


def _last_error(content: Iterable[Any]) -> str | None:
    sentence = None
    for entry in content:
        for error in (entry.get("error_detail") or []) if isinstance(entry, dict) else []:
            sentence = str(error.get("exc_value") or sentence or "") or None
    return sentence
