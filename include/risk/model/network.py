"""The volatility network: raw windows in, the distribution of the next session's return out.

1. `VolatilityNetwork.features` filters the fields with five fixed exponential weightings (`_averages`) and makes 48
   scale-free features of them (`_own_features`, `_market_features`), beside an anchor: the RiskMetrics 0.94 volatility.
2. `VolatilityNetwork.head` standardises the features and moves the anchor: log sigma and the degrees of freedom of a
   Student-t. Its last layers start at zero, so the untrained network is RiskMetrics with fat tails.
3. `VolatilityNetwork.columns` writes mean, standard deviation, quantiles and expected shortfall.

Steps 1 to 3 are one module, so training and serving can't differ. Step 1 is a causal filter: `panel_features` runs it
over a whole panel at once, and a window is a panel of 256 sessions.

Exponential weighting: J.P. Morgan/Reuters, RiskMetrics Technical Document (1996); several half-lives at once:
Corsi, A Simple Approximate Long-Memory Model of Realized Volatility (2009).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from risk.model.distribution import MINIMUM_NU, TailTable, t_scale

LOOKBACK = 256
OUTPUT_COLUMNS = ("mu", "sigma", "q01", "q025", "q05", "q50", "q95", "es025")
HALF_LIVES = (1.5, 4.0, 11.2, 30.0, 90.0)
ANCHOR = HALF_LIVES.index(11.2)
"""A half-life of 11.2 sessions is RiskMetrics' decay of 0.94."""
FEATURES = 48

_VARIANCE_FLOOR = 0.0025
_ABSOLUTE_FLOOR = 0.04
_MEAN_ABSOLUTE_OF_NORMAL = math.sqrt(math.pi / 2)
_STALE_RETURN = 0.01
_LEAST_PRESENCE = 1e-6


class _Averages(NamedTuple):
    """Exponentially weighted averages, each `(instruments, sessions, 5)`, one a half-life."""

    square: Tensor
    absolute: Tensor
    negative_square: Tensor
    signed: Tensor
    stale: Tensor
    product: Tensor
    market_square: Tensor
    market_negative_square: Tensor
    dispersion_square: Tensor


