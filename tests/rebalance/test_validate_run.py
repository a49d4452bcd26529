"""Audits of a stored run: what is stored, what state it leaves, and what PostgreSQL then lets be published."""

from __future__ import annotations

from datetime import date

import psycopg
import pytest

from risk.books import measure_book
from risk.errors import CheckError, RiskError
from risk.validation.check import Check, store_checks
from risk.validation.predictions import validate_predictions
from risk.validation.risk import validate_risk

SESSION = date(2022, 12, 28)
SIGMA = {"A": 1.0, "B": 2.0, "C": 3.0}


@pytest.fixture
def other(year, database_url: str):
    """A second connection: it sees what is committed."""
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as opened:
        yield opened


def _state(connection, run_id: int, column: str = "state") -> tuple:
    row = connection.execute(f"SELECT {column}, refusal FROM run WHERE run_id = %s", (run_id,)).fetchone()
    assert row is not None
    return row


def test_a_sound_run_is_audited_and_can_be_published(year, settings, other) -> None:
    run_id = year.night(SESSION, SIGMA, published=[])
    checks = validate_predictions(year.connection, run_id, settings)
    stored = other.execute("SELECT count(*) FROM audit_check WHERE stage = 'predictions' AND passed").fetchone()
    assert stored == (len(checks),)
    assert _state(other, run_id) == ("audited", None)
    year.publish(run_id, "forecast")


def test_a_refusal_is_stored_with_its_sentences_though_the_function_raises(year, settings, other) -> None:
    run_id = year.night(SESSION, {"A": 1.0, "B": 60.0}, published=[])
    with pytest.raises(CheckError, match=rf"forecasts of run {run_id}: refused\. .* C; .* percent .*: B; "):
        validate_predictions(year.connection, run_id, settings)
    state, refusal = _state(other, run_id)
    assert state == "refused"
    assert "2 forecasts of 3 due" in refusal
    assert "1 of 2 forecasts break the rule" in refusal
    assert other.execute("SELECT count(*) FROM audit_check WHERE NOT passed").fetchone() == (2,)
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="is not audited"):
        other.execute(
            "INSERT INTO publication (kind, exchange, session_date, revision, run_id) "
            "VALUES ('forecast', 'XNYS', %s, 1, %s)",
            (SESSION, run_id),
        )


def test_a_repaired_run_is_audited_again(year, settings, other) -> None:
    run_id = year.night(SESSION, {"A": 1.0, "B": 60.0, "C": 3.0}, published=[])
    with pytest.raises(CheckError):
        validate_predictions(year.connection, run_id, settings)
    year.connection.execute("UPDATE prediction SET sigma = 2 WHERE sigma = 60")
    validate_predictions(year.connection, run_id, settings)
    assert _state(other, run_id) == ("audited", None)
    assert other.execute("SELECT count(*) FROM audit_check WHERE NOT passed").fetchone() == (0,)


def test_a_failed_check_of_the_inputs_refuses_sound_forecasts(year, settings, other) -> None:
    run_id = year.night(SESSION, SIGMA, published=[])
    store_checks(year.connection, run_id, "inputs", [Check("jump_share", 0.9, 0.1, "block", False, "90% jumped.")])
    with pytest.raises(CheckError, match=r"90% jumped\."):
        validate_predictions(year.connection, run_id, settings)
    assert _state(other, run_id) == ("refused", "90% jumped.")


def test_quarantined_instruments_are_not_due(year, settings) -> None:
    run_id = year.night(SESSION, {"A": 1.0}, quarantine={"B": "missing_price", "C": "missing_price"}, published=[])
    assert all(check.passed for check in validate_predictions(year.connection, run_id, settings))


def test_sigma_is_compared_with_the_last_published_session(year, settings) -> None:
    year.night(date(2022, 12, 23), dict.fromkeys("ABC", 40.0))
    year.night(date(2022, 12, 26), dict.fromkeys("ABC", 1.0))
    year.night(date(2022, 12, 26), dict.fromkeys("ABC", 2.0))  # a correction: the one that readers see
    year.night(date(2022, 12, 27), dict.fromkeys("ABC", 40.0), published=[])
    run_id = year.night(SESSION, dict.fromkeys("ABC", 5.0), published=[])
    checks = {check.name: check for check in validate_predictions(year.connection, run_id, settings)}
    assert checks["sigma_change"].observed == pytest.approx(2.5)
    assert "since session 2022-12-26 (run 3)" in checks["sigma_change"].sentence


@pytest.mark.parametrize("sessions_ago", [22, 339])
def test_a_session_long_ago_is_no_measure(year, settings, sessions_ago: int) -> None:
    """The second lies before the first session of the snapshot."""
    year.night(year.sessions[-1 - sessions_ago], dict.fromkeys("ABC", 40.0))
    year.sessions = year.sessions[1:]
    run_id = year.night(SESSION, SIGMA, published=[])
    checks = {check.name: check for check in validate_predictions(year.connection, run_id, settings)}
    assert "more than 21 sessions ago" in checks["sigma_change"].sentence


def test_risk_is_measured_audited_and_published(year, settings, other) -> None:
    run_id = year.night(SESSION, SIGMA, published=["forecast"])
    with pytest.raises(CheckError, match=r"risk of run \d+: refused\. Book equal lacks its VaR and ES"):
        validate_risk(year.connection, run_id, settings)
    assert _state(other, run_id, "risk_state")[0] == "refused"
    measure_book(year.connection, run_id, "equal", settings)
    assert all(check.passed for check in validate_risk(year.connection, run_id, settings))
    assert _state(other, run_id, "risk_state") == ("audited", None)
    other.execute(
        "INSERT INTO publication (kind, exchange, session_date, revision, run_id) VALUES ('risk', 'XNYS', %s, 1, %s)",
        (SESSION, run_id),
    )


def test_a_published_run_is_left_alone(year, settings, other) -> None:
    run_id = year.night(SESSION, {"A": 99.0})
    for validate in (validate_predictions, validate_risk):
        (said,) = validate(year.connection, run_id, settings)
        assert said.passed
        assert f"already published as run {run_id}" in said.sentence
    assert other.execute("SELECT count(*) FROM audit_check").fetchone() == (2,)  # those that the test made
    assert _state(other, run_id) == ("audited", None)


def test_an_unknown_run_is_refused(year, settings) -> None:
    for validate in (validate_predictions, validate_risk):
        with pytest.raises(RiskError, match="run 99 does not exist"):
            validate(year.connection, 99, settings)
