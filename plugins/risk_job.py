"""What the job's DAGs share: their schedule, the asset between them, and how their tasks fail and retry."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

from airflow.sdk import Asset, ExceptionRetryPolicy, RetryAction, RetryRule

from risk.settings import Settings, get_settings
from trading_sessions import TradingSessionTimetable

RISK_PUBLISHED = Asset("risk_published")
"""Emitted once a session's risk is published; its partition key is the session.

It has no URI: to normalise one, Airflow would import every provider, a fifth of a second in each task.
"""

RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=["risk.errors.DatabaseError", "psycopg.OperationalError"],
            action=RetryAction.RETRY,
            retry_delay=timedelta(seconds=20),
            reason="the database was lost; the task is safe to repeat",
        ),
        RetryRule(
            exception="risk.errors.RiskError",
            action=RetryAction.FAIL,
            reason="the same data give the same refusal; mend what the sentence names, then clear the task",
        ),
        RetryRule(
            exception=[
                ValueError,
                TypeError,
                LookupError,
                AttributeError,
                ImportError,
                "psycopg.ProgrammingError",
                "psycopg.DataError",
                "psycopg.IntegrityError",
            ],
            action=RetryAction.FAIL,
            reason="the same code would fail again",
        ),
    ]
)

TASK_DEFAULTS: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": RETRY_POLICY,
    "execution_timeout": timedelta(minutes=30),
}


def session_schedule(settings: Settings | None = None) -> dict[str, Any]:
    """The DAG arguments that start one run for each session of the settings' exchange.

    With a start session the scheduler runs every session from it on; without one, the next to close and those after.
    """
    settings = settings or get_settings()
    first, last = source_bounds(settings)
    start = settings.start_session
    return {
        "schedule": TradingSessionTimetable(
            exchange=settings.exchange,
            close_delay_minutes=settings.close_delay_minutes,
            first_session=first,
            last_session=last,
            overrides=None if settings.overrides is None else str(settings.overrides),
            cache_dir=str(settings.state_dir / "cache"),
        ),
        "start_date": None if start is None else datetime.combine(start, time(), UTC),
        "catchup": start is not None,
    }


def source_bounds(settings: Settings) -> tuple[str | None, str | None]:
    """The first and last session that the source can ever hold, ISO dates; `None` where it is open."""
    from risk.context import market_data_source

    source = market_data_source(settings)
    return tuple(None if day is None else day.isoformat() for day in (source.first_session, source.last_session))  # type: ignore[return-value]
