"""Training: point in time, the same bits twice, and no better than the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from risk.model.errors import ClosesError, ModelError, NotEnoughHistoryError
from risk.model.network import LOOKBACK
from risk.model.training import TrainedVintage, TrainingData, TrainingSettings, closes_sha256, train_vintage

SMALL = TrainingSettings(epochs=2, batch_size=256, least_rows=500)


def same_bits(one: TrainedVintage, other: TrainedVintage) -> bool:
    states = one.network.state_dict(), other.network.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_trained_twice_the_bits_are_the_same(walks: pd.DataFrame) -> None:
    torch.manual_seed(1)
    first = train_vintage(TrainingData(walks, SMALL), 2000)
    torch.manual_seed(2)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert same_bits(first, train_vintage(TrainingData(walks, SMALL), 2000))
    assert threads == torch.get_num_threads()
    assert torch.equal(state, torch.get_rng_state())


def test_another_seed_gives_other_weights(walks: pd.DataFrame) -> None:
    other = TrainingSettings(epochs=2, batch_size=256, least_rows=500, seed=9)
    assert not same_bits(
        train_vintage(TrainingData(walks, SMALL), 2000), train_vintage(TrainingData(walks, other), 2000)
    )


def test_closes_from_the_vintages_year_on_change_no_bit(walks: pd.DataFrame) -> None:
    noise = walks.copy()
    later = noise.index >= "2000-01-01"
    noise.loc[later] *= np.random.default_rng(5).uniform(0.5, 2, (later.sum(), 3))
    vintage = train_vintage(TrainingData(walks, SMALL), 2000)
    assert same_bits(vintage, train_vintage(TrainingData(noise, SMALL), 2000))
    assert same_bits(vintage, train_vintage(TrainingData(walks[walks.index < "2000-01-01"], SMALL), 2000))
    assert vintage.closes_sha256 == train_vintage(TrainingData(noise, SMALL), 2000).closes_sha256


def test_the_last_close_before_the_year_is_used(walks: pd.DataFrame) -> None:
    changed = walks.copy()
    changed.loc[walks.index[walks.index < "2000-01-01"][-1], "ONE"] *= 1.01
    vintage, other = (train_vintage(TrainingData(table, SMALL), 2000) for table in (walks, changed))
    assert not same_bits(vintage, other)
    assert vintage.closes_sha256 != other.closes_sha256
    assert vintage.trained_through.isoformat() == "1999-12-31"


def test_rows_and_targets_are_those_of_the_table(walks: pd.DataFrame) -> None:
    rows = TrainingData(walks, SMALL).before(2000)
    returns = 100 * np.log(walks / walks.shift(1))[walks.index < "2000-01-01"]
    expected = []
    for name in walks:
        seen = returns[name].notna().rolling(LOOKBACK).sum().shift(1)
        expected += [float(r) for r, n in zip(returns[name], seen, strict=True) if r == r and n >= 128]
    np.testing.assert_allclose(sorted(rows.targets.tolist()), sorted(np.float32(expected)), rtol=1e-6)


def test_the_constants_come_from_the_training_rows(walks: pd.DataFrame) -> None:
    data = TrainingData(walks, SMALL)
    network = train_vintage(data, 2000).network
    rows = data.before(2000)
    assert float(network.location) == pytest.approx(float(np.mean(rows.targets.double().numpy())), rel=1e-6)
    np.testing.assert_allclose(network.feature_mean, rows.features.double().numpy().mean(axis=0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(network.feature_std, rows.features.double().numpy().std(axis=0, ddof=1), rtol=1e-5)


def test_a_year_without_returns_has_no_score(walks: pd.DataFrame) -> None:
    data = TrainingData(walks, SMALL)
    vintage = train_vintage(data, 2001)
    assert vintage.score(data.year(2001)) is None
    assert vintage.trained_through.isoformat() == "2000-10-05"


def test_too_little_history_is_refused(walks: pd.DataFrame) -> None:
    with pytest.raises(NotEnoughHistoryError, match="vintage 1997 has 0 training rows before 1997-01-01 and needs 500"):
        train_vintage(TrainingData(walks, SMALL), 1997)
    with pytest.raises(NotEnoughHistoryError, match="vintage 1990 has 0 training rows"):
        train_vintage(TrainingData(walks, SMALL), 1990)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (pd.DataFrame(), "it is empty"),
        (pd.DataFrame({"A": [1.0, 2.0]}), "its index holds int64, not dates"),
        (
            pd.DataFrame({"A": [1.0, 2, 3]}, index=pd.to_datetime(["2001-01-03", "2001-01-02", "2001-01-04"])),
            "2001-01-02 does not follow the date above it",
        ),
        (
            pd.DataFrame({"A": [1.0, 2]}, index=pd.to_datetime(["2001-01-03", "2001-01-03"])),
            "2001-01-03 does not follow the date above it",
        ),
        (
            pd.DataFrame([[1.0, 2.0]], columns=["A", "A"], index=pd.to_datetime(["2001-01-03"])),
            "instrument A has two columns",
        ),
    ],
)
def test_a_table_that_cannot_be_trained_on_is_refused(table: pd.DataFrame, sentence: str) -> None:
    with pytest.raises(ClosesError, match=sentence) as caught:
        TrainingData(table)
    assert isinstance(caught.value, ModelError)


def test_the_hash_of_closes_sees_names_dates_values_and_gaps(walks: pd.DataFrame) -> None:
    base = closes_sha256(walks)
    assert closes_sha256(walks.copy()) == base
    filled = walks.fillna(1.0)
    moved = walks.set_axis(walks.index + pd.Timedelta(days=1))
    assert len({base, closes_sha256(filled), closes_sha256(moved), closes_sha256(walks.rename(columns=str.lower))}) == 4


def test_on_simulated_returns_the_true_filter_is_better_by_a_little() -> None:
    """A model that beats the true conditional distribution would have seen the future."""
    generator = np.random.default_rng(11)
    days = pd.bdate_range("1990-01-01", "2003-12-31")
    names, nu = 20, 6.0
    omega, alpha, gamma, beta = 0.03, 0.03, 0.08, 0.91
    shocks = generator.standard_t(nu, (len(days), names)) * np.sqrt((nu - 2) / nu)
    returns, sigmas = np.empty_like(shocks), np.empty_like(shocks)
    variance = np.full(names, omega / (1 - alpha - gamma / 2 - beta))
    for day in range(len(days)):
        sigmas[day] = np.sqrt(variance)
        returns[day] = sigmas[day] * shocks[day]
        variance = omega + (alpha + gamma * (returns[day] < 0)) * returns[day] ** 2 + beta * variance
    closes = pd.DataFrame(100 * np.exp(np.cumsum(returns / 100, axis=0)), index=days)
    data = TrainingData(closes)
    vintage = train_vintage(data, 2000)
    excess = []
    for year in range(2000, 2004):
        scores = vintage.score(data.year(year))
        assert scores is not None
        inside = np.asarray(days.year == year)
        deviation = np.sqrt((nu - 2) / nu)
        truth = -stats.t.logpdf(returns[inside], nu, scale=sigmas[inside] * deviation).mean()
        assert scores[0].rows == inside.sum() * names
        excess.append(scores[0].nll - truth)
    assert 0 < np.mean(excess) < 0.01
