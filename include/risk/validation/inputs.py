"""The checks before inference: is tonight's panel fit to be scored, and which instruments are not.

1. `_shape` checks the panel itself: schema, duplicates, an empty universe. Where one fails nothing else is asked.
2. `_tonight` checks the session's closes: coverage, unusable prices, jumps, a feed that repeats itself.
3. `_history` checks the window: sessions without a drop, stale names, names that came or left.
4. `_quarantine` names the instruments that can't be scored, each with one reason.
5. `validate_inputs` does so for a run: it stores checks and quarantine, and refuses the run where a check blocks.

A check that blocks ends the run; an instrument that lacks data goes to quarantine and the others go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from risk.market_data.panel import Panel, read_panel
from risk.runs import read_run
from risk.settings import Settings
from risk.validation.check import Check, Quarantined, Severity, blocking_failures, store_checks, store_quarantine
from risk.validation.outcome import already_published, lock_run, settle

if TYPE_CHECKING:
    import psycopg

LOOKBACK = 256
"""Returns in a model's window."""
MIN_RETURNS = 250
"""Returns of the window that must exist."""
STALE_SESSIONS = 10
"""A close that has not moved for so many sessions is told."""
FEW_NAMES = 5
"""Fewer closes than these may all be equal by chance, and don't block."""
REASONS = ("missing_price", "conflicting_bars", "unusable_price", "insufficient_history")
"""Why an instrument is quarantined before inference."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class InputVerdict:
    """The checks of a panel, and the instruments that are not to be scored."""

    checks: tuple[Check, ...]
    quarantine: tuple[Quarantined, ...]


def check_inputs(
    panel: Panel,
    *,
    settings: Settings,
    previous_symbols: Sequence[str] | None = None,
    conflicts: Sequence[str] = (),
) -> InputVerdict:
    """Check the whole panel of a snapshot.

    Args:
        panel: every instrument of the snapshot, over at least the last `LOOKBACK` + 1 sessions where it has them.
        settings: coverage and jump limits.
        previous_symbols: the universe of the last published session; None where there is none.
        conflicts: symbols that tonight's drop gave twice with different values, and that no later drop corrected.
    """
    shape = _shape(panel)
    if not all(check.passed for check in shape):
        return InputVerdict(tuple(shape), ())
    usable: Mask = np.isfinite(panel.closes) & (panel.closes > 0)
    quarantine = _quarantine(panel, usable, set(conflicts))
    checks = [
        *shape,
        *_tonight(panel, usable, settings),
        _conflicts(panel, conflicts),
        *_history(panel, usable, previous_symbols),
        *_scorable(panel, quarantine),
    ]
    return InputVerdict(tuple(checks), tuple(quarantine))


def validate_inputs(connection: psycopg.Connection[Any], run_id: int, settings: Settings) -> list[Check]:
    """Audit the snapshot of a run: store every check and the quarantine, in place of those stored before.

    This function commits `connection`, also when it raises: a refusal is stored with its sentences. A run whose
    forecasts are published is left alone: nothing is written, and the one check returned says so.

    Raises:
        CheckError: a blocking check failed; the run is `refused`.
        RiskError: there is no such run.
    """
    lock_run(connection, run_id)
    done = already_published(connection, run_id, "forecast")
    if done is not None:
        return [done]
    panel = read_panel(connection, read_run(connection, run_id).snapshot_id, sessions=2 * LOOKBACK)
    verdict = check_inputs(
        panel,
        settings=settings,
        previous_symbols=_previous_symbols(connection, run_id),
        conflicts=_conflicting_symbols(connection, run_id),
    )
    store_checks(connection, run_id, "inputs", verdict.checks)
    connection.execute("DELETE FROM quarantine WHERE run_id = %s AND reason = ANY(%s)", (run_id, list(REASONS)))
    store_quarantine(connection, run_id, verdict.quarantine)
    if blocking_failures(verdict.checks):
        settle(connection, run_id, "forecast")
    connection.commit()
    return list(verdict.checks)


def _previous_symbols(connection: psycopg.Connection[Any], run_id: int) -> list[str] | None:
    """The universe of the last session before the run's with published forecasts from the same source."""
    before = connection.execute(
        "SELECT s.instruments FROM run r JOIN snapshot mine ON mine.snapshot_id = r.snapshot_id "
        "JOIN publication p ON p.kind = 'forecast' AND p.exchange = r.exchange AND p.session_date < r.session_date "
        "JOIN run o ON o.run_id = p.run_id JOIN snapshot s ON s.snapshot_id = o.snapshot_id AND s.source = mine.source "
        "WHERE r.run_id = %s ORDER BY p.session_date DESC, p.revision DESC LIMIT 1",
        (run_id,),
    ).fetchone()
    if before is None:
        return None
    rows = connection.execute("SELECT symbol FROM instrument WHERE instrument_id = ANY(%s::int[])", (before[0],))
    return [row[0] for row in rows]


