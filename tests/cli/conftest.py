"""A database with sessions in every state, planted by SQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from risk.settings import get_settings

PUBLISHED, REFUSED, UNFINISHED, RISK_REFUSED = "2022-12-28", "2022-12-23", "2022-12-27", "2022-12-22"
MISSING, EARLIER = "2022-12-21", "2022-12-20"
SCORED = {"device": "cpu", "precision": "float32", "batch_size": 256, "rows_per_second": 1234.5}
LINEAGE = {"code_sha256": "decade", "calendar": "4.13.2", "libraries": {"torch": "2.13.0"}}

SESSIONS = """
    INSERT INTO trading_session
    SELECT 'XNYS', day, day + time '14:30', day + time '21:00', day + time '22:00', day + time '23:30'
    FROM unnest(%s::date[]) AS day"""

REGISTER = """
    INSERT INTO instrument (source, symbol) VALUES ('bundled', 'AAPL'), ('bundled', 'GE'), ('bundled', 'XOM');
    INSERT INTO model_version (name, architecture, trained_through, weights_sha256, card)
        VALUES ('2022', 'a5c', '2021-12-31', 'ba5eba11', '{}');
    INSERT INTO book (name, kind, currency, capital)
        VALUES ('equal', 'equal_weight', 'USD', 1000000), ('[paper]', 'inverse_volatility', 'USD', 1000000);
    INSERT INTO batch_profile (profile_key, model, device, precision, input_shape, versions, batch_size, throughput,
                               latency_ms_per_batch, latency_ms_per_sample, reason, curve)
        VALUES ('k', 'm', 'cpu', 'float32', '256x4', '{}', 512, 4000, 128, 0.25,
                '512 is the smallest within 2% of the best', '[]')"""

SNAPSHOT = """
    INSERT INTO snapshot (session_date, source, cutoff, content_hash, sessions, instruments, market_return, market_rms,
                          bars, assumed_bars, last_loaded_at)
    VALUES (%(day)s::date, 'bundled', '2022-12-29 14:30+00', %(hash)s, ARRAY['2017-12-26', %(day)s]::date[],
            ARRAY[1, 2, 3], '{}', '{}', 25200, %(assumed)s, '2026-03-04 05:06+00')
    RETURNING snapshot_id"""

RUN = """
    INSERT INTO run (exchange, session_date, snapshot_id, vintage_id, configuration_hash, configuration, state,
                     risk_state, refusal, door, dag_run_id, lineage)
    VALUES ('XNYS', %s, %s, 1, 'c0ffee', '{"close_delay_minutes": 60}', %s, %s, %s, 'backfill', 'backfill__7', %s)
    RETURNING run_id"""

OUTCOME = """
    INSERT INTO quarantine VALUES ({run}, 3, 'stale', 'XOM has had the same close for 6 sessions');
    INSERT INTO risk_measure VALUES
        ({run}, 1, 'VaR', 0.99, 1, 24680.5, 1000000, 1000, 'filtered historical'),
        ({run}, 1, 'ES', 0.99, 1, 31415.25, 1000000, 1000, 'filtered historical');
    INSERT INTO rebalance (book_id, exchange, session_date, run_id, state, reason, book_value, cash_before, cash_after,
                           dag_run_id)
    VALUES (2, 'XNYS', '2022-12-28', {run}, 'published', 'inverse volatility', 1002000, 5000, 432.1, 'd'),
           (1, 'XNYS', '2022-12-28', {run}, 'refused', 'no price of GE', NULL, NULL, NULL, 'd');
    INSERT INTO order_line VALUES (1, 1, 'buy', 1200, 126.04, 'toward its weight'),
                                  (1, 2, 'sell', 30, 65.5, 'above its weight')"""


class Planter:
    """Writes rows as the nightly job would, with values of the test's own."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def run(
        self,
        session: str,
        *,
        state: str = "audited",
        risk_state: str = "open",
        refusal: str | None = None,
        assumed_bars: int = 10_000,
        execution: dict[str, Any] | None = None,
        shards: tuple[int, int] = (1, 1),
    ) -> int:
        """A run with its snapshot and its shards, `shards` = (done, all); gives its number."""
        number = self.connection.execute("SELECT 1 + count(*) FROM run").fetchall()[0][0]
        given = {"day": session, "hash": f"feed{number}", "assumed": assumed_bars}
        snapshot = self.connection.execute(SNAPSHOT, given).fetchall()[0][0]
        row = (session, snapshot, state, risk_state, refusal, json.dumps(LINEAGE))
        run = int(self.connection.execute(RUN, row).fetchall()[0][0])
        for shard in range(shards[1]):
            self.connection.execute(
                "INSERT INTO run_shard VALUES (%s, %s, %s, %s, CASE WHEN %s THEN now() END, 2, 1, %s)",
                (run, shard, shard, shard + 1, shard < shards[0], json.dumps(execution or SCORED)),
            )
        return run

    def check(
        self,
        run: int,
        stage: str,
        name: str,
        sentence: str,
        *,
        severity: str = "block",
        passed: bool = True,
        values: tuple[float | None, float | None] = (1.0, 0.9),
    ) -> None:
        """A stored check; `values` = (observed, threshold)."""
        self.connection.execute(
            "INSERT INTO audit_check (run_id, stage, name, observed, threshold, severity, passed, sentence) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (run, stage, name, *values, severity, passed, sentence),
        )

    def forecasts(self, run: int, session: str, revision: int = 1) -> None:
        """Published forecasts of AAPL and GE: multiples of a sigma of 1.25 and 2.5."""
        self.connection.execute("SELECT ensure_prediction_partition(%s)", (session,))
        for instrument, sigma in ((1, 1.25), (2, 2.5)):
            self.connection.execute(
                "INSERT INTO prediction VALUES (%s, %s, %s, 0.0625, %s, %s, %s, %s, 0.125, %s, %s)",
                (session, run, instrument, sigma, -3 * sigma, -2 * sigma, -1.5 * sigma, 1.75 * sigma, -2.75 * sigma),
            )
        self.publish(run, session, "forecast", revision)

    def publish(self, run: int, session: str, kind: str, revision: int = 1) -> None:
        self.connection.execute(
            "INSERT INTO publication (kind, exchange, session_date, revision, run_id, published_at) "
            "VALUES (%s, 'XNYS', %s, %s, %s, %s)",
            (kind, session, revision, run, f"2026-05-06 07:08:0{revision}+00"),
        )


