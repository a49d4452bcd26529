"""The night's rebalance: rows by hand, positions that roll, refusals, one settlement however often it is asked for."""

from __future__ import annotations

import threading
from datetime import date, timedelta

import psycopg
import pytest

from risk.rebalance import RebalanceOutcome, rebalance_book, unsettled_before
from risk.rebalance.errors import EarlierUnsettled, NotRebalanced, RiskNotCurrent

MON, TUE, WED = (date(2022, 12, day) for day in (26, 27, 28))
NAN = float("nan")


@pytest.fixture
def world(make_world):
    """Closes of Monday to Wednesday: A 10, 11, 12; B 30, 30, 30; C 50, 40, nothing."""
    return make_world({"A": [10, 11, 12], "B": [30, 30, 30], "C": [50, 40, NAN]})


def _rebalance(world, session: date, book: str = "paper") -> RebalanceOutcome:
    return rebalance_book(world.connection, session, "XNYS", book, f"test__{session}")


def _positions(world, session: date) -> dict[str, tuple[int, float]]:
    rows = world.all(
        "SELECT symbol, quantity, price FROM position JOIN instrument USING (instrument_id) WHERE session_date = %s",
        session,
    )
    return {symbol: (quantity, price) for symbol, quantity, price in rows}


def _weights(world, rebalance_id: int) -> dict[str, float]:
    return dict(
        world.all(
            "SELECT symbol, weight FROM target_weight JOIN instrument USING (instrument_id) WHERE rebalance_id = %s",
            rebalance_id,
        )
    )


def test_the_first_session_starts_from_cash(world) -> None:
    """100,000 by sigmas 1, 1, 2: 40%, 40%, 20%; 4,000 shares at 10, 1,333 at 30 (10 left over), 400 at 50."""
    run_id = world.night(MON, {"A": 1.0, "B": 1.0, "C": 2.0})
    outcome = _rebalance(world, MON)
    assert outcome.written
    assert (outcome.run_id, outcome.book_value, outcome.cash_before) == (run_id, 100_000.0, 100_000.0)
    assert outcome.cash_after == pytest.approx(10.0)
    assert _positions(world, MON) == {"A": (4000, 10.0), "B": (1333, 30.0), "C": (400, 50.0)}
    assert _weights(world, outcome.rebalance_id) == pytest.approx({"A": 0.4, "B": 0.4, "C": 0.2})
    assert [(o.symbol, o.side, o.quantity, o.price) for o in outcome.orders] == [
        ("A", "buy", 4000, 10.0), ("B", "buy", 1333, 30.0), ("C", "buy", 400, 50.0),
    ]  # fmt: skip
    assert (
        outcome.orders[0].reason == "target 40.00% of the book by inverse volatility (sigma 1.00%): 4000 shares, held 0"
    )
    row = world.one("SELECT previous_id, state, reason, dag_run_id, run_id FROM rebalance")
    assert row[:2] == (None, "published")
    assert "3 orders (0 sells, 3 buys) to inverse volatility, from its capital in cash" in row[2]
    assert row[3:] == ("test__2022-12-26", run_id)


def test_the_next_session_rolls_the_positions_and_marks_them_tonight(world) -> None:
    """4,000 A at 11, 1,333 B at 30, 400 C at 40 and 10 in cash are 100,000; a third each."""
    world.night(MON, {"A": 1.0, "B": 1.0, "C": 2.0})
    first = _rebalance(world, MON)
    world.night(TUE, {"A": 2.0, "B": 2.0, "C": 2.0})
    second = _rebalance(world, TUE)
    assert second.book_value == pytest.approx(44_000 + 39_990 + 16_000 + 10)
    assert {symbol: quantity for symbol, (quantity, _) in _positions(world, TUE).items()} == {
        "A": 3030,
        "B": 1111,
        "C": 833,
    }
    assert [(o.symbol, o.side, o.quantity) for o in second.orders] == [
        ("A", "sell", 970),
        ("B", "sell", 222),
        ("C", "buy", 433),
    ]
    assert second.cash_before == first.cash_after
    held = sum(quantity * price for quantity, price in _positions(world, TUE).values())
    assert second.cash_after + held == pytest.approx(second.book_value, abs=1e-6)
    assert world.one("SELECT previous_id FROM rebalance WHERE session_date = %s", TUE) == first.rebalance_id
    assert "from the positions of 2022-12-26" in second.sentence


