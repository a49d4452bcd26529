"""Checks after inference: are the forecasts of a run fit to be published?

1. `read_forecasts` reads what is needed: the rows stored, the rows due, the last published session's sigmas.
2. `check_predictions` judges them, without a database.
3. `validate_predictions` stores the judgement and settles the run's state, in one transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from risk.settings import Settings
from risk.validation.check import Check, store_checks
from risk.validation.outcome import already_published, lock_run, settle

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)

COLUMNS = ("mu", "sigma", "q01", "q025", "q05", "q50", "q95", "es025")
MAX_GAP = 21
"""Sessions, a month: volatility of longer ago says nothing about tonight's."""
_NAMED = 5

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Previous:
    """The last published session before the run's: `gap` sessions ago (None: longer than the snapshot reaches)."""

    session: date
    run_id: int
    gap: int | None
    sigma: Mapping[int, float]


@dataclass(frozen=True, eq=False)
class Forecasts:
    """What the checks need of a run: `outputs` is `(rows, 8)` in the order of `COLUMNS`, in percent."""

    outputs: Float
    instrument_ids: NDArray[np.int64]
    due: frozenset[int]
    symbols: Mapping[int, str]
    previous: Previous | None


def check_predictions(
    outputs: NDArray[Any],
    instrument_ids: NDArray[Any],
    due: Collection[int],
    previous: Previous | None,
    settings: Settings,
    symbols: Mapping[int, str] | None = None,
) -> list[Check]:
    """Judge the forecasts of a whole universe.

    Args:
        outputs: `(rows, 8)` log returns in percent, columns as `COLUMNS`.
        instrument_ids: `(rows,)`.
        due: the instruments that ought to have a row: the universe less the quarantine.
        previous: the last published session's sigmas; None where there is none.
        symbols: by instrument, for the sentences.

    Returns:
        Every check, passed or not. All block, but for single names whose sigma moved far, which is told.
    """
    values, ids = np.asarray(outputs, dtype=np.float64).reshape(-1, len(COLUMNS)), np.asarray(instrument_ids)
    names = _Names(symbols or {})
    finite: Mask = np.all(np.isfinite(values), axis=1)
    column = {name: values[:, at] for at, name in enumerate(COLUMNS)}
    with np.errstate(invalid="ignore"):
        quantiles = values[:, COLUMNS.index("q01") : COLUMNS.index("q95") + 1]
        unordered: Mask = finite & (np.diff(quantiles, axis=1) < 0).any(axis=1)
        wild: Mask = finite & ~((column["sigma"] > 0) & (column["sigma"] <= settings.max_sigma_percent))
        above: Mask = finite & (column["es025"] > column["q025"])
    limit = f"sigma is in (0, {settings.max_sigma_percent:g}] percent (RISK_MAX_SIGMA_PERCENT)"
    usable = finite & (column["sigma"] > 0)
    return [
        _coverage(ids, due, names),
        _rows("finite", ~finite, ids, names, "all eight outputs are finite"),
        _rows("quantiles_ordered", unordered, ids, names, "q01 <= q025 <= q05 <= q50 <= q95"),
        _rows("sigma_bounds", wild, ids, names, limit),
        _rows("es_below_quantile", above, ids, names, "es025 <= q025"),
        *_sigma_changes(ids[usable], column["sigma"][usable], previous, settings.max_sigma_change, names),
    ]


def validate_predictions(connection: psycopg.Connection[Any], run_id: int, settings: Settings) -> list[Check]:
    """Audit a run's forecasts: store every check and make the run `audited` or `refused`.

    This function commits `connection`, also when it raises `CheckError`: a refusal is stored with its sentences.
    Checks of an earlier audit of the forecasts are replaced. A run whose forecasts are published is left alone:
    nothing is written, and the one check returned says so.

    Raises:
        CheckError: a blocking check of the inputs or the forecasts failed; with its sentences.
        RiskError: there is no such run.
    """
    lock_run(connection, run_id)
    done = already_published(connection, run_id, "forecast")
    if done is not None:
        return [done]
    forecasts = read_forecasts(connection, run_id)
    checks = check_predictions(
        forecasts.outputs, forecasts.instrument_ids, forecasts.due, forecasts.previous, settings, forecasts.symbols
    )
    store_checks(connection, run_id, "predictions", checks)
    settle(connection, run_id, "forecast")
    return checks


def read_forecasts(connection: psycopg.Connection[Any], run_id: int) -> Forecasts:
    """The run's rows, the instruments that ought to have one, and the last published session before it."""
    rows = connection.execute(
        f"SELECT p.instrument_id, {', '.join(COLUMNS)} FROM prediction p "
        "JOIN run USING (session_date, run_id) WHERE run_id = %s ORDER BY p.instrument_id",
        (run_id,),
    ).fetchall()
    due = connection.execute(
        "SELECT i.instrument_id, i.symbol, EXISTS (SELECT FROM quarantine q WHERE q.run_id = run.run_id "
        "AND q.instrument_id = i.instrument_id) FROM run JOIN snapshot s USING (snapshot_id) "
        "JOIN instrument i ON i.instrument_id = ANY(s.instruments) WHERE run_id = %s",
        (run_id,),
    ).fetchall()
    table = np.array(rows, dtype=np.float64).reshape(-1, 1 + len(COLUMNS))
    return Forecasts(
        outputs=table[:, 1:],
        instrument_ids=table[:, 0].astype(np.int64),
        due=frozenset(int(instrument) for instrument, _, quarantined in due if not quarantined),
        symbols={int(instrument): str(symbol) for instrument, symbol, _ in due},
        previous=_previous(connection, run_id),
    )


