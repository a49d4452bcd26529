"""Connections, the schema and the embedded server, when all is well and when it isn't."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from batch_inference.tables import ensure_profile_table, open_engine
from risk.errors import DatabaseError
from risk.settings import Settings
from risk.storage import schema, server
from risk.storage.database import connect, database_url
from risk.system.environment import airflow_database_url


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder for a server of the test's own, stopped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="risk-storage-"))
    yield folder / "postgres"
    server.stop(folder / "postgres")
    shutil.rmtree(folder)


def settings(state: Path, url: str = "") -> Settings:
    return Settings(_env_file=None, state_dir=state, database_url=url)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "given",
    [
        "postgresql://me@host/risk", "postgres://me@host/risk",
        "postgresql+psycopg2://me@host/risk", "postgresql+asyncpg://me@host/risk",
    ],
)  # fmt: skip
def test_a_url_of_any_driver_is_psycopg_s(tmp_path: Path, given: str) -> None:
    assert database_url(settings(tmp_path, given)) == "postgresql+psycopg://me@host/risk"


@pytest.mark.parametrize("given", ["mysql://me@host/risk", "sqlite:///risk.db", "host=here dbname=risk"])
def test_another_database_is_refused_with_a_sentence(tmp_path: Path, given: str) -> None:
    with pytest.raises(DatabaseError, match="the job speaks PostgreSQL only: postgresql://user@host/database"):
        database_url(settings(tmp_path, given))


def test_a_server_that_does_not_answer_is_refused_with_a_sentence() -> None:
    url = "postgresql+psycopg://me@127.0.0.1:1/risk"
    sentence = r"(?s)the risk database can't be reached: .*refused.*; check RISK_DATABASE_URL"
    with pytest.raises(DatabaseError, match=sentence):
        connect(url).__enter__()
    with pytest.raises(DatabaseError, match=sentence):
        schema.upgrade(url)


def test_a_database_that_is_not_there_is_refused_with_a_sentence(postgres: Path) -> None:
    with pytest.raises(DatabaseError, match='database "nowhere" does not exist'):
        connect(server.url(postgres, "nowhere")).__enter__()


def test_a_block_is_one_transaction(database_url: str) -> None:
    with connect(database_url) as connection:
        connection.execute("CREATE TABLE kept ()")

    def fail() -> None:
        with connect(database_url) as connection:
            connection.execute("CREATE TABLE lost ()")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with connect(database_url) as connection:
        found = connection.execute("SELECT to_regclass('kept')::text, to_regclass('lost')::text").fetchone()
    assert found == ("kept", None)


def test_the_schema_is_the_newest_and_stays_so(database_url: str) -> None:
    assert schema.upgrade(database_url) == "0001"
    assert schema.upgrade(database_url) == "0001"


def test_the_embedded_server_starts_and_stops_twice(data: Path) -> None:
    with pytest.raises(DatabaseError, match=re.escape(f"the embedded PostgreSQL of {data} is not running; start it")):
        server.socket_folder(data)
    with pytest.raises(DatabaseError, match="is not running"):
        database_url(settings(data.parent))
    server.start(data)
    server.start(data)
    here = settings(data.parent)
    with connect(database_url(here)) as connection:
        ours = connection.execute("SELECT current_database(), inet_server_addr()").fetchone()
    assert ours == ("risk", None)  # by a socket, no address
    conninfo = airflow_database_url(here, "psycopg2").replace("+psycopg2", "")
    with psycopg.connect(conninfo) as connection_:
        airflow = connection_.execute("SELECT current_database(), current_setting('synchronous_commit')").fetchone()
    assert airflow == ("airflow", "off")
    url = database_url(here)
    assert server.stop(data) is True
    assert server.stop(data) is False
    with pytest.raises(DatabaseError, match="is not running"):
        server.socket_folder(data)
    with pytest.raises(DatabaseError, match="can't be reached"):
        connect(url).__enter__()


def test_a_data_folder_that_can_t_be_used_is_refused_with_a_sentence(tmp_path: Path) -> None:
    data = tmp_path / "postgres"
    data.write_text("a file, no folder")
    with pytest.raises(DatabaseError, match=r"the embedded PostgreSQL of .* does not start .*RISK_DATABASE_URL"):
        server.start(data)


COLUMNS = """
    SELECT column_name, data_type, is_nullable, column_default, is_identity, identity_generation
    FROM information_schema.columns WHERE table_name = 'batch_profile' ORDER BY ordinal_position"""
INDEXES = "SELECT indexdef FROM pg_indexes WHERE tablename = 'batch_profile' ORDER BY indexname"


def test_the_plugin_s_profile_table_is_the_migration_s(database_url: str) -> None:
    def described() -> list[Any]:
        with connect(database_url) as connection:
            return [connection.execute(query).fetchall() for query in (COLUMNS, INDEXES)]

    migrated = described()
    with connect(database_url) as connection:
        connection.execute("DROP TABLE batch_profile")
    ensure_profile_table(open_engine(database_url))
    assert described() == migrated
    assert len(migrated[0]) == 15
