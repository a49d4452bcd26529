"""What the tests of market data share: the calendar of New York and drops written by hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path

import pytest

import risk
from risk.sessions import SessionCalendar

Deliver = Callable[..., Path]


@pytest.fixture(scope="session")
def nyse() -> SessionCalendar:
    return SessionCalendar("XNYS")


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of a child process that can import `risk`."""
    return os.environ | {"PYTHONPATH": str(Path(risk.__file__).parents[1])}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "drops"
    made.mkdir()
    return made


@pytest.fixture
def deliver(folder: Path) -> Deliver:
    """`deliver("2022-11-25", {"AAA": 1.5}, version="v2")` writes a drop with closes."""

    def write(session: str | date, closes: Mapping[str, object], version: str = "") -> Path:
        path = folder / f"{session}{'.' + version if version else ''}.csv"
        path.write_text("symbol,close\n" + "".join(f"{name},{close}\n" for name, close in closes.items()))
        return path

    return write


@pytest.fixture(scope="session")
def at() -> Callable[[str], datetime]:
    """`at("2022-11-25 22:00")`: a moment in UTC."""
    return lambda text: datetime.fromisoformat(f"{text}+00:00")
