"""Connections to the risk database: the URL of the settings, or the embedded server's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from risk.errors import DatabaseError
from risk.settings import Settings, get_settings
from risk.storage import server

if TYPE_CHECKING:
    import psycopg


def database_url(settings: Settings | None = None) -> str:
    """The SQLAlchemy URL of the risk database (driver psycopg).

    Raises:
        DatabaseError: no URL is set and the embedded server is not running, or the URL isn't PostgreSQL's.
    """
    settings = settings or get_settings()
    if not settings.database_url:
        return server.url(settings.state_dir / "postgres", "risk")
    scheme, _, rest = settings.database_url.partition("://")
    if scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise DatabaseError(
            f"RISK_DATABASE_URL begins with {scheme!r}; the job speaks PostgreSQL only: postgresql://user@host/database"
        )
    return f"postgresql+psycopg://{rest}"


@contextmanager
def connect(url: str | None = None) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """One transaction: committed when the block ends, rolled back when it raises.

    Raises:
        DatabaseError: the server can't be reached.
    """
    import psycopg

    try:
        connection = psycopg.connect(_conninfo(url or database_url()), application_name="risk")
    except psycopg.OperationalError as error:
        raise DatabaseError(
            f"the risk database can't be reached: {str(error).strip()}; check RISK_DATABASE_URL"
        ) from error
    with connection:
        yield connection


@lru_cache(maxsize=8)
def _conninfo(url: str) -> str:
    """psycopg's own form of a SQLAlchemy URL."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)
