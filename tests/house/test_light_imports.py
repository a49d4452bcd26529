"""What Airflow's dag processor imports stays light; ruff refuses a heavy import there, and only there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "pandas", "numpy", "sqlalchemy", "pyarrow", "scipy", "sklearn"}
DAGS = sorted((PROJECT / "dags").glob("*.py"))


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    given = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.split(".")[0] for name in plain | given}


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.name)
def test_a_dag_file_imports_nothing_heavy(path: Path) -> None:
    assert imported(path) & HEAVY == set()


@pytest.mark.parametrize(
    ("path", "banned"),
    [
        ("dags/planted.py", True),
        ("plugins/planted.py", True),
        ("plugins/risk_pages/planted.py", True),
        ("plugins/batch_inference/operators/planted.py", True),
        ("plugins/batch_inference/planted.py", False),
        ("include/risk/planted.py", False),
        ("tests/planted.py", False),
    ],
)
def test_ruff_refuses_a_heavy_import_where_it_costs(path: str, banned: bool) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID253", "--stdin-filename", path, "-"]
    done = subprocess.run(command, cwd=PROJECT, input="import torch\n", capture_output=True, text=True, check=False)
    assert ("TID253" in done.stdout) is banned, done.stdout + done.stderr
