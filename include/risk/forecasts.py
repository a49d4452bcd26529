"""Forecasts of one run: the shards to score, each shard's windows, and its rows with its done mark in one transaction.

1. `plan_shards` cuts the snapshot's universe into slices and names those that are not done.
2. `vintage_model` and `shard_rows` are the model and the rows that the inference operator scores.
3. `store_shard` writes the shard's predictions and quarantine and marks it done, in one transaction.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from risk.errors import RiskError
from risk.runs import read_run
from risk.settings import get_settings
from risk.storage.database import connect
from risk.validation.check import Quarantined, store_quarantine

if TYPE_CHECKING:
    import psycopg

    from batch_inference import Outcome, Source
    from risk.model.network import VolatilityNetwork

log = logging.getLogger(__name__)


def plan_shards(connection: psycopg.Connection[Any], run_id: int, shard_size: int) -> list[int]:
    """Cut the universe into shards of at most `shard_size` instruments, once a run; name the undone ones.

    A run keeps the shards that it was planned with: one that goes on after a kill may not move its borders.
    """
    run = read_run(connection, run_id)
    row = connection.execute(
        "SELECT cardinality(instruments) FROM snapshot WHERE snapshot_id = %s", (run.snapshot_id,)
    ).fetchone()
    instruments = int(row[0]) if row else 0
    planned = connection.execute("SELECT count(*) FROM run_shard WHERE run_id = %s", (run_id,)).fetchone()
    if not planned or not planned[0]:
        borders = range(0, instruments, shard_size)
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO run_shard (run_id, shard, first_position, last_position) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT DO NOTHING",
                [(run_id, shard, first, min(first + shard_size, instruments)) for shard, first in enumerate(borders)],
            )
    connection.execute("SELECT ensure_prediction_partition(%s)", (run.session,))
    undone = connection.execute(
        "SELECT shard FROM run_shard WHERE run_id = %s AND done_at IS NULL ORDER BY shard", (run_id,)
    ).fetchall()
    return [int(shard) for (shard,) in undone]


def vintage_model(run_id: int) -> VolatilityNetwork:
    """The network of the run's vintage; the inference operator's `model`."""
    from risk.registry import load_assigned

    with connect() as connection:
        return load_assigned(connection, run_id, get_settings().vintages_dir)


def shard_rows(run_id: int, shard: int) -> Source:
    """The windows of a shard's instruments that are not in quarantine; the inference operator's `source`.

    Returns:
        Keys `instrument_id` `(rows,)` int32, and rows `(rows, 256, 4)` float32: own return, the market's mean and root
        mean square over the whole universe, presence; the oldest session first, the last is the run's.
    """
    import numpy as np

    from batch_inference import Source
    from risk.market_data.fields import log_returns_percent, panel_fields
    from risk.market_data.panel import read_panel
    from risk.model.network import LOOKBACK

    with connect() as connection:
        run = read_run(connection, run_id)
        first, last = _borders(connection, run_id, shard)
        panel = read_panel(connection, run.snapshot_id, first, last, sessions=LOOKBACK + 1)
        rows = connection.execute("SELECT instrument_id FROM quarantine WHERE run_id = %s", (run_id,)).fetchall()
    returns, present = log_returns_percent(panel.closes)
    windows = panel_fields(
        returns[:, -LOOKBACK:],
        present[:, -LOOKBACK:],
        panel.market_return[-LOOKBACK:],
        panel.market_rms[-LOOKBACK:],
    )
    keep = ~np.isin(panel.instrument_ids, np.array([row[0] for row in rows], dtype=np.int64))
    return Source({"instrument_id": panel.instrument_ids[keep]}, np.ascontiguousarray(windows[keep]))


def store_shard(outcome: Outcome, run_id: int, shard: int, profile: Mapping[str, Any] | None = None) -> dict[str, int]:
    """Store the shard's predictions and mark it done, in one transaction; the inference operator's `sink`.

    A row with a value that is not finite goes to quarantine, and the others are stored. A shard that is done is left
    as it is: a task that runs twice leaves the same rows.

    Args:
        outcome: the scored rows.
        run_id, shard: whose they are.
        profile: the batch profile whose batch size was used; its id is stored as lineage.

    Returns:
        The shard, its predictions and quarantined rows: the task's XCom.
    """
    import numpy as np

    outputs = np.asarray(outcome.outputs, dtype=np.float32)
    instruments = np.asarray(outcome.keys["instrument_id"], dtype=np.int32)
    finite = np.isfinite(outputs).all(axis=1)
    with connect() as connection:
        done: Any = connection.execute(
            "SELECT done_at IS NOT NULL, predictions, quarantined FROM run_shard WHERE run_id = %s AND shard = %s "
            "FOR UPDATE",
            (run_id, shard),
        ).fetchone()
        if done is not None and done[0]:
            log.info("Shard %d of run %d is stored already: nothing is written", shard, run_id)
            return {"shard": shard, "predictions": int(done[1]), "quarantined": int(done[2])}
        _copy_predictions(connection, run_id, instruments[finite], outputs[finite])
        _quarantine(connection, run_id, instruments[~finite])
        stored = {"shard": shard, "predictions": int(finite.sum()), "quarantined": int((~finite).sum())}
        connection.execute(
            "UPDATE run_shard SET done_at = clock_timestamp(), predictions = %s, quarantined = %s, execution = %s "
            "WHERE run_id = %s AND shard = %s",
            (stored["predictions"], stored["quarantined"], json.dumps(_execution(outcome, profile)), run_id, shard),
        )
    log.info("Stored shard %(shard)d: %(predictions)d predictions, %(quarantined)d rows to quarantine", stored)
    return stored


def _copy_predictions(connection: psycopg.Connection[Any], run_id: int, instruments: Any, outputs: Any) -> None:
    """Copy `outputs` `(rows, 8)` of `instruments` `(rows,)` in key order."""
    import numpy as np

    from risk.model.network import OUTPUT_COLUMNS
    from risk.storage import wire

    session = read_run(connection, run_id).session
    wire.copy_rows(
        connection,
        "prediction",
        [
            ("session_date", np.full(len(instruments), wire.to_day(session), dtype=np.int32)),
            ("run_id", np.full(len(instruments), run_id, dtype=np.int64)),
            ("instrument_id", instruments),
            *((name, outputs[:, column]) for column, name in enumerate(OUTPUT_COLUMNS)),
        ],
        np.argsort(instruments),
    )


def _quarantine(connection: psycopg.Connection[Any], run_id: int, instruments: Any) -> None:
    sentence = "the model gave a value that is not finite; look at the instrument's last bars"
    store_quarantine(connection, run_id, [Quarantined(int(each), "not_finite", sentence) for each in instruments])


def _borders(connection: psycopg.Connection[Any], run_id: int, shard: int) -> tuple[int, int]:
    row = connection.execute(
        "SELECT first_position, last_position FROM run_shard WHERE run_id = %s AND shard = %s", (run_id, shard)
    ).fetchone()
    if row is None:
        raise RiskError(f"run {run_id} has no shard {shard}; plan_shards makes them")
    return int(row[0]), int(row[1])


def _execution(outcome: Outcome, profile: Mapping[str, Any] | None) -> dict[str, object]:
    """How the shard was scored: lineage, not identity."""
    statistics = outcome.statistics
    return {
        "device": statistics.device,
        "precision": statistics.precision,
        "precision_reason": statistics.precision_reason,
        "batch_size": statistics.batch_size,
        "profile_id": None if profile is None else profile["profile_id"],
        "rows_per_second": statistics.rows_per_second,
        "throughput": statistics.throughput,
        "latency_ms_per_batch": statistics.latency_ms_per_batch,
        "latency_ms_per_sample": statistics.latency_ms_per_sample,
        "peak_memory_bytes": statistics.peak_memory_bytes,
    }
