"""What the reports raise.

RiskError
└── NotPublished        a session without published forecasts: which state it is in, and what to do
"""

from __future__ import annotations

from datetime import date, datetime

from risk.errors import RiskError


class NotPublished(RiskError):
    """A session without published forecasts; the class methods name the states."""

    @classmethod
    def no_session(cls, exchange: str, day: date, before: date | None) -> NotPublished:
        """The day is no session that this database knows."""
        last = f"; the last one before it is {before}" if before else ""
        return cls(
            f"{day} is not a session of {exchange} in this database{last}. `risk status` lists what is published"
        )

    @classmethod
    def not_due(cls, exchange: str, day: date, runs_after: datetime) -> NotPublished:
        """The session's turn has not come."""
        return cls(f"session {day} of {exchange} is not due: it runs after {runs_after:%Y-%m-%d %H:%M %Z}")

    @classmethod
    def missing(cls, exchange: str, day: date) -> NotPublished:
        """No run was ever opened for the session."""
        return cls(
            f"session {day} of {exchange} is missing: no run has been opened for it; `make run SESSION={day}` runs it"
        )

    @classmethod
    def refused(cls, exchange: str, day: date, run_id: int, sentence: str) -> NotPublished:
        """A blocking check of the session's run failed."""
        return cls(
            f"session {day} of {exchange} is refused (run {run_id}): {sentence}. Mend what the check names, then "
            f"`make run SESSION={day}`"
        )

    @classmethod
    def unfinished(cls, exchange: str, day: date, run_id: int, done: int, shards: int) -> NotPublished:
        """The session's run has begun and is not published."""
        return cls(
            f"session {day} of {exchange} is unfinished: run {run_id} has scored {done} of {shards} shards and is not "
            f"published; see its tasks in Airflow, or `make run SESSION={day}`, which goes on where it was"
        )
