"""The scheduled door: with a start three sessions back, the scheduler runs them with no hand on it, and then waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from risk.market_data.simulated import write_drops
from risk.sessions import SessionCalendar

from .conftest import open_folder, start_system, stop_system


@pytest.fixture(scope="module")
def scheduled():
    """A system on two years of simulated drops up to today, whose schedule starts three sessions back."""
    calendar = SessionCalendar("XNYS")
    last = calendar.last_closed(datetime.now(UTC))
    sessions = calendar.sessions(last - timedelta(days=730), last)
    with open_folder() as folder:
        write_drops(folder / "drops", names=20, sessions=sessions, seed=7)
        system = start_system(
            folder,
            RISK_SOURCE="files",
            RISK_FILES_PATH=str(folder / "drops"),
            RISK_START_SESSION=sessions[-3].isoformat(),
        )
        yield system, calendar, sessions[-3:]
        stop_system(system)


def test_the_scheduler_runs_the_closed_sessions_in_order_and_waits_for_the_next_close(scheduled):
    system, calendar, due = scheduled
    system.wait(lambda: all(system.rebalanced(session) for session in due), "three scheduled sessions")
    for table, where in (("publication", "kind = 'risk'"), ("rebalance", "true")):
        order = system.query(f"SELECT session_date FROM {table} WHERE {where} ORDER BY published_at")
        assert [row[0] for row in order] == due
    assert {row[0] for row in system.query("SELECT door FROM run")} == {"schedule"}
    following = calendar.run_after(calendar.next(due[-1]))
    dag = system.request("GET", "/dags/nightly_risk")
    assert datetime.fromisoformat(dag["next_dagrun_run_after"]) == following
    assert len(system.request("GET", "/dags/nightly_risk/dagRuns")["dag_runs"]) == len(due)


def test_a_drop_loaded_before_its_cutoff_is_observed_and_the_others_are_assumed(scheduled):
    system, _, due = scheduled
    observed = system.query(
        "SELECT DISTINCT first_session FROM ingest_batch WHERE basis = 'observed' ORDER BY first_session"
    )
    assert [row[0] for row in observed] == due[-1:]
