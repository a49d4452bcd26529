"""The gate that keeps sessions in order: passes, waits without a worker, gives up with the sentence."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import TaskFailedEvent, TaskSuccessEvent

import session_order
from session_order import SessionOrderGate, SessionOrderTrigger, earlier_runs, session_of_run

SENTENCE = "book paper has to settle session 2022-12-27 first"


@pytest.fixture
def blockers(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module `order_blockers` beside this file, on the import path."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    module = importlib.import_module("order_blockers")
    yield module
    module.ANSWERS.clear()
    module.ASKED.clear()


def gate(**options: Any) -> SessionOrderGate:
    given = {"session": "2022-12-28", "blocker": "order_blockers:recorded", "arguments": {"book": "paper"}, **options}
    return SessionOrderGate(task_id="await_earlier_sessions", **given)


def trigger(**options: Any) -> SessionOrderTrigger:
    given = {
        "session": "2022-12-28", "blocker": "order_blockers:recorded", "arguments": {"book": "paper"},
        "poll_interval": 0.001, "patience_s": 30.0,
    }  # fmt: skip
    return SessionOrderTrigger(**{**given, **options})


def events(waiting: SessionOrderTrigger) -> list[Any]:
    async def collect() -> list[Any]:
        return [event async for event in waiting.run()]

    return asyncio.run(collect())


def test_the_gate_passes_when_nothing_blocks(blockers: ModuleType) -> None:
    blockers.ANSWERS[:] = [None]
    assert gate().execute({}) is None  # type: ignore[func-returns-value, typeddict-item]
    assert blockers.ASKED == [("2022-12-28", {"book": "paper"})]


def test_the_gate_defers_otherwise_and_hands_everything_over(blockers: ModuleType) -> None:
    blockers.ANSWERS[:] = [SENTENCE]
    with pytest.raises(TaskDeferred) as deferred:
        gate(patience=timedelta(minutes=5), poll_interval=2.0).execute({})  # type: ignore[typeddict-item]
    assert deferred.value.method_name == "execute"
    assert deferred.value.trigger.serialize() == (
        "session_order.SessionOrderTrigger",
        {
            "session": "2022-12-28", "blocker": "order_blockers:recorded", "arguments": {"book": "paper"},
            "poll_interval": 2.0, "patience_s": 300.0,
        },
    )  # fmt: skip


def test_a_deferred_task_that_is_run_again_asks_again(blockers: ModuleType) -> None:
    blockers.ANSWERS[:] = [SENTENCE, None]
    with pytest.raises(TaskDeferred):
        gate().execute({})  # type: ignore[typeddict-item]
    gate().execute({})  # type: ignore[typeddict-item]
    assert len(blockers.ASKED) == 2


def test_a_serialized_trigger_is_made_again_alike() -> None:
    path, arguments = trigger().serialize()
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**arguments)
    assert isinstance(again, SessionOrderTrigger)
    assert again.serialize() == (path, arguments)


def test_the_trigger_waits_until_nothing_blocks_and_tells_each_sentence_once(
    blockers: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    blockers.ANSWERS[:] = [SENTENCE, SENTENCE, "another one", None]
    with caplog.at_level(logging.INFO):
        (event,) = events(trigger())
    assert isinstance(event, TaskSuccessEvent)
    assert len(blockers.ASKED) == 4
    assert caplog.messages.count(f"Session 2022-12-28 waits: {SENTENCE}") == 1
    assert caplog.messages.count("Session 2022-12-28 waits: another one") == 1


def test_the_trigger_fails_with_the_sentence_when_its_patience_ends(
    blockers: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    blockers.ANSWERS[:] = [SENTENCE]
    (event,) = events(trigger(patience_s=0.02))
    assert isinstance(event, TaskFailedEvent)
    assert f"Session 2022-12-28 waited 0 s in vain: {SENTENCE}" in caplog.messages


@pytest.mark.parametrize(
    ("run_id", "session"),
    [
        ("backfill__2022-11-21__2026-01-05T10:00:00+00:00__abc", "2022-11-21"),
        ("scheduled__2022-11-21", "2022-11-21"),
        ("manual__2022-11-21__x", "2022-11-21"),
        ("manual__2026-01-05T10:00:00.123456+00:00", None),
        ("by hand", None),
        ("", None),
    ],
)
def test_a_run_id_names_its_session(run_id: str, session: str | None) -> None:
    assert session_of_run(run_id) == session


States = dict[str, dict[str, str | None]]


@pytest.fixture
def airflow_says(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`airflow_says(states, returned)`: what Airflow's own API answers about the runs of a DAG."""
    asked: list[dict[str, Any]] = []

    def answer(states: States, returned: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        def states_of(**question: Any) -> States:
            asked.append(question)
            return states

        def one(*, run_id: str, **_question: Any) -> Any:
            return (returned or {}).get(run_id)

        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(states_of))
        monkeypatch.setattr(XCom, "get_one", one)
        session_order._task_states.cache_clear()
        return asked

    yield answer
    session_order._task_states.cache_clear()


def ask(session: str) -> str | None:
    return earlier_runs(session, "nightly_risk", "resolve_session", "publish_report")


def run_of(first: str | None, last: str | None) -> dict[str, str | None]:
    return {"resolve_session": first, "publish_report": last}


def test_earlier_runs_that_have_begun_and_not_ended_block(airflow_says: Any) -> None:
    airflow_says(
        {
            "backfill__2022-12-19__a": run_of("success", "success"),  # ended
            "backfill__2022-12-20__a": run_of("success", "failed"),  # ended badly: no reason to wait for ever
            "backfill__2022-12-21__a": run_of(None, None),  # queued: it may be waiting for our own place
            "backfill__2022-12-22__a": run_of("running", None),
            "backfill__2022-12-23__a": run_of("success", "scheduled"),
            "backfill__2022-12-27__a": run_of("success", None),  # the session itself
            "backfill__2022-12-28__a": run_of("success", None),  # later
        }
    )
    assert ask("2022-12-27") == "nightly_risk of session 2022-12-22 is under way (2 earlier sessions in all)"
    assert ask("2022-12-22") is None


@pytest.mark.parametrize("end", ["success", "failed", "upstream_failed", "skipped", "removed"])
def test_an_ended_run_does_not_block(airflow_says: Any, end: str) -> None:
    airflow_says({"scheduled__2022-12-22": run_of("success", end)})
    assert ask("2022-12-27") is None


def test_a_run_by_hand_is_for_the_session_that_its_first_task_returned(airflow_says: Any) -> None:
    states = {f"manual__2026-01-05T1{hour}:00:00+00:00": run_of("success", "running") for hour in range(3)}
    named, silent, odd = states
    airflow_says(states, {named: "2022-12-23", odd: 7})
    assert ask("2022-12-27") == "nightly_risk of session 2022-12-23 is under way (1 earlier sessions in all)"
    airflow_says(states, {silent: None})
    assert ask("2022-12-27") is None


def test_sessions_that_ask_at_one_moment_share_one_answer(airflow_says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = airflow_says({})
    moment = 100.0
    monkeypatch.setattr(session_order.time, "monotonic", lambda: moment)
    assert [ask(f"2022-12-2{day}") for day in (1, 2, 3)] == [None, None, None]
    assert asked == [{"dag_id": "nightly_risk", "task_ids": ["resolve_session", "publish_report"]}]
    moment += 1.0
    ask("2022-12-21")
    assert len(asked) == 2
