"""The tasks of one session's night, in their order; each may run twice and leaves the same rows.

1. `resolve_session` says which session the run is for, whichever door it came through.
2. `extract_market_data` loads what the source has and takes the point-in-time snapshot.
3. `check_inputs` opens the run and audits the snapshot: a failed blocking check refuses the run.
4. (`batch_inference.operators.ProfileBatchSizeOperator` finds the batch size, or reuses the stored one.)
5. `plan_shards` names the shards that are not scored yet.
6. (`batch_inference.operators.BatchInferenceOperator` scores each of them, by `risk.forecasts`.)
7. `validate_predictions` audits the forecasts, `publish` publishes them.
8. `measure_risk` computes each book's risk, `validate_risk` audits it, `publish_report` publishes it.

Keys travel between tasks (a session, a snapshot, a run), never tables. Nothing here knows Airflow; but a task's
argument may not bear the name of one of Airflow's own, so a run's id is called `run` here.
"""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime

from risk.context import market_data_source, session_calendar, session_to_run
from risk.runs import open_run, read_run
from risk.runs import publish as publish_run
from risk.settings import get_settings
from risk.storage.database import connect

log = logging.getLogger(__name__)


def resolve_session(partition_key: str | None, session_param: str | None, run_after: datetime | None) -> str:
    """The run's session, as an ISO date.

    Raises:
        SessionError: the day is no session, has not closed, or is outside the source.
    """
    settings = get_settings()
    session = session_to_run(settings, partition_key=partition_key, session_param=session_param, run_after=run_after)
    calendar = session_calendar(settings)
    log.info(
        "Session %s of %s: closed %s, data may be known until %s", session, settings.exchange,
        f"{calendar.close(session):%Y-%m-%d %H:%M} UTC", f"{calendar.cutoff(session):%Y-%m-%d %H:%M} UTC",
    )  # fmt: skip
    return session.isoformat()


def extract_market_data(session: str) -> int:
    """Load what the source has up to the session, and take its snapshot.

    Returns:
        The snapshot's id.

    Raises:
        SourceError: the source lacks the session or can't be read; nothing is stored then.
    """
    from risk.market_data.ingest import ingest
    from risk.market_data.snapshot import take_snapshot
    from risk.setup import record_sessions

    settings, day = get_settings(), date.fromisoformat(session)
    source, calendar = market_data_source(settings), session_calendar(settings)
    with connect() as connection:
        record_sessions(connection, calendar, source.first_session, source.last_session)
        ingest(connection, source, calendar, day, datetime.now(UTC))
    with connect() as connection:
        snapshot = take_snapshot(
            connection, source_name=source.name, calendar=calendar, session=day,
            history_sessions=settings.history_sessions,
        )  # fmt: skip
    log.info(
        "Snapshot %d of session %s: %d instruments x %d sessions, %d bars (%d of an assumed time), hash %s (%s)",
        snapshot.snapshot_id, session, len(snapshot.instrument_ids), len(snapshot.sessions), snapshot.bars,
        snapshot.assumed_bars, snapshot.content_hash[:12], "new" if snapshot.created else "known already",
    )  # fmt: skip
    return snapshot.snapshot_id


def check_inputs(session: str, snapshot_id: int, door: str, dag_run_id: str) -> int:
    """Open the session's run, or find it, and audit its snapshot.

    Returns:
        The run's id.

    Raises:
        CheckError: a blocking check failed; the run is refused, its checks are stored.
    """
    from risk.validation.inputs import validate_inputs

    settings = get_settings()
    with connect() as connection:
        run, opened = open_run(
            connection, session=date.fromisoformat(session), snapshot_id=snapshot_id, settings=settings,
            calendar_version=session_calendar(settings).version, door=door, dag_run_id=dag_run_id,
        )  # fmt: skip
        connection.commit()
        if run.forecast_published:
            log.info("Session %s is already published as run %d: nothing is written", session, run.run_id)
            return run.run_id
        log.info("Run %d of session %s %s", run.run_id, session, "opened" if opened else "goes on")
        checks = validate_inputs(connection, run.run_id, settings)
    log.info("%d checks of the inputs passed", sum(check.passed for check in checks))
    return run.run_id


def plan_shards(run: int) -> list[dict[str, int]]:
    """The shards that are not scored yet, as the arguments of the mapped inference task."""
    from risk.forecasts import plan_shards as plan

    with connect() as connection:
        undone = plan(connection, run, get_settings().shard_size)
    log.info("Run %d has %d shards to score", run, len(undone))
    return [{"run_id": run, "shard": shard} for shard in undone]


def validate_predictions(run: int) -> int:
    """Audit the run's forecasts; returns its id.

    Raises:
        CheckError: a blocking check failed; the run is refused, its checks are stored.
    """
    from risk.validation.predictions import validate_predictions as validate

    with connect() as connection:
        checks = validate(connection, run, get_settings())
    log.info("Run %d: %d checks of the forecasts passed", run, sum(check.passed for check in checks))
    return run


def publish(run: int) -> list[dict[str, object]]:
    """Publish the run's forecasts.

    Returns:
        The run and a book each: the arguments of the mapped risk task.
    """
    from risk.books import measured_books

    with connect() as connection:
        revision, new = publish_run(connection, run, "forecast")
        books = measured_books(connection)
    if new:
        log.info("Published the forecasts of run %d as revision %d", run, revision)
    else:
        log.info("Already published as run %d, revision %d: nothing is written", run, revision)
    return [{"run": run, "book": book} for book in books]


def measure_risk(run: int, book: str) -> int:
    """Measure and store the risk of one book; returns the run's id."""
    from risk.books import measure_book

    with connect() as connection:
        outcome = measure_book(connection, run, book, get_settings())
    log.info("%s", outcome)
    return run


def validate_risk(run: int) -> int:
    """Audit the run's risk; returns its id.

    Raises:
        CheckError: a blocking check failed; the risk is refused, its checks are stored.
    """
    from risk.validation.risk import validate_risk as validate

    with connect() as connection:
        checks = validate(connection, run, get_settings())
    log.info("Run %d: %d checks of the risk passed", run, sum(check.passed for check in checks))
    return run


def publish_report(run: int) -> str:
    """Publish the run's risk; returns its session."""
    with connect() as connection:
        revision, new = publish_run(connection, run, "risk")
        session = read_run(connection, run).session
    if new:
        log.info("Published the risk of run %d as revision %d of session %s", run, revision, session)
    else:
        log.info("Already published as run %d, revision %d: nothing is written", run, revision)
    return session.isoformat()
