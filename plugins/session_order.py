"""A gate that keeps sessions in order: it waits, without a worker slot, until earlier sessions are settled.

1. `SessionOrderGate.execute` asks its `blocker` what the session waits for; `None` lets it pass at once.
2. Otherwise it defers to `SessionOrderTrigger`, which asks on in the triggerer and ends the task from there: a session
   that waits holds no worker, and one that need not wait costs one short task.
3. When its patience ends, the task fails with the blocker's sentence.

A blocker is a function named by its import string: `blocker(session, **arguments)` returns the sentence that says
what the session waits for, or `None`. `earlier_runs` below is the one for runs of a DAG; `risk.rebalance` has another.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from functools import lru_cache
from importlib import import_module
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.triggers.base import BaseTrigger, TaskFailedEvent, TaskSuccessEvent, TriggerEvent

log = logging.getLogger(__name__)

_SESSION = re.compile(r"\d{4}-\d{2}-\d{2}")
FRESH_S = 0.2  # for so long the sessions that wait in one process share an answer of Airflow's
ENDED = frozenset({"success", "failed", "upstream_failed", "skipped", "removed"})


class SessionOrderGate(BaseOperator):
    """Hold a session back until the sessions before it are settled.

    Args:
        session: the session, an ISO date (templated).
        blocker: import string `"module:function"` of the question asked.
        arguments: keyword arguments for the blocker, beside the session (templated).
        poll_interval: seconds between two questions while waiting.
        patience: how long it waits before the task fails.
    """

    template_fields = ("session", "arguments")

    def __init__(
        self,
        *,
        session: str,
        blocker: str,
        arguments: Mapping[str, Any] | None = None,
        poll_interval: float = 0.25,
        patience: timedelta = timedelta(hours=6),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.session = session
        self.blocker = blocker
        self.arguments = dict(arguments or {})
        self.poll_interval = poll_interval
        self.patience = patience

    def execute(self, context: Context) -> None:
        """Pass, or defer until the blocker has nothing to say."""
        sentence = ask(self.blocker, self.session, self.arguments)
        if sentence is None:
            self.log.info("No earlier session is unsettled: session %s goes on", self.session)
            return
        self.log.info("Session %s waits: %s", self.session, sentence)
        self.defer(
            trigger=SessionOrderTrigger(
                session=self.session,
                blocker=self.blocker,
                arguments=self.arguments,
                poll_interval=self.poll_interval,
                patience_s=self.patience.total_seconds(),
            ),
            method_name="execute",
        )


class SessionOrderTrigger(BaseTrigger):
    """The gate's waiting half: runs in the triggerer and ends the task."""

    def __init__(
        self, session: str, blocker: str, arguments: dict[str, Any], poll_interval: float, patience_s: float
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.session = session
        self.blocker = blocker
        self.arguments = arguments
        self.poll_interval = poll_interval
        self.patience_s = patience_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path and the arguments that make this trigger again."""
        names = ("session", "blocker", "arguments", "poll_interval", "patience_s")
        return (f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask until nothing blocks, then succeed; fail with the sentence when the patience ends."""
        deadline = time.monotonic() + self.patience_s
        told: str | None = None
        while sentence := await asyncio.to_thread(ask, self.blocker, self.session, self.arguments):
            if sentence != told:
                log.info("Session %s waits: %s", self.session, sentence)
                told = sentence
            if time.monotonic() >= deadline:
                log.error("Session %s waited %.0f s in vain: %s", self.session, self.patience_s, sentence)
                yield TaskFailedEvent()
                return
            await asyncio.sleep(self.poll_interval)
        log.info("Every earlier session is settled: session %s goes on", self.session)
        yield TaskSuccessEvent()


def ask(blocker: str, session: str, arguments: Mapping[str, Any]) -> str | None:
    """What the session waits for, by the blocker named `"module:function"`; `None`: nothing."""
    module, _, function = blocker.partition(":")
    answer: str | None = getattr(import_module(module), function)(session, **arguments)
    return answer


def earlier_runs(session: str, dag_id: str, first_task: str, last_task: str) -> str | None:
    """A blocker: runs of `dag_id` for earlier sessions that have begun and not ended.

    A run has begun when its `first_task` was scheduled, and ended when its `last_task` is in a final state. A run that
    is only queued doesn't block: it may be waiting for a place that the later sessions hold. Which session a run is
    for, its id says (`backfill__2022-11-21__...`); for a run that a person triggered, what its `first_task` returned.
    """
    states = _task_states(dag_id, first_task, last_task, int(time.monotonic() / FRESH_S))
    begun = [run for run, tasks in states.items() if tasks.get(first_task) and tasks.get(last_task) not in ENDED]
    sessions = (session_of_run(run) or _returned_session(dag_id, run, first_task) for run in begun)
    earlier = sorted(found for found in sessions if found is not None and found < session)
    if not earlier:
        return None
    return f"{dag_id} of session {earlier[0]} is under way ({len(earlier)} earlier sessions in all)"


@lru_cache(maxsize=8)
def _task_states(dag_id: str, first_task: str, last_task: str, moment: int) -> dict[str, dict[str, str | None]]:
    """The states of both tasks in every run; sessions that ask at the same `moment` share one answer."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    return RuntimeTaskInstance.get_task_states(dag_id=dag_id, task_ids=[first_task, last_task])


def session_of_run(run_id: str) -> str | None:
    """The session that a run id of `TradingSessionTimetable` names, or `None`."""
    parts = run_id.split("__")
    return parts[1] if len(parts) >= 2 and _SESSION.fullmatch(parts[1]) else None


def _returned_session(dag_id: str, run_id: str, task_id: str) -> str | None:
    """The session that a run's first task resolved; `None` while it has not."""
    from airflow.sdk.execution_time.xcom import XCom

    found = XCom.get_one(key="return_value", dag_id=dag_id, task_id=task_id, run_id=run_id)
    return found if isinstance(found, str) and _SESSION.fullmatch(found) else None
