"""A real PostgreSQL for every test that asks: one server a session, one fresh migrated database a test.

The fixtures import what they need: tests that ask for none of them run where there is no database driver.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import psycopg

_numbers = count(1)


@pytest.fixture(scope="session")
def make_server_folder() -> Iterator[Callable[[], Path]]:
    """Makes folders for data of PostgreSQL servers, removed at the end.

    Not below pytest's own folder: each pytest that starts closes that one to everybody else, also to the user whom
    root's server runs as. A server that lives below it then dies at its next checkpoint, unable to open its own files.
    """
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="risk-tests-")))
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(make_server_folder: Callable[[], Path]) -> Iterator[Path]:
    """The data folder of a running server whose database `risk` has the newest schema; removed at the end."""
    import psycopg

    from risk.storage import schema, server

    data = make_server_folder() / "postgres"
    server.start(data)
    try:
        schema.upgrade(server.url(data, "risk"))
        with psycopg.connect(_administrator(data), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # a test's data need not survive a crash
            connection.execute("SELECT pg_reload_conf()")
        yield data
    finally:
        server.stop(data)


@pytest.fixture
def database_url(postgres: Path) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database with the newest schema, dropped after the test."""
    import psycopg

    from risk.storage import server

    name = f"test_{next(_numbers)}"
    with psycopg.connect(_administrator(postgres), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE risk".encode())
        yield server.url(postgres, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """One transaction on the test's database, committed at the end unless the test raises."""
    from risk.storage.database import connect

    with connect(database_url) as opened:
        yield opened


def _administrator(data: Path) -> str:
    from risk.storage import server

    return server.url(data, "postgres").replace("+psycopg", "")
