"""What to trade: inverse-volatility weights in whole shares; arrays in, arrays out, no database.

1. The book is worth its cash and its shares at tonight's prices.
2. What can't be traded tonight is kept as it is; the rest of the book's value is spread over what can be traded, each
   weight proportional to 1 / sigma: equal volatility from each name, correlations left out ("naive risk parity",
   Maillard, Roncalli & Teiletche 2010, "The properties of equally weighted risk contribution portfolios").
3. Shares are rounded down; what is left over stays in cash, which is so never negative.
4. The difference to the shares held is the trade, none where it is zero. Sells come before buys: they pay for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risk.rebalance.errors import BadHoldings, WorthlessBook

_WHOLE = 2.0**53


@dataclass(frozen=True, eq=False)
class Holdings:
    """A book before its trades, over every instrument that it holds or may buy.

    Attributes:
        prices: `(instruments,)` above 0, in the book's currency a share.
        sigma: `(instruments,)` forecast volatility in percent, looked at where `tradable`.
        quantity: `(instruments,)` whole shares held, 0 or more.
        tradable: `(instruments,)`; what is not is kept and not bought.
        cash: 0 or more.
    """

    prices: NDArray[np.float64]
    sigma: NDArray[np.float64]
    quantity: NDArray[np.int64]
    tradable: NDArray[np.bool_]
    cash: float


@dataclass(frozen=True, eq=False)
class Proposal:
    """A book after its trades.

    Attributes:
        weights: `(instruments,)` target shares of the book's value, of kept names the share they have; they sum to 1,
            or to less where nothing can be traded.
        quantity: `(instruments,)` whole shares after the trades.
        trades: `(orders,)` positions of the instruments that trade, sells first, then buys.
        book_value: before and after, in the book's currency.
        cash: after, 0 or more.
    """

    weights: NDArray[np.float64]
    quantity: NDArray[np.int64]
    trades: NDArray[np.int64]
    book_value: float
    cash: float


def propose_trades(book: Holdings) -> Proposal:
    """The trades that bring a book to inverse-volatility weights.

    Trades are valued at `prices`, without costs, so `cash + quantity @ prices` is the same before and after.

    Raises:
        BadHoldings: a price, sigma, quantity or cash that can't be; with what is allowed.
        WorthlessBook: no cash and no shares.
    """
    _check(book)
    value = math.fsum([book.cash, *(book.quantity * book.prices)])
    if value <= 0:
        raise WorthlessBook(value)
    kept = np.where(book.tradable, 0.0, book.quantity * book.prices)
    inverse = np.where(book.tradable, 1.0 / np.where(book.tradable, book.sigma, 1.0), 0.0)
    share = inverse / inverse.sum() if book.tradable.any() else inverse
    targets = share * (value - math.fsum(kept))
    shares = np.where(book.tradable, np.floor(targets / book.prices), book.quantity)
    if (shares >= _WHOLE).any():
        raise BadHoldings("a target of more than 2^53 shares", "a price that is not so small beside the book's value")
    quantity = shares.astype(np.int64)
    difference = quantity - book.quantity
    cash = math.fsum([book.cash, *(-difference * book.prices)])
    return Proposal(
        weights=(targets + kept) / value,
        quantity=quantity,
        trades=np.concatenate([np.flatnonzero(difference < 0), np.flatnonzero(difference > 0)]),
        book_value=value,
        cash=max(cash, 0.0),  # below 0 by the rounding of a float at most: shares are rounded down
    )


def _check(book: Holdings) -> None:
    shape = book.prices.shape
    if len(shape) != 1 or not shape == book.sigma.shape == book.quantity.shape == book.tradable.shape:
        raise BadHoldings("arrays of different lengths", "one price, sigma, quantity and mark for each instrument")
    rules: tuple[tuple[bool, str, str], ...] = (
        (_all(book.prices, above=0), "a price that is zero, negative or not finite", "a price above 0"),
        (_all(book.sigma[book.tradable], above=0), "a sigma that is zero, negative or not finite", "a sigma above 0"),
        (bool((book.quantity >= 0).all()), "a negative quantity", "0 or more shares: the book is long only"),
        (math.isfinite(book.cash) and book.cash >= 0, f"cash of {book.cash:g}", "0 or more"),
    )
    for holds, what, allowed in rules:
        if not holds:
            raise BadHoldings(what, allowed)


def _all(values: NDArray[Any], above: float) -> bool:
    return bool((np.isfinite(values) & (values > above)).all())
