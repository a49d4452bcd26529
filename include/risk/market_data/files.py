"""The `files` source: a folder with one drop a session, the first plain form.

1. `list_drops` reads the folder: `2022-11-25.csv`, `.csv.gz` or `.parquet`, and corrections of the same session such
   as `2022-11-25.v2.csv`, in the order of session and version. Other names are told once and left alone.
2. `FilesSource.batches` hashes each drop and keeps those whose hash is new, so that a second call parses nothing.
3. `risk.market_data.drops.read_drop` reads one.

A drop should appear whole: write it under another name and rename it.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

from risk.errors import SourceError
from risk.market_data.bars import Bars, Batch
from risk.market_data.drops import SUFFIXES, read_drop
from risk.market_data.errors import DropMissing, DropUnreadable, FolderMissing

log = logging.getLogger(__name__)

_NAME = re.compile(
    r"(?P<day>\d{4}-\d{2}-\d{2})(?:\.(?P<version>[A-Za-z0-9_-]+))?(?:" + "|".join(map(re.escape, SUFFIXES)) + r")"
)
_NOTES = {".txt", ".md"}


@dataclass(frozen=True)
class Drop:
    """One file of a session; `version` is empty for the first of it."""

    session: date
    version: str
    path: Path


class FilesSource:
    """An open-ended source: every session brings its drop."""

    name = "files"
    last_session: date | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def first_session(self) -> date | None:
        """The session of the oldest drop; None without one."""
        drops = list_drops(self.folder)[0] if self.folder.is_dir() else []
        return drops[0].session if drops else None

    def batches(self, through: date, loaded: AbstractSet[str], is_session: Callable[[date], bool]) -> Sequence[Batch]:
        """One batch a drop with a new content; see `Source.batches`.

        Raises:
            FolderMissing: there is no such folder.
        """
        if not self.folder.is_dir():
            raise FolderMissing(str(self.folder))
        drops, strays = list_drops(self.folder)
        foreign = [drop.path.name for drop in drops if drop.session <= through and not is_session(drop.session)]
        _tell(self.folder, strays, "their names are not YYYY-MM-DD.csv, .csv.gz or .parquet")
        _tell(self.folder, foreign, "their days are no sessions of the exchange")
        batches: dict[str, Batch] = {}
        for drop in drops:
            if drop.session > through or drop.path.name in foreign:
                continue
            content_hash = _content_hash(drop.session, drop.path.read_bytes())
            if content_hash not in loaded and content_hash not in batches:
                read = partial(_read, drop, content_hash)
                batches[content_hash] = Batch(drop.path.name, content_hash, False, drop.session, drop.session, read)
        return list(batches.values())

    def missing(self, session: date) -> SourceError:
        """The sentence for a session without a drop."""
        if not self.folder.is_dir():
            return FolderMissing(str(self.folder))
        earlier = [drop.session for drop in list_drops(self.folder)[0] if drop.session < session]
        return DropMissing(str(self.folder), session, earlier[-1] if earlier else None)


def list_drops(folder: Path) -> tuple[list[Drop], list[str]]:
    """The drops of a folder by session and version (`v2` before `v10`), and the names of files that are none.

    Hidden files, texts beside the drops and folders are neither.
    """
    drops: list[Drop] = []
    strays: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix in _NOTES or path.is_dir():
            continue
        match = _NAME.fullmatch(path.name)
        session = _day(match["day"]) if match else None
        if match and session:
            drops.append(Drop(session, match["version"] or "", path))
        else:
            strays.append(path.name)
    return sorted(drops, key=lambda drop: (drop.session, _natural(drop.version), drop.path.name)), strays


def _read(drop: Drop, content_hash: str) -> Bars:
    content = drop.path.read_bytes()
    if _content_hash(drop.session, content) != content_hash:
        raise DropUnreadable(drop.path.name, "changed while it was read")
    return read_drop(drop.path.name, content, drop.session)


def _content_hash(session: date, content: bytes) -> str:
    """Of the session too: the same prices on another day are another batch."""
    return hashlib.sha256(f"{session}\n".encode() + content).hexdigest()


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _natural(version: str) -> list[tuple[int, str]]:
    parts = re.findall(r"\d+|\D+", version)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _tell(folder: Path, names: Sequence[str], reason: str) -> None:
    if names:
        some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        log.warning("Left %d files of %s alone (%s): %s", len(names), folder, some, reason)
