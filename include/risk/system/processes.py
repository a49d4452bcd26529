"""Long-lived processes, each in its own process group, remembered in a file so that another command can end them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from risk.errors import ServiceError

TERM_PATIENCE_S = 15.0
KILL_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Process:
    """A started process: its group's id is its own, and its start time tells it from a later holder of that id."""

    name: str
    pid: int
    started: float

    def alive(self) -> bool:
        """Whether this very process still runs."""
        try:
            found = psutil.Process(self.pid)
            return abs(found.create_time() - self.started) < 1.0 and _runs(found)
        except psutil.NoSuchProcess:
            return False

    def group(self) -> list[psutil.Process]:
        """What still runs of its group; none where its id is another process's by now.

        A leader may have ended before its group: as long as one member lives, the system gives nobody else its id.
        """
        if self.started < psutil.boot_time() - 1.0:
            return []
        with suppress(psutil.NoSuchProcess):
            if abs(psutil.Process(self.pid).create_time() - self.started) >= 1.0:
                return []
        return _members(self.pid)


class ProcessTable:
    """The processes of one state folder: `<state>/processes.json`, and `<state>/logs/NAME.log` each."""

    def __init__(self, state: Path) -> None:
        self.path = state / "processes.json"
        self.logs = state / "logs"

    def running(self) -> list[Process]:
        """Those that are alive, in the order in which they were started."""
        return [process for process in self._read() if process.alive()]

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Process:
        """Start a command in its own process group, its output in its log file."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with open(self.logs / f"{name}.log", "ab") as log:
            child = subprocess.Popen(
                command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        process = Process(name, child.pid, psutil.Process(child.pid).create_time())
        self._write([*self.running(), process])
        return process

    def stop(self) -> list[str]:
        """End them all, the last started first: SIGTERM to each group, then SIGKILL to what is left.

        Returns:
            The names of those that were running.
        """
        groups = [(process, members) for process in self._read() if (members := process.group())]
        for process, _ in reversed(groups):
            _signal_group(process.pid, signal.SIGTERM)
        everyone = [member for _, members in groups for member in members]
        for member in _wait(everyone, TERM_PATIENCE_S):
            with suppress(psutil.NoSuchProcess):
                member.kill()
        _wait(everyone, KILL_PATIENCE_S)
        self.path.unlink(missing_ok=True)
        return [process.name for process, _ in groups]

    def tail(self, name: str, lines: int = 15) -> str:
        """The end of a process's log."""
        path = self.logs / f"{name}.log"
        if not path.exists():
            return ""
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def _read(self) -> list[Process]:
        if not self.path.exists():
            return []
        return [Process(**entry) for entry in json.loads(self.path.read_text(encoding="utf-8"))]

    def _write(self, processes: Sequence[Process]) -> None:
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps([asdict(process) for process in processes]), encoding="utf-8")
        partial.replace(self.path)


def airflow_command(*arguments: str) -> list[str]:
    """A command of the Airflow that is installed beside this Python."""
    return [sys.executable, "-m", "airflow", *arguments]


def require_free_port(port: int) -> None:
    """Refuse a port that somebody else listens on.

    Raises:
        ServiceError: the port is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServiceError(
                f"port {port} of 127.0.0.1 is taken by another program; end it, or choose a free one with RISK_UI_PORT"
            ) from error


def _wait(processes: Sequence[psutil.Process], patience_s: float) -> list[psutil.Process]:
    """Those that still run after the patience; one that has ended and was not reaped by its parent doesn't count."""
    deadline = time.monotonic() + patience_s
    while left := [process for process in processes if _runs(process)]:
        if time.monotonic() >= deadline:
            break
        time.sleep(0.05)
    return left


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _members(group: int) -> list[psutil.Process]:
    """The running processes of a group and of its session: the leader, and whoever else carries its id."""
    members = []
    for process in psutil.process_iter():
        try:
            if (os.getpgid(process.pid) == group or os.getsid(process.pid) == group) and _runs(process):
                members.append(process)
        except ProcessLookupError:
            continue
    return members


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it may have ended by itself since we looked
        os.killpg(group, number)
