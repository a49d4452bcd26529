"""Filtered historical scenarios by hand, by their invariances, and on simulated normal returns."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.measures import book_losses, filtered_scenarios, value_at_risk
from risk.measures.errors import NotFinite, WrongShape


def _returns(instruments: int, sessions: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((instruments, sessions))


def _all(returns: np.ndarray) -> np.ndarray:
    return np.ones(returns.shape, dtype=bool)


def test_one_instrument_by_hand() -> None:
    returns = np.array([[3.0, -4.0, 5.0, 0.0, 10.0]])
    drawn = filtered_scenarios(returns, _all(returns), np.array([2.0]), scenarios=10, decay=0.5, warm_up=2)
    # variances before each scenario: (9 + 16) / 2 = 12.5, then (12.5 + 25) / 2 = 18.75, then (18.75 + 0) / 2 = 9.375
    first, last = 5 / math.sqrt(12.5), 10 / math.sqrt(9.375)
    scale = 2.0 / math.sqrt((first**2 + last**2) / 3)
    assert drawn.returns == pytest.approx(np.array([[first * scale, 0.0, last * scale]]))
    assert drawn.columns.tolist() == [2, 3, 4]
    assert (drawn.dropped, drawn.filled) == (0, 0)


def test_a_missing_residual_takes_the_markets() -> None:
    returns = np.array([[3.0, -4.0, 5.0, 0.0, 10.0], [1.0, 1.0, 1.0, 2.0, 99.0]])
    present = _all(returns)
    present[1, 4] = False
    drawn = filtered_scenarios(returns, present, np.array([2.0, 3.0]), scenarios=10, decay=0.5, warm_up=2)
    scale = math.sqrt((25 / 12.5 + 100 / 9.375) / 3)
    first, last = 5 / math.sqrt(12.5) / scale, 10 / math.sqrt(9.375) / scale
    # the second: variance 1 throughout, residuals 1 and 2 of root mean square sqrt(5 / 2)
    one, two = 1 / math.sqrt(2.5), 2 / math.sqrt(2.5)
    market = [(first + one) / 2, two / 2, last]
    filled = last / math.sqrt(sum(value**2 for value in market) / 3)
    assert drawn.returns[1] == pytest.approx(np.array([3 * one, 3 * two, 3 * filled]))
    assert drawn.returns[0] == pytest.approx(np.array([2 * first, 0.0, 2 * last]))
    assert drawn.filled == 1


def test_a_session_that_few_have_is_left_out_and_counted() -> None:
    returns = _returns(3, 40)
    present = _all(returns)
    present[:2, 30] = False
    drawn = filtered_scenarios(returns, present, np.ones(3), scenarios=20, warm_up=10)
    assert 30 not in drawn.columns.tolist()
    assert drawn.columns.tolist()[0] == 19
    assert (len(drawn.columns), drawn.dropped, drawn.filled) == (20, 1, 0)


def test_a_new_listing_costs_the_book_no_history() -> None:
    returns = _returns(3, 300)
    present = _all(returns)
    present[2, :250] = False
    drawn = filtered_scenarios(returns, present, np.array([1.0, 1.0, 4.0]), scenarios=200)
    assert drawn.returns.shape == (3, 200)
    assert drawn.filled == 200  # 50 returns don't fill a warm-up of 75
    assert math.sqrt((drawn.returns[2] ** 2).mean()) == pytest.approx(4.0)  # not riskless: its own sigma of tonight
    market = drawn.returns[:2].mean(axis=0)
    assert np.corrcoef(market, drawn.returns[2])[0, 1] == pytest.approx(1.0)


def test_a_name_that_never_moved_takes_the_markets() -> None:
    returns = _returns(2, 120)
    returns[1] = 0.0
    drawn = filtered_scenarios(returns, _all(returns), np.array([1.0, 2.0]), scenarios=40)
    assert drawn.filled == 40
    assert drawn.returns[1] == pytest.approx(2.0 * drawn.returns[0])


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 50.0))
def test_each_row_has_tonights_sigma_whatever_the_past_one(seed: int, factor: float) -> None:
    returns = _returns(4, 160, seed)
    sigma = np.array([0.5, 1.0, 2.0, 8.0])
    drawn = filtered_scenarios(returns, _all(returns), sigma, scenarios=80)
    louder = filtered_scenarios(returns * factor, _all(returns), sigma, scenarios=80)
    assert np.sqrt((drawn.returns**2).mean(axis=1)) == pytest.approx(sigma)
    assert louder.returns == pytest.approx(drawn.returns)


def test_a_return_is_judged_by_what_was_known_the_session_before() -> None:
    """The last return changes its own scenario; all others keep their proportions."""
    returns = _returns(1, 120)
    shocked = returns.copy()
    shocked[0, -1] = 25.0
    calm = filtered_scenarios(returns, _all(returns), np.ones(1), scenarios=40).returns[0]
    wild = filtered_scenarios(shocked, _all(returns), np.ones(1), scenarios=40).returns[0]
    assert wild[:-1] / wild[0] == pytest.approx(calm[:-1] / calm[0])
    assert wild[-1] / wild[0] == pytest.approx(calm[-1] / calm[0] * 25.0 / returns[0, -1])


def test_columns_are_sessions_for_every_instrument() -> None:
    returns = np.repeat(_returns(1, 200), 2, axis=0) * np.array([[1.0], [-3.0]])
    drawn = filtered_scenarios(returns, _all(returns), np.array([1.0, 1.0]), scenarios=100)
    assert drawn.returns[1] == pytest.approx(-drawn.returns[0])  # a perfect hedge in the past is one tonight


def test_the_newest_sessions_are_taken() -> None:
    returns = _returns(2, 200)
    drawn = filtered_scenarios(returns, _all(returns), np.ones(2), scenarios=50)
    assert drawn.columns.tolist() == list(range(150, 200))
    short = filtered_scenarios(returns[:, :100], _all(returns[:, :100]), np.ones(2), scenarios=50)
    assert short.columns.tolist() == list(range(75, 100))
    none = filtered_scenarios(returns[:, :60], _all(returns[:, :60]), np.ones(2), scenarios=50)
    assert (none.returns.shape, none.dropped, none.filled) == ((2, 0), 0, 0)


def test_normal_returns_give_the_normal_var() -> None:
    """99% VaR of a name at 2% a day: 2.3263 sigma in log returns; standard error of the 99% quantile 2%."""
    returns = _returns(1, 40_075) * 1.3
    drawn = filtered_scenarios(returns, _all(returns), np.array([2.0]), scenarios=40_000)
    var = value_at_risk(book_losses(np.array([1.0]), drawn.returns), 0.99)
    # division by an estimated sigma of 1 / (1 - 0.94) effective returns fattens the tail by a few percent
    assert var == pytest.approx(1 - math.exp(-0.02 * 2.326348), rel=0.06)


def test_losses_are_of_values_not_of_logarithms() -> None:
    scenarios = np.array([[100 * math.log(0.9), 100 * math.log(1.2)], [0.0, 100 * math.log(0.5)]])
    assert book_losses(np.array([1000.0, 500.0]), scenarios) == pytest.approx([100.0, 50.0])
    both = book_losses(np.array([[1000.0, 500.0], [-1000.0, 0.0]]), scenarios)
    assert both == pytest.approx(np.array([[100.0, 50.0], [-100.0, 200.0]]))


def test_what_does_not_fit_is_refused_with_a_sentence() -> None:
    returns = _returns(2, 100)
    with pytest.raises(WrongShape, match="returns, presence and sigma"):
        filtered_scenarios(returns, _all(returns), np.ones(3), scenarios=10)
    with pytest.raises(NotFinite, match="1 of 2 sigmas of tonight"):
        filtered_scenarios(returns, _all(returns), np.array([1.0, 0.0]), scenarios=10)
    hole = returns.copy()
    hole[0, 5] = np.nan
    with pytest.raises(NotFinite, match="1 of 200 returns that are marked present"):
        filtered_scenarios(hole, _all(returns), np.ones(2), scenarios=10)
    absent = _all(returns)
    absent[0, 5] = False
    assert np.isfinite(filtered_scenarios(hole, absent, np.ones(2), scenarios=10).returns).all()
    with pytest.raises(WrongShape, match="holdings"):
        book_losses(np.ones(3), returns)
    with pytest.raises(NotFinite, match="1 of 2 holdings"):
        book_losses(np.array([1.0, np.inf]), returns)
    with pytest.raises(NotFinite, match="1 of 200 scenario returns"):
        book_losses(np.ones(2), hole)
