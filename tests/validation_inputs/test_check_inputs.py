"""Each check before inference, passing on a good panel and failing on planted trouble, with its sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from risk.market_data.panel import Panel
from risk.settings import Settings
from risk.validation.check import Check, blocking_failures
from risk.validation.inputs import InputVerdict, check_inputs

Planted = Callable[..., Panel]
Plant = Callable[[Any], None]

DAY = "2022-12-28"
ALL = (
    "schema", "duplicates", "universe", "coverage", "prices", "jumps", "jump_share", "all_stale", "conflicting_bars",
    "missing_sessions", "stale_names", "returns", "universe_change", "history", "scorable",
)  # fmt: skip


def failed(verdict: InputVerdict) -> dict[str, Check]:
    return {check.name: check for check in verdict.checks if not check.passed}


def put(row: int | slice | Sequence[int], column: int | slice, value: float) -> Plant:
    def plant(closes: Any) -> None:
        closes[row, column] = value

    return plant


def times(row: int | slice, factor: float) -> Plant:
    def plant(closes: Any) -> None:
        closes[row, -1] *= factor

    return plant


def repeat_last(rows: slice, sessions: int = 1) -> Plant:
    def plant(closes: Any) -> None:
        closes[rows, -sessions:] = closes[rows, -sessions - 1][:, None]

    return plant


def test_a_good_panel_passes_every_check(panel: Panel, settings: Settings) -> None:
    verdict = check_inputs(panel, settings=settings, previous_symbols=panel.symbols)
    assert tuple(check.name for check in verdict.checks) == ALL
    assert failed(verdict) == {}
    assert verdict.quarantine == ()
    assert all(check.sentence.endswith(".") for check in verdict.checks)


TROUBLES = [
    pytest.param(
        put([0, 1], -1, math.nan), "returns", None, None, "", id="two missing closes leave coverage at its limit"
    ),
    pytest.param(
        put([0, 1, 2], -1, math.nan), "coverage", 0.85, "block",
        f"17 of 20 instruments (85.0%) have a usable close on {DAY}; at least 90.0% is asked (RISK_MIN_COVERAGE); "
        "deliver "
        "the rest of the session's bars.",
        id="coverage",
    ),
    pytest.param(
        put([3, 5], -1, 0.0), "prices", 2, "warn",
        f"N03, N05 closed on {DAY} at zero, below zero or at infinity; a price is positive; they are quarantined: "
        "deliver "
        "a correction.",
        id="prices",
    ),
    pytest.param(
        times(4, 0.5), "jumps", 1, "warn",
        f"N04 moved by more than 50% (log return) on {DAY} (RISK_MAX_JUMP_PERCENT); look for a split that is not "
        "adjusted, and deliver a correction where it is one.",
        id="a split",
    ),
    pytest.param(
        times(slice(None), 100.0), "jumps", 20, "warn",
        f"N00, N01, N02, N03, N04 and 15 more moved by more than 50% (log return) on {DAY} (RISK_MAX_JUMP_PERCENT); "
        "look "
        "for a split that is not adjusted, and deliver a correction where it is one.",
        id="cents are told",
    ),
    pytest.param(
        times(slice(0, 3), 100.0), "jump_share", 0.15, "block",
        f"15.0% of the closes moved by more than 50% on {DAY}; at most 10.0% is allowed (RISK_MAX_JUMP_SHARE); the "
        "drop "
        "may be in another unit, such as cents: deliver it corrected.",
        id="cents are refused",
    ),
    pytest.param(
        times(slice(0, 2), 100.0), "jump_share", None, None, "", id="a tenth of jumps is still allowed"
    ),
    pytest.param(
        repeat_last(slice(None)), "all_stale", 1.0, "block",
        f"20 of 20 closes of {DAY} equal those of the session before; not all of them can: the feed repeated the last "
        "session; deliver the session's own drop.",
        id="the feed repeated itself",
    ),
    pytest.param(repeat_last(slice(0, 19)), "all_stale", None, None, "", id="one moved"),
    pytest.param(
        put(slice(None), -40, math.nan), "missing_sessions", 1, "warn",
        "1 of the last 257 sessions have no close at all, the first 2022-11-19; deliver their drops: each costs every "
        "instrument two returns.",
        id="a hole in the feed",
    ),
    pytest.param(put(slice(None), -258, math.nan), "missing_sessions", None, None, "", id="an old hole"),
    pytest.param(
        repeat_last(slice(16, 17), 10), "stale_names", 1, "warn",
        "N16 did not move for 10 sessions; a listed name does as a rule: ask whether it still trades.",
        id="a stale name",
    ),
    pytest.param(repeat_last(slice(16, 17), 9), "stale_names", None, None, "", id="nine sessions are not stale"),
    pytest.param(
        put(6, -2, math.nan), "returns", 1, "warn",
        f"N06 has no close the session before {DAY}, so no return tonight; it is scored without it: deliver the "
        "missing "
        "bars.",
        id="no return tonight",
    ),
    pytest.param(
        put(7, slice(None, -200), math.nan), "history", 1, "warn",
        "1 of 20 instruments lack history: at least 250 of the last 256 returns and a close before them are asked; "
        "they "
        "are quarantined: deliver older drops, or wait.",
        id="a young name",
    ),
    pytest.param(
        put(slice(None), slice(None, -200), math.nan), "scorable", 0, "block",
        "0 of 20 instruments can be scored; at least one must be: see their reasons in the table quarantine, and "
        "deliver "
        "the missing bars.",
        id="a young source",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("plant", "name", "observed", "severity", "sentence"), TROUBLES)
def test_planted_trouble(
    planted: Planted,
    settings: Settings,
    plant: Plant,
    name: str,
    observed: float | None,
    severity: str | None,
    sentence: str,
) -> None:
    checks = failed(check_inputs(planted(plant), settings=settings))
    if observed is None:
        assert name not in checks
        return
    assert (checks[name].observed, checks[name].severity) == (pytest.approx(observed), severity)
    assert checks[name].sentence == sentence


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"closes": np.ones((19, 300))},
            "The panel has closes of shape (19, 300) and not (20, 300); take the snapshot again.",
        ),
        (
            {"closes": np.ones((20, 300), np.float32)},
            "The panel has closes of type float32 and not float64; take the snapshot again.",
        ),
        (
            {"market_rms": np.full(300, np.nan)},
            "The panel has universe fields that are not finite; take the snapshot again.",
        ),
    ],
)  # fmt: skip
def test_a_malformed_panel_is_refused_and_nothing_else_is_asked(
    planted: Planted, settings: Settings, fields: dict[str, object], sentence: str
) -> None:
    verdict = check_inputs(planted(**fields), settings=settings)
    assert [check.name for check in verdict.checks] == ["schema", "duplicates", "universe"]
    assert [check.sentence for check in blocking_failures(verdict.checks)] == [sentence]


def test_sessions_out_of_order_are_refused(panel: Panel, planted: Planted, settings: Settings) -> None:
    verdict = check_inputs(planted(sessions=panel.sessions[::-1]), settings=settings)
    assert failed(verdict)["schema"].sentence == "The panel has sessions out of order; take the snapshot again."


def test_an_instrument_that_is_there_twice_is_refused(panel: Panel, planted: Planted, settings: Settings) -> None:
    verdict = check_inputs(planted(symbols=("N01", *panel.symbols[1:])), settings=settings)
    (check,) = blocking_failures(verdict.checks)
    assert (check.name, check.observed) == ("duplicates", 1)
    assert check.sentence == (
        "N01 more than once in the panel; one row an instrument is allowed; take the snapshot again."
    )


def test_an_empty_universe_is_refused(panel: Panel, settings: Settings) -> None:
    empty = Panel(np.zeros(0, np.int32), (), panel.sessions[-1:], np.zeros((0, 1)), np.zeros(1), np.zeros(1))
    (check,) = blocking_failures(check_inputs(empty, settings=settings).checks)
    assert check.sentence == (
        "The universe is empty: no instrument has a bar in the last sessions; load market data for this session."
    )


def test_a_first_session_alone_is_refused_for_its_history_only(panel: Panel, settings: Settings) -> None:
    one = Panel(
        panel.instrument_ids, panel.symbols, panel.sessions[-1:], panel.closes[:, -1:], np.zeros(1), np.zeros(1)
    )
    verdict = check_inputs(one, settings=settings)
    assert [check.name for check in blocking_failures(verdict.checks)] == ["scorable"]
    assert {held.reason for held in verdict.quarantine} == {"insufficient_history"}


def test_few_names_may_repeat_by_chance(panel: Panel, settings: Settings) -> None:
    closes = panel.closes[:4].copy()
    closes[:, -1] = closes[:, -2]
    few = Panel(
        panel.instrument_ids[:4], panel.symbols[:4], panel.sessions, closes, panel.market_return, panel.market_rms
    )
    check = failed(check_inputs(few, settings=settings))["all_stale"]
    assert (check.severity, check.observed) == ("warn", 1.0)


def test_the_universe_is_compared_with_the_last_published_one(panel: Panel, settings: Settings) -> None:
    verdict = check_inputs(panel, settings=settings, previous_symbols=["OLD", *panel.symbols[1:]])
    assert failed(verdict)["universe_change"].sentence == (
        "The universe differs from the last published session's: without OLD; new N00; see that this is meant."
    )


def test_conflicting_bars_are_told_and_quarantined(planted: Planted, settings: Settings) -> None:
    verdict = check_inputs(planted(put(2, -1, math.nan)), settings=settings, conflicts=["N02"])
    assert failed(verdict)["conflicting_bars"].sentence == (
        f"N02 came twice with different values in the drop of {DAY}; one row a symbol is allowed; they have no price "
        "until a correction is delivered."
    )
    (held,) = verdict.quarantine
    assert (held.instrument_id, held.reason) == (103, "conflicting_bars")
    assert held.sentence == f"N02 came twice with different values in the drop of {DAY}; deliver a correction"


@pytest.mark.parametrize(
    ("plant", "reason", "sentence"),
    [
        (
            put(8, -1, math.nan), "missing_price",
            f"N08 has no close on {DAY}: none was delivered; deliver its bar",
        ),
        (
            put(8, -1, -2.5), "unusable_price",
            f"N08 closed at -2.5 on {DAY}; a price is positive; deliver a correction",
        ),
        (
            put(8, -1, math.inf), "unusable_price",
            f"N08 closed at inf on {DAY}; a price is positive; deliver a correction",
        ),
        (
            put(8, slice(None, -256), math.nan), "insufficient_history",
            f"N08 has 255 of the last 256 returns up to {DAY} and none before them; at least 250 and a close before "
            "them "
            "are asked; deliver older bars, or wait",
        ),
        (
            put(8, slice(-50, -44), math.nan), "insufficient_history",
            f"N08 has 249 of the last 256 returns up to {DAY} and closes before them; at least 250 and a close before "
            "them are asked; deliver older bars, or wait",
        ),
    ],
)  # fmt: skip
def test_an_instrument_that_lacks_data_is_quarantined_and_the_others_go_on(
    planted: Planted, settings: Settings, plant: Plant, reason: str, sentence: str
) -> None:
    verdict = check_inputs(planted(plant), settings=settings)
    assert [(held.instrument_id, held.reason, held.sentence) for held in verdict.quarantine] == [
        (109, reason, sentence)
    ]
    assert blocking_failures(verdict.checks) == []


@pytest.mark.parametrize(
    "plant",
    [
        put(8, slice(None, -257), math.nan),  # listed one session before the window
        put(8, slice(-50, -45), math.nan),  # 250 returns left
        repeat_last(slice(8, 9), 68),  # stale: told, not refused
    ],
)
def test_what_is_just_enough_is_scored(planted: Planted, settings: Settings, plant: Plant) -> None:
    verdict = check_inputs(planted(plant), settings=settings)
    assert verdict.quarantine == ()
    assert blocking_failures(verdict.checks) == []