def test_a_name_without_a_close_is_kept_at_its_last_price_and_told(world) -> None:
    world.night(TUE, {"A": 1.0, "B": 1.0, "C": 1.0})
    before = _rebalance(world, TUE)
    held = _positions(world, TUE)["C"]
    world.night(WED, {"A": 1.0, "B": 1.0}, quarantine={"C": "missing_price"})
    outcome = _rebalance(world, WED)
    assert _positions(world, WED)["C"] == held == (833, 40.0)
    assert "C kept (in quarantine: missing_price; no close tonight, at its close of 2022-12-27)" in outcome.sentence
    assert "C" not in {order.symbol for order in outcome.orders}
    assert _weights(world, outcome.rebalance_id)["C"] == pytest.approx(833 * 40 / outcome.book_value)
    assert sum(_weights(world, outcome.rebalance_id).values()) == pytest.approx(1.0)
    assert outcome.book_value == pytest.approx(before.cash_after + 3030 * 12 + 1111 * 30 + 833 * 40)


def test_a_quarantined_name_is_not_bought(world) -> None:
    world.night(WED, {"A": 1.0, "B": 1.0}, quarantine={"C": "missing_price"})
    outcome = _rebalance(world, WED)
    assert set(_positions(world, WED)) == {"A", "B"}
    assert set(_weights(world, outcome.rebalance_id)) == {"A", "B"}


def test_a_name_that_has_a_close_but_no_forecast_is_kept(world) -> None:
    world.night(MON, {"A": 1.0, "B": 1.0, "C": 2.0})
    _rebalance(world, MON)
    world.night(TUE, {"A": 1.0, "C": 2.0})
    outcome = _rebalance(world, TUE)
    assert "B kept (no forecast tonight)" in outcome.sentence
    assert _positions(world, TUE)["B"] == (1333, 30.0)


def test_a_name_that_left_the_universe_keeps_its_last_mark(make_world) -> None:
    left = [20.0, *[NAN] * 14]
    world = make_world({"A": [10.0] * 15, "GONE": left})
    first, last = world.sessions[0], world.sessions[-1]
    world.night(first, {"A": 1.0, "GONE": 1.0})
    _rebalance(world, first)
    world.night(last, {"A": 1.0})
    outcome = _rebalance(world, last)
    assert _positions(world, last)["GONE"] == (2500, 20.0)
    assert "GONE kept (no longer in the universe, at its last mark)" in outcome.sentence


def test_a_name_without_a_close_in_the_last_sessions_keeps_its_last_mark(make_world) -> None:
    """Still in the universe by a bar without a close."""
    world = make_world({"A": [10.0] * 15, "B": [20.0, *[NAN] * 14]})
    first, last = world.sessions[0], world.sessions[-1]
    world.connection.execute(
        "INSERT INTO market_bar (session_date, instrument_id, known_at, batch_id, volume) VALUES (%s, %s, %s, 1, 5)",
        (last, world.ids["B"], f"{last} 22:00+00"),
    )
    world.night(first, {"A": 1.0, "B": 1.0})
    _rebalance(world, first)
    world.night(last, {"A": 1.0}, quarantine={"B": "missing_price"})
    outcome = _rebalance(world, last)
    assert _positions(world, last)["B"] == (2500, 20.0)
    assert "B kept (in quarantine: missing_price; no close tonight, at its last mark)" in outcome.sentence


def test_twice_is_once(world) -> None:
    world.night(MON, {"A": 1.0, "B": 1.0, "C": 2.0})
    first = _rebalance(world, MON)
    counts = (
        "SELECT (SELECT count(*) FROM rebalance), (SELECT count(*) FROM order_line), (SELECT count(*) FROM position)"
    )
    before = world.one(counts)
    second = _rebalance(world, MON)
    assert not second.written
    assert f"already published as rebalance {first.rebalance_id}: nothing is written" in str(second)
    assert (second.rebalance_id, second.book_value, second.orders) == (first.rebalance_id, first.book_value, ())
    assert world.one(counts) == before


