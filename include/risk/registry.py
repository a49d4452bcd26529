"""The model registry: vintages and their assignment to sessions, as rows of the risk database."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risk.errors import ModelError

if TYPE_CHECKING:
    import psycopg

    from risk.model.network import VolatilityNetwork


@dataclass(frozen=True)
class Assigned:
    """The vintage that serves a session."""

    vintage_id: int
    name: str
    weights_sha256: str
    trained_through: date


def register_vintages(connection: psycopg.Connection[Any], folder: Path | None) -> int:
    """Put every vintage of the folder, and its assignment, into the registry; those that are there stay as they are.

    Returns:
        How many vintages are new.
    """
    from risk.model.vintages import list_vintages

    new = 0
    for vintage in list_vintages(folder):
        row = connection.execute(
            "INSERT INTO model_version (name, architecture, trained_through, weights_sha256, card) "
            "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (weights_sha256) DO NOTHING RETURNING vintage_id",
            (
                vintage.name,
                vintage.architecture,
                vintage.trained_through,
                vintage.weights_sha256,
                json.dumps(dict(vintage.card)),
            ),
        ).fetchone()
        if row is None:
            continue
        new += 1
        connection.execute(
            "INSERT INTO model_assignment (vintage_id, effective_from, decided_at, basis, decided_by, reason) "
            "VALUES (%s, %s, %s, %s, %s, %s)",
            (row[0], vintage.effective_from, vintage.decided_at, vintage.basis, vintage.decided_by, vintage.reason),
        )
    return new


def assigned_vintage(connection: psycopg.Connection[Any], session: date) -> Assigned:
    """The vintage in force for a session: the latest assignment that is effective and was trained before it.

    Raises:
        ModelError: no vintage may serve the session.
    """
    row = connection.execute(
        "SELECT v.vintage_id, v.name, v.weights_sha256, v.trained_through "
        "FROM model_assignment a JOIN model_version v USING (vintage_id) "
        "WHERE a.effective_from <= %(session)s AND v.trained_through < %(session)s "
        "ORDER BY a.effective_from DESC, a.assignment_id DESC LIMIT 1",
        {"session": session},
    ).fetchone()
    if row is None:
        first = connection.execute("SELECT min(effective_from) FROM model_assignment").fetchone()
        since = f"the registry serves sessions from {first[0]} on" if first and first[0] else "the registry is empty"
        raise ModelError(
            f"no vintage may serve session {session}: it needs one that took effect by then and was trained only on "
            f"earlier sessions; {since}. Train one with `make train`, or choose a later session"
        )
    return Assigned(*row)


def load_assigned(connection: psycopg.Connection[Any], run_id: int, folder: Path | None) -> VolatilityNetwork:
    """The network of a run's vintage, its weights checked against the registry's hash.

    Raises:
        ModelError: the vintage's file is gone from the folder, or its weights have changed.
    """
    from risk.model.vintages import list_vintages, load_vintage

    row = connection.execute(
        "SELECT v.name, v.weights_sha256 FROM run JOIN model_version v USING (vintage_id) WHERE run_id = %s", (run_id,)
    ).fetchone()
    if row is None:
        raise ModelError(f"run {run_id} does not exist; open one by running its session")
    name, sha256 = row
    for vintage in list_vintages(folder):
        if vintage.weights_sha256 == sha256:
            return load_vintage(vintage)
    raise ModelError(
        f"vintage {name} with weights {sha256[:12]} is in the registry and not in the folder of vintages; "
        "put its file and manifest entry back, or set RISK_VINTAGES_DIR to the folder that has them"
    )
