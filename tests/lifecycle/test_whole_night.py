"""One night on the bundled data from the close to the orders, and a second one: the tests run in the file's order."""

from __future__ import annotations

import logging
import math
from datetime import date
from typing import Any

import pytest

from risk import nightly, rebalancing
from risk.errors import OrderError

LAST = date(2022, 12, 28)  # the bundled history ends there


def test_the_session_is_the_last_closed_one_of_the_history(module_job: Any) -> None:
    assert nightly.resolve_session(None, None, None) == "2022-12-28"
    assert nightly.resolve_session("2022-12-23", None, None) == "2022-12-23"


def test_a_night_goes_from_the_close_to_the_orders(module_job: Any) -> None:
    run = module_job.night()
    state = "SELECT state, risk_state, door, refusal FROM run WHERE run_id = %s"
    assert module_job.one(state, run) == ("audited", "audited", "hand", None)
    assert module_job.all("SELECT kind, session_date, revision, run_id FROM publication ORDER BY kind") == [
        ("forecast", LAST, 1, run),
        ("risk", LAST, 1, run),
    ]
    assert module_job.one("SELECT count(*), count(DISTINCT symbol) FROM prediction_current") == (20, 20)
    stages = module_job.all("SELECT DISTINCT stage FROM audit_check WHERE passed ORDER BY stage")
    assert stages == ["inputs", "predictions", "risk"]
    assert module_job.all("SELECT sentence FROM audit_check WHERE severity = 'block' AND NOT passed") == []
    assert module_job.all("SELECT * FROM publication_gap") == []


def test_the_risk_of_the_book_is_a_loss_of_a_few_percent(module_job: Any) -> None:
    risk = dict(module_job.all("SELECT measure, value FROM risk_current WHERE book = 'equal'"))
    # Twenty large names at the end of 2022: a 1% day costs between one and ten percent of a million dollars.
    assert 10_000 < risk["VaR"] < risk["ES"] < 100_000


def test_the_orders_bring_the_book_to_inverse_volatility_in_whole_shares(module_job: Any) -> None:
    rows = module_job.all(
        "SELECT sigma, weight, coalesce(quantity, 0), coalesce(price, 0) FROM prediction_current p "
        "LEFT JOIN target_weight w USING (instrument_id) LEFT JOIN order_line o USING (instrument_id)"
    )
    total = math.fsum(1 / sigma for sigma, *_ in rows)
    assert [weight for _, weight, *_ in rows] == pytest.approx([1 / sigma / total for sigma, *_ in rows], rel=1e-6)
    for _, weight, shares, price in rows:
        assert 0 <= weight * 1_000_000 - shares * price < max(price, 1)
    spent = math.fsum(shares * price for *_, shares, price in rows)
    assert module_job.one("SELECT cash_before, cash_after FROM rebalance") == (
        1_000_000,
        pytest.approx(1_000_000 - spent, abs=1e-6),
    )


def test_the_lineage_names_code_lock_file_calendar_and_each_shard_s_execution(module_job: Any) -> None:
    lineage = module_job.one("SELECT lineage FROM run")
    assert len(lineage["code_sha256"]) == 64
    assert len(lineage["lock_sha256"]) == 64
    assert lineage["calendar"]
    assert lineage["libraries"]["torch"]
    execution = module_job.one("SELECT execution FROM run_shard")
    assert execution["device"].startswith("cpu")
    assert (execution["precision"], execution["batch_size"]) == ("float32", 8)
    assert execution["throughput"] > 0


def test_the_second_night_writes_no_row_and_says_so(module_job: Any, caplog: pytest.LogCaptureFixture) -> None:
    before = module_job.written()
    run = module_job.one("SELECT run_id FROM run")
    with caplog.at_level(logging.INFO):
        assert module_job.night() == run
    assert module_job.written() == before
    assert f"Session 2022-12-28 is already published as run {run}: nothing is written" in caplog.messages
    assert f"Already published as run {run}, revision 1: nothing is written" in caplog.messages
    assert f"the risk of equal is already published as run {run}: nothing is written" in caplog.messages


def test_nothing_waits_once_the_book_is_settled(module_job: Any) -> None:
    assert rebalancing.waits_for("2022-12-28") is None


def test_the_next_night_waits_for_a_session_that_is_published_and_not_settled(job: Any) -> None:
    for session in ("2022-12-22", "2022-12-23"):
        run = job.forecast(session)
        for book in nightly.publish(run):
            nightly.measure_risk(**book)
        nightly.publish_report(nightly.validate_risk(run))
    assert rebalancing.waits_for("2022-12-22") is None
    sentence = "book paper has to settle session 2022-12-22 first: its risk is published, its orders are not"
    assert rebalancing.waits_for("2022-12-23") == sentence
    with pytest.raises(OrderError, match="rebalance 2022-12-22 first"):
        rebalancing.rebalance_book("2022-12-23", "paper", "by hand")
    rebalancing.rebalance_book("2022-12-22", "paper", "by hand")
    assert rebalancing.waits_for("2022-12-23") is None


def test_a_session_without_published_risk_is_not_rebalanced(job: Any) -> None:
    job.forecast("2022-12-22")
    with pytest.raises(OrderError, match="risk of session 2022-12-22 of XNYS is not published"):
        rebalancing.check_risk_is_current("2022-12-22", None)
