"""One night and one fortnight through Airflow's own scheduler, beside empty tasks: `make bench-night`.

1. A fresh state folder; `night` is timed from nothing to the printed result (the environment is installed already).
2. On one running system, by turns: the backfill of 2022-11-21 to 2022-12-02, the same of a DAG of the same shape whose
   tasks are empty (in session order, like the real one), and one without the order. The job's sessions are new each
   time: a fortnight further back each round.
3. What was published is compared with what ought to be before any time is printed.

Writes `benchmarks/results/night.json`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path

from risk.settings import PROJECT, get_settings
from risk.storage.database import connect
from risk.system.api import ENDED, AirflowApi
from risk.system.environment import base_url

RESULTS = PROJECT / "benchmarks" / "results" / "night.json"
FORTNIGHTS = [
    (date(2022, 11, 21), date(2022, 12, 2)),  # Thanksgiving week and the next: nine sessions each
    (date(2021, 11, 22), date(2021, 12, 3)),
]
SESSIONS = 9


def main() -> int:
    """Run everything; 0 when every target is met."""
    with tempfile.TemporaryDirectory(prefix="risk-bench-") as folder:
        os.chmod(folder, 0o755)  # the embedded server's own user enters it
        _point_at(Path(folder))
        night = _night()
        _system("up")
        try:
            times = _rounds()
        finally:
            _system("down")
    job, empty, unordered = (statistics.median(times[name]) for name in ("job", "empty", "unordered"))
    rows = [
        _row("make run after the install", night, "s", target=90.0, spread=[night, night]),
        _row("backfill of 9 sessions", job, "s", spread=_range(times["job"])),
        _row(
            "backfill, to empty tasks of the same shape, order kept in both", job / empty, "ratio", target=1.5,
            spread=_range([a / b for a, b in zip(times["job"], times["empty"], strict=True)]), peer=empty,
        ),
        _row(
            "backfill, to empty tasks without the order of sessions", job / unordered, "ratio",
            spread=_range([a / b for a, b in zip(times["job"], times["unordered"], strict=True)]), peer=unordered,
            note="risk goes in session order: nine times gate, measure, validate, publish one after the other",
        ),
    ]  # fmt: skip
    _write(rows)
    return 0 if all(row["met"] in (None, True) for row in rows) else 1


def _point_at(folder: Path) -> None:
    dags = folder / "dags"
    dags.mkdir()
    for path in [*(PROJECT / "dags").glob("*.py"), *(PROJECT / "tests" / "scheduler" / "dags").glob("*.py")]:
        shutil.copy(path, dags)
    os.environ |= {
        "RISK_STATE_DIR": str(folder / "state"), "RISK_UI_PORT": "8473", "AIRFLOW__CORE__DAGS_FOLDER": str(dags)
    }  # fmt: skip
    get_settings.cache_clear()


def _night() -> float:
    began = time.monotonic()
    _system("run")
    return time.monotonic() - began


def _system(command: str) -> None:
    subprocess.run([sys.executable, "-m", "risk.system", command], cwd=PROJECT, check=True)


def _rounds() -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"job": [], "empty": [], "unordered": []}
    with AirflowApi(base_url(get_settings())) as api:
        for fortnight in FORTNIGHTS:
            times["empty"].append(_backfill(api, "empty_nightly", "empty_rebalance", fortnight))
            times["job"].append(_backfill(api, "nightly_risk", "rebalance", fortnight))
            times["unordered"].append(_backfill(api, "unordered_nightly", None, fortnight))
            _check_published(*fortnight)
            print({name: f"{values[-1]:.1f} s" for name, values in times.items()}, flush=True)
    return times


def _backfill(api: AirflowApi, dag_id: str, downstream: str | None, fortnight: tuple[date, date]) -> float:
    since, began = datetime.now(UTC), time.monotonic()
    backfill_id = api.backfill(dag_id, *fortnight, active_runs=6, again=True)
    for each in filter(None, (dag_id, downstream)):
        _wait(lambda each=each: _all_succeeded(api, each, since))
    elapsed = time.monotonic() - began
    _wait(lambda: api.backfill_ended(backfill_id))  # Airflow looks twice a minute: not part of the time
    return elapsed


def _all_succeeded(api: AirflowApi, dag_id: str, since: datetime) -> bool:
    states = [run["state"] for run in api.runs(dag_id, since)]
    if "failed" in states:
        raise RuntimeError(f"a run of {dag_id} failed; there is no time to tell")
    return len(states) == SESSIONS and set(states) <= ENDED


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("not within five minutes")
        time.sleep(0.5)


def _check_published(first: date, last: date) -> None:
    with connect() as connection:
        for table, where in (("publication", "kind = 'risk' AND"), ("rebalance", "")):
            order = connection.execute(
                f"SELECT session_date FROM {table} WHERE {where} session_date BETWEEN %s AND %s ORDER BY published_at",
                (first, last),
            ).fetchall()
            if len(order) != SESSIONS or order != sorted(order):
                raise RuntimeError(f"{table} holds {order}: not nine sessions in order")


def _range(values: list[float]) -> list[float]:
    return [round(min(values), 3), round(max(values), 3)]


def _row(
    name: str, value: float, unit: str, *, spread: list[float], target: float | None = None, peer: float | None = None,
    note: str | None = None,
) -> dict[str, object]:  # fmt: skip
    row: dict[str, object] = {
        "name": name, "value": round(value, 3), "unit": unit, "target": target,
        "met": None if target is None else value <= target, "spread": [round(end, 3) for end in spread],
        "peer": None if peer is None else round(peer, 3), "ratio": round(value, 3) if unit == "ratio" else None,
    }  # fmt: skip
    return row if note is None else {**row, "note": note}


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _write(rows: list[dict[str, object]]) -> None:
    result = {
        "command": "make bench-night",
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "device": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": {name: version(name) for name in ("apache-airflow", "torch", "numpy", "psycopg")},
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{row['name']:<66} {row['value']:>8} {row['unit']:<6} target {row['target']}  met {row['met']}")


if __name__ == "__main__":
    sys.exit(main())
