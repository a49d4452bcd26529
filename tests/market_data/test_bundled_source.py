"""The bundled source: its two facts, and that its bars are the wheel's."""

from __future__ import annotations

import subprocess
import sys
from datetime import date

import numpy as np
import pytest

from risk.errors import SourceError
from risk.market_data.bars import VALUES
from risk.market_data.bundled import BundledSource
from risk.market_data.bundled_closes import read_bundled_closes
from risk.sessions import SessionCalendar


def test_its_bounds_are_those_of_the_data(nyse: SessionCalendar) -> None:
    source = BundledSource()
    days = [day.date() for day in read_bundled_closes().index]
    assert (source.first_session, source.last_session) == (days[0], days[-1])
    assert days == nyse.sessions(days[0], days[-1])


def test_its_bounds_are_known_without_reading_anything(environment: dict[str, str]) -> None:
    code = (
        "import sys; from risk.market_data.source import make_source; from risk.settings import Settings\n"
        "source = make_source(Settings(_env_file=None)); print(source.first_session, source.last_session)\n"
        "print(sorted({'pandas', 'pyarrow', 'skfolio', 'psycopg'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == ["1990-01-02 2022-12-28", "[]"]


def test_it_is_one_batch_bought_in_bulk_with_the_closes_of_the_wheel(nyse: SessionCalendar) -> None:
    (batch,) = BundledSource().batches(date(2010, 1, 4), frozenset(), nyse.is_session)
    assert batch.history
    bars, closes = batch.read(), read_bundled_closes()
    at = VALUES.index("close")
    np.testing.assert_array_equal(bars.values[:, at].reshape(closes.shape), closes.to_numpy())
    assert np.isnan(np.delete(bars.values, at, axis=1)).all()
    assert bars.symbols[:20].tolist() == bars.symbols[-20:].tolist() == list(closes.columns)
    np.testing.assert_array_equal(bars.session_dates[::20], closes.index.to_numpy("datetime64[D]"))


def test_it_delivers_nothing_twice_and_nothing_before_its_start(nyse: SessionCalendar) -> None:
    source = BundledSource()
    (batch,) = source.batches(date(2010, 1, 4), frozenset(), nyse.is_session)
    assert source.batches(date(2010, 1, 4), {batch.content_hash}, nyse.is_session) == []
    assert source.batches(date(1989, 12, 29), frozenset(), nyse.is_session) == []


def test_outside_of_it_and_without_the_wheel_a_sentence(nyse: SessionCalendar, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(BundledSource().missing(date(2023, 1, 3))) == (
        "session 2023-01-03 is outside the bundled history of 1990-01-02 to 2022-12-28; choose a session inside it, or "
        "set RISK_SOURCE=files for data of your own"
    )
    monkeypatch.setattr("risk.market_data.bundled_closes.find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"skfolio, which is not installed .* set RISK_SOURCE=files"):
        BundledSource().batches(date(2010, 1, 4), frozenset(), nyse.is_session)
