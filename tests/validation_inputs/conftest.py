"""A good panel, and changes planted in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from risk.market_data.panel import Panel
from risk.settings import Settings

NAMES, SESSIONS = 20, 300


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(_env_file=None)


@pytest.fixture
def panel() -> Panel:
    """20 names over 300 sessions, each close 1% above or below the one before; the last session is 2022-12-28."""
    steps = np.random.default_rng(5).choice([0.99, 1.01], size=(NAMES, SESSIONS))
    closes = 100.0 * np.cumprod(steps, axis=1)
    sessions = tuple(date(2022, 12, 28) - timedelta(days=SESSIONS - 1 - at) for at in range(SESSIONS))
    symbols = tuple(f"N{number:02d}" for number in range(NAMES))
    return Panel(
        np.arange(101, 101 + NAMES, dtype=np.int32), symbols, sessions, closes, np.zeros(SESSIONS), np.ones(SESSIONS)
    )


@pytest.fixture
def planted(panel: Panel) -> Callable[..., Panel]:
    """`planted(lambda closes: ..., symbols=...)`: the good panel with changed closes and other fields."""

    def change(plant: Callable[[Any], None] | None = None, **fields: Any) -> Panel:
        closes = panel.closes.copy()
        if plant is not None:
            plant(closes)
        return replace(panel, **({"closes": closes} | fields))

    return change
