"""Training of one vintage, point in time: no row whose target lies in the vintage's year or later.

1. `TrainingData.year` makes the rows of one calendar year from the closes up to that year's end and from no later
   one: features of a window, and the return of the session after it (the target).
2. `train_vintage` joins the years before the vintage's, sets the constants (`_standardise`) and fits the head
   (`_fit`) by the Student-t likelihood, with a fixed number of epochs and no look at any other year.
3. `TrainedVintage.score` scores the vintage's own year, which it has never seen, beside the baseline.

The same rows, settings, library versions and machine give the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from risk.market_data.fields import log_returns_percent, panel_fields, universe_fields
from risk.model.distribution import student_t_nll
from risk.model.errors import ClosesError, NotEnoughHistoryError
from risk.model.network import LOOKBACK, VolatilityNetwork, panel_features
from risk.model.scores import Scores, ewma_forecast, normal_nll, score

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TrainingSettings:
    """How a vintage is trained; stored with it."""

    seed: int = 1
    epochs: int = 8
    batch_size: int = 4096
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    warm_up: float = 0.15
    gradient_norm: float = 1.0
    dropout: float = 0.1
    hidden: int = 48
    threads: int = 1
    """More threads hardly help layers this small, and one gives the same bits whatever the number of cores."""
    least_sessions: int = 128
    """A window is trained on when at least this many of its 256 sessions have a return."""
    least_rows: int = 2000
    """Fewer training rows than this are refused."""


@dataclass(frozen=True)
class Rows:
    """Training or test rows: `features` `(rows, 48)`, `log_anchor` and `targets` `(rows,)`, targets in percent."""

    features: Tensor
    log_anchor: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class TrainedVintage:
    """A trained network with what it was trained on."""

    year: int
    network: VolatilityNetwork
    trained_through: date
    training_rows: int
    closes_sha256: str
    settings: TrainingSettings

    def score(self, rows: Rows) -> tuple[Scores, Scores] | None:
        """Scores of the model and of the baseline on the same rows; None when there are none."""
        if len(rows) == 0:
            return None
        returns = rows.targets.double().numpy()
        with torch.no_grad():
            log_sigma, nu = self.network.head(rows.features, rows.log_anchor)
            columns = self.network.columns(log_sigma, nu).numpy()
            nll = student_t_nll(rows.targets, self.network.location, log_sigma, nu).double().numpy()
        sigma = rows.log_anchor.double().exp().numpy()
        baseline = score(returns, ewma_forecast(sigma), normal_nll(returns, sigma))
        return score(returns, columns, nll), baseline


class TrainingData:
    """The rows of each calendar year, made from a table of closes when first asked for."""

    def __init__(self, closes: pd.DataFrame, settings: TrainingSettings | None = None) -> None:
        """Take the closes: `(sessions, instruments)`, dates ascending, NaN where an instrument has no close.

        Raises:
            ClosesError: dates that repeat or don't ascend, names that repeat, no row.
        """
        self.settings = settings or TrainingSettings()
        self._closes = _checked(closes)
        self._years: dict[int, Rows] = {}
        returns, present = log_returns_percent(self._closes.to_numpy(dtype=np.float64).T)
        self._present = present
        self._returns = returns
        self._panel = panel_fields(returns, present, *universe_fields(returns, present))
        with _reproducible(self.settings):
            self._network = VolatilityNetwork()

    def first_session(self, year: int) -> int:
        """The number of sessions before 1 January of the year: the position of its first session."""
        return int(self._closes.index.searchsorted(np.datetime64(f"{year}-01-01")))

    def year(self, year: int) -> Rows:
        """Rows whose target session lies in the year; made from closes up to the year's end only."""
        if year not in self._years:
            with _reproducible(self.settings):
                self._years[year] = self._make(self.first_session(year), self.first_session(year + 1))
        return self._years[year]

    def before(self, year: int) -> Rows:
        """Rows whose target session lies before 1 January of the year, oldest year first."""
        parts = [self.year(each) for each in range(self._closes.index[0].year, year)]
        if not parts:
            return _empty_rows()
        return Rows(*(torch.cat([getattr(part, name) for part in parts]) for name in Rows.__annotations__))

    def closes_before(self, year: int) -> pd.DataFrame:
        """The closes before 1 January of the year."""
        return self._closes.iloc[: self.first_session(year)]

    def _make(self, first: int, last: int) -> Rows:
        """Rows with targets in sessions `first` to `last - 1`: their windows end one session earlier."""
        first = max(first, LOOKBACK)
        if last <= first:
            return _empty_rows()
        panel = torch.from_numpy(self._panel[:, first - LOOKBACK : last - 1])
        features, log_anchor = panel_features(self._network, panel)
        sessions_seen = panel[..., 3].unfold(1, LOOKBACK, 1).sum(dim=-1)
        keep = torch.from_numpy(self._present[:, first:last]) & (sessions_seen >= self.settings.least_sessions)
        targets = torch.from_numpy(self._returns[:, first:last].astype(np.float32))
        return Rows(features[keep], log_anchor[keep], targets[keep])


