"""Runs: one attempt to produce a session's predictions, known by session, snapshot, vintage and configuration.

The same identity finds the same run: a published one is told and left alone, one that was killed goes on where it
was, one that a check refused is refused again with the same sentence. Code, device, precision and batch size are
lineage: they are stored with the run and make no new one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from risk.errors import RiskError
from risk.lineage import lineage
from risk.registry import assigned_vintage
from risk.settings import Settings

if TYPE_CHECKING:
    import psycopg

DOORS = {"scheduled": "schedule", "backfill": "backfill", "manual": "hand", "asset_triggered": "asset"}


@dataclass(frozen=True)
class Run:
    """A run as it stands now."""

    run_id: int
    exchange: str
    session: date
    snapshot_id: int
    vintage_id: int
    state: str
    risk_state: str
    forecast_published: bool
    risk_published: bool


def open_run(
    connection: psycopg.Connection[Any],
    *,
    session: date,
    snapshot_id: int,
    settings: Settings,
    calendar_version: str,
    door: str,
    dag_run_id: str,
) -> tuple[Run, bool]:
    """The run of this identity, opened if there is none.

    Returns:
        The run, and whether this call opened it.

    Raises:
        ModelError: no vintage may serve the session.
    """
    vintage = assigned_vintage(connection, session)
    identity = (session, snapshot_id, vintage.vintage_id, settings.configuration_hash())
    opened = connection.execute(
        "INSERT INTO run (session_date, snapshot_id, vintage_id, configuration_hash, exchange, configuration, door, "
        "dag_run_id, lineage) SELECT %s, %s, %s, %s, %s, %s, %s, %s, %s WHERE NOT EXISTS (SELECT FROM run WHERE "
        "(session_date, snapshot_id, vintage_id, configuration_hash) = (%s, %s, %s, %s)) "
        "ON CONFLICT (session_date, snapshot_id, vintage_id, configuration_hash) DO NOTHING RETURNING run_id",
        (
            *identity,
            settings.exchange,
            json.dumps(settings.configuration()),
            DOORS.get(door, door),
            dag_run_id,
            json.dumps(lineage(calendar_version)),
            *identity,
        ),
    ).fetchone()
    found = connection.execute(
        "SELECT run_id FROM run WHERE (session_date, snapshot_id, vintage_id, configuration_hash) = (%s, %s, %s, %s)",
        identity,
    ).fetchone()
    if found is None:
        raise RiskError(f"the run of session {session} was opened by another transaction that is not over; try again")
    return read_run(connection, found[0]), opened is not None


def read_run(connection: psycopg.Connection[Any], run_id: int) -> Run:
    """The run as it stands now.

    Raises:
        RiskError: there is no such run.
    """
    row = connection.execute(
        "SELECT run_id, exchange, session_date, snapshot_id, vintage_id, state, risk_state, "
        "EXISTS (SELECT FROM publication p WHERE p.run_id = run.run_id AND kind = 'forecast'), "
        "EXISTS (SELECT FROM publication p WHERE p.run_id = run.run_id AND kind = 'risk') FROM run WHERE run_id = %s",
        (run_id,),
    ).fetchone()
    if row is None:
        raise RiskError(f"run {run_id} does not exist; `risk status` lists the runs of each session")
    return Run(*row)


def publish(connection: psycopg.Connection[Any], run_id: int, kind: str) -> tuple[int, bool]:
    """Publish a run's forecasts or risk as the session's newest revision; PostgreSQL refuses one that isn't audited.

    Args:
        kind: `"forecast"` or `"risk"`.

    Returns:
        The revision, and whether this call published it (`False`: it was published already).
    """
    run = read_run(connection, run_id)
    connection.execute(
        "SELECT pg_advisory_xact_lock(hashtext('publication'), hashtext(%s))", (f"{run.exchange} {run.session}",)
    )
    before = connection.execute(
        "SELECT revision FROM publication WHERE kind = %s AND run_id = %s", (kind, run_id)
    ).fetchone()
    if before is not None:
        return int(before[0]), False
    row = connection.execute(
        "INSERT INTO publication (kind, exchange, session_date, revision, run_id) "
        "SELECT %(kind)s, %(exchange)s, %(session)s, 1 + coalesce(max(revision), 0), %(run)s FROM publication "
        "WHERE kind = %(kind)s AND exchange = %(exchange)s AND session_date = %(session)s RETURNING revision",
        {"kind": kind, "exchange": run.exchange, "session": run.session, "run": run_id},
    ).fetchone()
    if row is None:
        raise RiskError(f"run {run_id} was not published and PostgreSQL did not say why")
    return int(row[0]), True
