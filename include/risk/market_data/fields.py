"""From closes to the fields that a model reads, by the same three functions in training and in the nightly job.

1. `log_returns_percent`: closes to log returns in percent, with a mask of those that exist.
2. `universe_fields`: the market's mean and root mean square of a session, over the instruments present.
3. `panel_fields`: the panel `(instruments, sessions, 4)` of own return, market mean, market rms, presence.

The universe fields are computed over the whole universe, before any sharding: an instrument's forecast then doesn't
depend on which others share its shard.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FIELDS = ("own_return", "market_return", "market_rms", "presence")
RETURN_LIMIT = 80.0
"""Log returns are clipped to plus and minus this many percent."""

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]


def log_returns_percent(closes: NDArray[Any]) -> tuple[Float, Mask]:
    """Log returns from one session to the next, and which of them exist.

    A return exists when the closes of its own session and of the session before are both finite and positive. So
    the first session has none, and neither has the first session after a gap: a move over several sessions is not
    passed off as a move of one.

    Args:
        closes: `(instruments, sessions)`, prices in any unit, sessions ascending; NaN where there is none.

    Returns:
        `returns` `(instruments, sessions)` in percent, 0 where it doesn't exist, clipped at `RETURN_LIMIT`; and
        `present` of the same shape, False where it doesn't exist.
    """
    prices = np.asarray(closes, dtype=np.float64)
    if prices.ndim != 2:
        raise ValueError(f"closes have the shape (instruments, sessions), not {prices.shape}")
    known = np.isfinite(prices) & (prices > 0)
    present = np.zeros(prices.shape, dtype=np.bool_)
    present[:, 1:] = known[:, 1:] & known[:, :-1]
    safe = np.where(known, prices, 1.0)
    returns = np.zeros(prices.shape, dtype=np.float64)
    returns[:, 1:] = 100.0 * np.log(safe[:, 1:] / safe[:, :-1])
    returns = np.where(present, np.clip(returns, -RETURN_LIMIT, RETURN_LIMIT), 0.0)
    return returns, present


def universe_fields(returns: Float, present: Mask) -> tuple[Float, Float]:
    """The market of each session: equal-weight mean and root mean square of the returns present.

    Args:
        returns: `(instruments, sessions)` in percent.
        present: the same shape; only True entries count.

    Returns:
        `market_return` and `market_rms`, each `(sessions,)` in percent; 0 in a session where nobody is present.
    """
    counted = np.where(present, returns, 0.0)
    names = np.maximum(present.sum(axis=0), 1)
    return counted.sum(axis=0) / names, np.sqrt((counted**2).sum(axis=0) / names)


def panel_fields(returns: Float, present: Mask, market_return: Float, market_rms: Float) -> NDArray[np.float32]:
    """The panel that windows are cut from.

    Args:
        returns: `(instruments, sessions)` in percent, 0 where not present.
        present: the same shape.
        market_return: `(sessions,)` in percent.
        market_rms: `(sessions,)` in percent.

    Returns:
        `(instruments, sessions, 4)` float32, the last axis in the order of `FIELDS`; 16 bytes a step.
    """
    panel = np.empty((*returns.shape, len(FIELDS)), dtype=np.float32)
    panel[..., 0] = returns
    panel[..., 1] = market_return
    panel[..., 2] = market_rms
    panel[..., 3] = present
    return panel
