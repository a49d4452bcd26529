"""`.env.example` holds every setting with its default and its meaning."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from risk.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLE = PROJECT / ".env.example"


def named() -> dict[str, str]:
    """Each variable of the example with the comment above it."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    return {
        line.partition("=")[0]: before for before, line in pairwise(lines) if "=" in line and not line.startswith("#")
    }


def test_every_setting_is_there_and_nothing_else() -> None:
    ours = {name for name in named() if name.startswith("RISK_")}
    assert ours == {f"RISK_{name.upper()}" for name in Settings.model_fields}


def test_every_line_has_its_meaning_above_it() -> None:
    assert [name for name, comment in named().items() if not comment.startswith("# ")] == []


def test_the_values_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"RISK_{name.upper()}", raising=False)
    assert Settings(_env_file=EXAMPLE) == Settings(_env_file=None)


def test_it_holds_no_secret() -> None:
    secret = [
        line for line in EXAMPLE.read_text(encoding="utf-8").splitlines() if line.startswith(("POSTGRES_", "AIRFLOW_"))
    ]
    assert len(secret) == 4
    assert all(line.endswith("=") for line in secret)
