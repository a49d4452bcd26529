"""A scored shard in the database: its rows, its quarantine and its lineage, written once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np
import psycopg
import pytest

from batch_inference import BatchInference, Outcome
from risk.forecasts import plan_shards, store_shard
from risk.settings import get_settings

Connection = psycopg.Connection[Any]

WORLD = """
    INSERT INTO instrument (source, symbol) VALUES ('test', 'AAA'), ('test', 'BBB'), ('test', 'CCC');
    INSERT INTO model_version (name, architecture, trained_through, weights_sha256, card)
        VALUES ('2021', 'a', '2021-12-31', 'w', '{}');
    INSERT INTO snapshot (session_date, source, cutoff, content_hash, sessions, instruments, market_return, market_rms,
                          bars, assumed_bars)
        VALUES ('2022-12-28', 'test', '2022-12-29 14:30+00', 'h', '{2022-12-28}', '{1, 2, 3}', '{0}', '{1}', 3, 0);
    INSERT INTO run (exchange, session_date, snapshot_id, vintage_id, configuration_hash, configuration, door,
                     dag_run_id, lineage)
        VALUES ('XNYS', '2022-12-28', 1, 1, 'c', '{}', 'hand', 'd', '{}');
    INSERT INTO batch_profile (profile_key, model, device, precision, input_shape, versions, batch_size, throughput,
                               latency_ms_per_batch, latency_ms_per_sample, reason, curve)
        VALUES ('k', 'm', 'cpu', 'float32', '8', '{}', 2, 4000, 0.5, 0.25, '2 is the best', '[]')"""


@pytest.fixture
def world(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """Run 1 of three instruments, in shards of two, and a batch profile."""
    monkeypatch.setenv("RISK_DATABASE_URL", database_url)
    get_settings.cache_clear()
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as opened:
        opened.execute(WORLD.encode())
        assert plan_shards(opened, 1, shard_size=2) == [0, 1]
        yield opened
    get_settings.cache_clear()


def scored(values: list[list[float]], instruments: list[int]) -> Outcome:
    result = BatchInference(lambda rows: rows, device="cpu", batch_size=2).run(np.array(values, dtype="f4"))
    return Outcome({"instrument_id": np.array(instruments)}, result.outputs, result.statistics)


def test_a_shard_is_stored_once_with_its_rows_its_quarantine_and_its_lineage(world: Connection) -> None:
    good = [0.5, 2.0, -5.0, -4.0, -3.0, 0.25, 3.0, -4.5]
    outcome = scored([good, [*good[:7], float("nan")]], [2, 1])
    told = store_shard(outcome, 1, 0, {"profile_id": 1, "batch_size": 2})
    assert told == {"shard": 0, "predictions": 1, "quarantined": 1}
    for _ in range(2):
        assert world.execute("SELECT * FROM prediction").fetchall() == [(date(2022, 12, 28), 1, 2, *good)]
        assert world.execute("SELECT instrument_id, reason FROM quarantine").fetchall() == [(1, "not_finite")]
        assert store_shard(scored([good], [3]), 1, 0) == told  # the second time writes nothing
    lineage = world.execute(
        "SELECT p.reason, execution ->> 'device', execution ->> 'precision', (execution ->> 'batch_size')::int "
        "FROM run_shard JOIN batch_profile p ON p.profile_id = (execution ->> 'profile_id')::bigint"
    )
    assert lineage.fetchall() == [("2 is the best", outcome.statistics.device, "float32", 2)]
    assert plan_shards(world, 1, shard_size=2) == [1]


def test_without_a_profile_its_lineage_names_none(world: Connection) -> None:
    store_shard(scored([[0.5, 2.0, -5.0, -4.0, -3.0, 0.25, 3.0, -4.5]], [3]), 1, 1)
    row = world.execute("SELECT execution ->> 'profile_id', predictions FROM run_shard WHERE shard = 1").fetchone()
    assert row == (None, 1)
