"""What can go wrong with a measure: each exception takes facts and writes the sentence.

RiskError
└── MeasureError            a measure that can't be computed
    ├── NotFinite           NaN or infinity where a number is needed
    ├── WrongShape          arrays that don't fit one another
    ├── ConfidenceError     a confidence outside (0.5, 1)
    ├── UnknownBook         a name that no book has
    ├── NotForecast         a run whose forecasts readers don't see
    └── TooFewScenarios     a history too short for a tail
"""

from __future__ import annotations

from collections.abc import Sequence

from risk.errors import RiskError


class MeasureError(RiskError):
    """A measure that can't be computed."""


class NotFinite(MeasureError):
    """NaN or infinity where a number is needed."""

    def __init__(self, what: str, bad: int, total: int) -> None:
        super().__init__(
            f"{bad} of {total} {what} are NaN, infinite or out of range; a measure takes finite numbers only: put the "
            "instruments that lack them in quarantine first"
        )


class WrongShape(MeasureError):
    """Arrays that don't fit one another."""

    def __init__(self, what: str, found: object, allowed: str) -> None:
        super().__init__(f"{what} have the shape {found}; allowed is {allowed}")


class ConfidenceError(MeasureError):
    """A confidence outside (0.5, 1)."""

    def __init__(self, confidence: float) -> None:
        super().__init__(
            f"confidence {confidence} is not between 0.5 and 1; write the share of nights that the loss is not "
            "exceeded, for example 0.99"
        )


class UnknownBook(MeasureError):
    """A name that no book has."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"there is no book {name!r}; the books are {', '.join(known) or 'none yet: make them first'}")


class NotForecast(MeasureError):
    """A run whose forecasts readers don't see."""

    def __init__(self, run_id: int, replaced_by: int | None) -> None:
        why = "are not published" if replaced_by is None else f"were replaced by those of run {replaced_by}"
        action = "publish them first" if replaced_by is None else f"measure run {replaced_by} instead"
        super().__init__(f"the forecasts of run {run_id} {why}; risk is measured on published ones only: {action}")


class TooFewScenarios(MeasureError):
    """A history too short for a tail."""

    def __init__(self, run_id: int, found: int, needed: int, sessions: int) -> None:
        super().__init__(
            f"run {run_id} has {found} scenarios from the {sessions} sessions of its snapshot; at least {needed} are "
            "needed: take longer snapshots (RISK_HISTORY_SESSIONS), or wait until the source has more history"
        )
