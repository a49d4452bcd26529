"""The job through Airflow's own scheduler, by every door: REST, backfill, `airflow dags test`.

The tests run in the order of the file on one system: the later ones look at what the earlier ones published.
"""

from __future__ import annotations

import time
from datetime import UTC, date, datetime

import psycopg
import pytest
import torch

from risk.errors import ServiceError

LAST = date(2022, 12, 28)
# 2022-11-24 is Thanksgiving; 11-26, 11-27 are a weekend. https://www.nyse.com/markets/hours-calendars
FORTNIGHT = [date(2022, 11, day) for day in (21, 22, 23, 25, 28, 29, 30)] + [date(2022, 12, 1), date(2022, 12, 2)]
ELAPSED: dict[str, float] = {}
BACKFILLS: dict[str, int] = {}


def sessions_of(system, table, where="true"):
    return [row[0] for row in system.query(f"SELECT session_date FROM {table} WHERE {where} ORDER BY 1")]


def backfill(system, dag_id, *, again=False):
    """Run the fortnight and wait for its last run; returns the moment it began and the seconds it took."""
    if dag_id in BACKFILLS:  # Airflow looks twice a minute whether one has ended, and allows one at a time
        system.wait(lambda: system.api.backfill_ended(BACKFILLS[dag_id]), f"the last backfill of {dag_id} to end")
    since, began = datetime.now(UTC), time.monotonic()
    BACKFILLS[dag_id] = system.api.backfill(dag_id, FORTNIGHT[0], FORTNIGHT[-1], active_runs=6, again=again)
    downstream_done(system, dag_id, len(FORTNIGHT), since)
    return since, time.monotonic() - began


def runs_by_session(system, dag_id, since):
    return {run["partition_key"]: run["state"] for run in system.api.runs(dag_id, since)}


def downstream_done(system, dag_id, count, since):
    def done():
        states = runs_by_session(system, dag_id, since)
        return len(states) == count and set(states.values()) == {"success"}

    system.wait(done, f"{count} runs of {dag_id}", patience_s=120)


def test_rest_trigger_publishes_the_session_and_rebalances_it(system):
    run_id = system.api.trigger("nightly_risk", LAST)
    assert system.end_of_run("nightly_risk", run_id) == "success"
    system.wait(lambda: system.rebalanced(LAST), "the rebalance")
    assert system.query("SELECT count(*), min(sigma) > 0 FROM prediction_current WHERE session_date = %s", LAST) == [
        (20, True)
    ]
    measures = dict(system.query("SELECT measure, value FROM risk_current WHERE session_date = %s", LAST))
    assert 0 < measures["VaR"] <= measures["ES"]
    assert system.query("SELECT count(*) FROM order_line JOIN rebalance USING (rebalance_id)")[0][0] > 0


def test_the_profile_is_stored_with_its_curve(system):
    size, curve = system.query("SELECT batch_size, curve FROM batch_profile")[0]
    by_size = {row["batch_size"]: row for row in curve}
    best = max(row["throughput"] for row in curve)
    assert size in by_size
    assert len(curve) >= 5
    assert by_size[size]["throughput"] >= 0.98 * best
    assert all(row["throughput"] < 0.98 * best for row in curve if row["batch_size"] < size)


def test_a_holiday_is_refused_with_a_sentence(system):
    with pytest.raises(ServiceError, match="session 2022-11-24 is not a trading day of XNYS") as refused:
        system.api.trigger("nightly_risk", date(2022, 11, 24))
    assert "2022-11-23" in str(refused.value)
    assert "2022-11-25" in str(refused.value)


def test_a_session_beyond_the_source_is_refused_with_a_sentence(system):
    with pytest.raises(ServiceError, match="1990-01-02 to 2022-12-28"):
        system.api.trigger("nightly_risk", date(2023, 1, 3))


def test_a_backfill_publishes_each_session_once_and_rebalances_in_order(system):
    since, ELAPSED["job"] = backfill(system, "nightly_risk")
    downstream_done(system, "rebalance", len(FORTNIGHT), since)
    in_range = "session_date BETWEEN '2022-11-21' AND '2022-12-02'"
    assert sessions_of(system, "publication", f"kind = 'forecast' AND {in_range}") == FORTNIGHT
    assert sessions_of(system, "publication", f"kind = 'risk' AND {in_range}") == FORTNIGHT
    for table, moment in (("publication", "published_at"), ("rebalance", "published_at")):
        kind = "kind = 'risk' AND " if table == "publication" else ""
        order = system.query(f"SELECT session_date FROM {table} WHERE {kind}{in_range} ORDER BY {moment}")
        assert [row[0] for row in order] == FORTNIGHT, f"{table} out of order"
    chain = system.query(
        f"SELECT r.session_date, p.session_date FROM rebalance r JOIN rebalance p ON p.rebalance_id = r.previous_id "
        f"WHERE r.{in_range} ORDER BY 1"
    )
    assert chain == list(zip(FORTNIGHT[1:], FORTNIGHT[:-1], strict=True))


