"""The commands behind `make up`, `down`, `run` and `backfill`."""

from __future__ import annotations

import fcntl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from risk.errors import ServiceError
from risk.settings import Settings
from risk.storage import server
from risk.system.api import AirflowApi, wait_until
from risk.system.environment import airflow_database_url, airflow_environment, base_url
from risk.system.processes import ProcessTable, airflow_command, require_free_port
from risk.system.watch import watch_backfill, watch_session

COMPONENTS = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler",),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
DAGS = ("nightly_risk", "rebalance")
START_PATIENCE_S = 120.0
ACTIVE_RUNS = 6


def up(settings: Settings, console: Console) -> bool:
    """Start whatever is not running, and wait until all of it is healthy.

    Returns:
        True when this call started it, False when it was up already.

    Raises:
        ServiceError: a process ended or stayed unhealthy; the end of its log is in the sentence.
    """
    table = ProcessTable(settings.state_dir)
    with _alone(settings.state_dir):
        if len(table.running()) == len(COMPONENTS):
            return False
        table.stop()
        require_free_port(settings.ui_port)
        began = time.monotonic()
        _prepare_databases(settings, console)
        environment = airflow_environment(settings)
        for name, arguments in COMPONENTS.items():
            table.start(name, airflow_command(*arguments), environment)
        try:
            _wait_healthy(settings, table)
        except BaseException:
            table.stop()
            raise
    console.print(f"Airflow is up at {base_url(settings)} after {time.monotonic() - began:.0f} s")
    return True


def down(settings: Settings, console: Console) -> None:
    """End every process that `up` started, the database server last."""
    with _alone(settings.state_dir):
        names = ProcessTable(settings.state_dir).stop()
        if server.stop(settings.state_dir / "postgres"):
            names.append("postgres")
    console.print(f"Stopped {', '.join(names)}" if names else "Nothing was running")


def run(settings: Settings, console: Console, session: date | None) -> bool:
    """One night through Airflow's scheduler, watched to its end; says whether it was published."""
    from risk.context import session_to_run
    from risk.report import print_session

    chosen = session or session_to_run(settings)
    with running_system(settings, console), AirflowApi(base_url(settings)) as api:
        done = watch_session(api, console, chosen)
        print_session(chosen, console)
        _print_profile(settings, console)
    return done


def _print_profile(settings: Settings, console: Console) -> None:
    """The newest profile of batch sizes: its curve and the choice, as stored."""
    from batch_inference import format_profile
    from risk.storage.database import connect, database_url

    with connect(database_url(settings)) as connection:
        row: Any = connection.execute(
            "SELECT curve, batch_size, device, precision, reason FROM batch_profile ORDER BY profile_id DESC LIMIT 1"
        ).fetchone()
    if row is not None:
        curve, batch_size, device, precision, reason = row
        console.print(f"Batch sizes on {device} in {precision}", style="bold", highlight=False)
        console.print(f"{format_profile(curve, batch_size)}\n{reason}", markup=False, highlight=False)


def backfill(settings: Settings, console: Console, first: date, last: date, *, again: bool) -> bool:
    """Every session from `first` to `last` through Airflow's backfill; says whether each is published."""
    if last < first:
        raise ServiceError(f"the backfill would end on {last}, before it begins on {first}; give FROM first, then TO")
    with running_system(settings, console), AirflowApi(base_url(settings)) as api:
        since = datetime.now(UTC)
        backfill_id = api.backfill(DAGS[0], first, last, active_runs=ACTIVE_RUNS, again=again)
        return watch_backfill(api, console, backfill_id, since)


@contextmanager
def running_system(settings: Settings, console: Console) -> Iterator[None]:
    """The system for the length of a command: what this command started, it ends; what was up stays up."""
    started = up(settings, console)
    try:
        yield
    finally:
        if started:
            down(settings, console)


def _prepare_databases(settings: Settings, console: Console) -> None:
    """Start the embedded server where it is needed, and migrate both databases side by side."""
    from risk.setup import prepare

    if not (settings.database_url and settings.airflow_database_url):
        console.print("Starting PostgreSQL")
        server.start(settings.state_dir / "postgres")
    console.print("Migrating the databases")
    with ThreadPoolExecutor(1) as pool:
        ours = pool.submit(prepare, settings)
        _migrate_airflow(settings)
        ours.result()
    console.print("Starting Airflow's scheduler, DAG processor, triggerer and API server")


def _migrate_airflow(settings: Settings) -> None:
    """`airflow db migrate`, unless the database has the schema that this Airflow last left there."""
    stamp = settings.state_dir / "airflow" / "schema"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == _airflow_schema(settings):
        return
    done = subprocess.run(
        airflow_command("db", "migrate"), env=airflow_environment(settings), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServiceError(
            "Airflow's database can't be migrated; check RISK_AIRFLOW_DATABASE_URL. `airflow db migrate` ended with:\n"
            + "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        )
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(_airflow_schema(settings), encoding="utf-8")


def _airflow_schema(settings: Settings) -> str:
    """Airflow's version, and the revision of the schema in its database (empty where there is none)."""
    from importlib.metadata import version

    import psycopg

    from risk.storage.database import connect

    url = airflow_database_url(settings, "psycopg")
    with connect(url) as connection:
        try:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except psycopg.errors.UndefinedTable:
            found = None
    return f"{version('apache-airflow')} {found[0] if found else ''}"


def _wait_healthy(settings: Settings, table: ProcessTable) -> None:
    """Wait until every component is healthy and both DAGs are read, then make the pools."""
    with AirflowApi(base_url(settings)) as api:

        def ready() -> bool:
            dead = set(COMPONENTS) - {process.name for process in table.running()}
            if dead:
                name = min(dead)
                raise ServiceError(f"Airflow's {name} ended by itself; the end of its log:\n{table.tail(name)}")
            if not all(api.healthy().values()):
                return False
            if broken := api.import_errors():
                raise ServiceError(f"Airflow can't read the DAG folder: {'; '.join(broken)}")
            return all(api.has_dag(dag_id) for dag_id in DAGS)

        if not wait_until(ready, patience_s=START_PATIENCE_S):
            ill = [name for name, well in api.healthy().items() if not well]
            reason = f"not healthy: {', '.join(ill)}" if ill else "its DAGs are not read"
            raise ServiceError(
                f"Airflow is not ready after {START_PATIENCE_S:.0f} s ({reason}); its logs: {table.logs}"
            )
        api.ensure_pool("gpu", settings.gpu_slots, "tasks that use the accelerator")


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Hold the state folder's lock: two `up` or `down` at once take turns."""
    state.mkdir(parents=True, exist_ok=True)
    with open(state / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
