"""The loss of a book in each scenario."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from risk.measures.errors import NotFinite, WrongShape


def book_losses(holdings: NDArray[Any], scenarios: NDArray[Any]) -> NDArray[np.float64]:
    """What a book loses in each scenario, its holdings left as they are.

    A holding `h` becomes `h exp(r / 100)`: log returns don't add up across instruments, values do.

    Args:
        holdings: `(instruments,)` values in the book's currency (weights give the loss as a share), or
            `(books, instruments)`; negative when sold short.
        scenarios: `(instruments, scenarios)` log returns in percent.

    Returns:
        `(scenarios,)` or `(books, scenarios)`, positive when money is lost.

    Raises:
        NotFinite, WrongShape: with what is allowed.
    """
    values, returns = np.asarray(holdings, dtype=np.float64), np.asarray(scenarios, dtype=np.float64)
    if returns.ndim != 2 or values.ndim not in (1, 2) or values.shape[-1] != returns.shape[0]:
        raise WrongShape("holdings", values.shape, f"(instruments,) of the scenarios' {returns.shape}")
    for what, array in (("holdings", values), ("scenario returns", returns)):
        bad = array.size - int(np.isfinite(array).sum())
        if bad:
            raise NotFinite(what, bad, array.size)
    losses: NDArray[np.float64] = -(values @ np.expm1(returns / 100.0))
    return losses
