"""Processes that are started, remembered and ended, down to the last grandchild."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from risk.errors import ServiceError
from risk.system import processes
from risk.system.processes import ProcessTable, airflow_command, require_free_port

STUBBORN = 'trap "" TERM; sleep 60 & sleep 60 & echo ready; while true; do sleep 60; done'
ENVIRONMENT = {"PATH": os.environ["PATH"]}

# They are meant to outlive the command that starts them.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


def wait(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessTable]:
    monkeypatch.setattr(processes, "TERM_PATIENCE_S", 0.3)
    made = ProcessTable(tmp_path)
    yield made
    made.stop()


def test_a_process_is_started_in_a_group_of_its_own_and_remembered(table: ProcessTable, tmp_path: Path) -> None:
    one = table.start("one", ["sleep", "60"], ENVIRONMENT)
    two = table.start("two", ["sleep", "60"], ENVIRONMENT)
    assert os.getpgid(one.pid) == one.pid != os.getpgid(0)
    assert ProcessTable(tmp_path).running() == [one, two]
    assert table.stop() == ["one", "two"]
    assert not runs(one.pid)
    assert not runs(two.pid)
    assert table.running() == []
    assert table.stop() == []


def test_stop_ends_one_that_ignores_sigterm_and_its_grandchildren(table: ProcessTable) -> None:
    polite = table.start("polite", ["sleep", "60"], ENVIRONMENT)
    stubborn = table.start("stubborn", ["bash", "-c", STUBBORN], ENVIRONMENT)
    wait(lambda: table.tail("stubborn") == "ready" and len(psutil.Process(stubborn.pid).children()) == 3)
    family = [stubborn.pid, *(child.pid for child in psutil.Process(stubborn.pid).children(recursive=True))]
    began = time.monotonic()
    assert table.stop() == ["polite", "stubborn"]
    assert time.monotonic() - began < 0.3 + 5.0
    assert [pid for pid in [polite.pid, *family] if runs(pid)] == []


def test_stop_ends_what_a_dead_leader_left_behind(table: ProcessTable) -> None:
    leader = table.start("leader", ["bash", "-c", "sleep 60 & echo ready; wait"], ENVIRONMENT)
    wait(lambda: table.tail("leader") == "ready")
    (orphan,) = psutil.Process(leader.pid).children()
    os.kill(leader.pid, signal.SIGKILL)
    wait(lambda: not leader.alive())
    assert runs(orphan.pid)
    assert table.running() == []
    assert table.stop() == ["leader"]
    assert not runs(orphan.pid)


@pytest.mark.parametrize("started", [lambda now: now - 3600, lambda _now: 0.0], ids=["an hour ago", "before the boot"])
def test_another_process_that_holds_a_remembered_id_is_left_alone(
    table: ProcessTable, started: Callable[[float], float]
) -> None:
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    entry = {"name": "ours", "pid": stranger.pid, "started": started(psutil.Process(stranger.pid).create_time())}
    table.path.write_text(json.dumps([entry]))
    assert table.running() == []
    assert table.stop() == []
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_one_that_ended_by_itself_is_not_running_and_its_log_says_why(table: ProcessTable) -> None:
    gone = table.start("gone", ["bash", "-c", "for n in 1 2 3; do echo line $n; done; exit 1"], ENVIRONMENT)
    wait(lambda: not gone.alive())
    assert table.running() == []
    assert table.tail("gone", lines=2) == "line 2\nline 3"
    assert table.tail("never started") == ""


def test_a_taken_port_is_refused_with_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=f"port {port} of 127.0.0.1 is taken by another program.*RISK_UI_PORT"):
            require_free_port(port)
    require_free_port(port)


def test_airflow_s_command_is_of_the_same_python() -> None:
    assert airflow_command("db", "migrate") == [sys.executable, "-m", "airflow", "db", "migrate"]
