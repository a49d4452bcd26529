"""The folder of drops: which files count, in which order, and what is told."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from risk.errors import SourceError
from risk.market_data.files import FilesSource
from risk.market_data.source import make_source
from risk.sessions import SessionCalendar
from risk.settings import Settings


def locations(
    source: FilesSource, through: str, calendar: SessionCalendar, loaded: frozenset[str] = frozenset()
) -> list[str]:
    return [b.location for b in source.batches(date.fromisoformat(through), loaded, calendar.is_session)]


def test_drops_come_by_session_and_version_and_none_after_the_session(
    folder: Path, deliver: Callable[..., Path], nyse: SessionCalendar
) -> None:
    for number, (session, version) in enumerate(
        [("2022-11-25", "v10"), ("2022-11-25", ""), ("2022-11-28", ""), ("2022-11-25", "v2"), ("2022-11-23", "")]
    ):
        deliver(session, {"AAA": 1 + number}, version)
    source = FilesSource(folder)
    assert locations(source, "2022-11-25", nyse) == [
        "2022-11-23.csv", "2022-11-25.csv", "2022-11-25.v2.csv", "2022-11-25.v10.csv"
    ]  # fmt: skip
    assert source.first_session == date(2022, 11, 23)
    assert source.last_session is None


def test_a_loaded_content_is_not_delivered_again_but_the_same_prices_of_another_day_are(
    folder: Path, deliver: Callable[..., Path], nyse: SessionCalendar
) -> None:
    deliver("2022-11-25", {"AAA": 1})
    source = FilesSource(folder)
    (first,) = source.batches(date(2022, 11, 28), frozenset(), nyse.is_session)
    deliver("2022-11-28", {"AAA": 1})
    deliver("2022-11-25", {"AAA": 1}, "copy")
    assert locations(source, "2022-11-28", nyse, frozenset({first.content_hash})) == ["2022-11-28.csv"]
    deliver("2022-11-25", {"AAA": 2})
    assert locations(source, "2022-11-25", nyse, frozenset({first.content_hash})) == ["2022-11-25.csv"]


def test_other_files_are_told_once_and_left_alone(
    folder: Path, deliver: Callable[..., Path], nyse: SessionCalendar, caplog: pytest.LogCaptureFixture
) -> None:
    deliver("2022-11-25", {"AAA": 1})
    deliver("2022-11-24", {"AAA": 1})  # Thanksgiving
    for name in ("prices.csv", "2022-13-45.csv", "2022-11-25.csv.part", "2022-11-25.xlsx"):
        (folder / name).write_text("no drop")
    for name in (".hidden.csv", "README.md", "SIMULATED.txt"):
        (folder / name).write_text("a note")
    (folder / "2022-11-23.csv").mkdir()
    with caplog.at_level(logging.WARNING):
        assert locations(FilesSource(folder), "2022-11-25", nyse) == ["2022-11-25.csv"]
    assert [record.getMessage().replace(str(folder), "FOLDER") for record in caplog.records] == [
        "Left 4 files of FOLDER alone (2022-11-25.csv.part, 2022-11-25.xlsx, 2022-13-45.csv, ...): their names are not "
        "YYYY-MM-DD.csv, .csv.gz or .parquet",
        "Left 1 files of FOLDER alone (2022-11-24.csv): their days are no sessions of the exchange",
    ]


def test_a_drop_that_changes_while_it_is_read_is_refused(
    folder: Path, deliver: Callable[..., Path], nyse: SessionCalendar
) -> None:
    deliver("2022-11-25", {"AAA": 1})
    (batch,) = FilesSource(folder).batches(date(2022, 11, 25), frozenset(), nyse.is_session)
    deliver("2022-11-25", {"AAA": 2})
    with pytest.raises(SourceError, match=r"^drop 2022-11-25\.csv changed while it was read; deliver it again whole"):
        batch.read()


def test_a_missing_folder_is_named(tmp_path: Path, nyse: SessionCalendar) -> None:
    source = FilesSource(tmp_path / "nowhere")
    sentence = f"the folder of drops {tmp_path}/nowhere does not exist; create it or correct RISK_FILES_PATH"
    with pytest.raises(SourceError) as raised:
        locations(source, "2022-11-25", nyse)
    assert str(raised.value) == str(source.missing(date(2022, 11, 25))) == sentence
    assert source.first_session is None


def test_a_missing_drop_is_named_with_what_is_expected(folder: Path, deliver: Callable[..., Path]) -> None:
    source = FilesSource(folder)
    expected = "deliver 2022-11-25.csv, 2022-11-25.csv.gz or 2022-11-25.parquet and run the session again"
    error = source.missing(date(2022, 11, 25))
    assert str(error) == f"session 2022-11-25 has no drop in {folder}; there is none before it; {expected}"
    deliver("2022-11-22", {"AAA": 1})
    deliver("2022-11-28", {"AAA": 1})
    error = source.missing(date(2022, 11, 25))
    assert str(error) == (
        f"session 2022-11-25 has no drop in {folder}; the last drop before it is of 2022-11-22; {expected}"
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_settings_choose_the_source(tmp_path: Path) -> None:
    source = make_source(Settings(source="files", files_path=tmp_path, _env_file=None))
    assert (source.name, source.last_session) == ("files", None)
    assert make_source(Settings(source="bundled", _env_file=None)).name == "bundled"
    with pytest.raises(SourceError, match="RISK_SOURCE=files needs RISK_FILES_PATH"):
        make_source(Settings.model_construct(source="files", files_path=None))
