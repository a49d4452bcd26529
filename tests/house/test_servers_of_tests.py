"""The tests' PostgreSQL and a second pytest on the same machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg

from risk.storage import server


def test_a_server_outlives_the_start_of_another_pytest(postgres: Path, tmp_path: Path) -> None:
    """As root: that one closes pytest's folders to the server's own user; a checkpoint opens files by their paths."""
    (tmp_path / "test_other.py").write_text("def test_other(tmp_path): pass\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_other.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    url = server.url(postgres, "postgres").replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        assert connection.execute("SELECT 1").fetchone() == (1,)
