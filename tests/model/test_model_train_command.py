"""The command behind `make train`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from risk.model.train import main, train_years
from risk.model.training import TrainingData, TrainingSettings
from risk.model.vintages import list_vintages, vintage_for


def test_it_remakes_a_shipped_vintage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--years", "2000", "--out", str(tmp_path)]) == 0
    shipped, remade = list_vintages()[0], list_vintages(tmp_path)[0]
    assert remade.trained_through == shipped.trained_through
    assert remade.card["closes_sha256"] == shipped.card["closes_sha256"]
    assert remade.card["training_rows"] == shipped.card["training_rows"] == 45_440
    # equal to the bit on one machine; another processor may round differently
    assert remade.card["scores"]["model"]["nll"] == pytest.approx(shipped.card["scores"]["model"]["nll"], abs=2e-3)
    text = capsys.readouterr().out
    assert "1/1  vintage 2000   45,440 rows through 1999-12-31" in text
    assert "k rows/s  0 s left" in text
    assert "pooled over 5,040 forecasts" in text


def test_a_year_without_returns_is_trained_and_not_scored(
    tmp_path: Path, walks: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    data = TrainingData(walks, TrainingSettings(epochs=1, batch_size=256, least_rows=500))
    train_years(data, [2001], tmp_path)
    assert list_vintages(tmp_path)[0].card["scores"] is None
    assert vintage_for(pd.Timestamp("2001-03-01").date(), tmp_path).name == "2001"
    text = capsys.readouterr().out
    assert "no return in its year to score" in text
    assert "pooled" not in text


def test_too_early_a_year_ends_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--years", "1990", "--out", str(tmp_path)]) == 2
    assert "error: vintage 1990 has 0 training rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("years", "sentence"), [("soon", "'soon' is no year"), ("2005-2003", "'2005-2003' ends before it begins")]
)
def test_years_are_checked(years: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--years", years])
    assert sentence in capsys.readouterr().err
