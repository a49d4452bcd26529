"""The DAG files: light to read, and the libraries that are loaded before the fork, where they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "pandas", "sklearn", "scipy", "pyarrow", "exchange_calendars", "safetensors"}
PARSE = """
import importlib.util, json, sys, time
import airflow.sdk
before = set(sys.modules)
began = time.process_time()  # of this process alone, whatever else the machine does
for path in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("dag_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
seconds = time.process_time() - began
print(json.dumps({"seconds": seconds, "new": sorted({name.split(".")[0] for name in set(sys.modules) - before})}))
"""


def child(code: str, *arguments: str, **extra: str) -> Any:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RISK_", "AIRFLOW__"))}
    environment |= {"PYTHONPATH": f"{PROJECT / 'include'}:{PROJECT / 'plugins'}", **extra}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["nightly_risk.py", "rebalance.py"])
def test_a_dag_file_is_read_in_under_a_second_without_torch_or_pandas(name: str, tmp_path: Path) -> None:
    told = child(PARSE, str(PROJECT / "dags" / name), RISK_STATE_DIR=str(tmp_path))
    assert "risk" in told["new"]
    assert HEAVY & set(told["new"]) == set()
    assert told["seconds"] < 1.0


LOADED = """
import importlib, json, sys
if "only-told" in sys.argv:
    importlib.import_module = lambda name: sys.modules.setdefault(name, None)
sys.argv = ["airflow", *sys.argv[2:]]
import airflow_local_settings
print(json.dumps([name for name in ("torch", "pandas", "psycopg", "numpy", "risk") if name in sys.modules]))
"""
TASKS = ["torch", "pandas", "psycopg", "numpy"]


@pytest.mark.parametrize(
    ("how", "command", "loaded"),
    [
        ("truly", "scheduler", TASKS),
        ("only-told", "scheduler", TASKS),
        ("only-told", "celery", TASKS),
        ("only-told", "triggerer", ["psycopg", "numpy"]),
        ("truly", "dag-processor", []),
        ("truly", "api-server", []),
        ("truly", "", []),
    ],
)
def test_libraries_are_loaded_before_the_fork_only_where_tasks_run(
    how: str, command: str, loaded: list[str], tmp_path: Path
) -> None:
    assert child(LOADED, how, *([command] if command else []), AIRFLOW_HOME=str(tmp_path)) == loaded


def test_the_plugin_registers_the_timetable() -> None:
    from nightly_risk_plugin import NightlyRiskPlugin
    from trading_sessions import TradingSessionTimetable

    assert (NightlyRiskPlugin.name, NightlyRiskPlugin.timetables) == ("nightly_risk", [TradingSessionTimetable])
