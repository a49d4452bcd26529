"""Why a book is not rebalanced: each exception takes facts and writes the sentence.

OrderError
├── NotRebalanced       a book of another kind
├── RiskNotCurrent      a session whose risk readers don't see, or that new forecasts have overtaken
├── EarlierUnsettled    an earlier session has to be settled first
├── BadHoldings         prices, sigmas, quantities or cash that can't be
└── WorthlessBook       nothing to invest
"""

from __future__ import annotations

from datetime import date

from risk.errors import OrderError


class NotRebalanced(OrderError):
    """A book of another kind."""

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(f"book {name} is of kind {kind} and is not rebalanced; name a book of kind inverse_volatility")


class RiskNotCurrent(OrderError):
    """A session whose risk readers don't see, or that new forecasts have overtaken."""

    def __init__(self, session: date, exchange: str, risk_run: int | None, forecast_run: int | None) -> None:
        if risk_run is None:
            why = "is not published; orders are made from published risk only: run nightly_risk for the session first"
        else:
            why = f"is of run {risk_run}, the current forecasts of run {forecast_run}: publish the risk of that one"
        super().__init__(f"the risk of session {session} of {exchange} {why}")


class EarlierUnsettled(OrderError):
    """An earlier session has to be settled first."""

    def __init__(self, book: str, session: date, earlier: date) -> None:
        super().__init__(
            f"book {book} can't be rebalanced for session {session}: session {earlier} is published and not settled; "
            f"rebalance {earlier} first"
        )


class BadHoldings(OrderError):
    """Prices, sigmas, quantities or cash that can't be."""

    def __init__(self, what: str, allowed: str) -> None:
        super().__init__(f"{what} can't be traded on; allowed is {allowed}")


class WorthlessBook(OrderError):
    """Nothing to invest."""

    def __init__(self, value: float) -> None:
        super().__init__(f"the book is worth {value:g}: there is nothing to invest; put cash into it")
