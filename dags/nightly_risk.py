"""One published set of risk numbers for each exchange session, or a clear refusal.

resolve_session -> extract_market_data -> check_inputs -> profile_batch_size -> plan_shards -> run_inference [a shard]
-> validate_predictions -> publish -> await_earlier_sessions -> measure_risk [a book] -> validate_risk -> publish_report

The scheduler runs it after each close, a person triggers it for a session, a backfill runs a range of them. This file
wires: its tasks are the functions of `risk.nightly` and the operators of `batch_inference`.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, task

from batch_inference.operators import BatchInferenceOperator, ProfileBatchSizeOperator
from risk import nightly
from risk.model.vintages import architecture_key
from risk.settings import get_settings
from risk_job import RISK_PUBLISHED, TASK_DEFAULTS, session_schedule
from session_order import SessionOrderGate

settings = get_settings()
scoring = {
    "model": "risk.forecasts:vintage_model",
    "database": "risk.storage.database:database_url",
    "device": settings.device,
    "memory_limit": settings.memory_limit_mib * 2**20,
}


@task
def resolve_session(dag_run=None, params=None):
    return nightly.resolve_session(dag_run.partition_key, params["session"], dag_run.run_after)


@task
def check_inputs(session, snapshot_id, dag_run=None):
    return nightly.check_inputs(session, snapshot_id, dag_run.run_type, dag_run.run_id)


@task(outlets=[RISK_PUBLISHED])
def publish_report(run, dag_run=None, outlet_events=None):
    session = nightly.publish_report(run)
    if dag_run.partition_key is None:
        outlet_events[RISK_PUBLISHED].add_partitions(session)
    return session


with DAG(
    "nightly_risk",
    description="Forecasts and risk of one exchange session: extracted, scored, audited, published",
    default_args=TASK_DEFAULTS,
    max_active_runs=16,
    tags=["risk"],
    doc_md=__doc__,
    user_defined_macros={"architecture_key": architecture_key},
    params={
        "session": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Session",
            description="The exchange session to run, when no partition key is given; empty: the last one closed.",
        ),
    },
    **session_schedule(settings),
):
    session = resolve_session()
    snapshot = task(nightly.extract_market_data)(session)
    run = check_inputs(session, snapshot)
    profile = ProfileBatchSizeOperator(
        task_id="profile_batch_size",
        parameters={"run_id": run},
        model_key="{{ architecture_key() }}",
        precision="float32" if settings.precision == "auto" else settings.precision,
        input_shape=(256, 4),
        max_batch_size=settings.max_batch_size,
        time_budget_s=settings.profile_budget_s,
        **scoring,
    )
    shards = task(nightly.plan_shards)(run)
    scored = BatchInferenceOperator.partial(
        task_id="run_inference",
        source="risk.forecasts:shard_rows",
        sink="risk.forecasts:store_shard",
        profile=profile.output,
        precision=settings.precision,
        precision_tolerance=settings.precision_tolerance,
        **scoring,
    ).expand(parameters=shards)
    audited = task(nightly.validate_predictions, trigger_rule="none_failed")(run)
    books = task(nightly.publish)(audited)
    in_order = SessionOrderGate(
        task_id="await_earlier_sessions",
        session=session,
        blocker="session_order:earlier_runs",
        arguments={"dag_id": "nightly_risk", "first_task": "resolve_session", "last_task": "publish_report"},
        patience=timedelta(minutes=settings.order_timeout_minutes),
    )
    measured = task(nightly.measure_risk).expand_kwargs(books)
    risk_audited = task(nightly.validate_risk, trigger_rule="none_failed")(run)
    profile >> shards
    scored >> audited
    books >> in_order >> measured >> risk_audited
    publish_report(risk_audited)
