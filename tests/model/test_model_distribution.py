"""The Student-t inside torch against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from risk.model.distribution import TailTable, quantile_table, student_t_nll
from risk.model.network import VolatilityNetwork

DEGREES = np.concatenate([np.linspace(2.2, 12, 4001), np.geomspace(12, 1e5, 4001)])


def test_standardised_quantiles_agree_with_scipy() -> None:
    tails = TailTable()(torch.tensor(DEGREES, dtype=torch.float32)).double().numpy()
    deviation = np.sqrt((DEGREES - 2) / DEGREES)
    for column, level in enumerate((0.01, 0.025, 0.05)):
        expected = stats.t.ppf(level, DEGREES) * deviation
        np.testing.assert_allclose(tails[:, column] * deviation, expected, atol=8e-6, rtol=0)


@pytest.mark.parametrize("nu", [2.2, 2.5, 3.8, 5.7, 8.4, 30.0, 200.0, 1000.0])
def test_expected_shortfall_agrees_with_the_integral_of_the_quantile(nu: float) -> None:
    shortfall = float(TailTable()(torch.tensor([nu]))[0, 3])
    quantile = stats.t.ppf(0.025, nu)
    expected = integrate.quad(lambda x: x * stats.t.pdf(x, nu), -np.inf, quantile, epsabs=1e-12)[0] / 0.025
    assert shortfall * np.sqrt((nu - 2) / nu) == pytest.approx(expected * np.sqrt((nu - 2) / nu), abs=8e-6)


def test_the_table_ends_in_the_normal_distribution() -> None:
    normal = [stats.norm.ppf(level) for level in (0.01, 0.025, 0.05)]
    np.testing.assert_allclose(quantile_table()[0], [*normal, -stats.norm.pdf(normal[1]) / 0.025], rtol=1e-12)


def test_quantiles_are_strictly_ordered_for_every_tail_and_scale() -> None:
    log_sigma, nu = torch.meshgrid(torch.linspace(-5, 7, 241), torch.tensor(DEGREES[::8]).float(), indexing="ij")
    network = VolatilityNetwork()
    network.location.fill_(0.09)
    columns = network.columns(log_sigma.reshape(-1), nu.reshape(-1))
    ordered = columns[:, [7, 3]].diff(dim=1), columns[:, 2:7].diff(dim=1)
    assert all(bool((gap > 0).all()) for gap in ordered)


def test_log_density_agrees_with_scipy() -> None:
    generator = np.random.default_rng(0)
    returns, sigma, nu = generator.normal(0, 3, 500), generator.uniform(0.3, 5, 500), generator.uniform(2.3, 50, 500)
    expected = -stats.t.logpdf(returns, nu, loc=0.05, scale=sigma * np.sqrt((nu - 2) / nu))
    found = student_t_nll(torch.tensor(returns), torch.tensor(0.05), torch.tensor(np.log(sigma)), torch.tensor(nu))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