def train_vintage(data: TrainingData, year: int) -> TrainedVintage:
    """Train the vintage that serves from 1 January of the year.

    Raises:
        NotEnoughHistoryError: fewer rows before the year than `least_rows` in the settings.
    """
    settings = data.settings
    rows = data.before(year)
    if len(rows) < settings.least_rows:
        raise NotEnoughHistoryError(year, len(rows), settings.least_rows)
    closes = data.closes_before(year)
    with _reproducible(settings):
        network = VolatilityNetwork(hidden=settings.hidden, dropout=settings.dropout)
        _standardise(network, rows)
        _fit(network, rows, settings)
    return TrainedVintage(
        year=year,
        network=network.eval(),
        trained_through=closes.index[-1].date(),
        training_rows=len(rows),
        closes_sha256=closes_sha256(closes),
        settings=settings,
    )


def closes_sha256(closes: pd.DataFrame) -> str:
    """SHA-256 of a table of closes: names, dates and values, the missing ones included."""
    digest = hashlib.sha256()
    digest.update("\n".join(map(str, closes.columns)).encode())
    digest.update("\n".join(stamp.date().isoformat() for stamp in closes.index).encode())
    values = closes.to_numpy(dtype="<f8").copy()
    values[np.isnan(values)] = np.nan
    digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _checked(closes: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    index = closes.index
    if closes.empty:
        raise ClosesError("it is empty")
    if not isinstance(index, pd.DatetimeIndex):
        raise ClosesError(f"its index holds {index.dtype}, not dates")
    if not index.is_monotonic_increasing or index.has_duplicates:
        later = np.asarray(index[1:] <= index[:-1])
        raise ClosesError(f"{index[1:][later][0].date()} does not follow the date above it")
    if closes.columns.has_duplicates:
        raise ClosesError(f"instrument {closes.columns[closes.columns.duplicated()][0]} has two columns")
    return closes


def _empty_rows() -> Rows:
    return Rows(torch.empty(0, 48), torch.empty(0), torch.empty(0))


@contextmanager
def _reproducible(settings: TrainingSettings) -> Iterator[None]:
    """A fixed seed and number of threads inside, the caller's own restored after."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        torch.set_num_threads(settings.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _standardise(network: VolatilityNetwork, rows: Rows) -> None:
    """Set the network's constants from the training rows: mean and deviation of each feature, and the location."""
    features = rows.features.double()
    network.feature_mean.copy_(features.mean(dim=0))
    network.feature_std.copy_(features.std(dim=0).clamp(min=1e-6))
    network.location.copy_(rows.targets.double().mean())


def _fit(network: VolatilityNetwork, rows: Rows, settings: TrainingSettings) -> None:
    """AdamW on the Student-t likelihood, one cycle of the learning rate, shuffled batches, the last one dropped."""
    batch = min(settings.batch_size, len(rows))
    steps = len(rows) // batch
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=steps * settings.epochs, pct_start=settings.warm_up
    )
    network.train()
    for _ in range(settings.epochs):
        order = torch.randperm(len(rows))
        for chosen in order[: steps * batch].view(steps, batch):
            log_sigma, nu = network.head(rows.features[chosen], rows.log_anchor[chosen])
            loss = student_t_nll(rows.targets[chosen], network.location, log_sigma, nu).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_norm)
            optimiser.step()
            schedule.step()
