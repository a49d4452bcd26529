"""The rebalance of a book: what to trade (`trades`), the night's book-keeping (`booking`), the order of sessions."""

from risk.rebalance.booking import RebalanceOutcome, current_run, rebalance_book
from risk.rebalance.order import unsettled_before
from risk.rebalance.trades import Holdings, Proposal, propose_trades

__all__ = [
    "Holdings",
    "Proposal",
    "RebalanceOutcome",
    "current_run",
    "propose_trades",
    "rebalance_book",
    "unsettled_before",
]
