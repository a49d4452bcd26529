"""VaR and ES against hand-computed values, closed forms, skfolio and their axioms."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.measures import expected_shortfall, value_at_risk
from risk.measures.errors import ConfidenceError, NotFinite, WrongShape

# losses 1, 2, ..., n: the k-th worst is n - k + 1; worked out by hand, mass of the tail in brackets
BY_HAND = [
    (100, 0.95, 96, 98.0),  # (5)
    (100, 0.975, 98, 99.2),  # (2.5): (100 + 99 + 98/2) / 2.5
    (100, 0.99, 100, 100.0),  # (1): 1 - 0.99 is 0.010000000000000009 in floats
    (250, 0.95, 238, 244.24),  # (12.5): (12 x 244.5 + 238/2) / 12.5
    (250, 0.975, 244, 247.36),  # (6.25): (1485 + 244/4) / 6.25
    (250, 0.99, 248, 249.2),  # (2.5)
    (500, 0.95, 476, 488.0),  # (25)
    (500, 0.975, 488, 494.24),  # (12.5): (12 x 494.5 + 488/2) / 12.5
    (500, 0.99, 496, 498.0),  # (5)
    (1000, 0.95, 951, 975.5),  # (50)
    (1000, 0.975, 976, 988.0),  # (25)
    (1000, 0.99, 991, 995.5),  # (10)
]

losses_of_any_size = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300).map(np.array)
confidences = st.floats(0.51, 0.999)


@pytest.mark.parametrize(("count", "confidence", "var", "shortfall"), BY_HAND)
def test_ranks_by_hand(count: int, confidence: float, var: float, shortfall: float) -> None:
    losses = np.random.default_rng(1).permutation(np.arange(1.0, count + 1))
    assert value_at_risk(losses, confidence) == var
    assert expected_shortfall(losses, confidence) == pytest.approx(shortfall, rel=1e-12)


@pytest.mark.parametrize(("count", "confidence", "var", "shortfall"), BY_HAND)
def test_against_skfolio(count: int, confidence: float, var: float, shortfall: float) -> None:
    """The same ES; the same VaR, but skfolio takes the next lower loss where the tail is a whole number of losses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import skfolio.measures as peer
    losses = np.random.default_rng(count).standard_t(3, count)
    lower = peer.value_at_risk(-losses, beta=confidence)
    descending = np.sort(losses)[::-1]
    whole = round((1 - confidence) * count, 9).is_integer()
    ours = int(np.flatnonzero(descending == value_at_risk(losses, confidence))[0])
    assert descending[ours + (1 if whole else 0)] == lower
    assert expected_shortfall(losses, confidence) == pytest.approx(peer.cvar(-losses, beta=confidence), rel=1e-12)


@pytest.mark.parametrize(
    ("confidence", "var", "shortfall"),
    [(0.95, 1.644854, 2.062713), (0.975, 1.959964, 2.337803), (0.99, 2.326348, 2.665214)],  # z and phi(z) / (1 - c)
)
def test_normal_losses(confidence: float, var: float, shortfall: float) -> None:
    losses = np.random.default_rng(7).standard_normal(400_000)
    assert value_at_risk(losses, confidence) == pytest.approx(var, abs=0.02)  # standard error 0.006 at 99%
    assert expected_shortfall(losses, confidence) == pytest.approx(shortfall, abs=0.03)


@given(losses_of_any_size, confidences)
def test_shortfall_is_at_least_var_and_at_most_the_worst(losses: np.ndarray, confidence: float) -> None:
    var, shortfall = value_at_risk(losses, confidence), expected_shortfall(losses, confidence)
    assert var <= shortfall
    assert shortfall <= losses.max() + 1e-9 * max(1.0, abs(losses.max()))


@given(losses_of_any_size, confidences, st.floats(0.01, 100), st.floats(-1e4, 1e4))
def test_scale_and_shift(losses: np.ndarray, confidence: float, scale: float, shift: float) -> None:
    for measure in (value_at_risk, expected_shortfall):
        moved = measure(losses * scale + shift, confidence)
        assert moved == pytest.approx(measure(losses, confidence) * scale + shift, rel=1e-9, abs=1e-5)


@given(losses_of_any_size, confidences, confidences)
def test_monotone_in_confidence(losses: np.ndarray, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert value_at_risk(losses, low) <= value_at_risk(losses, high)
    assert expected_shortfall(losses, low) <= expected_shortfall(losses, high) + 1e-6


@given(st.integers(0, 2**32 - 1), confidences)
def test_shortfall_is_subadditive(seed: int, confidence: float) -> None:
    one, other = np.random.default_rng(seed).standard_t(2, (2, 97))
    apart = expected_shortfall(one, confidence) + expected_shortfall(other, confidence)
    assert expected_shortfall(one + other, confidence) <= apart + 1e-9


def test_a_confidence_beyond_the_scenarios_takes_the_worst() -> None:
    losses = np.array([1.0, 5.0, 3.0])
    for confidence in (0.99, 1 - 1e-13):
        assert value_at_risk(losses, confidence) == 5.0
        assert expected_shortfall(losses, confidence) == 5.0


@pytest.mark.parametrize("measure", [value_at_risk, expected_shortfall])
def test_what_cannot_be_measured_is_refused_with_a_sentence(measure) -> None:
    with pytest.raises(NotFinite, match="1 of 3 losses are NaN"):
        measure(np.array([1.0, np.nan, 2.0]), 0.99)
    with pytest.raises(WrongShape, match=r"\(0,\); allowed is \(scenarios,\)"):
        measure(np.array([]), 0.99)
    with pytest.raises(WrongShape):
        measure(np.ones((2, 2)), 0.99)
    for confidence in (0.01, 0.5, 1.0, float("nan")):
        with pytest.raises(ConfidenceError, match=r"not between 0\.5 and 1"):
            measure(np.ones(3), confidence)
