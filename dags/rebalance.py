"""The rebalance that each published session starts: the orders that bring the paper book to its target weights.

check_risk_is_current -> await_earlier_sessions -> rebalance_book [a book]
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, PartitionedAssetTimetable, task

from risk import rebalancing
from risk.settings import get_settings
from risk_job import RISK_PUBLISHED, TASK_DEFAULTS
from session_order import SessionOrderGate


@task
def check_risk_is_current(dag_run=None, params=None):
    return rebalancing.check_risk_is_current(dag_run.partition_key, params["session"])


@task
def rebalance_book(session, book, dag_run=None):
    return rebalancing.rebalance_book(session, book, dag_run.run_id)


with DAG(
    "rebalance",
    description="Orders of one published session, in session order",
    schedule=PartitionedAssetTimetable(assets=RISK_PUBLISHED),
    default_args=TASK_DEFAULTS,
    max_active_runs=16,
    tags=["risk"],
    doc_md=__doc__,
    params={
        "session": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Session",
            description="The published session to rebalance on, when no partition key is given.",
        ),
    },
):
    books = check_risk_is_current()
    in_order = SessionOrderGate(
        task_id="await_earlier_sessions",
        session="{{ ti.xcom_pull('check_risk_is_current')[0]['session'] }}",
        blocker="risk.rebalancing:waits_for",
        patience=timedelta(minutes=get_settings().order_timeout_minutes),
    )
    books >> in_order >> rebalance_book.expand_kwargs(books)
