"""Books and their risk, from the rows of a published run to the rows of `risk_measure`."""

from __future__ import annotations

from datetime import date

import numpy as np
import psycopg
import pytest

from risk.books import book_names, ensure_books, measure_book, measured_books, read_book
from risk.errors import RiskError
from risk.measures import filtered_scenarios
from risk.measures.errors import NotForecast, TooFewScenarios, UnknownBook

SESSION = date(2022, 12, 28)
SIGMA = {"A": 1.0, "B": 2.0, "C": 3.0}


def test_the_example_books_are_made_once(year, settings) -> None:
    ensure_books(year.connection, settings.model_copy(update={"book_capital": 5.0}))
    assert book_names(year.connection) == ["equal", "paper"]
    assert measured_books(year.connection) == ["equal"]
    book = read_book(year.connection, "paper")
    assert (book.kind, book.currency, book.capital) == ("inverse_volatility", "USD", 100_000.0)
    with pytest.raises(UnknownBook, match=r"no book 'global'; the books are equal, paper"):
        read_book(year.connection, "global")


def test_risk_of_an_equal_weight_book(year, settings) -> None:
    run_id = year.night(SESSION, SIGMA, published=["forecast"])
    outcome = measure_book(year.connection, run_id, "equal", settings)
    rows = dict(year.all("SELECT measure, value FROM risk_measure WHERE run_id = %s", run_id))
    assert rows == {"VaR": outcome.value_at_risk, "ES": outcome.expected_shortfall}
    facts = year.one("SELECT DISTINCT confidence, horizon, book_value, scenarios FROM risk_measure")
    assert facts == (0.99, 1, 100_000.0, 250)
    assert f"{outcome}".startswith(f"Measured equal of run {run_id}: VaR ")
    # the same by hand: the last 326 closes, A and C by one path, a third of the capital in each
    query = "SELECT close FROM market_bar WHERE instrument_id = %s ORDER BY session_date"
    closes = np.array([year.all(query, number) for number in year.ids.values()])[:, -326:, 0]
    returns = 100 * np.diff(np.log(closes))
    drawn = filtered_scenarios(returns, np.ones(returns.shape, bool), np.array([1.0, 2.0, 3.0]), scenarios=250).returns
    losses = np.sort(-(100_000 / 3 * (np.exp(drawn / 100) - 1)).sum(axis=0))[::-1]
    assert outcome.value_at_risk == pytest.approx(losses[2])  # 2.5 losses in the tail: the third worst
    assert outcome.expected_shortfall == pytest.approx((losses[0] + losses[1] + losses[2] / 2) / 2.5)


def test_measured_twice_leaves_the_same_rows_and_asks_for_a_new_audit(year, settings) -> None:
    run_id = year.night(SESSION, SIGMA, published=["forecast"])
    first = measure_book(year.connection, run_id, "equal", settings)
    year.connection.execute("UPDATE run SET risk_state = 'audited'")
    assert measure_book(year.connection, run_id, "equal", settings) == first
    assert year.one("SELECT count(*) FROM risk_measure") == 2
    assert year.one("SELECT risk_state FROM run") == "open"


def test_published_risk_is_left_alone(year, settings) -> None:
    run_id = year.night(SESSION, SIGMA)
    outcome = measure_book(year.connection, run_id, "equal", settings)
    assert outcome.value_at_risk is None
    assert f"already published as run {run_id}" in str(outcome)
    assert year.one("SELECT count(*) FROM risk_measure") == 0
    assert year.one("SELECT risk_state FROM run") == "audited"


def test_quarantine_is_out_of_the_book_and_on_the_row(year, settings) -> None:
    run_id = year.night(SESSION, {"A": 1.0, "C": 2.0}, quarantine={"B": "missing_price"}, published=["forecast"])
    outcome = measure_book(year.connection, run_id, "equal", settings)
    basis = year.one("SELECT DISTINCT basis FROM risk_measure")
    assert "equal weight in 2 instruments; in quarantine and out of the book: B" in basis
    alone = year.night(date(2022, 12, 27), {"A": 1.0}, published=["forecast"])
    half = measure_book(year.connection, alone, "equal", settings)
    assert outcome.value_at_risk is not None
    assert half.value_at_risk is not None
    assert outcome.value_at_risk > half.value_at_risk  # A and C are one path: 1.5 times A's sigma


def test_gaps_are_counted_on_the_row(make_world, settings) -> None:
    steps = np.random.default_rng(6).standard_normal((3, 340)) * 0.01
    paths = 100 * np.exp(np.cumsum(steps, axis=1))
    paths[0, 300] = np.nan  # two returns of one name
    paths[1:, 320] = np.nan  # two returns of two names: two sessions left out
    world = make_world(dict(zip("ABC", paths, strict=True)))
    run_id = world.night(SESSION, SIGMA, published=["forecast"])
    measure_book(world.connection, run_id, "equal", settings.model_copy(update={"scenarios": 252}))
    basis = world.one("SELECT DISTINCT basis FROM risk_measure")
    assert "2 missing residuals took the market's" in basis
    assert "2 sessions left out, with less than half of the instruments" in basis


def test_a_short_history_is_refused(make_world, settings) -> None:
    world = make_world({"A": 100 + np.arange(300.0)})
    run_id = world.night(SESSION, {"A": 1.0}, published=["forecast"])
    with pytest.raises(
        TooFewScenarios, match=r"224 scenarios from the 300 sessions .* at least 250 .*HISTORY_SESSIONS"
    ):
        measure_book(world.connection, run_id, "equal", settings)
    assert world.one("SELECT count(*) FROM risk_measure") == 0


def test_only_published_and_current_forecasts_are_measured(year, settings) -> None:
    unpublished = year.night(SESSION, SIGMA, published=[])
    with pytest.raises(NotForecast, match=f"forecasts of run {unpublished} are not published"):
        measure_book(year.connection, unpublished, "equal", settings)
    year.publish(unpublished, "forecast")
    newer = year.night(SESSION, SIGMA, published=["forecast"])
    with pytest.raises(NotForecast, match=f"replaced by those of run {newer}; .* measure run {newer} instead"):
        measure_book(year.connection, unpublished, "equal", settings)


def test_what_is_not_there_is_refused(year, settings) -> None:
    with pytest.raises(RiskError, match="run 99 does not exist"):
        measure_book(year.connection, 99, "equal", settings)
    run_id = year.night(SESSION, SIGMA, published=["forecast"])
    with pytest.raises(RiskError, match=r"paper is of kind inverse_volatility; .*: equal"):
        measure_book(year.connection, run_id, "paper", settings)


def test_the_rows_are_committed_for_everyone(year, settings, database_url: str) -> None:
    run_id = year.night(SESSION, SIGMA, published=["forecast"])
    measure_book(year.connection, run_id, "equal", settings)
    with psycopg.connect(database_url.replace("+psycopg", "")) as other:
        assert other.execute("SELECT count(*) FROM risk_measure").fetchone() == (2,)
