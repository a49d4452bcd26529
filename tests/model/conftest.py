"""The bundled closes, and the panel made of them, shared by the model's tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from risk.market_data.bundled_closes import read_bundled_closes
from risk.market_data.fields import log_returns_percent, panel_fields, universe_fields
from risk.model.network import VolatilityNetwork


@pytest.fixture(scope="session")
def closes() -> pd.DataFrame:
    return read_bundled_closes()


@pytest.fixture(scope="session")
def panel(closes: pd.DataFrame) -> torch.Tensor:
    """`(20, 8313, 4)` float32."""
    returns, present = log_returns_percent(closes.to_numpy().T)
    return torch.from_numpy(panel_fields(returns, present, *universe_fields(returns, present)))


@pytest.fixture
def network() -> VolatilityNetwork:
    """A network whose last layers are not zero, so that every feature matters."""
    torch.manual_seed(7)
    network = VolatilityNetwork()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
        network.location.fill_(0.04)
    return network.eval()


@pytest.fixture(scope="session")
def walks() -> pd.DataFrame:
    """Three random walks of 800 business days to the end of 1999, and 200 more after it, with a late name and a gap."""
    generator = np.random.default_rng(3)
    days = pd.bdate_range(end="2000-10-05", periods=1000)
    prices = 50 * np.exp(np.cumsum(generator.standard_t(5, (1000, 3)) / 100, axis=0))
    table = pd.DataFrame(prices, index=days, columns=["ONE", "TWO", "LATE"])
    table.loc[table.index[:300], "LATE"] = np.nan
    table.iloc[500:520, 1] = np.nan
    return table
