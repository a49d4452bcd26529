"""One check's outcome, and how a run's checks and quarantine are stored."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)

Severity = Literal["block", "warn"]
Stage = Literal["inputs", "predictions", "risk"]


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: what was checked; with `subject` unique in its stage.
        observed: the figure seen; None where there is none.
        threshold: the figure allowed; None where there is none.
        severity: `"block"` ends the run where it fails, `"warn"` is told.
        passed: whether it holds.
        sentence: what was seen, what is allowed and, where it fails, what to do.
        subject: what it is about, where one name has several.
    """

    name: str
    observed: float | None
    threshold: float | None
    severity: Severity
    passed: bool
    sentence: str
    subject: str = ""


@dataclass(frozen=True)
class Quarantined:
    """An instrument that is left out of a run, and why."""

    instrument_id: int
    reason: str
    sentence: str


def blocking_failures(checks: Iterable[Check]) -> list[Check]:
    """The checks that end the run."""
    return [check for check in checks if check.severity == "block" and not check.passed]


def store_checks(connection: psycopg.Connection[Any], run_id: int, stage: Stage, checks: Sequence[Check]) -> None:
    """Store the checks of a run's stage in place of those stored before, in the open transaction or one of its own.

    Raises:
        ValueError: no check at all, or two of one name and subject.
    """
    if not checks:
        raise ValueError(f"run {run_id} has no check of its {stage}; a stage without checks can't be audited")
    keys = [(check.name, check.subject) for check in checks]
    twice = sorted({f"{name} {subject}".strip() for name, subject in keys if keys.count((name, subject)) > 1})
    if twice:
        raise ValueError(
            f"run {run_id} has the check {twice[0]!r} of its {stage} twice; give each a subject of its own"
        )
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_check WHERE run_id = %s AND stage = %s", (run_id, stage))
        cursor.executemany(
            "INSERT INTO audit_check (run_id, stage, name, subject, observed, threshold, severity, passed, sentence) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (run_id, stage, c.name, c.subject, c.observed, c.threshold, c.severity, c.passed, c.sentence)
                for c in checks
            ],
        )
    failed = sum(not check.passed for check in checks)
    log.info("Stored %d checks of the %s of run %d, %d failed", len(checks), stage, run_id, failed)


def store_quarantine(connection: psycopg.Connection[Any], run_id: int, quarantined: Sequence[Quarantined]) -> None:
    """Add to a run's quarantine, in the open transaction; the same reason again replaces its sentence."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO quarantine (run_id, instrument_id, reason, sentence) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (run_id, instrument_id, reason) DO UPDATE SET sentence = EXCLUDED.sentence",
            [(run_id, one.instrument_id, one.reason, one.sentence) for one in quarantined],
        )
