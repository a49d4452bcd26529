"""A home for Airflow that is thrown away, set before anything imports it: these tests touch no metadata database."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import pytest

from risk.sessions import SessionCalendar

if "AIRFLOW_HOME" not in os.environ:
    _home = tempfile.mkdtemp(prefix="airflow-home-")
    os.environ["AIRFLOW_HOME"] = _home
    atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")


@pytest.fixture(scope="session")
def calendar_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], SessionCalendar]:
    """A calendar by its exchange, with the default delay of an hour; each schedule is built once for all tests."""
    folder: Path = tmp_path_factory.mktemp("schedules")
    return lru_cache(lambda exchange: SessionCalendar(exchange, close_delay=timedelta(hours=1), cache_dir=folder))


@pytest.fixture(scope="session")
def nyse(calendar_of: Callable[[str], SessionCalendar]) -> SessionCalendar:
    return calendar_of("XNYS")
