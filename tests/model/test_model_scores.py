"""Losses against hand-worked numbers, closed forms and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from risk.model.scores import ewma_forecast, fz0, normal_nll, pinball, pooled, qlike, score


def test_qlike_by_hand() -> None:
    np.testing.assert_allclose(qlike(np.array([2.0, 0.0]), np.array([1.0, np.e])), [4.0, 2.0])


def test_pinball_by_hand() -> None:
    losses = pinball(np.array([-3.0, -1.0]), np.array([-2.0, -2.0]), 0.1)
    np.testing.assert_allclose(losses, [0.9, 0.1])


def test_fz0_of_the_true_normal_is_the_log_of_its_shortfall() -> None:
    # with the true quantile q and shortfall e, E[max(q - r, 0)] = level (q - e), so the expected loss is log(-e)
    returns = stats.norm.ppf((np.arange(400_000) + 0.5) / 400_000)
    quantile = stats.norm.ppf(0.025)
    shortfall = -stats.norm.pdf(quantile) / 0.025
    truth = fz0(returns, np.full_like(returns, quantile), np.full_like(returns, shortfall), 0.025).mean()
    assert truth == pytest.approx(np.log(-shortfall), abs=1e-4)
    for q, e in ((0.9, 1.0), (1.1, 1.0), (1.0, 0.9), (1.0, 1.1)):
        other = fz0(returns, np.full_like(returns, q * quantile), np.full_like(returns, e * shortfall), 0.025).mean()
        assert other > truth


def test_the_baseline_is_normal() -> None:
    levels = [stats.norm.ppf(level) for level in (0.01, 0.025, 0.05, 0.5, 0.95)]
    shortfall = -stats.norm.pdf(levels[1]) / 0.025
    np.testing.assert_allclose(ewma_forecast(np.array([2.0])), [[0.0, 2.0, *(2 * np.array([*levels, shortfall]))]])
    returns, sigma = np.array([0.5, -4.0]), np.array([1.5, 2.0])
    np.testing.assert_allclose(normal_nll(returns, sigma), -stats.norm.logpdf(returns, scale=sigma))


def test_hit_rates_of_the_true_distribution() -> None:
    returns = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    scores = score(returns, ewma_forecast(np.ones(4000)), normal_nll(returns, np.ones(4000)))
    assert (scores.rows, scores.hit_01, scores.hit_025) == (4000, 0.01, 0.025)
    assert scores.nll == pytest.approx(0.5 * np.log(2 * np.pi) + 0.5, abs=2e-3)


def test_pooling_years_weights_them_by_rows() -> None:
    generator = np.random.default_rng(2)
    returns, sigma = generator.normal(0, 1, 900), generator.uniform(0.5, 2, 900)
    columns, nll = ewma_forecast(sigma), normal_nll(returns, sigma)
    whole = score(returns, columns, nll).as_dict()
    parts = [score(returns[part], columns[part], nll[part]).as_dict() for part in (slice(0, 200), slice(200, 900))]
    assert pooled(parts).as_dict() == pytest.approx(whole)
