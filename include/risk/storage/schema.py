"""The schema of the risk database: Alembic's migrations, run to the newest."""

from __future__ import annotations

from pathlib import Path

from risk.errors import DatabaseError
from risk.storage.database import database_url

MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"
_LOCK = "risk schema"


def upgrade(url: str | None = None) -> str:
    """Bring the risk database to the newest schema; two at once take turns.

    Returns:
        The schema's revision.

    Raises:
        DatabaseError: the server can't be reached.
    """
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import OperationalError

    engine = create_engine(url or database_url())
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(hashtext(:name))"), {"name": _LOCK})
            connection.commit()
            config = Config(attributes={"connection": connection})
            config.set_main_option("script_location", str(MIGRATIONS))
            command.upgrade(config, "head")
            connection.commit()
            return str(connection.scalar(text("SELECT version_num FROM alembic_version")))
    except OperationalError as error:
        raise DatabaseError(f"the risk database can't be reached: {error.orig}; check RISK_DATABASE_URL") from error
    finally:
        engine.dispose()
