"""Callables that tests of the operators name by text."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from batch_inference import Outcome, Source

NOT_CALLABLE = 3
outcomes: list[Outcome] = []


def make_model(slope: float = 2.0) -> nn.Module:
    """y = slope (x1 + x2)."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(slope)
    return model


def make_two_outputs() -> Any:
    return lambda rows: {"total": rows.sum(1), "pair": rows}


def read_rows(count: int = 5, first: int = 0) -> Source:
    """Items `first` and on, with x = (i, 1)."""
    ids = np.arange(first, first + count)
    return Source({"item": ids}, np.stack([ids, np.ones(count)], axis=1).astype("f4"))


def read_nothing() -> int:
    return 0


def example_rows() -> torch.Tensor:
    return torch.ones(3, 2)


def keep(outcome: Outcome, label: str = "") -> dict[str, Any]:
    """A sink that keeps what it gets."""
    outcomes.append(outcome)
    return {"rows": len(outcome.keys["item"]), "label": label}


def keep_profile(outcome: Outcome, profile: dict[str, Any] | None) -> dict[str, Any] | None:
    """A sink that names the profile, without a default."""
    return profile


def keep_all(outcome: Outcome, **parameters: Any) -> dict[str, Any]:
    """A sink that takes every parameter and names none."""
    return parameters


def database_is_down(outcome: Outcome) -> None:
    import psycopg

    raise psycopg.OperationalError("the server closed the connection")


def not_a_url() -> int:
    return 3
