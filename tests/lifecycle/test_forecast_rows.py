"""The rows that a night writes: those of a naive loop, blind to tomorrow, whole whatever kills it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
import torch

from batch_inference import Outcome
from batch_inference.engine import BatchInference
from risk import nightly
from risk.context import session_calendar
from risk.errors import RiskError
from risk.forecasts import shard_rows, store_shard
from risk.market_data.bundled_closes import read_bundled_closes
from risk.model.vintages import list_vintages, load_vintage
from risk.sessions import SessionCalendar

SESSION = "2022-12-14"
COLUMNS = "mu, sigma, q01, q025, q05, q50, q95, es025"
ROWS = f'SELECT symbol, {COLUMNS} FROM prediction JOIN instrument USING (instrument_id) ORDER BY symbol COLLATE "C"'
BYTES = (
    "SELECT symbol, "
    + ", ".join(f"encode(float4send({name}), 'hex')" for name in COLUMNS.split(", "))
    + (" FROM prediction JOIN instrument USING (instrument_id) ORDER BY symbol")
)


@pytest.fixture(scope="module")
def naive() -> dict[str, list[float]]:
    """Every instrument's forecast, one row a call, from windows that pandas builds from the wheel's file."""
    closes = read_bundled_closes().loc[:SESSION]
    returns = (100 * np.log(closes / closes.shift(1))).iloc[-256:]
    market, rms = returns.mean(axis=1), np.sqrt((returns**2).mean(axis=1))
    network = load_vintage(next(each for each in list_vintages() if each.name == "2022"))
    scored = {}
    for symbol in closes.columns:
        window = pd.DataFrame({"own": returns[symbol], "market": market, "rms": rms, "presence": 1.0})
        with torch.no_grad():
            scored[symbol] = network(torch.tensor(window.to_numpy(np.float32))[None])[0].tolist()
    return scored


@pytest.mark.parametrize(
    ("shard_size", "shards", "batch_size"), [(7, 3, 3), (7, 3, 64), (20, 1, 1), (19, 2, 8), (5000, 1, 16384)]
)
def test_batched_forecasts_equal_a_naive_loop_s(
    job: Any,
    configure: Callable[..., Any],
    naive: dict[str, list[float]],
    shard_size: int,
    shards: int,
    batch_size: int,
) -> None:
    configure(RISK_SHARD_SIZE=shard_size)
    job.scored(SESSION, batch_size)
    assert job.one("SELECT count(*) FROM run_shard WHERE done_at IS NOT NULL") == shards
    rows = {symbol: list(values) for symbol, *values in job.all(ROWS)}
    assert rows.keys() == naive.keys()
    for symbol, values in rows.items():
        assert values == pytest.approx(naive[symbol], rel=1e-5, abs=1e-7), symbol


def plant(job: Any, known_at: Any) -> None:
    """Bars of today and tomorrow, 7% up for every name, and a new name, all of them known from `known_at` on."""
    tomorrow = session_calendar().next(date.fromisoformat(SESSION))
    job.all("INSERT INTO instrument (source, symbol) VALUES ('bundled', 'NEW')")
    for day in (SESSION, tomorrow):
        job.all(
            "INSERT INTO market_bar (session_date, instrument_id, known_at, batch_id, close) "
            "SELECT %s, instrument_id, %s, (SELECT max(batch_id) FROM ingest_batch), coalesce(1.07 * close, 50) "
            "FROM instrument LEFT JOIN market_bar b USING (instrument_id) WHERE coalesce(b.session_date, %s) = %s",
            day, known_at, day, day,
        )  # fmt: skip


@pytest.fixture(scope="module")
def told(module_job: Any) -> list[Any]:
    """The bytes of the session's forecasts where nothing is planted."""
    module_job.scored(SESSION)
    rows: list[Any] = module_job.all(BYTES)
    return rows


def test_tomorrow_s_bars_change_no_bit_of_today_s_forecasts(told: list[Any], job: Any) -> None:
    plant(job, session_calendar().cutoff(date.fromisoformat(SESSION)) + timedelta(microseconds=1))
    job.scored(SESSION)
    assert len(told) == 20
    assert job.all(BYTES) == told


