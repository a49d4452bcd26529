"""Simulated drops for tests and demonstrations: `python -m risk.market_data.simulated FOLDER --names 20 ...`.

Prices follow a market factor and a part of each name's own, both GJR-GARCH(1,1) with Student-t shocks (Glosten,
Jagannathan and Runkle, "On the Relation between the Expected Value and the Volatility of the Nominal Excess Return on
Stocks", Journal of Finance 48, 1993). They are labelled: symbols SIM001, SIM002 ... and a SIMULATED.txt beside them.

The same seed, number of names and first session give the same prices, whatever the last session: a folder can be
carried on night by night.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risk.errors import RiskError

Floats = NDArray[np.float64]

_ALPHA, _GAMMA, _BETA = 0.03, 0.08, 0.90  # persistence alpha + gamma / 2 + beta = 0.97
_NU = 6.0
_MARKET_PERCENT, _OWN_PERCENT = 0.9, 1.4
_LABEL = """These drops are SIMULATED: no exchange ever traded at these prices.
Made by `python -m risk.market_data.simulated`, seed {seed}, {names} names, first session {first}.
"""


@dataclass(frozen=True, eq=False)
class SimulatedSession:
    """One session's bars: each `(names,)`, prices in dollars, volume in shares."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats


def simulate(names: int, sessions: int, seed: int) -> Iterator[SimulatedSession]:
    """Bars session by session.

    Args:
        names: how many instruments.
        sessions: how many sessions.
        seed: the same seed gives the same bars.
    """
    rng = np.random.default_rng(seed)
    exposure = rng.uniform(0.6, 1.4, names)
    close = _tick(np.exp(rng.uniform(np.log(10.0), np.log(300.0), names)))
    levels = np.concatenate([[_MARKET_PERCENT], np.full(names, _OWN_PERCENT)]) ** 2
    variance = levels.copy()
    for _ in range(sessions):
        shock = np.sqrt(variance * (_NU - 2) / _NU) * rng.standard_t(_NU, names + 1)
        variance = (
            levels * (1 - _ALPHA - _GAMMA / 2 - _BETA) + (_ALPHA + _GAMMA * (shock < 0)) * shock**2 + _BETA * variance
        )
        overnight, spread = rng.normal(0.0, 0.3, names), np.abs(rng.normal(0.0, 0.5, (2, names)))
        opened = _tick(close * np.exp(overnight / 100))
        close = _tick(close * np.exp((0.03 + exposure * shock[0] + shock[1:]) / 100))
        high = _tick(np.maximum(opened, close) * np.exp(spread[0] / 100))
        low = _tick(np.minimum(opened, close) * np.exp(-spread[1] / 100))
        volume: Floats = np.exp(rng.normal(14.0, 0.5, names))
        yield SimulatedSession(opened, high, low, close, volume)


def write_drops(folder: Path, *, names: int | Sequence[str], sessions: Sequence[date], seed: int) -> list[Path]:
    """Write one `YYYY-MM-DD.csv` a session, and `SIMULATED.txt`; drops that are there already are written anew.

    Args:
        folder: made if it is not there.
        names: how many instruments, called SIM001 and so on, or their symbols.
        sessions: ascending; the first decides the whole path.
        seed: the same seed gives the same files.

    Returns:
        The drops' paths, in session order.
    """
    symbols = [f"SIM{number:03d}" for number in range(1, names + 1)] if isinstance(names, int) else list(names)
    folder.mkdir(parents=True, exist_ok=True)
    label = _LABEL.format(seed=seed, names=len(symbols), first=sessions[0] if sessions else "none")
    (folder / "SIMULATED.txt").write_text(label, encoding="utf-8")
    paths = []
    for session, bars in zip(sessions, simulate(len(symbols), len(sessions), seed), strict=True):
        rows = zip(symbols, bars.open, bars.high, bars.low, bars.close, bars.volume, strict=True)
        lines = [f"{s},{o:.2f},{h:.2f},{low:.2f},{c:.2f},{v:.0f}" for s, o, h, low, c, v in rows]
        path = folder / f"{session}.csv"
        whole = folder / f".{session}.csv"
        whole.write_text("\n".join(["symbol,open,high,low,close,volume", *lines, ""]), encoding="utf-8")
        os.replace(whole, path)
        paths.append(path)
    return paths


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    from risk.sessions import SessionCalendar

    parser = argparse.ArgumentParser(prog="python -m risk.market_data.simulated", description="Write simulated drops.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", type=int, default=20)
    parser.add_argument("--first", type=date.fromisoformat, required=True, help="YYYY-MM-DD")
    parser.add_argument("--last", type=date.fromisoformat, required=True, help="YYYY-MM-DD")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--exchange", default="XNYS")
    chosen = parser.parse_args(arguments)
    if chosen.names < 1 or chosen.first > chosen.last:
        parser.error("at least one name is asked, and a first day not after the last")
    try:
        sessions = SessionCalendar(chosen.exchange).sessions(chosen.first, chosen.last)
    except RiskError as error:
        parser.error(str(error))
    paths = write_drops(chosen.folder, names=chosen.names, sessions=sessions, seed=chosen.seed)
    print(f"Wrote {len(paths)} simulated drops of {chosen.names} names to {chosen.folder}")


def _tick(prices: NDArray[Any]) -> Floats:
    return np.maximum(np.round(prices, 2), 0.01)


if __name__ == "__main__":
    main()
