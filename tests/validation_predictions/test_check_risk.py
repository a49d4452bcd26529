"""Each rule of a book's risk, broken one at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from risk.settings import Settings
from risk.validation.risk import Measure, check_risk

SETTINGS = Settings(_env_file=None)
VAR = Measure("equal", "VaR", 0.99, 25_000.0, 1_000_000.0, 1000)
ES = replace(VAR, measure="ES", value=32_000.0)


def _failed(*measures: Measure, books: tuple[str, ...] = ("equal",)) -> dict[str, str]:
    return {check.name: check.sentence for check in check_risk(measures, books, SETTINGS) if not check.passed}


def test_a_possible_risk_passes() -> None:
    checks = check_risk([VAR, ES], ["equal"], SETTINGS)
    assert all(check.passed and check.severity == "block" and check.subject == "equal" for check in checks)
    assert {check.name for check in checks} == {
        "measured", "var_positive", "var_below_value", "es_at_least_var", "scenarios",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("var", "shortfall", "failed"),
    [
        (VAR, replace(ES, value=24_999.0), {"es_at_least_var"}),
        (VAR, replace(ES, value=math.inf), {"es_at_least_var"}),
        (replace(VAR, value=0.0), ES, {"var_positive"}),
        (replace(VAR, value=-5.0), ES, {"var_positive"}),
        (replace(VAR, value=math.nan), ES, {"var_positive", "var_below_value", "es_at_least_var"}),
        (replace(VAR, value=1_000_000.0), replace(ES, value=1_100_000.0), {"var_below_value"}),
        (replace(VAR, scenarios=249), ES, {"scenarios"}),
    ],
)
def test_an_impossible_risk_fails(var: Measure, shortfall: Measure, failed: set[str]) -> None:
    assert set(_failed(var, shortfall)) == failed


def test_equal_measures_are_allowed() -> None:
    assert not _failed(VAR, replace(ES, value=VAR.value))
    assert not _failed(replace(VAR, scenarios=250), ES)


def test_every_book_must_be_measured_at_the_confidence_of_the_settings() -> None:
    assert _failed(VAR, ES, books=("equal", "other")) == {
        "measured": "Book other lacks its VaR and ES at 99.0%; measure it, then audit again."
    }
    assert "lacks its ES" in _failed(VAR)["measured"]
    assert "lacks its VaR" in _failed(ES)["measured"]
    assert "measured" in _failed(replace(VAR, confidence=0.95), ES)
    assert "no book to measure" in _failed(VAR, ES, books=())["measured"]
