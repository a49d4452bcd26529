"""DAGs of the same shape as `nightly_risk` and `rebalance` whose tasks do nothing: what the scheduler alone costs.

The gate is an edge between runs, so it belongs to the shape: `empty_nightly` keeps its sessions in order as the real
one does. `unordered_nightly` has an empty task in its place, to show what the order itself costs.
"""

from __future__ import annotations

from airflow.sdk import DAG, Asset, PartitionedAssetTimetable, task

from risk_job import TASK_DEFAULTS, session_schedule
from session_order import SessionOrderGate

DONE = Asset("empty_done")


def key_of_run(dag_run=None):
    return dag_run.partition_key


def nothing(value=None):
    return value


def one(value=None):
    return [{"value": 1}]


def nightly(dag_id, ordered):
    """One DAG of the nightly job's shape."""
    with DAG(dag_id, default_args=TASK_DEFAULTS, max_active_runs=16, **session_schedule()):
        resolved = task(key_of_run, task_id="resolve_session")()
        extracted = task(nothing, task_id="extract_market_data")(resolved)
        checked = task(lambda a, b: None, task_id="check_inputs")(resolved, extracted)
        profiled = task(nothing, task_id="profile_batch_size")(checked)
        planned = task(one, task_id="plan_shards")(checked)
        scored = task(nothing, task_id="run_inference").expand_kwargs(planned)
        audited = task(nothing, task_id="validate_predictions", trigger_rule="none_failed")(checked)
        published = task(one, task_id="publish")(audited)
        waited = order_gate(dag_id, resolved) if ordered else task(nothing, task_id="await_earlier_sessions")(resolved)
        measured = task(nothing, task_id="measure_risk").expand_kwargs(published)
        risk_audited = task(nothing, task_id="validate_risk", trigger_rule="none_failed")(checked)
        task(nothing, task_id="publish_report", outlets=[DONE] if ordered else [])(risk_audited)
        profiled >> planned
        profiled >> scored >> audited
        published >> waited >> measured >> risk_audited


def order_gate(dag_id, session):
    return SessionOrderGate(
        task_id="await_earlier_sessions",
        session=session,
        blocker="session_order:earlier_runs",
        arguments={"dag_id": dag_id, "first_task": "resolve_session", "last_task": "publish_report"},
    )


nightly("empty_nightly", ordered=True)
nightly("unordered_nightly", ordered=False)

with DAG(
    "empty_rebalance", schedule=PartitionedAssetTimetable(assets=DONE), default_args=TASK_DEFAULTS, max_active_runs=16
):
    current = task(one, task_id="check_risk_is_current")()
    gate = task(nothing, task_id="await_earlier_sessions")(current)
    gate >> task(nothing, task_id="rebalance_book").expand_kwargs(current)
