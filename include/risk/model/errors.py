"""What can go wrong with the model: each exception takes facts and writes the sentence.

    ModelError
    ├── NoVintageError          no vintage is in force for a session
    ├── VintageFolderError      the folder of vintages can't be read
    ├── WeightsChangedError     a weights file is not the one that the manifest names
    ├── ClosesError             a table of closes can't be trained on
    └── NotEnoughHistoryError   too few rows before the vintage's year

All of them are `risk.errors.ModelError`, so one `except` catches the family.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

from risk.errors import ModelError

__all__ = [
    "ClosesError",
    "ModelError",
    "NoVintageError",
    "NotEnoughHistoryError",
    "VintageFolderError",
    "WeightsChangedError",
]


class NoVintageError(ModelError):
    """No vintage is in force for the session."""

    def __init__(self, session: date, first: date | None, folder: Path) -> None:
        self.session = session
        self.first = first
        if first is None:
            allowed, action = "it holds no vintage", "train one with `make train`"
        else:
            allowed = f"its first vintage serves sessions from {first} on"
            action = f"choose a session from {first} on, or train an earlier vintage"
        super().__init__(f"no vintage in {folder} may serve session {session}: {allowed}; {action}")


class VintageFolderError(ModelError):
    """The folder of vintages has no manifest, or one that can't be read."""

    def __init__(self, manifest: Path, why: str) -> None:
        super().__init__(
            f"the vintages' manifest {manifest} can't be read: {why}; restore the folder, train it again with "
            "`make train`, or leave the setting empty to use the shipped vintages"
        )


class WeightsChangedError(ModelError):
    """A weights file is not the one that the manifest names."""

    def __init__(self, path: Path, expected: str, found: str) -> None:
        super().__init__(
            f"the weights {path} have SHA-256 {found}, but the manifest names {expected}: they are not the trained "
            "ones and were not loaded; restore the file or train the vintage again with `make train`"
        )


class ClosesError(ModelError):
    """A table of closes can't be trained on."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the table of closes can't be trained on: {why}; it needs one row a session, dates ascending "
            "without repeats, and one column of positive prices an instrument (NaN where there is none)"
        )


class NotEnoughHistoryError(ModelError):
    """Too few rows lie before the vintage's year."""

    def __init__(self, year: int, rows: int, needed: int) -> None:
        super().__init__(
            f"vintage {year} has {rows:,} training rows before {year}-01-01 and needs {needed:,}; a row needs 256 "
            "sessions of history and a return on the session after: give more years, more names or a later vintage"
        )