def _conflicting_symbols(connection: psycopg.Connection[Any], run_id: int) -> list[str]:
    """Symbols whose bar of the session, as the run's snapshot read it, has no close because its drop gave two."""
    rows = connection.execute(
        "SELECT DISTINCT i.symbol FROM run r JOIN snapshot s USING (snapshot_id) "
        "JOIN ingest_batch b ON b.source = s.source AND r.session_date BETWEEN b.first_session AND b.last_session "
        "JOIN instrument i ON i.source = s.source AND i.symbol = ANY(b.conflicts) "
        "JOIN LATERAL (SELECT m.batch_id, m.close FROM market_bar m JOIN ingest_batch o USING (batch_id) "
        "    WHERE m.session_date = r.session_date AND m.instrument_id = i.instrument_id AND m.known_at <= s.cutoff "
        "    AND o.loaded_at <= s.last_loaded_at ORDER BY m.known_at DESC LIMIT 1) newest USING (batch_id) "
        "WHERE r.run_id = %s AND coalesce(newest.close, 'NaN') = 'NaN' ORDER BY i.symbol",
        (run_id,),
    )
    return [row[0] for row in rows]


def _shape(panel: Panel) -> list[Check]:
    names, days = len(panel.symbols), len(panel.sessions)
    expected = {
        "closes": (panel.closes.shape, (names, days)),
        "instrument_ids": (panel.instrument_ids.shape, (names,)),
        "market_return": (panel.market_return.shape, (days,)),
        "market_rms": (panel.market_rms.shape, (days,)),
    }
    wrong = [f"{name} of shape {seen} and not {right}" for name, (seen, right) in expected.items() if seen != right]
    if panel.closes.dtype != np.float64:
        wrong.append(f"closes of type {panel.closes.dtype} and not float64")
    if not (np.isfinite(panel.market_return).all() and np.isfinite(panel.market_rms).all()):
        wrong.append("universe fields that are not finite")
    if any(later <= earlier for earlier, later in zip(panel.sessions, panel.sessions[1:], strict=False)):
        wrong.append("sessions out of order")
    schema = _check(
        "schema", len(wrong), 0, "block", not wrong,
        f"The panel has {names} instruments and {days} sessions in the expected form",
        f"The panel has {'; '.join(wrong)}; take the snapshot again",
    )  # fmt: skip
    twice = _repeated(panel.symbols) + _repeated([str(number) for number in panel.instrument_ids])
    duplicates = _check(
        "duplicates", len(twice), 0, "block", not twice,
        "Every instrument is there once",
        f"{_some(twice)} more than once in the panel; one row an instrument is allowed; take the snapshot again",
    )  # fmt: skip
    universe = _check(
        "universe", names, 1, "block", names > 0 and days > 0,
        f"The universe has {names} instruments",
        "The universe is empty: no instrument has a bar in the last sessions; load market data for this session",
    )  # fmt: skip
    return [schema, duplicates, universe]


