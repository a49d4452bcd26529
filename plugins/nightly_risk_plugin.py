"""What the project registers with Airflow."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from trading_sessions import TradingSessionTimetable


class NightlyRiskPlugin(AirflowPlugin):
    """The session timetable. Operators are imported from `batch_inference.operators`, not registered."""

    name = "nightly_risk"
    timetables = [TradingSessionTimetable]  # noqa: RUF012  (Airflow reads a plain list)
