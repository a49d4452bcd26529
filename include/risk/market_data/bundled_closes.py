"""The bundled history as a table: skfolio's S&P 500 set, read from the wheel without importing skfolio."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def bundled_file() -> Path:
    """The data file inside the installed skfolio wheel (importing skfolio itself would cost seconds).

    Raises:
        FileNotFoundError: skfolio is not installed, or its wheel no longer carries the file.
    """
    spec = find_spec("skfolio")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / "datasets" / "data" / "sp500_dataset.csv.gz"
        if path.is_file():
            return path
    raise FileNotFoundError(
        "the bundled market data come with the package skfolio, which is not installed or lacks "
        "datasets/data/sp500_dataset.csv.gz; install requirements.txt or set RISK_SOURCE=files"
    )


def read_bundled_closes() -> pd.DataFrame:
    """Daily adjusted closes of 20 US names, 1990-01-02 to 2022-12-28.

    Returns:
        `(8313 sessions, 20 symbols)` float64 in dollars; the index holds the session dates, ascending.
    """
    import pandas as pd

    closes = pd.read_csv(bundled_file(), index_col=0, parse_dates=True)
    return closes.astype("float64").sort_index()
