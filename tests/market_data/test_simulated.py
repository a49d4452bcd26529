"""Simulated drops: seeded, labelled, carried on night by night."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from risk.market_data.drops import read_drop
from risk.market_data.files import list_drops
from risk.market_data.simulated import main, simulate, write_drops
from risk.sessions import SessionCalendar


def test_the_command_writes_labelled_drops_of_the_exchange_s_sessions(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    command = [sys.executable, "-W", "error", "-m", "risk.market_data.simulated", str(tmp_path)]
    done = subprocess.run(
        [*command, "--names", "3", "--first", "2022-11-21", "--last", "2022-11-28", "--seed", "7"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert done.stdout == f"Wrote 5 simulated drops of 3 names to {tmp_path}\n"
    drops, strays = list_drops(tmp_path)
    assert strays == []
    assert [str(drop.session) for drop in drops] == [
        "2022-11-21", "2022-11-22", "2022-11-23", "2022-11-25", "2022-11-28"  # Thanksgiving left out
    ]  # fmt: skip
    for drop in drops:
        bars = read_drop(drop.path.name, drop.path.read_bytes(), drop.session)
        assert bars.symbols.tolist() == ["SIM001", "SIM002", "SIM003"]
        opened, high, low, close, volume = bars.values.T
        assert (low <= np.minimum(opened, close)).all()
        assert (high >= np.maximum(opened, close)).all()
        assert (low > 0).all()
        assert (volume > 0).all()
    assert "SIMULATED: no exchange ever traded at these prices" in (tmp_path / "SIMULATED.txt").read_text()


def test_a_folder_is_carried_on_with_the_same_prices(tmp_path: Path, nyse: SessionCalendar) -> None:
    days = nyse.sessions(date(2022, 11, 1), date(2022, 11, 30))
    short = write_drops(tmp_path / "short", names=4, sessions=days[:7], seed=3)
    long = write_drops(tmp_path / "long", names=4, sessions=days, seed=3)
    assert [path.read_text() for path in short] == [path.read_text() for path in long[:7]]
    other = write_drops(tmp_path / "other", names=["XX"], sessions=days[:2], seed=4)
    assert other[0].read_text().splitlines()[1].startswith("XX,")
    assert write_drops(tmp_path / "none", names=2, sessions=[], seed=3) == []


def test_volatility_clusters_and_names_share_a_market() -> None:
    closes = np.array([bars.close for bars in simulate(8, 4000, seed=11)]).T
    returns = 100 * np.diff(np.log(closes))
    assert 1.2 < returns.std() < 2.4  # sqrt(0.9^2 + 1.4^2) = 1.66 percent a day
    correlation = np.corrcoef(returns)[np.triu_indices(8, 1)].mean()
    assert 0.15 < correlation < 0.45  # 0.81 / (0.81 + 1.96) = 0.29
    squares = returns**2
    assert np.mean([np.corrcoef(name[1:], name[:-1])[0, 1] for name in squares]) > 0.05


@pytest.mark.parametrize(
    "arguments",
    [
        ["--first", "2022-11-25", "--last", "2022-11-21"],
        ["--first", "2022-11-21", "--last", "2022-11-25", "--names", "0"],
        ["--first", "2022-11-21", "--last", "2022-11-25", "--exchange", "NOWHERE"],
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), *arguments])
    assert "error:" in capsys.readouterr().err
