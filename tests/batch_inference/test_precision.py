"""A reduced precision is used only where it is proven."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from batch_inference import BatchInference
from batch_inference.precision import choose, judge

CPU = torch.device("cpu")
# Two columns: spread 1 (values -1 and 1) and spread 100.
REFERENCE = torch.tensor([[-1.0, -100.0], [1.0, 100.0], [-1.0, -100.0], [1.0, 100.0]])


def moved(row: int, column: int, by: float) -> list[torch.Tensor]:
    changed = REFERENCE.clone()
    changed[row, column] += by
    return [changed]


@pytest.mark.parametrize(
    ("row", "column", "by", "error", "allowed"),
    [
        (2, 0, 0.01, 0.01, True),
        (2, 0, 0.03, 0.03, False),  # the same distance in the other column is nothing
        (3, 1, 0.03, 0.0003, True),
        (3, 1, -3.0, 0.03, False),
    ],
)
def test_error_is_in_units_of_its_own_columns_spread(
    row: int, column: int, by: float, error: float, allowed: bool
) -> None:
    trial = judge("bfloat16", [REFERENCE], moved(row, column, by), 0.02, ("['mu']",))
    assert (trial.allowed, trial.row, trial.column) == (allowed, row, f"['mu'] column {column}")
    assert trial.error == pytest.approx(error, rel=1e-4)


def test_constant_column_is_measured_by_its_size() -> None:
    constant = torch.full((4, 1), 50.0)
    assert judge("float16", [constant], [constant + 0.5], 0.02).error == pytest.approx(0.01)
    zeros = torch.zeros(4)
    assert judge("float16", [zeros], [zeros], 0.0).allowed
    assert not judge("float16", [zeros], [zeros + 1e-6], 0.02).allowed


def test_infinite_where_float32_is_finite_is_refused() -> None:
    overflowed = REFERENCE.clone()
    overflowed[1, 0] = torch.inf
    trial = judge("float16", [REFERENCE], [overflowed], 1e9)
    assert (trial.allowed, trial.row) == (False, 1)
    both = REFERENCE.clone()
    both[0, 0] = torch.nan
    assert judge("float16", [both], [both.clone()], 0.0).allowed


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_whole_numbers_must_be_equal(shape: tuple[int, ...]) -> None:
    classes = torch.tensor([0, 1, 2, 3]).reshape(shape)
    assert judge("bfloat16", [classes], [classes], 1e-3).allowed
    assert not judge("bfloat16", [classes], [classes.flip(0)], 1e-3).allowed


@pytest.mark.parametrize(
    ("requested", "reason"),
    [("float32", "asked for"), ("tf32", "CUDA only"), ("auto", "on the CPU"), ("bfloat16", "no row to prove")],
)
def test_float32_says_why(requested: str, reason: str) -> None:
    decision = choose(requested, CPU, 1e-3, None)
    assert decision.used == "float32"
    assert reason in decision.reason


def test_auto_takes_the_first_that_is_allowed() -> None:
    answers = {"float32": [REFERENCE], "bfloat16": moved(0, 0, 1.0), "float16": moved(0, 0, 0.001)}
    decision = choose("auto", torch.device("cuda"), 0.02, lambda precision: answers[precision])
    assert decision.used == "float16"
    assert [(trial.precision, trial.allowed) for trial in decision.trials] == [("bfloat16", False), ("float16", True)]


def test_run_uses_what_is_proven_and_gives_float32() -> None:
    torch.manual_seed(0)
    model, rows = nn.Linear(8, 3), np.random.default_rng(0).normal(size=(2000, 8)).astype("f4")
    with torch.no_grad():
        wanted = model(torch.from_numpy(rows))
    loose = BatchInference(model, device="cpu", batch_size=64, precision="bfloat16", precision_tolerance=0.1).run(rows)
    assert loose.statistics.precision == "bfloat16"
    assert loose.outputs.dtype == torch.float32
    assert not torch.equal(loose.outputs, wanted)
    torch.testing.assert_close(loose.outputs, wanted, atol=0.05, rtol=0)
    strict = BatchInference(model, device="cpu", batch_size=64, precision="bfloat16").run(rows)
    assert strict.statistics.precision == "float32"
    assert "bfloat16 was refused, beyond the tolerance of 0.001" in strict.statistics.precision_reason
    torch.testing.assert_close(strict.outputs, wanted)


def test_no_row_proves_nothing() -> None:
    result = BatchInference(nn.Linear(8, 3), device="cpu", precision="bfloat16").run(np.zeros((0, 8), "f4"))
    assert result.statistics.precision == "float32"
    assert result.outputs.shape == (0, 3)
