"""The shipped vintages, and a folder of one's own."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from risk.model.errors import ModelError, NoVintageError, VintageFolderError, WeightsChangedError
from risk.model.network import LOOKBACK
from risk.model.training import TrainingData, TrainingSettings, train_vintage
from risk.model.vintages import (
    MANIFEST,
    SHIPPED,
    architecture_key,
    list_vintages,
    load_vintage,
    save_vintage,
    vintage_for,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped vintages that a test may spoil."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "vintages"))


@pytest.mark.parametrize(
    ("session", "name"),
    [
        ("2000-01-03", "2000"),  # the first session of 2000
        ("2000-12-29", "2000"),
        ("2001-01-02", "2001"),
        ("2021-12-31", "2021"),
        ("2022-01-03", "2022"),
        ("2022-12-28", "2022"),
        ("2024-06-03", "2022"),  # the last one goes on serving
    ],
)
def test_the_vintage_in_force(session: str, name: str) -> None:
    vintage = vintage_for(date.fromisoformat(session))
    assert vintage.name == name
    assert vintage.trained_through < date.fromisoformat(session)


def test_before_the_first_vintage_the_session_is_refused() -> None:
    with pytest.raises(NoVintageError, match=r"may serve session 1999-12-31: .* sessions from 2000-01-01 on; choose"):
        vintage_for(date(1999, 12, 31))


def test_a_vintage_does_not_serve_a_session_that_it_was_trained_on(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["vintages"][-1]["trained_through"] = "2022-06-30"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert vintage_for(date(2022, 6, 30), folder).name == "2021"
    assert vintage_for(date(2022, 7, 1), folder).name == "2022"


def test_there_is_a_vintage_for_every_year_and_it_ends_before_it() -> None:
    vintages = list_vintages()
    assert [vintage.name for vintage in vintages] == [str(year) for year in range(2000, 2023)]
    for vintage in vintages:
        assert vintage.effective_from == date(int(vintage.name), 1, 1)
        assert vintage.trained_through < vintage.effective_from
        assert hashlib.sha256(vintage.path.read_bytes()).hexdigest() == vintage.weights_sha256
        assert vintage.architecture == architecture_key()
        assert vintage.basis == "assumed"
        assert vintage.card["seeds"]
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 2_000_000


def test_pooled_over_all_years_they_beat_ewma(closes: pd.DataFrame, panel: torch.Tensor) -> None:
    returns = 100 * np.log(closes / closes.shift(1))
    ewma = np.sqrt((returns**2).ewm(halflife=11.2, adjust=True, ignore_na=True).mean())
    nll, baseline = [], []
    for vintage in list_vintages():
        network = load_vintage(vintage)
        sessions = np.flatnonzero(closes.index.year == int(vintage.name))[:-1:6]  # every sixth, to be quick
        windows = torch.stack([panel[:, end - LOOKBACK + 1 : end + 1] for end in sessions]).flatten(0, 1)
        log_sigma, nu = (part.double().numpy() for part in network.parameters_of(windows))
        tomorrow = returns.to_numpy()[sessions + 1].reshape(-1)
        scale = np.exp(log_sigma) * np.sqrt((nu - 2) / nu)
        nll.append(-stats.t.logpdf(tomorrow, nu, loc=float(network.location), scale=scale))
        baseline.append(-stats.norm.logpdf(tomorrow, scale=ewma.to_numpy()[sessions].reshape(-1)))
    gap = np.concatenate(nll) - np.concatenate(baseline)
    assert len(gap) > 15_000
    assert gap.mean() < -0.07  # the whole sample: -0.092


def test_the_stored_scores_are_those_of_the_weights(closes: pd.DataFrame, panel: torch.Tensor) -> None:
    """Also a guard on the network's source: were a feature to change its meaning, the scores would move."""
    for name in ("2000", "2008", "2022"):
        vintage = next(each for each in list_vintages() if each.name == name)
        first, last = np.flatnonzero(closes.index.year == int(name))[[0, -1]]
        windows = panel[:, first - LOOKBACK : last].unfold(1, LOOKBACK, 1).permute(0, 1, 3, 2).flatten(0, 1)
        returns = (100 * np.log(closes / closes.shift(1))).to_numpy()[first : last + 1].T.reshape(-1)
        columns = load_vintage(vintage)(windows).double().numpy()
        stored = vintage.card["scores"]["model"]
        assert stored["rows"] == len(returns)
        assert stored["qlike"] == pytest.approx(
            np.mean(2 * np.log(columns[:, 1]) + (returns / columns[:, 1]) ** 2), 1e-5
        )
        assert stored["hit_01"] == pytest.approx(np.mean(returns < columns[:, 2]), abs=2e-4)


def test_the_closes_hash_is_that_of_the_bundled_data(closes: pd.DataFrame) -> None:
    used = closes[closes.index < "2022-01-01"]
    digest = hashlib.sha256("\n".join(used.columns).encode() + "\n".join(used.index.strftime("%Y-%m-%d")).encode())
    digest.update(used.to_numpy().tobytes())
    assert vintage_for(date(2022, 6, 1)).card["closes_sha256"] == digest.hexdigest()


def test_one_changed_byte_is_refused(folder: Path) -> None:
    vintage = vintage_for(date(2010, 3, 1), folder)
    content = bytearray(vintage.path.read_bytes())
    content[-1] ^= 1
    vintage.path.write_bytes(content)
    with pytest.raises(WeightsChangedError, match=r"2010\.safetensors have SHA-256 .* were not loaded"):
        load_vintage(vintage)


def test_a_missing_weights_file_is_named(folder: Path) -> None:
    vintage = vintage_for(date(2010, 3, 1), folder)
    vintage.path.unlink()
    with pytest.raises(VintageFolderError, match=r"2010\.safetensors is missing"):
        load_vintage(vintage)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no such file"),
        ("{", "it is not JSON"),
        ("[]", "it does not hold"),
        ('{"format": 1, "vintages": [{"name": "x"}]}', "incomplete or malformed"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, content: str | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(VintageFolderError, match=sentence) as caught:
        vintage_for(date(2010, 3, 1), tmp_path)
    assert isinstance(caught.value, ModelError)


def test_an_empty_folder_serves_nobody(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"format": 1, "vintages": []}')
    with pytest.raises(NoVintageError, match="it holds no vintage; train one"):
        vintage_for(date(2010, 3, 1), tmp_path)


def test_saved_and_loaded_it_forecasts_the_same(tmp_path: Path, walks: pd.DataFrame, panel: torch.Tensor) -> None:
    data = TrainingData(walks, TrainingSettings(epochs=1, batch_size=256, least_rows=500))
    trained = train_vintage(data, 2000)
    decided = datetime(1999, 12, 31, 23, tzinfo=UTC)
    for _ in range(2):  # the second replaces the first
        saved = save_vintage(trained, trained.score(data.year(2000)), tmp_path, "a person", decided)
    assert list_vintages(tmp_path) == [saved]
    assert (saved.basis, saved.decided_by) == ("observed", "a person")
    assert saved.card["scores"]["model"]["rows"] > 0
    assert not list(tmp_path.glob(".*"))
    windows = panel[:, 1000 : 1000 + LOOKBACK]
    loaded = load_vintage(saved)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(loaded(windows), trained.network(windows))


def test_choosing_a_vintage_does_not_import_torch() -> None:
    code = (
        "import sys; from datetime import date; from risk.model.vintages import architecture_key, vintage_for; "
        "vintage_for(date(2010, 3, 1)); architecture_key(); print('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
