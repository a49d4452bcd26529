"""What Airflow's processes are started with."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from risk.settings import Settings
from risk.system.environment import airflow_database_url, airflow_environment

Make = Callable[..., Settings]


def test_everything_listens_on_loopback_at_the_settings_port(make_settings: Make) -> None:
    given = airflow_environment(make_settings(ui_port=8123))
    assert given["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert given["AIRFLOW__API__PORT"] == "8123"
    assert given["AIRFLOW__API__BASE_URL"] == "http://127.0.0.1:8123"
    assert given["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8123/execution/"


def test_the_secrets_are_made_once_and_readable_by_their_owner_only(make_settings: Make, tmp_path: Path) -> None:
    first = airflow_environment(make_settings())
    path = tmp_path / "secrets.json"
    assert path.stat().st_mode & 0o777 == 0o600
    keys = json.loads(path.read_text())
    assert len(base64.urlsafe_b64decode(keys["fernet"])) == 32
    assert first["AIRFLOW__CORE__FERNET_KEY"] == keys["fernet"]
    second = airflow_environment(make_settings())
    names = ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET")
    assert [first[name] for name in names] == [second[name] for name in names]
    assert len({first[name] for name in names}) == 3
    other = airflow_environment(make_settings(state_dir=tmp_path / "other"))
    assert all(first[name] != other[name] for name in names)


def test_the_caller_s_own_airflow_variables_win(make_settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "3")
    monkeypatch.setenv("AIRFLOW_HOME", "/elsewhere")
    monkeypatch.setenv("RISK_EXCHANGE", "XLON")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    given = airflow_environment(make_settings())
    assert given["AIRFLOW__CORE__PARALLELISM"] == "3"
    assert given["RISK_EXCHANGE"] == "XLON"
    assert given["AIRFLOW_HOME"].endswith("airflow")
    assert given["AIRFLOW_HOME"] != "/elsewhere"
    assert "PYTHONDONTWRITEBYTECODE" not in given


def test_airflow_s_database_is_given_for_each_driver(make_settings: Make) -> None:
    settings = make_settings(airflow_database_url="postgresql+psycopg://me@db/airflow")
    assert airflow_database_url(settings, "psycopg2") == "postgresql+psycopg2://me@db/airflow"
    given = airflow_environment(settings)
    assert given["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"] == "postgresql+asyncpg://me@db/airflow"
