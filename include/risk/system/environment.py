"""The environment of Airflow's processes, made from the settings."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from risk.settings import PROJECT, Settings
from risk.storage import server


def airflow_environment(settings: Settings) -> dict[str, str]:
    """What Airflow's processes are started with; a variable `AIRFLOW__*` of the caller's own wins."""
    keys = _secrets(settings.state_dir / "secrets.json")
    ours = {
        "AIRFLOW_HOME": str(settings.state_dir / "airflow"),
        "PYTHONPATH": str(PROJECT / "include"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # A worker is held a moment after its task has ended (see the heartbeat below): more places than cores.
        "AIRFLOW__CORE__PARALLELISM": str(max(16, 2 * (os.cpu_count() or 1))),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",  # whoever reaches the port: loopback only
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{base_url(settings)}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": keys["fernet"],
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(settings.ui_port),
        "AIRFLOW__API__BASE_URL": base_url(settings),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": keys["api"],
        "AIRFLOW__API_AUTH__JWT_SECRET": keys["jwt"],
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": airflow_database_url(settings, "psycopg2"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": airflow_database_url(settings, "asyncpg"),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(settings.state_dir / "airflow" / "logs"),
        "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "alembic=WARNING",
        # A task of this job takes a second or two: the scheduler looks for the next one ten times a second.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",  # a port of its own; the API server tells the same
        # A worker that looks for the end of its task a moment too early looks again after this many seconds, five by
        # default: measured, a fortnight's backfill of empty tasks took 89 s on four workers, most of it in this wait.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "5",
    }
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    given = {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW__")}
    return {**inherited, **ours, **given}


def base_url(settings: Settings) -> str:
    """Where the API server and the UI answer."""
    return f"http://127.0.0.1:{settings.ui_port}"


def airflow_database_url(settings: Settings, driver: str) -> str:
    """Airflow's metadata database: the URL of the settings, or the embedded one."""
    if not settings.airflow_database_url:
        return server.url(settings.state_dir / "postgres", "airflow", driver)
    _, _, rest = settings.airflow_database_url.partition("://")
    return f"postgresql+{driver}://{rest}"


def _secrets(path: Path) -> dict[str, str]:
    """Keys of this installation, made once and readable by its owner only."""
    if not path.exists():
        import base64

        keys = {
            "fernet": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "jwt": secrets.token_urlsafe(64),
            "api": secrets.token_urlsafe(32),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(keys, file)
    loaded: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return loaded
