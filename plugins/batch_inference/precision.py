"""Reduced precision, used only where it is proven on real rows.

A column of an output is within tolerance if its largest absolute error against float32, over the sampled rows, is at
most `tolerance` times the column's spread (its standard deviation over the same rows; its largest magnitude where it
is constant). Integer outputs must be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from batch_inference.errors import ConfigurationError

FLOAT32 = "float32"
AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PRECISIONS = (FLOAT32, "tf32", *AUTOCAST, "auto")
_FASTEST_FIRST = ("bfloat16", "float16", "tf32")

Evaluate = Callable[[str], list[torch.Tensor]]


@dataclass(frozen=True)
class PrecisionTrial:
    """One reduced precision on sampled rows. `error` is the worst column's, in units of that column's spread."""

    precision: str
    allowed: bool
    error: float
    column: str
    row: int
    reason: str


@dataclass(frozen=True)
class PrecisionDecision:
    """The precision used, why, and every one that was tried."""

    requested: str
    used: str
    reason: str
    trials: tuple[PrecisionTrial, ...] = ()


def choose(
    requested: str, device: torch.device, tolerance: float, evaluate: Evaluate | None, names: Sequence[str] = ()
) -> PrecisionDecision:
    """The fastest allowed precision among those requested.

    Args:
        requested: one of `PRECISIONS`; `"auto"` tries them all on CUDA.
        device: where the model runs.
        tolerance: the largest error, in units of a column's spread.
        evaluate: gives the outputs of the sampled rows in a precision; `None` where there is no row to sample.
        names: the outputs' names for messages, as many as `evaluate` gives.
    """
    if requested == FLOAT32:
        return PrecisionDecision(requested, FLOAT32, "float32 was asked for")
    if requested == "auto" and device.type == "cpu":
        return PrecisionDecision(requested, FLOAT32, "float32: on the CPU no reduced precision is faster everywhere")
    if requested == "tf32" and device.type == "cpu":
        return PrecisionDecision(requested, FLOAT32, "float32: tf32 exists on CUDA only")
    if evaluate is None:
        return PrecisionDecision(requested, FLOAT32, "float32: there was no row to prove a reduced precision on")
    reference = evaluate(FLOAT32)
    trials = []
    for precision in _FASTEST_FIRST if requested == "auto" else (requested,):
        trials.append(judge(precision, reference, evaluate(precision), tolerance, names))
        if trials[-1].allowed:
            return PrecisionDecision(requested, precision, trials[-1].reason, tuple(trials))
    reason = f"{FLOAT32}: {'; '.join(trial.reason for trial in trials)}"
    return PrecisionDecision(requested, FLOAT32, reason, tuple(trials))


def judge(
    precision: str,
    reference: list[torch.Tensor],
    reduced: list[torch.Tensor],
    tolerance: float,
    names: Sequence[str] = (),
) -> PrecisionTrial:
    """Compare outputs `(rows, ...)` in a reduced precision with float32's, column by column."""
    worst, column, row = 0.0, "", 0
    for index, (want, got) in enumerate(zip(reference, reduced, strict=True)):
        errors = _errors(want, got)
        if errors.numel():
            position = int(errors.argmax())
            error = float(errors.flatten()[position])
            if error > worst or not column:
                at_row, at_column = divmod(position, errors.shape[1])
                name = names[index] if index < len(names) else f"[{index}]"
                worst, column, row = error, f"{name or 'output'} column {at_column}", at_row
    allowed = worst <= tolerance
    verdict = "is within" if allowed else "was refused, beyond"
    reason = (
        f"{precision} {verdict} the tolerance of {tolerance:g} of an output's spread: "
        f"worst {worst:.2g} in {column} at sampled row {row}"
    )
    return PrecisionTrial(precision, allowed, worst, column, row, reason)


def _errors(want: torch.Tensor, got: torch.Tensor) -> torch.Tensor:
    """`(rows, columns)` errors in units of each column's spread; infinite where only one of the two is finite."""
    if not want.is_floating_point():
        same = want.reshape(len(want), -1) == got.reshape(len(got), -1)
        return torch.where(same, 0.0, torch.inf)
    exact, near = want.reshape(len(want), -1).double(), got.reshape(len(got), -1).double()
    finite = exact.isfinite()
    kept = torch.where(finite, exact, 0.0)
    spread = kept.std(dim=0, correction=0)
    scale = torch.where(spread > 0, spread, kept.abs().amax(dim=0))
    distance = (exact - near).abs()
    errors = torch.where(distance == 0, 0.0, distance / scale)
    equal = (exact == near) | (exact.isnan() & near.isnan())
    return torch.where(equal, 0.0, torch.where(finite & near.isfinite(), errors, torch.inf))


@contextmanager
def applied(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in `precision` within the block; settings of the process are as before after it.

    float32 on CUDA is IEEE float32: torch's default would let cuDNN take TF32 for convolutions and recurrent layers.
    """
    if device.type != "cuda":
        with _autocast(precision, device):
            yield
        return
    backends: Any = torch.backends
    places = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "ieee" if precision == FLOAT32 else "tf32"
    try:
        with _autocast(precision, device):
            yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def check_precision(precision: str) -> str:
    """Refuse a precision that isn't one.

    Raises:
        ConfigurationError: it isn't one of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise ConfigurationError(f"precision {precision!r} is not known; allowed are {', '.join(PRECISIONS)}")
    return precision


@contextmanager
def _autocast(precision: str, device: torch.device) -> Iterator[None]:
    if precision not in AUTOCAST:
        yield
        return
    with torch.amp.autocast(device.type, dtype=AUTOCAST[precision]):
        yield