def test_the_backfill_costs_at_most_half_more_than_empty_tasks_of_its_shape(system):
    since, ELAPSED["empty"] = backfill(system, "empty_nightly")
    downstream_done(system, "empty_rebalance", len(FORTNIGHT), since)
    ratio = ELAPSED["job"] / ELAPSED["empty"]
    print(f"job {ELAPSED['job']:.1f} s, empty {ELAPSED['empty']:.1f} s, ratio {ratio:.2f}")
    assert ratio <= 1.5


@pytest.mark.parametrize(("dag_id", "empty_id"), [("nightly_risk", "empty_nightly"), ("rebalance", "empty_rebalance")])
def test_the_empty_dags_have_the_shape_of_the_real_ones(system, dag_id, empty_id):
    def shape(name):
        tasks = system.request("GET", f"/dags/{name}/tasks")["tasks"]
        return {task["task_id"]: (set(task["downstream_task_ids"]), task["is_mapped"]) for task in tasks}

    assert shape(empty_id) == shape(dag_id)


def test_the_same_backfill_again_writes_no_row(system):
    before = system.row_counts()
    since, _ = backfill(system, "nightly_risk", again=True)
    downstream_done(system, "rebalance", len(FORTNIGHT), since)
    assert system.row_counts() == before


def test_rest_and_dags_test_find_the_session_published(system):
    before = system.row_counts()
    run = system.query("SELECT run_id FROM publication WHERE kind = 'forecast' AND session_date = %s", LAST)[0][0]
    by_rest = system.api.trigger("nightly_risk", LAST)
    assert system.end_of_run("nightly_risk", by_rest) == "success"
    assert f"already published as run {run}" in system.log("nightly_risk", by_rest, "check_inputs")
    by_hand = system.airflow("dags", "test", "nightly_risk", "--conf", f'{{"session": "{LAST}"}}')
    assert by_hand.returncode == 0, by_hand.stdout[-3000:] + by_hand.stderr[-3000:]
    assert f"already published as run {run}" in by_hand.stdout + by_hand.stderr
    assert system.row_counts() == before


def test_an_unaudited_run_can_not_be_published_by_hand(system):
    system.execute(
        "INSERT INTO run (exchange, session_date, snapshot_id, vintage_id, configuration_hash, configuration, door, "
        "dag_run_id, lineage) SELECT exchange, session_date, snapshot_id, vintage_id, 'by hand', '{}', 'hand', 'none', "
        "'{}' FROM run LIMIT 1"
    )
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="not audited"):
        system.query(
            "INSERT INTO publication (kind, exchange, session_date, revision, run_id) "
            "SELECT 'forecast', exchange, session_date, 99, run_id FROM run WHERE state <> 'audited' LIMIT 1"
        )


def test_risk_status_and_show_tell_what_was_published(system):
    status = system.command("-m", "risk.cli", "status")
    assert status.returncode == 0
    assert str(LAST) in status.stdout
    shown = system.command("-m", "risk.cli", "show", str(LAST))
    assert shown.returncode == 0
    for symbol in ("AAPL", "XOM"):
        assert symbol in shown.stdout


def test_a_dag_of_ones_own_scores_its_own_model_into_its_own_table(system):
    system.execute(
        "CREATE TABLE house (house_id bigint PRIMARY KEY, area real, rooms real, age real); "
        "INSERT INTO house SELECT i, 40 + i % 200, 1 + i % 6, i % 90 FROM generate_series(1, 1000) i"
    )
    for _ in range(2):  # safe to repeat: the second run leaves the same rows
        run_id = system.request("POST", "/dags/price_houses/dagRuns", {"logical_date": None})["dag_run_id"]
        assert system.end_of_run("price_houses", run_id) == "success"
        assert system.query("SELECT count(*), count(DISTINCT house_id) FROM house_price") == [(1000, 1000)]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    rows = system.query("SELECT area, rooms, age, price FROM house JOIN house_price USING (house_id)")
    with torch.no_grad():
        for area, rooms, age, price in rows[:50]:
            assert price == pytest.approx(model(torch.tensor([area, rooms, age])).item(), rel=1e-5, abs=1e-6)
