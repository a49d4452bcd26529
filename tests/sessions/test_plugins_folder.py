"""What Airflow finds in plugins/: the plugin and nothing else, and one timetable class under one name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from airflow._shared.module_loading import find_path_from_directory

PROJECT = Path(__file__).resolve().parents[2]
PLUGINS = PROJECT / "plugins"
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")

PROBE = """
import sys
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow import plugins_manager
from airflow.sdk import plugins_manager as sdk_plugins_manager
from trading_sessions import TradingSessionTimetable

heavy = {"pandas", "exchange_calendars", "torch"}
with DAG("nightly", schedule=TradingSessionTimetable(last_session="2022-12-28")) as dag:
    pass
stored = DagSerialization.to_dict(dag)
print(sorted(heavy & set(sys.modules)))
print(stored["dag"]["timetable"]["__type"])
timetable = DagSerialization.from_dict(stored).timetable
print(type(timetable) is TradingSessionTimetable, timetable.summary, timetable.serialize()["last_session"])
for manager in (plugins_manager, sdk_plugins_manager):
    plugins, errors = manager._get_plugins()
    print([plugin.name for plugin in plugins if str(plugin.source).startswith("$PLUGINS_FOLDER")], errors)
import trading_sessions
print(trading_sessions.TradingSessionTimetable is TradingSessionTimetable)
"""


def imported_by_airflow(folder: Path) -> list[str]:
    """The Python files that the plugins manager would import, by its own search."""
    found = (Path(path) for path in find_path_from_directory(str(folder), ".airflowignore", "glob"))
    return sorted(path.relative_to(folder).as_posix() for path in found if path.suffix == ".py")


def test_airflow_imports_the_plugin_file_alone() -> None:
    packages = [folder.name for folder in PLUGINS.iterdir() if folder.is_dir()]
    assert "batch_inference" in packages
    assert imported_by_airflow(PLUGINS) == ["nightly_risk_plugin.py"]


def test_a_package_added_later_is_left_alone_too(tmp_path: Path) -> None:
    (tmp_path / "new_package").mkdir()
    for name in ("new_package/__init__.py", "new_package/queue.py", "helper.py", "nightly_risk_plugin.py"):
        (tmp_path / name).touch()
    assert len(imported_by_airflow(tmp_path)) == 4  # what happens without the file
    shutil.copy(PLUGINS / ".airflowignore", tmp_path)
    assert imported_by_airflow(tmp_path) == ["nightly_risk_plugin.py"]


def test_the_timetable_is_one_class_under_one_name(tmp_path: Path) -> None:
    """In a process of its own: Airflow loads plugins once, and replaces modules when it does."""
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": os.pathsep.join((str(PROJECT / "include"), str(PLUGINS))),
    }
    probe = subprocess.run(
        [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert probe.returncode == 0, probe.stderr
    lines = [line for line in probe.stdout.splitlines() if "[warning" not in line]
    assert lines == [
        "[]",  # writing the DAG down imported nothing heavy
        "trading_sessions.TradingSessionTimetable",
        "True XNYS close + 60 min 2022-12-28",
        "['nightly_risk'] {}",
        "['nightly_risk'] {}",
        "True",
    ]