def _tonight(panel: Panel, usable: Mask, settings: Settings) -> list[Check]:
    names, session = len(panel.symbols), panel.sessions[-1]
    tonight = panel.closes[:, -1]
    before = panel.closes[:, -2] if len(panel.sessions) > 1 else np.full(names, np.nan)
    priced = usable[:, -1]
    covered = int(priced.sum())
    seen = f"{covered} of {names} instruments ({covered / names:.1%}) have a usable close on {session}"
    coverage = _check(
        "coverage", covered / names, settings.min_coverage, "block", covered / names >= settings.min_coverage,
        seen,
        f"{seen}; at least {settings.min_coverage:.1%} is asked (RISK_MIN_COVERAGE); deliver the rest of the "
        "session's bars",
    )  # fmt: skip
    bad = ~priced & ~np.isnan(tonight)
    prices = _check(
        "prices", int(bad.sum()), 0, "warn", not bad.any(),
        f"No close of {session} is zero, negative or infinite",
        f"{_some(_named(panel, bad))} closed on {session} at zero, below zero or at infinity; a price is positive; "
        "they are quarantined: deliver a correction",
    )  # fmt: skip
    both = priced & np.isfinite(before) & (before > 0)
    moves = np.zeros(names)
    moves[both] = 100.0 * np.abs(np.log(tonight[both] / before[both]))
    return [coverage, prices, *_jumps(panel, moves, both, settings), _all_stale(panel, moves, both, tonight == before)]


def _jumps(panel: Panel, moves: NDArray[np.float64], both: Mask, settings: Settings) -> list[Check]:
    limit, session = settings.max_jump_percent, panel.sessions[-1]
    jumped = moves > limit
    count, share = int(jumped.sum()), jumped.sum() / max(int(both.sum()), 1)
    told = _check(
        "jumps", count, 0, "warn", count == 0,
        f"No close moved by more than {limit:g}% (log return) on {session}",
        f"{_some(_named(panel, jumped))} moved by more than {limit:g}% (log return) on {session} "
        "(RISK_MAX_JUMP_PERCENT); look for a split that is not adjusted, and deliver a correction where it is one",
    )  # fmt: skip
    seen = f"{share:.1%} of the closes moved by more than {limit:g}% on {session}"
    refused = _check(
        "jump_share", float(share), settings.max_jump_share, "block", share <= settings.max_jump_share,
        seen,
        f"{seen}; at most {settings.max_jump_share:.1%} is allowed (RISK_MAX_JUMP_SHARE); the drop may be in another "
        "unit, such as cents: deliver it corrected",
    )  # fmt: skip
    return [told, refused]


def _all_stale(panel: Panel, moves: NDArray[np.float64], both: Mask, equal: Mask) -> Check:
    compared, same, session = int(both.sum()), int((both & equal).sum()), panel.sessions[-1]
    severity: Severity = "block" if compared >= FEW_NAMES else "warn"
    seen = f"{same} of {compared} closes of {session} equal those of the session before"
    return _check(
        "all_stale", same / max(compared, 1), 1.0, severity, compared == 0 or same < compared,
        seen,
        f"{seen}; not all of them can: the feed repeated the last session; deliver the session's own drop",
    )  # fmt: skip


def _conflicts(panel: Panel, conflicts: Sequence[str]) -> Check:
    return _check(
        "conflicting_bars", len(conflicts), 0, "warn", not conflicts,
        f"No instrument came twice with different values in the drop of {panel.sessions[-1]}",
        f"{_some(conflicts)} came twice with different values in the drop of {panel.sessions[-1]}; one row a symbol is "
        "allowed; they have no price until a correction is delivered",
    )  # fmt: skip


def _history(panel: Panel, usable: Mask, previous_symbols: Sequence[str] | None) -> list[Check]:
    window = usable[:, -(LOOKBACK + 1) :]
    traded: Mask = np.any(window, axis=0)
    days = panel.sessions[-window.shape[1] :]
    holes = [day for day, column in zip(days, traded.tolist(), strict=True) if not column]
    missing = _check(
        "missing_sessions", len(holes), 0, "warn", not holes,
        f"Each of the last {len(days)} sessions has closes",
        f"{len(holes)} of the last {len(days)} sessions have no close at all, the first {holes[0] if holes else ''}; "
        "deliver their drops: each costs every instrument two returns",
    )  # fmt: skip
    recent = panel.closes[:, -(STALE_SESSIONS + 1) :]
    stale = (recent == recent[:, -1:]).all(axis=1) & (recent.shape[1] > STALE_SESSIONS)
    stale_names = _check(
        "stale_names", int(stale.sum()), 0, "warn", not stale.any(),
        f"Every close moved in the last {STALE_SESSIONS} sessions",
        f"{_some(_named(panel, stale))} did not move for {STALE_SESSIONS} sessions; a listed name does as a rule: ask "
        "whether it still trades",
    )  # fmt: skip
    unreturned = usable[:, -1] & ~usable[:, -2:].all(axis=1)
    returns = _check(
        "returns", int(unreturned.sum()), 0, "warn", not unreturned.any(),
        f"Every close of {panel.sessions[-1]} has one the session before",
        f"{_some(_named(panel, unreturned))} has no close the session before {panel.sessions[-1]}, so no return "
        "tonight; it is scored without it: deliver the missing bars",
    )  # fmt: skip
    return [missing, stale_names, returns, _universe_change(panel, previous_symbols)]


