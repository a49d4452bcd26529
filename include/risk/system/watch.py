"""Telling on the terminal how runs go: each task as it ends, each session with count, rate and time left."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime

from rich.console import Console

from risk.system.api import ENDED, AirflowApi, wait_until

POLL_S = 0.5
NIGHTLY, REBALANCE = "nightly_risk", "rebalance"
REBALANCE_PATIENCE_S = 60.0  # until the run that a published session starts is seen


def watch_session(api: AirflowApi, console: Console, session: date) -> bool:
    """Trigger one night and follow it, and the rebalance that it starts; says whether both succeeded."""
    began, since = time.monotonic(), datetime.now(UTC)
    run_id = api.trigger(NIGHTLY, session)
    console.print(f"Session {session}: run {run_id} of {NIGHTLY}")
    if not _follow(api, console, NIGHTLY, run_id, began):
        return False
    started: dict[str, str] = {}

    def rebalance_started() -> bool:
        started.update({run["partition_key"]: run["dag_run_id"] for run in api.runs(REBALANCE, since)})
        return session.isoformat() in started

    if not wait_until(rebalance_started, patience_s=REBALANCE_PATIENCE_S):
        console.print(f"No rebalance of {session} began within {REBALANCE_PATIENCE_S:.0f} s; is its DAG paused?")
        return False
    run_id = started[session.isoformat()]
    console.print(f"Session {session}: run {run_id} of {REBALANCE}")
    return _follow(api, console, REBALANCE, run_id, began)


def watch_backfill(api: AirflowApi, console: Console, backfill_id: int, since: datetime) -> bool:
    """Follow a backfill begun at `since`, and the rebalances that it starts; says whether all their runs succeeded."""
    nights = {run["partition_key"] for run in api.runs(NIGHTLY, since) if run["run_type"] == "backfill"}
    if not nights:
        console.print(
            f"Backfill {backfill_id}: nothing to run, each session has a run that succeeded; see `risk status`"
        )
        return True
    console.print(f"Backfill {backfill_id}: {len(nights)} sessions from {min(nights)} to {max(nights)}")
    failed = _follow_all(api, console, NIGHTLY, since, nights, "published")
    failed |= _follow_all(api, console, REBALANCE, since, nights - failed, "rebalanced")
    for session in sorted(failed):
        console.print(f"[red]Session {session} failed[/red]: `risk show {session}` says why")
    return not failed


def _follow_all(
    api: AirflowApi, console: Console, dag_id: str, since: datetime, sessions: set[str], what: str
) -> set[str]:
    """Tell each session as its run ends; returns those that failed."""
    pace = _Pace(console, len(sessions))
    failed: set[str] = set()
    told: set[str] = set()
    while told < sessions:
        for run in api.runs(dag_id, since):
            session, state = run["partition_key"], run["state"]
            if session in sessions - told and state in ENDED:
                told.add(session)
                pace.tell(session, what if state == "success" else "failed")
                if state == "failed":
                    failed.add(session)
        if failed and dag_id == REBALANCE:
            console.print("The sessions after it wait until it is mended: clear its failed task in Airflow's UI")
            return failed
        time.sleep(2 * POLL_S)
    return failed


class _Pace:
    """Counts what is done and says the rate and the time left."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.done, self.began = console, total, 0, time.monotonic()

    def tell(self, session: str, what: str) -> None:
        self.done += 1
        elapsed = time.monotonic() - self.began
        left = elapsed / self.done * (self.total - self.done)
        self.console.print(
            f"{elapsed:6.1f} s  {session} {what}: {self.done} of {self.total}, "
            f"{60 * self.done / max(elapsed, 1e-9):.1f} a minute, {left:.0f} s left",
            highlight=False,
        )


def _follow(api: AirflowApi, console: Console, dag_id: str, run_id: str, began: float) -> bool:
    """Print each task as it ends, until the run does; the sentence of a task that failed is printed with it."""
    told: set[tuple[str, int]] = set()
    while True:
        state = api.run_state(dag_id, run_id)
        for task in api.tasks(dag_id, run_id):
            key = (task.task_id, task.map_index)
            if key in told or task.state not in {"success", "failed", "skipped", "upstream_failed"}:
                continue
            told.add(key)
            if task.state == "upstream_failed":
                continue
            mark = {"success": "[green]done[/green]", "failed": "[red]failed[/red]", "skipped": "skipped"}[task.state]
            name = task.task_id if task.map_index < 0 else f"{task.task_id}[{task.map_index}]"
            console.print(
                f"{time.monotonic() - began:6.1f} s  {name:<28} {mark} in {task.duration_s or 0.0:.1f} s",
                highlight=False,
            )
            if task.state == "failed":
                console.print(f"          {api.failure(dag_id, run_id, task) or 'its log says why'}", markup=False)
        if state in ENDED:
            return state == "success"
        time.sleep(POLL_S)
