"""Each rule of a forecast, broken one at a time; the figures and names that its sentence must carry."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from risk.settings import Settings
from risk.validation.check import Check
from risk.validation.predictions import COLUMNS, Previous, check_predictions

SETTINGS = Settings(_env_file=None)
IDS = np.array([3, 5, 8])
SYMBOLS = {3: "KO", 5: "JPM", 8: "XOM"}
# mu, sigma, q01, q025, q05, q50, q95, es025 of a normal with mu 0.03 and sigma 1, 2, 4
NORMAL = np.array([[0.03, s, *(0.03 + s * np.array([-2.326, -1.960, -1.645, 0.0, 1.645, -2.338]))] for s in (1, 2, 4)])


def _judge(
    outputs: np.ndarray = NORMAL, previous: Previous | None = None, due: object = (3, 5, 8), ids=IDS
) -> dict[str, Check]:
    checks = check_predictions(outputs, ids, due, previous, SETTINGS, SYMBOLS)
    return {check.name: check for check in checks}


def _previous(*sigma: float, gap: int | None = 1) -> Previous:
    return Previous(date(2022, 12, 27), 41, gap, dict(zip((3, 5, 8), sigma, strict=False)))


def _failed(checks: dict[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if not check.passed}


def test_a_normal_forecast_passes_every_check() -> None:
    checks = _judge()
    assert not _failed(checks)
    assert checks["coverage"].sentence == "All 3 instruments outside the quarantine have a forecast."
    assert all(check.sentence.endswith(".") for check in checks.values())


@pytest.mark.parametrize(
    ("column", "value", "check"),
    [
        ("mu", np.nan, "finite"),
        ("q50", np.inf, "finite"),
        ("sigma", 0.0, "sigma_bounds"),
        ("sigma", -1.0, "sigma_bounds"),
        ("sigma", 50.01, "sigma_bounds"),
        ("q05", -9.0, "quantiles_ordered"),
        ("q95", -0.1, "quantiles_ordered"),
        ("es025", -3.0, "es_below_quantile"),
    ],
)
def test_one_bad_value_fails_one_check_and_is_named(column: str, value: float, check: str) -> None:
    outputs = NORMAL.copy()
    outputs[1, COLUMNS.index(column)] = value
    checks = _judge(outputs)
    assert _failed(checks) == {check}
    assert (checks[check].observed, checks[check].threshold, checks[check].severity) == (1.0, 0.0, "block")
    assert "1 of 3" in checks[check].sentence
    assert "JPM" in checks[check].sentence


def test_the_bounds_themselves_are_allowed() -> None:
    outputs = NORMAL.copy()
    outputs[0] = [0.0, 50.0, -1, -1, -1, -1, -1, -1]
    assert not _failed(_judge(outputs))


def test_many_bad_rows_are_counted_and_a_few_named() -> None:
    outputs = np.repeat(NORMAL[:1], 8, axis=0)
    outputs[:, 1] = 99.0
    checks = _judge(outputs, due=range(8), ids=np.arange(8))
    assert "8 of 8" in checks["sigma_bounds"].sentence
    named = "instrument 0, instrument 1, instrument 2, KO, instrument 4 and 3 more"
    assert named in checks["sigma_bounds"].sentence


@pytest.mark.parametrize(
    ("ids", "due", "words"),
    [
        ((3, 5, 8), (3, 5, 8, 9), "without a forecast or a quarantine row: instrument 9"),
        ((3, 5, 8), (3, 5), "with a forecast that was not due: XOM"),
        ((3, 5, 5), (3, 5), "1 rows twice"),
        ((3, 5, 8), (3, 5, 9), "XOM"),  # the counts agree, the instruments don't
    ],
)
def test_coverage_is_by_instrument(ids: tuple[int, ...], due: tuple[int, ...], words: str) -> None:
    checks = _judge(ids=np.array(ids), due=due)
    assert _failed(checks) == {"coverage"}
    assert words in checks["coverage"].sentence
    assert checks["coverage"].threshold == len(due)


def test_a_universe_in_quarantine_is_refused() -> None:
    checks = _judge(np.empty((0, 8)), due=(), ids=np.array([], dtype=int), previous=_previous(1.0))
    assert _failed(checks) == {"coverage"}
    assert "whole universe is in quarantine" in checks["coverage"].sentence


def test_the_median_change_of_sigma_blocks_and_single_ones_are_told() -> None:
    checks = _judge(previous=_previous(1.0, 1.0, 0.5))  # factors 1, 2, 8
    assert _failed(checks) == {"single_sigma_change"}
    assert checks["sigma_change"].observed == pytest.approx(2.0)
    assert checks["single_sigma_change"].severity == "warn"
    assert checks["single_sigma_change"].observed == pytest.approx(8.0)
    assert "1 of 3 instruments: XOM" in checks["single_sigma_change"].sentence
    crashed = _judge(previous=_previous(5.5, 11.0, 4.0))  # factors 1/5.5, 1/5.5, 1: a fall counts as a rise
    assert _failed(crashed) == {"sigma_change", "single_sigma_change"}
    assert crashed["sigma_change"].observed == pytest.approx(5.5)
    assert "2022-12-27 (run 41)" in crashed["sigma_change"].sentence


@pytest.mark.parametrize(
    ("previous", "words"),
    [
        (None, "no earlier session is published"),
        (_previous(9.0, gap=None), "more than 21 sessions ago"),
        (_previous(9.0, gap=22), "more than 21 sessions ago"),
        (Previous(date(2022, 12, 27), 41, 1, {77: 1.0}), "no instrument in common"),
        (_previous(float("nan")), "no instrument in common"),
    ],
)
def test_without_a_session_to_compare_with_the_check_passes_and_says_so(previous: Previous | None, words: str) -> None:
    checks = _judge(previous=previous)
    assert not _failed(checks)
    assert words in checks["sigma_change"].sentence
    assert "single_sigma_change" not in checks