def _universe_change(panel: Panel, previous_symbols: Sequence[str] | None) -> Check:
    now, before = set(panel.symbols), set(panel.symbols if previous_symbols is None else previous_symbols)
    left, joined = sorted(before - now), sorted(now - before)
    told = [f"{verb} {_some(names)}" for verb, names in (("without", left), ("new", joined)) if names]
    return _check(
        "universe_change", len(left) + len(joined), 0, "warn", not told,
        f"The universe has {len(now)} instruments, "
        + ("the first of its kind" if previous_symbols is None else "those of the last published session"),
        f"The universe differs from the last published session's: {'; '.join(told)}; see that this is meant",
    )  # fmt: skip


def _scorable(panel: Panel, quarantine: Sequence[Quarantined]) -> list[Check]:
    names, young = len(panel.symbols), sum(one.reason == "insufficient_history" for one in quarantine)
    left = names - len({one.instrument_id for one in quarantine})
    history = _check(
        "history", young, 0, "warn", young == 0,
        f"Every priced instrument has at least {MIN_RETURNS} of the last {LOOKBACK} returns",
        f"{young} of {names} instruments lack history: at least {MIN_RETURNS} of the last {LOOKBACK} returns and a "
        "close before them are asked; they are quarantined: deliver older drops, or wait",
    )  # fmt: skip
    seen = f"{left} of {names} instruments can be scored"
    scorable = _check(
        "scorable", left, 1, "block", left > 0,
        seen,
        f"{seen}; at least one must be: see their reasons in the table quarantine, and deliver the missing bars",
    )  # fmt: skip
    return [history, scorable]


def _quarantine(panel: Panel, usable: Mask, conflicts: set[str]) -> list[Quarantined]:
    session = panel.sessions[-1]
    window = usable[:, -(LOOKBACK + 1) :]
    returns = (window[:, 1:] & window[:, :-1]).sum(axis=1)
    older: Mask = np.any(usable[:, : max(usable.shape[1] - LOOKBACK, 0)], axis=1)
    unfit = ~usable[:, -1] | (returns < MIN_RETURNS) | ~older
    quarantined = []
    for at in np.flatnonzero(unfit).tolist():
        symbol, close = panel.symbols[at], panel.closes[at, -1]
        if symbol in conflicts and np.isnan(close):
            reason = "conflicting_bars"
            sentence = f"{symbol} came twice with different values in the drop of {session}; deliver a correction"
        elif np.isnan(close):
            reason = "missing_price"
            sentence = f"{symbol} has no close on {session}: none was delivered; deliver its bar"
        elif not usable[at, -1]:
            reason = "unusable_price"
            sentence = f"{symbol} closed at {close:g} on {session}; a price is positive; deliver a correction"
        else:
            reason = "insufficient_history"
            since = "and none before them" if not older[at] else "and closes before them"
            sentence = (
                f"{symbol} has {returns[at]} of the last {LOOKBACK} returns up to {session} {since}; at least "
                f"{MIN_RETURNS} and a close before them are asked; deliver older bars, or wait"
            )
        quarantined.append(Quarantined(int(panel.instrument_ids[at]), reason, sentence))
    return quarantined


def _check(
    name: str, observed: float, threshold: float, severity: Severity, passed: bool, fact: str, trouble: str
) -> Check:
    """A check whose sentence is `fact` where it passed and `trouble` where it failed."""
    sentence = fact if passed else trouble
    return Check(name, float(observed), float(threshold), severity, bool(passed), f"{sentence}.")


def _named(panel: Panel, which: Mask) -> list[str]:
    return [panel.symbols[at] for at in np.flatnonzero(which)]


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