@pytest.fixture
def plant(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Planter]:
    """Sessions published, missing, with a refused risk, refused, unfinished and published, in that order."""
    monkeypatch.setenv("RISK_DATABASE_URL", database_url)
    get_settings.cache_clear()
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        days = [EARLIER, MISSING, RISK_REFUSED, REFUSED, UNFINISHED, PUBLISHED, "2999-12-30"]
        connection.execute("SET timezone = 'UTC'")
        connection.execute(SESSIONS, (days,))
        connection.execute(REGISTER.encode())
        planter = Planter(connection)
        _plant_sessions(planter)
        yield planter
    get_settings.cache_clear()


def _plant_sessions(plant: Planter) -> None:
    earlier = plant.run(EARLIER, risk_state="audited")
    plant.check(earlier, "inputs", "coverage", "all there")
    plant.check(earlier, "risk", "sign", "every loss is positive")
    plant.forecasts(earlier, EARLIER)
    plant.publish(earlier, EARLIER, "risk")

    half = plant.run(RISK_REFUSED, risk_state="refused", refusal="VaR is negative")
    plant.check(half, "inputs", "coverage", "all there")
    plant.forecasts(half, RISK_REFUSED)
    plant.check(half, "risk", "sign", "the VaR of book equal is -3, a loss must be positive", passed=False)

    bad = plant.run(REFUSED, state="refused", refusal="too few bars")
    plant.check(bad, "inputs", "coverage", "12 of 20 instruments have a bar, 90% are needed.", passed=False)

    plant.run(UNFINISHED, state="open", shards=(3, 4))

    execution = {"device": "cpu", "precision": "float32", "batch_size": 512, "profile_id": 1}
    run = plant.run(PUBLISHED, risk_state="audited", execution=execution)
    plant.check(run, "inputs", "coverage", "20 of 20 instruments have a bar")
    jump = "XOM moved by 61.5% [a jump]"
    plant.check(run, "inputs", "jumps", jump, severity="warn", passed=False, values=(61.5, 50))
    plant.check(run, "risk", "sign", "every loss is positive", values=(None, None))
    plant.forecasts(run, PUBLISHED)
    plant.connection.execute(OUTCOME.format(run=run).encode())
    plant.publish(run, PUBLISHED, "risk")