def test_without_the_guard_the_same_plant_changes_the_forecasts(
    told: list[Any], job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutoff = session_calendar().cutoff(date.fromisoformat(SESSION))
    plant(job, cutoff + timedelta(microseconds=1))
    monkeypatch.setattr(SessionCalendar, "cutoff", lambda _self, _session: cutoff + timedelta(seconds=1))
    job.scored(SESSION)
    changed = {symbol: values for symbol, *values in job.all(BYTES)}
    assert all(changed.get(symbol) != values for symbol, *values in told)


def test_a_night_killed_between_shards_goes_on_at_the_first_undone_one(job: Any, configure: Callable[..., Any]) -> None:
    configure(RISK_SHARD_SIZE=7)
    run = job.opened(SESSION)
    assert [shard["shard"] for shard in nightly.plan_shards(run)] == [0, 1, 2]
    job.score(run, 0)
    first = job.all("SELECT xmin::text, instrument_id FROM prediction")
    configure(RISK_SHARD_SIZE=4)  # the borders of a run don't move
    assert job.opened(SESSION) == run
    assert nightly.plan_shards(run) == [{"run_id": run, "shard": 1}, {"run_id": run, "shard": 2}]
    for shard in (2, 1):
        job.score(run, shard)
    assert nightly.plan_shards(run) == []
    assert job.one("SELECT count(*), count(DISTINCT instrument_id) FROM prediction") == (20, 20)
    assert [row for row in job.all("SELECT xmin::text, instrument_id FROM prediction") if row in first] == first
    borders = job.all("SELECT first_position, last_position, predictions FROM run_shard ORDER BY shard")
    assert borders == [(0, 7, 7), (7, 14, 7), (14, 20, 6)]


def test_a_sink_that_dies_in_its_transaction_leaves_nothing_of_the_shard(job: Any) -> None:
    run = job.opened(SESSION)
    nightly.plan_shards(run)
    job.all(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF (SELECT count(*) FROM prediction) <> 20 THEN RAISE 'the rows were not there yet'; END IF; "
        "PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$"
    )
    job.all("CREATE TRIGGER die BEFORE UPDATE ON run_shard FOR EACH ROW EXECUTE FUNCTION die()")
    with pytest.raises(psycopg.OperationalError):
        job.score(run, 0)
    assert job.one("SELECT count(*) FROM prediction") == 0
    assert job.one("SELECT done_at FROM run_shard") is None
    job.all("DROP TRIGGER die ON run_shard")
    assert nightly.plan_shards(run) == [{"run_id": run, "shard": 0}]
    assert job.score(run, 0) == {"shard": 0, "predictions": 20, "quarantined": 0}


def test_a_shard_stored_twice_leaves_the_same_rows(job: Any) -> None:
    run = job.scored(SESSION)
    before = job.written()
    assert job.score(run, 0) == {"shard": 0, "predictions": 20, "quarantined": 0}
    assert job.written() == before


def test_rows_go_to_the_table_in_key_order(job: Any) -> None:
    run = job.opened(SESSION)
    nightly.plan_shards(run)
    source = shard_rows(run, 0)
    backwards = {"instrument_id": source.keys["instrument_id"][::-1]}
    result = BatchInference(torch.nn.Flatten(), device="cpu", batch_size=8).run(np.zeros((20, 8), np.float32))
    store_shard(Outcome(backwards, result.outputs, result.statistics), run, 0)
    stored = job.all("SELECT instrument_id FROM prediction ORDER BY ctid")
    assert stored == sorted(stored)


def test_a_row_that_is_not_finite_goes_to_quarantine_and_the_others_are_stored(job: Any) -> None:
    run = job.opened(SESSION)
    nightly.plan_shards(run)
    source = shard_rows(run, 0)
    outputs = np.zeros((20, 8), np.float32)
    outputs[3, 5], outputs[4, 0] = np.nan, np.inf
    result = BatchInference(torch.nn.Flatten(), device="cpu", batch_size=8).run(outputs)
    told = store_shard(Outcome(source.keys, result.outputs, result.statistics), run, 0)
    assert told == {"shard": 0, "predictions": 18, "quarantined": 2}
    bad = source.keys["instrument_id"][3:5].tolist()
    quarantine = "SELECT instrument_id FROM quarantine WHERE reason = 'not_finite' ORDER BY 1"
    assert job.all(quarantine) == sorted(bad)
    assert not set(bad) & set(job.all("SELECT instrument_id FROM prediction"))


def test_a_quarantined_instrument_is_not_scored(job: Any) -> None:
    run = job.opened(SESSION)
    nightly.plan_shards(run)
    job.all("INSERT INTO quarantine SELECT %s, min(instrument_id), 'test', 'Out.' FROM instrument", run)
    out = job.one("SELECT instrument_id FROM quarantine")
    assert job.score(run, 0)["predictions"] == 19
    assert out not in job.all("SELECT instrument_id FROM prediction")


def test_a_shard_that_was_not_planned_is_refused(job: Any) -> None:
    run = job.opened(SESSION)
    with pytest.raises(RiskError, match=f"run {run} has no shard 0; plan_shards makes them"):
        shard_rows(run, 0)
