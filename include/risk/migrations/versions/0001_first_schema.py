"""The first schema: from a close to an order."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run the statements of the `.sql` file beside this one, as they stand (no `%` of theirs is a parameter)."""
    _run(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Drop everything: the schema below the first one is the empty one."""
    _run("DROP SCHEMA public CASCADE; CREATE SCHEMA public")


def _run(statements: str) -> None:
    cursor = op.get_bind().connection.cursor()
    cursor.execute(statements)
    cursor.close()
