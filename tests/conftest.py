"""A real PostgreSQL for every test that asks: one server a session, one fresh migrated database a test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from risk.storage import schema, server
from risk.storage.database import connect

_numbers = count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    """The data folder of a running server whose database `risk` has the newest schema; removed at the end."""
    # Not below pytest's own folder: each pytest that starts closes that one to the user whom root's server runs as.
    data = Path(tempfile.mkdtemp(prefix="risk-tests-")) / "postgres"
    server.start(data)
    try:
        schema.upgrade(server.url(data, "risk"))
        with psycopg.connect(_administrator(data), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # a test's data need not survive a crash
            connection.execute("SELECT pg_reload_conf()")
        yield data
    finally:
        server.stop(data)
        shutil.rmtree(data.parent)


@pytest.fixture
def database_url(postgres: Path) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database with the newest schema, dropped after the test."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(_administrator(postgres), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE risk".encode())
        yield server.url(postgres, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """One transaction on the test's database, committed at the end unless the test raises."""
    with connect(database_url) as opened:
        yield opened


def _administrator(data: Path) -> str:
    return server.url(data, "postgres").replace("+psycopg", "")
