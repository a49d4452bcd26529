"""Value at risk and expected shortfall of equally likely losses.

Of `n` losses at confidence `c`, the tail holds the mass `(1 - c) n`, counted in losses: 10 of 1,000 at 99%, 2.5 of 250.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risk.measures.errors import ConfidenceError, NotFinite, WrongShape


def value_at_risk(losses: NDArray[Any], confidence: float) -> float:
    """The k-th worst loss, k the tail's mass rounded up: the smallest loss inside the tail.

    Where the mass is a whole number, every value between the k-th and the (k+1)-th worst loss is a quantile
    (Acerbi & Tasche 2002, definition 2.1); this one takes the upper, the larger loss: the 5th worst of 100 at 95%.

    Args:
        losses: `(scenarios,)` in any unit, positive when money is lost.
        confidence: between 0.5 and 1.

    Returns:
        The loss, in the same unit; negative if even the tail gains.

    Raises:
        NotFinite, WrongShape, ConfidenceError: with what is allowed.
    """
    values, mass = _checked(losses, confidence)
    rank = math.ceil(mass)
    return float(np.partition(values, values.size - rank)[values.size - rank])


def expected_shortfall(losses: NDArray[Any], confidence: float) -> float:
    """The mean loss of the tail, the loss on its border counted by the part that lies inside.

    Acerbi & Tasche (2002), "On the coherence of expected shortfall", proposition 4.1: with the losses descending and
    m the mass rounded down, `(L_1 + ... + L_m + (mass - m) L_(m+1)) / mass`. Computed as VaR plus the mean excess over
    it, which is the same number and never rounds to less than VaR.

    Args, raises: as `value_at_risk`.
    """
    values, mass = _checked(losses, confidence)
    border = value_at_risk(values, confidence)
    return border + math.fsum(values[values > border] - border) / mass


def _checked(losses: NDArray[Any], confidence: float) -> tuple[NDArray[np.float64], float]:
    """The losses as float64 and the tail's mass, rounded so that 0.01 x 100 is 1 and not 1.0000000000000009."""
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise WrongShape("losses", values.shape, "(scenarios,) with one scenario at least")
    if not 0.5 < confidence < 1:
        raise ConfidenceError(confidence)
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise NotFinite("losses", bad, values.size)
    return values, max(round((1 - confidence) * values.size, 9), 1e-9)
