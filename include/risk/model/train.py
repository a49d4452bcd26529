"""`python -m risk.model.train`: train the yearly vintages on the bundled closes and say how good each is.

Each vintage is scored on its own year, which it has not seen, beside EWMA 0.94 with a normal distribution.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from risk.market_data.bundled_closes import read_bundled_closes
from risk.model.errors import ModelError
from risk.model.scores import Scores, pooled
from risk.model.training import TrainingData, TrainingSettings, train_vintage
from risk.model.vintages import SHIPPED, save_vintage


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, save and score; 0 when every vintage was made, 2 with a sentence when one can't be."""
    options = _options(arguments)
    try:
        data = TrainingData(read_bundled_closes(), TrainingSettings(seed=options.seed))
        train_years(data, options.years, options.out)
    except (ModelError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def train_years(data: TrainingData, years: Sequence[int], folder: Path) -> None:
    """Train and save one vintage a year, with count, rate and time left after each on the terminal."""
    print(f"Making the rows of every year to {years[-1] - 1}", flush=True)
    counts = [len(data.before(year)) for year in years]
    scored: list[tuple[Scores, Scores]] = []
    start = time.monotonic()
    for done, year in enumerate(years, start=1):
        trained = train_vintage(data, year)
        scores = trained.score(data.year(year))
        save_vintage(trained, scores, folder)
        elapsed = time.monotonic() - start
        rate = sum(counts[:done]) / max(elapsed, 1e-9)
        result = "no return in its year to score"
        if scores is not None:
            scored.append(scores)
            result = f"NLL {scores[0].nll:.4f} (EWMA {scores[1].nll:.4f})"
        print(
            f"{done:3}/{len(years)}  vintage {year}  {trained.training_rows:7,} rows through {trained.trained_through}"
            f"  {result}  {rate / 1000:.0f} k rows/s  {sum(counts[done:]) / rate:.0f} s left",
            flush=True,
        )
    print(f"Wrote {len(years)} vintages to {folder}")
    if scored:
        print(_table(scored))


def _table(scored: Sequence[tuple[Scores, Scores]]) -> str:
    """Pooled scores of the model and of the baseline, lower is better."""
    model = pooled([pair[0].as_dict() for pair in scored]).as_dict()
    baseline = pooled([pair[1].as_dict() for pair in scored]).as_dict()
    lines = [f"{'pooled over ' + format(int(model['rows']), ',') + ' forecasts':36}{'model':>10}{'EWMA':>10}"]
    lines += [f"{name:36}{model[name]:10.4f}{baseline[name]:10.4f}" for name in model if name != "rows"]
    return "\n".join(lines)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m risk.model.train", description=__doc__.splitlines()[0])
    parser.add_argument("--years", type=_years, default="2000-2022", help="one year, or first-last (default 2000-2022)")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder of the vintages (default: the shipped ones)")
    parser.add_argument("--seed", type=int, default=TrainingSettings.seed, help="default %(default)s")
    return parser.parse_args(arguments)


def _years(text: str) -> range:
    first, _, last = text.partition("-")
    try:
        years = range(int(first), int(last or first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no year or range of years such as 2022 or 2000-2022") from None
    if not years:
        raise argparse.ArgumentTypeError(f"{text!r} ends before it begins")
    return years


if __name__ == "__main__":
    raise SystemExit(main())
