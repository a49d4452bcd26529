"""PostgreSQL itself guards the publication: rows written by hand, as from psql."""

from __future__ import annotations

from datetime import date
from typing import Any

import psycopg
import pytest

SESSION = date(2022, 12, 28)
PUBLISH = "INSERT INTO publication (kind, exchange, session_date, revision, run_id) VALUES (%s, 'XNYS', %s, %s, %s)"

Connection = psycopg.Connection[Any]


@pytest.fixture
def run(connection: Connection) -> int:
    """An audited run with a passed check of each stage and one shard that is done; its risk is audited too."""
    snapshot = connection.execute(
        "INSERT INTO snapshot (session_date, source, cutoff, content_hash, sessions, instruments, market_return, "
        "market_rms, bars, assumed_bars) VALUES (%s, 'test', now(), 'h', '{}', '{}', '{}', '{}', 0, 0) "
        "RETURNING snapshot_id",
        (SESSION,),
    ).fetchone()
    vintage = connection.execute(
        "INSERT INTO model_version (name, architecture, trained_through, weights_sha256, card) "
        "VALUES ('2022', 'a', '2021-12-31', 'w', '{}') RETURNING vintage_id"
    ).fetchone()
    row = connection.execute(
        "INSERT INTO run (exchange, session_date, snapshot_id, vintage_id, configuration_hash, configuration, door, "
        "dag_run_id, lineage, state, risk_state) VALUES ('XNYS', %s, %s, %s, 'c', '{}', 'hand', 'd', '{}', "
        "'audited', 'audited') RETURNING run_id",
        (SESSION, *(snapshot or ()), *(vintage or ())),
    ).fetchone()
    run_id = int((row or (0,))[0])
    for stage in ("inputs", "predictions", "risk"):
        connection.execute(
            "INSERT INTO audit_check (run_id, stage, name, severity, passed, sentence) "
            "VALUES (%s, %s, 'coverage', 'block', true, 'All there.')",
            (run_id, stage),
        )
    connection.execute("INSERT INTO run_shard VALUES (%s, 0, 0, 10, now())", (run_id,))
    connection.commit()
    return run_id


def publish(
    connection: Connection, run: int, kind: str = "forecast", session: date = SESSION, revision: int = 1
) -> None:
    with connection.transaction():
        connection.execute(PUBLISH, (kind, session, revision, run))


def refused(connection: Connection, run: int, kind: str = "forecast", session: date = SESSION) -> str:
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation) as refusal:
        publish(connection, run, kind, session)
    return str(refusal.value.diag.message_primary)


def test_an_audited_run_is_published_forecasts_first(connection: Connection, run: int) -> None:
    assert refused(connection, run, "risk") == f"the forecasts of run {run} are not published; its risk can't be"
    publish(connection, run)
    publish(connection, run, "risk")
    assert connection.execute("SELECT kind FROM publication ORDER BY publication_id").fetchall() == [
        ("forecast",), ("risk",)
    ]  # fmt: skip


@pytest.mark.parametrize("state", ["open", "refused"])
@pytest.mark.parametrize(("kind", "column"), [("forecast", "state"), ("risk", "risk_state")])
def test_an_unaudited_run_is_refused(connection: Connection, run: int, kind: str, column: str, state: str) -> None:
    connection.execute(f"UPDATE run SET {column} = %s".encode(), (state,))
    sentence = f"run {run} is not audited for its {kind} (state {state}); its checks must all be run and stored first"
    assert refused(connection, run, kind) == sentence


@pytest.mark.parametrize(("kind", "stage"), [("forecast", "inputs"), ("forecast", "predictions"), ("risk", "risk")])
def test_a_failed_blocking_check_refuses(connection: Connection, run: int, kind: str, stage: str) -> None:
    connection.execute("UPDATE audit_check SET passed = false, sentence = 'Half is gone.' WHERE stage = %s", (stage,))
    assert refused(connection, run, kind) == f"run {run} failed a blocking check: Half is gone."


def test_a_failed_warning_does_not_refuse(connection: Connection, run: int) -> None:
    connection.execute("UPDATE audit_check SET passed = false, severity = 'warn'")
    publish(connection, run)


@pytest.mark.parametrize("kind", ["forecast", "risk"])
def test_a_run_without_a_stored_check_is_refused(connection: Connection, run: int, kind: str) -> None:
    connection.execute("DELETE FROM audit_check")
    assert (
        refused(connection, run, kind) == f"run {run} has no stored check of its {kind}; nothing unaudited is published"
    )


def test_undone_shards_refuse(connection: Connection, run: int) -> None:
    connection.execute("INSERT INTO run_shard VALUES (%s, 1, 10, 20)", (run,))
    assert refused(connection, run) == f"run {run} has shards that are not scored"
    connection.execute("DELETE FROM run_shard")
    assert refused(connection, run) == f"run {run} has shards that are not scored"


def test_another_session_or_an_unknown_run_is_refused(connection: Connection, run: int) -> None:
    sentence = f"run {run} is of session 2022-12-28 of XNYS, not of 2022-12-27 of XNYS"
    assert refused(connection, run, session=date(2022, 12, 27)) == sentence
    assert refused(connection, 4711) == "run 4711 does not exist; only an audited run can be published"


def test_a_run_is_published_once(connection: Connection, run: int) -> None:
    publish(connection, run)
    with pytest.raises(psycopg.errors.UniqueViolation):
        publish(connection, run, revision=2)


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("UPDATE publication SET revision = 2", "UPDATE"),
        ("DELETE FROM publication", "DELETE"),
        ("TRUNCATE publication", "TRUNCATE"),
        ("TRUNCATE run CASCADE", "TRUNCATE"),
    ],
)
def test_a_publication_is_never_changed(connection: Connection, run: int, statement: str, word: str) -> None:
    publish(connection, run)
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation) as refusal, connection.transaction():
        connection.execute(statement.encode())
    sentence = f"publication is append-only: {word} is refused; publish a new revision instead"
    assert refusal.value.diag.message_primary == sentence
    assert connection.execute("SELECT revision FROM publication").fetchall() == [(1,)]
