"""The network from outside: what it may see, what it must not depend on, what it starts as."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from risk.market_data.fields import log_returns_percent, panel_fields, universe_fields
from risk.model.network import FEATURES, LOOKBACK, OUTPUT_COLUMNS, VolatilityNetwork, panel_features

SESSION = 700


def panel_of(closes: np.ndarray) -> torch.Tensor:
    returns, present = log_returns_percent(closes)
    return torch.from_numpy(panel_fields(returns, present, *universe_fields(returns, present)))


def windows_at(panel: torch.Tensor, session: int) -> torch.Tensor:
    return panel[:, session - LOOKBACK + 1 : session + 1].contiguous()


def forecasts(network: VolatilityNetwork, panel: torch.Tensor) -> torch.Tensor:
    """Forecasts of every session from 255 on, by the whole-panel form: `(instruments, sessions - 255, 8)`."""
    features, log_anchor = panel_features(network, panel)
    with torch.no_grad():
        columns = network.columns(*network.head(features.flatten(0, 1), log_anchor.flatten()))
    return columns.unflatten(0, log_anchor.shape)


def test_shapes_and_columns(network: VolatilityNetwork, panel: torch.Tensor) -> None:
    with torch.no_grad():
        out = network(windows_at(panel, SESSION))
    assert out.shape == (20, len(OUTPUT_COLUMNS))
    assert out.dtype == torch.float32
    assert bool(out.isfinite().all())
    assert panel_features(network, panel[:2, :300])[0].shape == (2, 45, FEATURES)


def test_later_closes_change_no_bit_and_earlier_ones_do(network: VolatilityNetwork, closes: pd.DataFrame) -> None:
    prices = closes.to_numpy().T[:, :1000]
    later, inside = prices.copy(), prices.copy()
    later[:, SESSION + 1 :] *= np.random.default_rng(1).uniform(0.5, 2.0, later[:, SESSION + 1 :].shape)
    inside[3, SESSION] *= 1.2
    original, changed, planted = (forecasts(network, panel_of(table)) for table in (prices, later, inside))
    known = SESSION - LOOKBACK + 2
    assert torch.equal(original[:, :known], changed[:, :known])
    assert not torch.equal(original[:, known], changed[:, known])
    assert not torch.equal(original[3, known - 1], planted[3, known - 1])
    assert not torch.equal(original[4, known - 1], planted[4, known - 1])  # by way of the market fields


def test_what_left_the_window_is_forgotten(network: VolatilityNetwork, closes: pd.DataFrame) -> None:
    prices = closes.to_numpy().T[:, :1000]
    earlier = prices.copy()
    earlier[:, : SESSION - LOOKBACK] *= 3.0
    earlier[:, : SESSION - LOOKBACK - 50] *= 0.1
    assert torch.equal(network(windows_at(panel_of(prices), SESSION)), network(windows_at(panel_of(earlier), SESSION)))


def test_the_unit_of_the_prices_does_not_matter(network: VolatilityNetwork, closes: pd.DataFrame) -> None:
    prices = closes.to_numpy().T[:, :1000]
    base = network(windows_at(panel_of(prices), SESSION))
    assert torch.equal(network(windows_at(panel_of(prices * 1024), SESSION)), base)
    torch.testing.assert_close(network(windows_at(panel_of(prices * 1000), SESSION)), base, rtol=1e-5, atol=1e-6)


def test_doubled_returns_double_sigma(network: VolatilityNetwork, panel: torch.Tensor) -> None:
    windows = windows_at(panel, 5000)
    doubled = windows * torch.tensor([2.0, 2.0, 2.0, 1.0])
    ratio = network(doubled)[:, 1] / network(windows)[:, 1]
    torch.testing.assert_close(ratio, torch.full((20,), 2.0), rtol=0.02, atol=0)


def test_a_window_and_the_panel_give_the_same(network: VolatilityNetwork, panel: torch.Tensor) -> None:
    whole = forecasts(network, panel[:, 6000:6600])
    for session in (255, 256, 400, 599):
        one = network(windows_at(panel[:, 6000:6600], session)).detach()
        torch.testing.assert_close(one, whole[:, session - 255], rtol=2e-6, atol=1e-6)


def test_float32_is_close_to_float64(network: VolatilityNetwork, panel: torch.Tensor) -> None:
    windows = windows_at(panel, 4800)
    single = network(windows).detach()
    torch.testing.assert_close(single, network.double()(windows.double()).detach().float(), rtol=3e-6, atol=3e-6)


def test_autocast_leaves_the_variances_in_float32(panel: torch.Tensor) -> None:
    untrained = VolatilityNetwork().eval()
    windows = windows_at(panel, 4800)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = untrained(windows)
    assert torch.equal(reduced, untrained(windows))


def test_untrained_it_is_riskmetrics(panel: torch.Tensor) -> None:
    with torch.no_grad():
        sigma = VolatilityNetwork().eval()(windows_at(panel, 4800))[:, 1].numpy()
    squares = pd.DataFrame(windows_at(panel, 4800)[..., 0].double().numpy().T) ** 2
    # pandas' adjusted average normalises the 256 weights; 0.0025 is the floor of 5 basis points, squared
    expected = np.sqrt(squares.ewm(halflife=11.2, adjust=True).mean().iloc[-1] + 0.0025)
    np.testing.assert_allclose(sigma, expected, rtol=2e-6)


def test_a_halt_does_not_calm_the_forecast(panel: torch.Tensor) -> None:
    windows = windows_at(panel, 4800)
    windows[:, -12:, 0] = windows[:, -12:, 3] = 0.0
    with torch.no_grad():
        sigma = VolatilityNetwork().eval()(windows)[:, 1].numpy()
    squares = pd.DataFrame(windows[:, :-12, 0].double().numpy().T) ** 2
    np.testing.assert_allclose(
        sigma, np.sqrt(squares.ewm(halflife=11.2, adjust=True).mean().iloc[-1] + 0.0025), rtol=1e-5
    )


def test_an_empty_window_is_finite(network: VolatilityNetwork) -> None:
    assert bool(network(torch.zeros(3, LOOKBACK, 4)).isfinite().all())


@pytest.mark.parametrize("field", range(4))
def test_a_nan_stays_in_its_row(network: VolatilityNetwork, panel: torch.Tensor, field: int) -> None:
    windows = windows_at(panel, SESSION)
    expected = network(windows).detach()
    windows[5, 100, field] = float("nan")
    out = network(windows).detach()
    assert bool(out[5, 1:5].isnan().all())
    others = [row for row in range(20) if row != 5]
    assert torch.equal(out[others], expected[others])


def test_a_window_of_another_length_is_refused(network: VolatilityNetwork) -> None:
    with pytest.raises(ValueError, match="a window has 256 sessions, not 255"):
        network(torch.zeros(1, 255, 4))
