"""What can be wrong with market data: each error takes the facts and writes the sentence.

    SourceError
    ├── FolderMissing     the folder of drops does not exist
    ├── DropMissing       the session to be run has no drop
    ├── OutsideHistory    a session that a finite source doesn't hold
    ├── DropUnreadable    an empty, cut or damaged file
    ├── ColumnsWrong      a column that is missing, unknown or there twice
    ├── ValueWrong        a symbol or a price that is none, with its row
    ├── ForeignSessions   bars of days on which the exchange doesn't trade
    ├── SnapshotMissing   no snapshot of that number
    └── SnapshotChanged   bars that are no longer what was hashed

The facts are the exception's `args`, so that it survives pickling; the sentence is `str(error)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from risk.errors import SourceError


class FolderMissing(SourceError):
    """A folder of drops that does not exist."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return f"the folder of drops {self.folder} does not exist; create it or correct RISK_FILES_PATH"


class DropMissing(SourceError):
    """A session without a drop; `last` is the newest session before it that has one."""

    def __init__(self, folder: str, session: date, last: date | None) -> None:
        super().__init__(folder, session, last)
        self.folder, self.session, self.last = folder, session, last

    def __str__(self) -> str:
        newest = "there is none before it" if self.last is None else f"the last drop before it is of {self.last}"
        return (
            f"session {self.session} has no drop in {self.folder}; {newest}; deliver {self.session}.csv, "
            f"{self.session}.csv.gz or {self.session}.parquet and run the session again"
        )


class OutsideHistory(SourceError):
    """A session that a finite source doesn't hold."""

    def __init__(self, source: str, session: date, first: date, last: date) -> None:
        super().__init__(source, session, first, last)
        self.source, self.session, self.first, self.last = source, session, first, last

    def __str__(self) -> str:
        return (
            f"session {self.session} is outside the {self.source} history of {self.first} to {self.last}; choose a "
            "session inside it, or set RISK_SOURCE=files for data of your own"
        )


class DropUnreadable(SourceError):
    """A file that is empty, cut or damaged."""

    def __init__(self, location: str, problem: str) -> None:
        super().__init__(location, problem)
        self.location, self.problem = location, problem

    def __str__(self) -> str:
        return f"drop {self.location} {self.problem}; deliver it again whole, or move it out of the folder"


class ColumnsWrong(SourceError):
    """A column that is missing, unknown or there twice."""

    def __init__(self, location: str, problem: str, allowed: Sequence[str]) -> None:
        super().__init__(location, problem, tuple(allowed))
        self.location, self.problem, self.allowed = location, problem, tuple(allowed)

    def __str__(self) -> str:
        required, optional = self.allowed[:2], self.allowed[2:]
        return (
            f"drop {self.location} {self.problem}; its header has {' and '.join(required)}, "
            f"and may have {', '.join(optional)}"
        )


class ValueWrong(SourceError):
    """A cell that can't be read; `row` counts the drop's rows from 1, the header not among them."""

    def __init__(self, location: str, row: int, column: str, value: str) -> None:
        super().__init__(location, row, column, value)
        self.location, self.row, self.column, self.value = location, row, column, value

    def __str__(self) -> str:
        if self.column == "symbol":
            wanted = "a symbol is a text that is not empty"
        else:
            wanted = "a number such as 12.34, or nothing where it is not known, is allowed"
        return (
            f"drop {self.location} has {self.value!r} as the {self.column} of row {self.row}; {wanted}; "
            "correct the row and deliver the drop again"
        )


class ForeignSessions(SourceError):
    """Bars of days on which the exchange doesn't trade."""

    def __init__(self, location: str, exchange: str, days: Sequence[date]) -> None:
        super().__init__(location, exchange, tuple(days))
        self.location, self.exchange, self.days = location, exchange, tuple(days)

    def __str__(self) -> str:
        return (
            f"{self.location} holds bars of {len(self.days)} days that are no session of {self.exchange}, the first "
            f"{self.days[0]}; set RISK_EXCHANGE to the exchange that the data are of, or correct RISK_OVERRIDES"
        )


class SnapshotMissing(SourceError):
    """No snapshot of that number."""

    def __init__(self, snapshot_id: int) -> None:
        super().__init__(snapshot_id)
        self.snapshot_id = snapshot_id

    def __str__(self) -> str:
        return f"snapshot {self.snapshot_id} does not exist; take one of its session first"


class SnapshotChanged(SourceError):
    """Bars that are no longer what a snapshot hashed."""

    def __init__(self, snapshot_id: int, expected: str, found: str) -> None:
        super().__init__(snapshot_id, expected, found)
        self.snapshot_id, self.expected, self.found = snapshot_id, expected, found

    def __str__(self) -> str:
        return (
            f"the bars of snapshot {self.snapshot_id} hash to {self.found[:12]} and not to {self.expected[:12]} as "
            "when it was taken; rows of market_bar were changed by hand: restore them, or take a new snapshot"
        )