def test_two_at_once_are_once(world, database_url: str) -> None:
    world.night(MON, {"A": 1.0, "B": 1.0, "C": 2.0})
    outcomes: list[RebalanceOutcome] = []

    def work() -> None:
        with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
            outcomes.append(rebalance_book(connection, MON, "XNYS", "paper", "test"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome.written for outcome in outcomes) == [False, False, False, True]
    assert len({outcome.rebalance_id for outcome in outcomes}) == 1


def test_unpublished_and_outdated_risk_is_refused(world) -> None:
    sigma = {"A": 1.0, "B": 1.0, "C": 2.0}
    with pytest.raises(RiskNotCurrent, match=r"risk of session 2022-12-26 of XNYS is not published"):
        _rebalance(world, MON)
    run_id = world.night(MON, sigma, published=["forecast"])
    with pytest.raises(RiskNotCurrent, match="is not published"):
        _rebalance(world, MON)
    world.publish(run_id, "risk")
    newer = world.night(MON, sigma, published=["forecast"])
    with pytest.raises(RiskNotCurrent, match=f"is of run {run_id}, .* run {newer}"):
        _rebalance(world, MON)
    world.publish(newer, "risk")
    assert _rebalance(world, MON).run_id == newer


def test_other_books_are_refused(world) -> None:
    world.night(MON, {"A": 1.0, "B": 1.0, "C": 2.0})
    with pytest.raises(NotRebalanced, match="book equal is of kind equal_weight"):
        _rebalance(world, MON, "equal")


def test_sessions_are_settled_in_order(world) -> None:
    for session in (MON, TUE, WED):
        world.night(session, {"A": 1.0, "B": 1.0})
    with pytest.raises(
        EarlierUnsettled, match="session 2022-12-26 is published and not settled; rebalance 2022-12-26 first"
    ):
        _rebalance(world, WED)
    assert world.one("SELECT count(*) FROM rebalance") == 0
    for session in (MON, TUE, WED):
        assert _rebalance(world, session).written


def test_an_earlier_session_after_a_later_one_is_its_own_chain_and_says_so(world) -> None:
    world.night(WED, {"A": 1.0, "B": 1.0})
    _rebalance(world, WED)
    for session in (MON, TUE):
        world.night(session, {"A": 1.0, "B": 1.0})
    assert "session 2022-12-28 was settled before this one" in _rebalance(world, MON).sentence
    assert _rebalance(world, TUE).cash_before != 100_000.0


def test_a_refused_session_is_settled_and_traded_nothing(world) -> None:
    world.night(MON, {"A": 1.0, "B": 1.0})
    first = _rebalance(world, MON)
    tuesday = world.night(TUE, {"A": 1.0, "B": 1.0})
    world.connection.execute(
        "INSERT INTO rebalance (book_id, exchange, session_date, run_id, state, reason, dag_run_id) "
        "SELECT book_id, 'XNYS', %s, %s, 'refused', 'by hand', 'test' FROM book WHERE name = 'paper'",
        (TUE, tuesday),
    )
    assert "already refused as rebalance" in _rebalance(world, TUE).sentence
    world.night(WED, {"A": 1.0, "B": 1.0})
    assert _rebalance(world, WED).cash_before == first.cash_after


def test_the_gate_waits_for_what_is_published_and_not_settled(world) -> None:
    def waits_for(session: date) -> date | None:
        return unsettled_before(world.connection, "XNYS", session, "paper")

    assert waits_for(WED) is None  # nothing is published
    unpublished = world.night(MON, {"A": 1.0, "B": 1.0}, published=["forecast"])
    assert waits_for(WED) is None
    world.night(TUE, {"A": 1.0, "B": 1.0})
    assert waits_for(WED) == TUE
    assert waits_for(TUE) is None  # its own publication doesn't hold it, nor a later one
    assert waits_for(MON) is None
    world.publish(unpublished, "risk")
    assert waits_for(WED) == MON  # the earliest
    assert waits_for(TUE) == MON
    assert unsettled_before(world.connection, "XLON", WED, "paper") is None
    _rebalance(world, MON)
    assert waits_for(WED) == TUE
    _rebalance(world, TUE)
    assert waits_for(WED) is None
    # a session that is published late and lies before the last settled one is left behind
    late = TUE - timedelta(days=4)
    world.sessions.insert(0, late)
    world.night(late, {"A": 1.0, "B": 1.0})
    assert waits_for(WED) is None
    assert waits_for(MON) == late


def test_later_settled_sessions_do_not_count(world) -> None:
    world.night(WED, {"A": 1.0, "B": 1.0})
    _rebalance(world, WED)
    world.night(MON, {"A": 1.0, "B": 1.0})
    assert unsettled_before(world.connection, "XNYS", TUE, "paper") == MON
