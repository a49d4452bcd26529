"""The Makefile prints itself, names what it needs, and CI runs nothing that a person can't."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PROMISED = ["install", "check", "test", "run", "up", "down", "backfill", "train", "clean"]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False)


def test_make_alone_prints_each_command_with_its_meaning() -> None:
    told = dict(re.findall(r"^  make ([a-z-]+) +(\S.*)$", make().stdout, re.MULTILINE))
    assert set(PROMISED) <= set(told)
    assert make("help").stdout == make().stdout


@pytest.mark.parametrize("arguments", [[], ["FROM=2022-11-21"], ["TO=2022-12-02"]])
def test_a_backfill_without_its_range_is_one_sentence(arguments: list[str]) -> None:
    done = make("backfill", *arguments)
    assert done.returncode == 2
    assert "Say which sessions: make backfill FROM=2022-11-21 TO=2022-12-02" in done.stderr
    assert "Installing" not in done.stdout


def test_a_run_needs_the_runtime_only() -> None:
    planned = make("--dry-run", "--always-make", "run", "SESSION=2022-12-28").stdout
    assert "-r requirements.txt" in planned
    assert "requirements-dev.txt" not in planned
    assert "-m risk.system run --session" in planned


def test_the_tests_get_their_tools_first() -> None:
    planned = make("--dry-run", "--always-make", "test").stdout
    order = [planned.index(step) for step in ("-r requirements.txt", "-r requirements-dev.txt", "-m pytest")]
    assert order == sorted(order)


def test_a_stamp_is_written_last() -> None:
    planned = make("--dry-run", "--always-make", "install").stdout.splitlines()
    touched = [number for number, line in enumerate(planned) if line.startswith("touch ")]
    installed = [number for number, line in enumerate(planned) if "pip install" in line]
    assert len(touched) == 2
    assert max(number for number in installed if number < touched[1]) > touched[0]
    assert max(installed) < max(touched)


def test_ci_runs_the_readmes_commands() -> None:
    script = PROJECT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert commands[-1] == "exec make check test"
    assert all(line.startswith(("set -euo pipefail", "cd ", "exec make")) for line in commands)
