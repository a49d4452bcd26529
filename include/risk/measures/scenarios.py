"""Filtered historical scenarios: what past sessions would be at tonight's volatility.

Barone-Adesi, Giannopoulos & Vosper (1999), "VaR without correlations for portfolios of derivative securities", with
the volatility of the past by RiskMetrics (1996) and tonight's by the model:

1. `standardised_residuals` divides each past return by its own EWMA sigma, known the session before.
2. `filtered_scenarios` keeps the sessions that enough instruments have, scales each instrument's residuals to unit
   root mean square, and multiplies them by tonight's sigma. A column is one past session for every instrument, so
   the dependence between them is the one that was.

Means are taken as zero, as RiskMetrics does for one session: the residuals are not centred.

A missing residual (not yet listed, no bar, in its warm-up) takes the market's of that session: the mean residual of
the instruments present, at unit root mean square. It moves with the market at its own sigma of tonight. Leaving the
instrument at zero would call it riskless, and leaving the session out would let one new listing take the history
of a whole book. A session that less than half of the instruments have is left out. Both are counted and returned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risk.measures.errors import NotFinite, WrongShape

DECAY = 0.94
"""RiskMetrics' decay factor of daily variance (1996, section 5.3)."""
WARM_UP = 75
"""Returns whose mean square starts the recursion: 99% of the weight at that decay (0.94^75 < 1%; table 5.7)."""
SIGMA_FLOOR = 0.05
"""Percent a day: under it lies a stale price, not a calm one."""
MIN_PRESENT = 0.5
"""A session counts when this share of the instruments has a residual."""

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scenarios:
    """Equally likely log returns of the next session.

    `returns` is `(instruments, scenarios)` in percent, oldest session first; `columns` is `(scenarios,)`, each
    scenario's column in the past returns; `dropped` sessions in between had too few instruments; `filled` residuals
    were missing and took the market's.
    """

    returns: Float
    columns: NDArray[np.int64]
    dropped: int
    filled: int


def filtered_scenarios(
    returns_percent: NDArray[Any],
    present: NDArray[Any],
    sigma_tonight: NDArray[Any],
    *,
    scenarios: int,
    decay: float = DECAY,
    warm_up: int = WARM_UP,
) -> Scenarios:
    """The last `scenarios` sessions as they would be at tonight's sigma; fewer where the history is shorter.

    Args:
        returns_percent: `(instruments, sessions)` log returns in percent, sessions ascending.
        present: the same shape; False where a return doesn't exist (its number is not looked at).
        sigma_tonight: `(instruments,)` forecast sigma of the next session, in percent.
        scenarios: how many are wanted.
        decay: of the EWMA variance.
        warm_up: returns of an instrument that start its variance and give no residual.

    Raises:
        NotFinite, WrongShape: with what is allowed.
    """
    returns, exists = np.asarray(returns_percent, dtype=np.float64), np.asarray(present, dtype=np.bool_)
    sigma = np.asarray(sigma_tonight, dtype=np.float64)
    _check(returns, exists, sigma)
    residuals = standardised_residuals(returns, exists, decay=decay, warm_up=warm_up)
    known = np.isfinite(residuals)
    enough = known.any(axis=0) & (known.sum(axis=0) >= MIN_PRESENT * len(sigma))
    columns = np.flatnonzero(enough)[-scenarios:]
    kept = known[:, columns]
    scaled = _unit(np.where(kept, residuals[:, columns], 0.0), kept)
    usable = kept & (scaled != 0).any(axis=1, keepdims=True)
    market = _market(scaled, usable)
    return Scenarios(
        returns=np.where(usable, scaled, market) * sigma[:, None],
        columns=columns,
        dropped=int(returns.shape[1] - columns[0] - len(columns)) if len(columns) else 0,
        filled=int((~usable).sum()),
    )


def standardised_residuals(returns: Float, present: NDArray[np.bool_], *, decay: float, warm_up: int) -> Float:
    """Each return divided by its EWMA sigma of the session before; NaN where there is none.

    RiskMetrics (1996, equation 5.3): `variance(t) = decay variance(t-1) + (1 - decay) return(t)^2`, started for each
    instrument on the mean square of its first `warm_up` returns. A session without a return changes nothing.

    Args:
        returns: `(instruments, sessions)` in percent; present: the same shape.
    """
    residuals = np.full(returns.shape, np.nan)
    seen = np.zeros(len(returns), dtype=np.int64)
    variance = np.zeros(len(returns))
    for session in range(returns.shape[1]):
        here = present[:, session]
        value = np.where(here, returns[:, session], 0.0)
        started = seen >= warm_up
        sigma = np.maximum(np.sqrt(variance), SIGMA_FLOOR)
        residuals[:, session] = np.where(here & started, value / sigma, np.nan)
        warm = variance + value**2 / warm_up
        variance = np.where(here, np.where(started, decay * variance + (1 - decay) * value**2, warm), variance)
        seen += here
    return residuals


def _unit(values: Float, counted: NDArray[np.bool_]) -> Float:
    """Rows of `(instruments, scenarios)` divided by their root mean square over what is counted; 0 where that is 0."""
    square = (values**2).sum(axis=-1, keepdims=True) / np.maximum(counted.sum(axis=-1, keepdims=True), 1)
    unit: Float = values / np.where(square > 0, np.sqrt(square), 1.0)
    return unit


def _market(residuals: Float, usable: NDArray[np.bool_]) -> Float:
    """`(scenarios,)` mean residual of the instruments present, at unit root mean square."""
    names = usable.sum(axis=0)
    mean = np.where(usable, residuals, 0.0).sum(axis=0) / np.maximum(names, 1)
    market: Float = _unit(mean[None, :], (names > 0)[None, :])[0]
    return market


def _check(returns: Float, present: NDArray[np.bool_], sigma: Float) -> None:
    if returns.ndim != 2 or present.shape != returns.shape or sigma.shape != returns.shape[:1]:
        raise WrongShape(
            "returns, presence and sigma",
            (returns.shape, present.shape, sigma.shape),
            "(instruments, sessions) twice and (instruments,)",
        )
    bad = int((~np.isfinite(returns) & present).sum())
    if bad:
        raise NotFinite("returns that are marked present", bad, int(present.sum()))
    bad = int((~(np.isfinite(sigma) & (sigma > 0))).sum())
    if bad:
        raise NotFinite("sigmas of tonight", bad, len(sigma))
