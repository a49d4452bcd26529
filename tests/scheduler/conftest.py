"""A real system for the scheduler's tests: PostgreSQL, scheduler, DAG processor, triggerer and API server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from risk.storage import server
from risk.system.api import ENDED, AirflowApi

PROJECT = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.scheduler)


@dataclass
class System:
    """One running system, in a state folder of its own."""

    state: Path
    environment: dict[str, str]
    port: int
    api: AirflowApi = field(init=False)

    def __post_init__(self) -> None:
        self.api = AirflowApi(f"http://127.0.0.1:{self.port}")

    def command(self, *arguments: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], env=self.environment, cwd=PROJECT, capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        url = server.url(self.state / "postgres", "risk", "psycopg").replace("+psycopg", "")
        with psycopg.connect(url) as connection:
            return connection.execute(sql, parameters).fetchall()

    def execute(self, sql: str) -> None:
        url = server.url(self.state / "postgres", "risk", "psycopg").replace("+psycopg", "")
        with psycopg.connect(url) as connection:
            connection.execute(sql)

    def row_counts(self) -> dict[str, int]:
        tables = self.query(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition "
            "AND relnamespace = 'public'::regnamespace"
        )
        return {table: self.query(f'SELECT count(*) FROM "{table}"')[0][0] for (table,) in tables}

    def wait(self, condition: Callable[[], Any], what: str, patience_s: float = 150) -> Any:
        deadline = time.monotonic() + patience_s
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {patience_s:.0f} s")
            time.sleep(0.3)
        return found

    def end_of_run(self, dag_id: str, run_id: str) -> str:
        return self.wait(
            lambda: (state := self.api.run_state(dag_id, run_id)) in ENDED and state, f"{dag_id} {run_id} to end"
        )

    def rebalanced(self, session: date) -> bool:
        return bool(self.query("SELECT 1 FROM rebalance WHERE session_date = %s", session))

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        token = httpx.get(f"{self.api.base_url}/auth/token").json()["access_token"]
        answer = httpx.request(
            method,
            f"{self.api.base_url}/api/v2{path}",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )
        answer.raise_for_status()
        return answer.json()

    def log(self, dag_id: str, run_id: str, task_id: str) -> str:
        """A task's last log, as text."""
        task = next(task for task in self.api.tasks(dag_id, run_id) if task.task_id == task_id)
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{task.try_number}"
        return json.dumps(self.request("GET", f"{path}?map_index={task.map_index}&full_content=true")["content"])

    def airflow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """An Airflow command in the system's own environment."""
        code = (
            "import os, sys; from risk.settings import get_settings; from risk.system.environment import "
            "airflow_environment; os.execve(sys.executable, [sys.executable, '-m', 'airflow', *sys.argv[1:]], "
            "airflow_environment(get_settings()))"
        )
        return self.command("-c", code, *arguments)

    def task_error(self, dag_id: str, run_id: str, task_id: str) -> str:
        task = next(task for task in self.api.tasks(dag_id, run_id) if task.task_id == task_id)
        return self.api.failure(dag_id, run_id, task) or ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_system(folder: Path, **settings: str) -> System:
    """Start a system whose DAG folder holds the project's DAGs and those of `tests/scheduler/dags`."""
    dags = folder / "dags"
    dags.mkdir()
    tests = PROJECT / "tests"
    example = tests / "batch_inference" / "example_dag.py"
    for path in [*(PROJECT / "dags").glob("*.py"), *(tests / "scheduler" / "dags").glob("*.py"), example]:
        shutil.copy(path, dags)
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RISK_", "AIRFLOW", "COV"))},
        "RISK_STATE_DIR": str(folder / "state"),
        "RISK_UI_PORT": str(port),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW_CONN_HOUSES": f"postgresql://postgres:@/risk?host={folder / 'state' / 'postgres'}",
        "PYTHONPATH": f"{PROJECT / 'include'}:{PROJECT / 'plugins'}",
        **settings,
    }
    system = System(folder / "state", environment, port)
    done = system.command("-m", "risk.system", "up")
    if done.returncode:
        stop_system(system)
        raise RuntimeError(f"the system did not start:\n{done.stdout}\n{done.stderr}")
    return system


def stop_system(system: System) -> None:
    system.api.close()
    done = system.command("-m", "risk.system", "down")
    if done.returncode:
        raise RuntimeError(f"the system did not stop:\n{done.stdout}\n{done.stderr}")


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """A system on the bundled market data."""
    with open_folder() as folder:
        running = start_system(folder)
        yield running
        stop_system(running)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that the server's own user may enter (pytest closes its own to others)."""
    folder = Path(tempfile.mkdtemp(prefix="risk-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
