"""Trades by hand and by their invariants."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.rebalance import Holdings, propose_trades
from risk.rebalance.errors import BadHoldings, WorthlessBook


def _book(prices, sigma, quantity=None, tradable=None, cash: float = 0.0) -> Holdings:
    count = len(prices)
    return Holdings(
        np.array(prices, dtype=float),
        np.array(sigma, dtype=float),
        np.array(quantity if quantity is not None else [0] * count, dtype=np.int64),
        np.array(tradable if tradable is not None else [True] * count, dtype=bool),
        cash,
    )


@st.composite
def books(draw: st.DrawFn) -> Holdings:
    count = draw(st.integers(1, 12))

    def some(values: st.SearchStrategy) -> list:
        return draw(st.lists(values, min_size=count, max_size=count))

    return _book(
        some(st.floats(0.01, 5_000)), some(st.floats(0.05, 50)), some(st.integers(0, 10_000)), some(st.booleans()),
        draw(st.floats(1.0, 1e7)),
    )  # fmt: skip


def test_from_cash_by_hand() -> None:
    """Sigmas 1 and 3 give weights 3/4 and 1/4 of 1,000: 75 shares at 10, 8.33 at 30, so 8; 10 stays in cash."""
    proposal = propose_trades(_book([10, 30], [1, 3], cash=1000.0))
    assert proposal.weights == pytest.approx([0.75, 0.25])
    assert proposal.quantity.tolist() == [75, 8]
    assert (proposal.book_value, proposal.cash) == (1000.0, pytest.approx(10.0))


def test_from_positions_sells_come_first() -> None:
    """80 at 10 and 8 at 30 with 60 in cash is 1,100; 1/2 each: 55 and 18; the first is sold to pay for the second."""
    proposal = propose_trades(_book([10, 30], [2, 2], [80, 8], cash=60.0))
    assert proposal.quantity.tolist() == [55, 18]
    assert proposal.trades.tolist() == [0, 1]
    assert proposal.cash == pytest.approx(10.0)
    mirrored = propose_trades(_book([30, 10], [2, 2], [8, 80], cash=60.0))
    assert mirrored.trades.tolist() == [1, 0]


def test_a_kept_name_is_neither_traded_nor_bought() -> None:
    """Of two that can't be traded, the held one keeps its weight, the other isn't bought; the third takes the rest."""
    proposal = propose_trades(_book([10, 20, 5], [1, np.nan, np.nan], [0, 10, 0], [True, False, False], cash=300.0))
    assert proposal.quantity.tolist() == [30, 10, 0]
    assert proposal.weights == pytest.approx([0.6, 0.4, 0.0])
    assert proposal.trades.tolist() == [0]


def test_nothing_tradable_trades_nothing() -> None:
    proposal = propose_trades(_book([10.0], [np.nan], [7], [False], cash=30.0))
    assert (proposal.quantity.tolist(), proposal.trades.tolist(), proposal.cash) == ([7], [], 30.0)
    assert proposal.weights == pytest.approx([0.7])


def test_a_book_on_target_does_not_trade() -> None:
    first = propose_trades(_book([10, 30], [1, 3], cash=1000.0))
    again = propose_trades(_book([10, 30], [1, 3], first.quantity, cash=first.cash))
    assert again.trades.size == 0
    assert again.cash == pytest.approx(first.cash)


@given(books())
def test_value_is_preserved_and_cash_is_never_negative(book: Holdings) -> None:
    proposal = propose_trades(book)
    before = book.cash + float(book.quantity @ book.prices)
    assert proposal.cash >= 0
    assert proposal.cash + float(proposal.quantity @ book.prices) == pytest.approx(before, rel=1e-12, abs=1e-6)
    assert proposal.book_value == pytest.approx(before, rel=1e-12)
    assert (proposal.quantity >= 0).all()


@given(books())
def test_orders_lead_to_the_targets(book: Holdings) -> None:
    proposal = propose_trades(book)
    moved = proposal.quantity - book.quantity
    assert sorted(proposal.trades.tolist()) == np.flatnonzero(moved).tolist()
    signs = np.sign(moved[proposal.trades]).tolist()
    assert signs == sorted(signs)  # sells, then buys
    assert (moved[~book.tradable] == 0).all()
    if book.tradable.any():
        assert proposal.weights.sum() == pytest.approx(1.0)
        spread = (proposal.weights * book.sigma)[book.tradable]
        assert spread == pytest.approx(np.full(spread.shape, spread[0]))  # equal volatility from each name
        target = proposal.weights * proposal.book_value
        short = (target - proposal.quantity * book.prices)[book.tradable]
        assert (short < book.prices[book.tradable] * (1 + 1e-9)).all()  # less than a share below the target
        assert (short >= -1e-6).all()


@pytest.mark.parametrize(
    ("book", "words"),
    [
        (_book([0.0], [1.0], cash=1.0), "a price above 0"),
        (_book([np.nan], [1.0], cash=1.0), "a price above 0"),
        (_book([1.0], [0.0], cash=1.0), "a sigma above 0"),
        (_book([1.0], [np.nan], cash=1.0), "a sigma above 0"),
        (_book([1.0], [1.0], [-1], cash=1.0), "long only"),
        (_book([1.0], [1.0], cash=-1.0), "cash of -1"),
        (_book([1.0], [1.0], cash=float("nan")), "cash of nan"),
        (_book([1.0, 2.0], [1.0], [0, 0], cash=1.0), "different lengths"),
        (_book([1e-12], [1.0], cash=1e9), "2\\^53 shares"),
    ],
)
def test_what_can_not_be_is_refused(book: Holdings, words: str) -> None:
    with pytest.raises(BadHoldings, match=words):
        propose_trades(book)


def test_a_worthless_book_is_refused() -> None:
    with pytest.raises(WorthlessBook, match="worth 0"):
        propose_trades(_book([1.0], [1.0]))
