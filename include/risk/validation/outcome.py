"""What an audit leaves behind: the run's state, by every blocking check that is stored.

`lock_run` first, then the checks are stored, then `settle`; `settle` commits, and raises after it has committed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

from risk.errors import CheckError, RiskError
from risk.validation.check import Check

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)

Kind = Literal["forecast", "risk"]
WORDS: dict[Kind, str] = {"forecast": "forecasts", "risk": "risk"}


def lock_run(connection: psycopg.Connection[Any], run_id: int) -> None:
    """Hold the run until the transaction ends: nobody else audits, measures or publishes it meanwhile.

    Raises:
        RiskError: there is no such run.
    """
    if connection.execute("SELECT FROM run WHERE run_id = %s FOR NO KEY UPDATE", (run_id,)).fetchone() is None:
        raise RiskError(f"run {run_id} does not exist; `risk status` lists the runs of each session")


def already_published(connection: psycopg.Connection[Any], run_id: int, kind: Kind) -> Check | None:
    """A passed check, not to be stored, that says that the run's forecasts or risk are published; or None."""
    row = connection.execute(
        "SELECT revision, session_date FROM publication WHERE run_id = %s AND kind = %s", (run_id, kind)
    ).fetchone()
    if row is None:
        return None
    connection.commit()
    revision, session = row
    sentence = f"Session {session} is already published as run {run_id}, {WORDS[kind]} revision {revision}"
    log.info("%s: nothing is written", sentence)
    return Check("already_published", None, None, "warn", True, f"{sentence}; nothing is written.")


def settle(connection: psycopg.Connection[Any], run_id: int, kind: Kind) -> None:
    """Make the run's forecasts or risk `audited`, or `refused` if a stored blocking check failed, and commit.

    The rule is the one by which PostgreSQL guards the publication: checks of the risk for the risk, all others for
    the forecasts.

    Raises:
        CheckError: refused, after the commit; with the sentences of the failed checks.
    """
    failed = connection.execute(
        "SELECT sentence FROM audit_check WHERE run_id = %s AND (stage = 'risk') = %s AND severity = 'block' "
        "AND NOT passed ORDER BY stage, name, subject",
        (run_id, kind == "risk"),
    ).fetchall()
    sentences = " ".join(str(sentence) for (sentence,) in failed)
    column = "risk_state" if kind == "risk" else "state"
    connection.execute(
        f"UPDATE run SET {column} = %s, refusal = %s WHERE run_id = %s",
        ("refused" if failed else "audited", sentences or None, run_id),
    )
    connection.commit()
    if failed:
        raise CheckError(f"the {WORDS[kind]} of run {run_id}: refused. {sentences}")
    log.info("The %s of run %d: audited", WORDS[kind], run_id)
