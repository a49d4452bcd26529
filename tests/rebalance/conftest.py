"""A market in the database, and nights on it: runs with forecasts, audited and published as the job leaves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from risk.books import ensure_books
from risk.settings import Settings

EXCHANGE = "XNYS"
NORMAL = {"q01": -2.326, "q025": -1.960, "q05": -1.645, "q50": 0.0, "q95": 1.645, "es025": -2.338}


@dataclass
class World:
    """Instruments with closes `(instruments, sessions)`, and the runs made on them."""

    connection: psycopg.Connection[Any]
    settings: Settings
    sessions: list[date]
    ids: dict[str, int]
    runs: list[int] = field(default_factory=list)

    def night(
        self,
        session: date,
        sigma: Mapping[str, float],
        *,
        quarantine: Mapping[str, str] | None = None,
        published: Sequence[str] = ("forecast", "risk"),
    ) -> int:
        """A run of a session with normal forecasts for the named symbols; `published` names what readers see of it."""
        run_id = self._open(session)
        self._forecast(run_id, session, sigma, quarantine or {})
        for kind in published:
            self.publish(run_id, kind)
        self.connection.commit()
        return run_id

    def publish(self, run_id: int, kind: str) -> None:
        """Audit by hand and publish, under PostgreSQL's own guard."""
        stage, state = ("risk", "risk_state") if kind == "risk" else ("predictions", "state")
        self.connection.execute(
            "INSERT INTO audit_check (run_id, stage, name, severity, passed, sentence) "
            "VALUES (%s, %s, 'made by the test', 'block', true, 'Fine.') ON CONFLICT DO NOTHING",
            (run_id, stage),
        )
        self.connection.execute(f"UPDATE run SET {state} = 'audited' WHERE run_id = %s", (run_id,))
        self.connection.execute(
            "INSERT INTO publication (kind, exchange, session_date, revision, run_id) SELECT %(kind)s, exchange, "
            "session_date, 1 + (SELECT count(*) FROM publication p WHERE p.kind = %(kind)s AND p.session_date = "
            "run.session_date), run_id FROM run WHERE run_id = %(run)s",
            {"kind": kind, "run": run_id},
        )
        self.connection.commit()

    def one(self, query: str, *facts: object) -> Any:
        """The first row of a query, its only column unpacked."""
        row = self.connection.execute(query, facts).fetchone()
        return row[0] if row is not None and len(row) == 1 else row

    def all(self, query: str, *facts: object) -> list[Any]:
        """The rows of a query."""
        return self.connection.execute(query, facts).fetchall()

    def _open(self, session: date) -> int:
        days = [day for day in self.sessions if day <= session]
        recent = days[-10:]
        snapshot = self.one(
            "INSERT INTO snapshot (session_date, source, cutoff, content_hash, sessions, instruments, market_return, "
            "market_rms, bars, assumed_bars, last_loaded_at) SELECT %s, 'test', %s, gen_random_uuid()::text, %s, "
            "coalesce(array_agg(instrument_id ORDER BY symbol) FILTER (WHERE instrument_id IN (SELECT instrument_id "
            "FROM market_bar WHERE session_date BETWEEN %s AND %s)), '{}'), %s, %s, 0, 0, clock_timestamp() "
            "FROM instrument RETURNING snapshot_id",
            session, f"{session} 23:00+00", days, recent[0], session, [0.0] * len(days), [1.0] * len(days),
        )  # fmt: skip
        vintage = self.one(
            "INSERT INTO model_version (name, architecture, trained_through, weights_sha256, card) "
            "VALUES ('test', 'test', '1999-12-31', 'test', '{}') "
            "ON CONFLICT (weights_sha256) DO UPDATE SET name = 'test' RETURNING vintage_id"
        )
        run_id = self.one(
            "INSERT INTO run (exchange, session_date, snapshot_id, vintage_id, configuration_hash, configuration, "
            "door, dag_run_id, lineage) VALUES (%s, %s, %s, %s, 'test', '{}', 'hand', 'test', '{}') RETURNING run_id",
            EXCHANGE, session, snapshot, vintage,
        )  # fmt: skip
        self.runs.append(run_id)
        return int(run_id)

    def _forecast(self, run_id: int, session: date, sigma: Mapping[str, float], quarantine: Mapping[str, str]) -> None:
        self.connection.execute("SELECT ensure_prediction_partition(%s)", (session,))
        columns = ", ".join(NORMAL)
        for symbol, value in sigma.items():
            self.connection.execute(
                f"INSERT INTO prediction (session_date, run_id, instrument_id, mu, sigma, {columns}) "
                f"VALUES (%s, %s, %s, 0, %s{', %s' * len(NORMAL)})",
                (session, run_id, self.ids[symbol], value, *(z * value for z in NORMAL.values())),
            )
        for symbol, reason in quarantine.items():
            self.connection.execute(
                "INSERT INTO quarantine VALUES (%s, %s, %s, 'Out.')", (run_id, self.ids[symbol], reason)
            )
        self.connection.execute(
            "INSERT INTO run_shard (run_id, shard, first_position, last_position, done_at) VALUES (%s, 0, 0, 9, now())",
            (run_id,),
        )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, state_dir=tmp_path, scenarios=250, book_capital=100_000.0)


@pytest.fixture
def make_world(connection: psycopg.Connection[Any], settings: Settings):
    """`make_world(closes)`: a world of these closes by symbol, NaN where there is no bar; sessions are weekdays."""

    def make(closes: Mapping[str, Sequence[float]], last: date = date(2022, 12, 28)) -> World:
        count = len(next(iter(closes.values())))
        days = [day for day in (last - timedelta(days=back) for back in range(2 * count + 7)) if day.weekday() < 5]
        sessions = sorted(days[:count])
        batch = connection.execute(
            "INSERT INTO ingest_batch (source, location, content_hash, first_session, last_session, bars, basis) "
            "VALUES ('test', 'test', 'test', %s, %s, 0, 'assumed') RETURNING batch_id",
            (sessions[0], sessions[-1]),
        ).fetchone()
        ids = {}
        with connection.cursor() as cursor:
            for symbol, prices in closes.items():
                cursor.execute(
                    "INSERT INTO instrument (source, symbol) VALUES ('test', %s) RETURNING instrument_id", (symbol,)
                )
                ids[symbol] = cursor.fetchone()[0]
                cursor.executemany(
                    "INSERT INTO market_bar (session_date, instrument_id, known_at, batch_id, close) "
                    "VALUES (%s, %s, %s, %s, %s)",
                    [
                        (day, ids[symbol], f"{day} 22:00+00", batch[0], float(price))
                        for day, price in zip(sessions, prices, strict=True)
                        if np.isfinite(price)
                    ],
                )
        ensure_books(connection, settings)
        connection.commit()
        return World(connection, settings, sessions, ids)

    return make


@pytest.fixture
def year(make_world) -> World:
    """Three names over 340 sessions: A and B move by a seeded random walk, C is A with twice the log return."""
    steps = np.random.default_rng(5).standard_normal((2, 340)) * 0.01
    paths = 100 * np.exp(np.cumsum(np.vstack([steps, 2 * steps[:1]]), axis=1))
    return make_world(dict(zip("ABC", paths, strict=True)))