def _previous(connection: psycopg.Connection[Any], run_id: int) -> Previous | None:
    row = connection.execute(
        "SELECT p.session_date, p.run_id, cardinality(s.sessions) - array_position(s.sessions, p.session_date) "
        "FROM run r JOIN snapshot s USING (snapshot_id) JOIN publication_interval p ON p.exchange = r.exchange "
        "AND p.session_date < r.session_date AND p.kind = 'forecast' AND p.valid_to IS NULL "
        "WHERE r.run_id = %s ORDER BY p.session_date DESC LIMIT 1",
        (run_id,),
    ).fetchone()
    if row is None:
        return None
    session, before, gap = row
    sigma = connection.execute(
        "SELECT instrument_id, sigma FROM prediction WHERE session_date = %s AND run_id = %s", (session, before)
    ).fetchall()
    return Previous(session, int(before), gap, {int(instrument): float(value) for instrument, value in sigma})


class _Names:
    """Instruments as people know them, a few and then a count."""

    def __init__(self, symbols: Mapping[int, str]) -> None:
        self.symbols = symbols

    def __call__(self, ids: Sequence[int]) -> str:
        shown = [self.symbols.get(number, f"instrument {number}") for number in ids[:_NAMED]]
        more = len(ids) - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more else "")


def _coverage(ids: NDArray[Any], due: Collection[int], names: _Names) -> Check:
    stored, expected = ids.tolist(), set(due)
    missing, extra = sorted(expected.difference(stored)), sorted(set(stored) - expected)
    twice = len(stored) - len(set(stored))
    if not expected:
        sentence = "No instrument is left to forecast: the whole universe is in quarantine; see the table quarantine."
    elif missing or extra or twice:
        faults = [f"without a forecast or a quarantine row: {names(missing)}"] if missing else []
        faults += [f"with a forecast that was not due: {names(extra)}"] if extra else []
        faults += [f"{twice} rows twice"] if twice else []
        sentence = f"{len(stored)} forecasts of {len(expected)} due; {'; '.join(faults)}; score the run's shards again."
    else:
        sentence = f"All {len(expected)} instruments outside the quarantine have a forecast."
    passed = bool(expected) and not (missing or extra or twice)
    return Check("coverage", float(len(stored)), float(len(expected)), "block", passed, sentence)


def _rows(name: str, bad: Mask, ids: NDArray[Any], names: _Names, rule: str) -> Check:
    """A rule that every row must keep; observed is how many don't."""
    broken = ids[bad].tolist()
    sentence = (
        f"{len(broken)} of {len(ids)} forecasts break the rule that {rule}: {names(broken)}; look at their last bars "
        "and at the run's model."
    )
    if not broken:
        sentence = f"In all {len(ids)} forecasts {rule}."
    return Check(name, float(len(broken)), 0.0, "block", not broken, sentence)


def _sigma_changes(
    ids: NDArray[Any], sigma: Float, previous: Previous | None, allowed: float, names: _Names
) -> list[Check]:
    """The median change of sigma, which blocks, and those of single instruments, which are told."""

    def untold(why: str) -> list[Check]:
        sentence = f"Sigma is not compared with an earlier session's: {why}."
        return [Check("sigma_change", None, allowed, "block", True, sentence)]

    if previous is None:
        return untold("no earlier session is published")
    if previous.gap is None or previous.gap > MAX_GAP:
        return untold(f"the last published one, {previous.session}, is more than {MAX_GAP} sessions ago")
    before = np.array([previous.sigma.get(int(number), np.nan) for number in ids], dtype=np.float64)
    shared = np.isfinite(before) & (before > 0)
    if not shared.any():
        return untold(f"session {previous.session}, run {previous.run_id}, has no instrument in common")
    factors = np.exp(np.abs(np.log(sigma[shared] / before[shared])))
    median = float(np.exp(np.median(np.log(factors))))
    since = f"since session {previous.session} (run {previous.run_id})"
    far = ids[shared][factors > allowed].tolist()
    whole = f"The median sigma moved by {median:.2f} times {since}; {allowed:g} is allowed (RISK_MAX_SIGMA_CHANGE)"
    single = f"{len(far)} of {int(shared.sum())} instruments: {names(far)}; look at their last bars" if far else "none"
    told = f"Instruments whose sigma moved by more than a factor of {allowed:g} {since}: {single}"
    return [
        Check("sigma_change", median, allowed, "block", median <= allowed, f"{whole}."),
        Check("single_sigma_change", float(factors.max()), allowed, "warn", not far, f"{told}."),
    ]
