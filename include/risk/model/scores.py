"""How good forecasts were: scores of the published columns against what happened, lower is better.

Every function takes numpy arrays of one row a forecast, and returns one loss a row, so that losses of two models can
be compared row by row. `score` averages them. `ewma_forecast` is the baseline, scored by the same code: RiskMetrics
0.94 volatility with a normal distribution of mean 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

SIGMA, Q01, Q025, Q05, Q95, ES025 = 1, 2, 3, 4, 6, 7
"""Positions in `risk.model.network.OUTPUT_COLUMNS`."""


@dataclass(frozen=True)
class Scores:
    """Mean losses over `rows` forecasts; hit rates are shares of returns below the quantile."""

    rows: int
    nll: float
    qlike: float
    pinball_01: float
    pinball_025: float
    pinball_05: float
    pinball_95: float
    fz0: float
    hit_01: float
    hit_025: float

    def as_dict(self) -> dict[str, float]:
        """The scores by name, for a manifest or a table."""
        return asdict(self)


def qlike(returns: Float, sigma: Float) -> Float:
    """log h + r^2 / h with h = sigma^2 (Patton 2011); its level depends on the unit, its differences don't."""
    variance = sigma**2
    return np.log(variance) + returns**2 / variance


def pinball(returns: Float, quantile: Float, level: float) -> Float:
    """The quantile's loss at `level` (Koenker and Bassett 1978), in percent of return."""
    return (level - (returns < quantile)) * (returns - quantile)


def fz0(returns: Float, quantile: Float, shortfall: Float, level: float) -> Float:
    """The joint loss of a quantile and its shortfall, both in return space and negative.

    Fissler and Ziegel's loss, homogeneous of degree zero: Patton, Ziegel and Chen (2019), equation 6.
    """
    below = np.maximum(quantile - returns, 0.0)
    return -below / (level * shortfall) + quantile / shortfall + np.log(-shortfall) - 1.0


def normal_nll(returns: Float, sigma: Float) -> Float:
    """Minus the log density of a normal distribution with mean 0, in nats."""
    return 0.5 * np.log(2 * np.pi * sigma**2) + 0.5 * (returns / sigma) ** 2


def ewma_forecast(sigma: Float) -> Float:
    """The baseline's columns `(rows, 8)`: normal, mean 0, the given standard deviation in percent."""
    normal = NormalDist()
    shortfall = -normal.pdf(normal.inv_cdf(0.025)) / 0.025
    levels = [normal.inv_cdf(level) for level in (0.01, 0.025, 0.05, 0.5, 0.95)]
    return np.outer(sigma, np.array([0.0, 1.0, *levels, shortfall]))


def score(returns: Float, columns: NDArray[Any], nll: Float) -> Scores:
    """Average every loss over the rows.

    Args:
        returns: `(rows,)`, what happened, in percent.
        columns: `(rows, 8)`, the forecast, in the order of `OUTPUT_COLUMNS`.
        nll: `(rows,)`, minus the log density that the forecast gave to what happened.
    """
    forecast = np.asarray(columns, dtype=np.float64)
    levels = {Q01: 0.01, Q025: 0.025, Q05: 0.05, Q95: 0.95}
    losses = {column: pinball(returns, forecast[:, column], level) for column, level in levels.items()}
    return Scores(
        rows=len(returns),
        nll=float(np.mean(nll)),
        qlike=float(np.mean(qlike(returns, forecast[:, SIGMA]))),
        pinball_01=float(np.mean(losses[Q01])),
        pinball_025=float(np.mean(losses[Q025])),
        pinball_05=float(np.mean(losses[Q05])),
        pinball_95=float(np.mean(losses[Q95])),
        fz0=float(np.mean(fz0(returns, forecast[:, Q025], forecast[:, ES025], 0.025))),
        hit_01=float(np.mean(returns < forecast[:, Q01])),
        hit_025=float(np.mean(returns < forecast[:, Q025])),
    )


def pooled(parts: Sequence[Mapping[str, float]]) -> Scores:
    """The scores of several years as one: means weighted by rows."""
    rows = np.array([part["rows"] for part in parts], dtype=np.float64)
    names = [field.name for field in fields(Scores) if field.name != "rows"]
    means = {name: float(np.average([part[name] for part in parts], weights=rows)) for name in names}
    return Scores(rows=int(rows.sum()), **means)