class VolatilityNetwork(nn.Module):
    """Windows `(rows, 256, 4)` of `risk.market_data.fields.FIELDS` to `(rows, 8)` of `OUTPUT_COLUMNS`.

    Everything is in percent of log return for the session after the window. `es025` is in return space like the
    quantiles: the expected return below q025, a negative number as a rule; as a loss it is `-es025`. By construction
    es025 < q025 and q01 < q025 < q05 < q50 < q95. A NaN in a window gives NaN in that row and in no other.
    """

    weights: Tensor
    feature_mean: Tensor
    feature_std: Tensor
    location: Tensor

    def __init__(self, hidden: int = 48, dropout: float = 0.1) -> None:
        super().__init__()
        self.register_buffer("weights", exponential_weights(), persistent=False)
        self.register_buffer("feature_mean", torch.zeros(FEATURES))
        self.register_buffer("feature_std", torch.ones(FEATURES))
        self.register_buffer("location", torch.zeros(()))
        self.linear = nn.Linear(FEATURES, 2)
        self.perceptron = nn.Sequential(
            nn.Linear(FEATURES, hidden), nn.SiLU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.SiLU(), nn.Dropout(dropout),
            nn.Linear(hidden, 2),
        )  # fmt: skip
        for layer in (self.linear, self.perceptron[-1]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        self.tails = TailTable()

    def forward(self, windows: Tensor) -> Tensor:
        """The forecast of each window: `(rows, 256, 4)` to `(rows, 8)`, see `OUTPUT_COLUMNS`."""
        log_sigma, nu = self.parameters_of(windows)
        return self.columns(log_sigma, nu)

    def parameters_of(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Log of the standard deviation and degrees of freedom, each `(rows,)`."""
        if windows.shape[1] != LOOKBACK:
            raise ValueError(f"a window has {LOOKBACK} sessions, not {windows.shape[1]}")
        features, anchor = self.features(windows)
        return self.head(features[:, 0], anchor[:, 0])

    def features(self, panel: Tensor) -> tuple[Tensor, Tensor]:
        """Features and anchor of every window that the panel holds.

        Reduced precision by autocast stays out of here: a variance of squares needs float32.

        Args:
            panel: `(instruments, sessions, 4)`, at least 256 sessions.

        Returns:
            features `(instruments, sessions - 255, 48)` and the anchor's log `(instruments, sessions - 255)`; the first
            belongs to the window that ends at session 255.
        """
        with torch.autocast(device_type=panel.device.type, enabled=False):
            fields = panel.to(self.weights.dtype)
            presence = fields[..., 3]
            own, market = fields[..., 0] * presence, fields[..., 1]
            averages = self._averages(own, market, fields[..., 2], presence)
            log_anchor = 0.5 * averages.square[..., ANCHOR].log()
            log_market = 0.5 * averages.market_square[..., ANCHOR].log()
            features = [
                *_own_features(own, averages, log_anchor),
                *_market_features(market, averages, log_anchor, log_market),
            ]
            return torch.cat(features, dim=-1), log_anchor

    def _averages(self, own: Tensor, market: Tensor, dispersion: Tensor, presence: Tensor) -> _Averages:
        """The filter bank. Sums over the instrument's own returns are divided by the weight of the sessions present."""

        def smooth(values: Tensor) -> Tensor:
            return values.unfold(-1, LOOKBACK, 1) @ self.weights

        seen = smooth(presence).clamp(min=_LEAST_PRESENCE)
        square, market_square = own**2, market**2
        return _Averages(
            square=smooth(square) / seen + _VARIANCE_FLOOR,
            absolute=smooth(own.abs()) / seen + _ABSOLUTE_FLOOR,
            negative_square=smooth(square * (own < 0)) / seen,
            signed=smooth(own) / seen,
            stale=smooth((own.abs() < _STALE_RETURN) * presence) / seen,
            product=smooth(own * market) / seen,
            market_square=smooth(market_square) + _VARIANCE_FLOOR,
            market_negative_square=smooth(market_square * (market < 0)),
            dispersion_square=smooth(dispersion**2) + _VARIANCE_FLOOR,
        )

    def head(self, features: Tensor, log_anchor: Tensor) -> tuple[Tensor, Tensor]:
        """Log sigma and degrees of freedom, each `(rows,)`, from features `(rows, 48)` and the anchor `(rows,)`."""
        scaled = ((features - self.feature_mean) / self.feature_std).clamp(-6.0, 6.0)
        moves = (self.linear(scaled) + self.perceptron(scaled)).to(log_anchor.dtype)
        log_sigma = log_anchor + moves[:, 0].clamp(-2.0, 2.0)
        return log_sigma, MINIMUM_NU + nn.functional.softplus(moves[:, 1] + 2.5)

    def columns(self, log_sigma: Tensor, nu: Tensor) -> Tensor:
        """The published columns `(rows, 8)` of a Student-t with these parameters."""
        tails = self.location + t_scale(log_sigma, nu).unsqueeze(-1) * self.tails(nu)
        centre = self.location.expand(log_sigma.shape)
        q01, q025, q05, shortfall = tails.unbind(-1)
        upper = 2.0 * centre - q05
        return torch.stack([centre, log_sigma.exp(), q01, q025, q05, centre, upper, shortfall], dim=-1)


def exponential_weights() -> Tensor:
    """Weights of the five averages, `(256, 5)`, oldest session first; proportional to 0.5^(age / half-life), sum 1."""
    age = torch.arange(LOOKBACK - 1, -1, -1, dtype=torch.float64).unsqueeze(-1)
    weights = 0.5 ** (age / torch.tensor(HALF_LIVES, dtype=torch.float64))
    return (weights / weights.sum(dim=0)).to(torch.float32)


def panel_features(network: VolatilityNetwork, panel: Tensor) -> tuple[Tensor, Tensor]:
    """`VolatilityNetwork.features` of a large panel, one instrument at a time to bound the memory it takes."""
    with torch.no_grad():
        parts = [network.features(panel[row : row + 1]) for row in range(panel.shape[0])]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _lags(values: Tensor, count: int) -> Tensor:
    """The newest `count` values of each window, newest first: `(instruments, sessions - 255, count)`."""
    return torch.stack([values[:, LOOKBACK - 1 - lag : values.shape[1] - lag] for lag in range(count)], dim=-1)


def _own_features(own: Tensor, averages: _Averages, log_anchor: Tensor) -> list[Tensor]:
    """28 features of the instrument's own returns, relative to its anchor."""
    log_anchor = log_anchor.unsqueeze(-1)
    lags = _lags(own, 5) / log_anchor.exp()
    other = [index for index in range(len(HALF_LIVES)) if index != ANCHOR]
    return [
        0.5 * averages.square[..., other].log() - log_anchor,
        (_MEAN_ABSOLUTE_OF_NORMAL * averages.absolute).log() - log_anchor,
        averages.negative_square / averages.square - 0.5,
        (averages.signed / log_anchor.exp()).clamp(-3.0, 3.0),
        lags.abs().clamp(max=6.0),
        lags[..., :3].clamp(-6.0, 6.0),
        averages.stale[..., ANCHOR:].mean(dim=-1, keepdim=True),
    ]


def _market_features(market: Tensor, averages: _Averages, log_anchor: Tensor, log_market: Tensor) -> list[Tensor]:
    """20 features of the market, relative to its own anchor, and of the instrument beside it."""
    log_anchor, log_market = log_anchor.unsqueeze(-1), log_market.unsqueeze(-1)
    lags = _lags(market, 3) / log_market.exp()
    other = [index for index in range(len(HALF_LIVES)) if index != ANCHOR]
    ends = [ANCHOR, len(HALF_LIVES) - 1]
    return [
        0.5 * averages.market_square[..., other].log() - log_market,
        0.5 * averages.dispersion_square.log() - log_anchor,
        log_market - log_anchor,
        averages.market_negative_square[..., : ANCHOR + 1] / averages.market_square[..., : ANCHOR + 1] - 0.5,
        lags.clamp(-6.0, 6.0),
        lags[..., :2].abs().clamp(max=6.0),
        averages.product[..., ends] / (averages.square[..., ends] * averages.market_square[..., ends]).sqrt(),
    ]
