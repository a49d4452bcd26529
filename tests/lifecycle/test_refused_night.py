"""A night on bad data is refused with its sentence, and published once a correction came before the cut-off."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from risk.context import session_calendar
from risk.errors import CheckError, SourceError

BAD_SESSION = date(2022, 12, 21)
GAP = "SELECT kind, state, refusal FROM publication_gap WHERE session_date = '2022-12-21' ORDER BY kind"


def wrong_by_a_hundred(good: dict[str, float]) -> dict[str, float]:
    return {symbol: round(100 * close, 2) for symbol, close in good.items()}


def half_missing(good: dict[str, float]) -> dict[str, float]:
    return dict(list(good.items())[: len(good) // 2])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        pytest.param(
            wrong_by_a_hundred, r"100\.0% of the closes moved by more than 50% on 2022-12-21", id="prices-times-100"
        ),
        pytest.param(
            half_missing, r"4 of 8 instruments \(50\.0%\) have a usable close on 2022-12-21", id="half-missing"
        ),
    ],
)
def test_bad_data_are_refused_and_a_correction_is_published(drops: Any, spoil: Any, sentence: str) -> None:
    job, closed = drops.job, session_calendar().run_after(BAD_SESSION)
    good = drops.good()
    drops.deliver(spoil(good))
    drops.load(closed + timedelta(minutes=1))
    with pytest.raises(CheckError, match=sentence):
        job.night("2022-12-21")
    run, state, refusal = job.one("SELECT run_id, state, refusal FROM run")
    assert state == "refused"
    assert job.all("SELECT sentence FROM audit_check WHERE severity = 'block' AND NOT passed") == [refusal]
    assert job.all(GAP) == [("forecast", "refused", refusal), ("risk", "unfinished", refusal)]
    assert job.one("SELECT count(*) FROM prediction") == 0
    with pytest.raises(CheckError, match=sentence):  # the same data are refused again, by the same run
        job.night("2022-12-21")
    assert job.all("SELECT run_id FROM run") == [run]

    drops.deliver(good, version="v2")
    drops.load(closed + timedelta(hours=2))
    published = job.night("2022-12-21")
    assert published > run
    assert job.all(GAP) == []
    assert job.one("SELECT count(*) FROM prediction_current WHERE run_id = %s", published) == 8
    assert job.one("SELECT state FROM run WHERE run_id = %s", run) == "refused"


def test_a_correction_after_the_cutoff_changes_nothing(drops: Any) -> None:
    cutoff = session_calendar().cutoff(BAD_SESSION)
    good = drops.good()
    drops.deliver(half_missing(good))
    drops.load(cutoff - timedelta(hours=1))
    drops.deliver({name: 1.05 * close for name, close in half_missing(good).items()}, version="v2")
    drops.load(cutoff + timedelta(seconds=1))
    with pytest.raises(CheckError, match="4 of 8 instruments"):
        drops.job.night("2022-12-21")
    assert drops.job.one("SELECT count(*) FROM snapshot") == 1


def test_a_session_without_a_drop_is_refused_with_a_sentence(drops: Any) -> None:
    with pytest.raises(SourceError, match="2022-12-21"):
        drops.job.night("2022-12-21")
    assert drops.job.all("SELECT run_id FROM run") == []
