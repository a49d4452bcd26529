"""The local overrides file: sessions that the calendar package has wrong, or doesn't know yet.

A day of mourning is announced days before and reaches `exchange_calendars` weeks later. Until then:

    [[override]]
    exchange = "XNYS"
    date = 2025-01-09
    closed = true                         # or: close = "13:00" (local time), or: open = true
    announced_at = 2024-12-30
    source = "https://ir.theice.com/ (National Day of Mourning)"

`closed = true` takes the session out; `close` moves its close (local time of the exchange); `open = true` adds a
session with the exchange's regular hours, or with the `close` that stands beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path

from risk.sessions.errors import OverrideError

_FIELDS = frozenset({"exchange", "date", "closed", "close", "open", "announced_at", "source"})
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


@dataclass(frozen=True)
class Override:
    """One exception to an exchange's calendar.

    `closed`: the day is no session. `opened`: the day is a session though the calendar says otherwise.
    `close`: the exchange's local time at which that session closes. `announced_at` is text as it was given (an ISO
    date or moment), `source` says where the exchange announced it.
    """

    exchange: str
    day: date
    closed: bool
    opened: bool
    close: time | None
    announced_at: str
    source: str


def load_overrides(path: Path) -> tuple[Override, ...]:
    """Every entry of a TOML file, in its order.

    Raises `OverrideError` for a file that is missing, is no TOML or has an entry that is unclear or said twice.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OverrideError(str(path), f"can't be read ({error.strerror}); correct or clear the setting") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OverrideError(str(path), f"is not TOML: {error}") from error
    entries = document.pop("override", [])
    if document or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise OverrideError(str(path), "may only hold [[override]] tables, one for each day")
    found = tuple(_Entry(str(path), number, raw).parse() for number, raw in enumerate(entries, start=1))
    _refuse_duplicates(str(path), found)
    return found


def overrides_digest(overrides: Sequence[Override]) -> str:
    """SHA-256 of what the entries change, whatever their order and their remarks; empty without entries."""
    if not overrides:
        return ""
    facts = sorted((o.exchange, o.day.isoformat(), o.closed, o.opened, str(o.close or "")) for o in overrides)
    return hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).hexdigest()


def _refuse_duplicates(path: str, overrides: Sequence[Override]) -> None:
    seen: dict[tuple[str, date], int] = {}
    for number, override in enumerate(overrides, start=1):
        first = seen.setdefault((override.exchange, override.day), number)
        if first != number:
            raise OverrideError(path, f"{override.exchange} {override.day} stands in entry {first} already", number)


@dataclass(frozen=True)
class _Entry:
    """One raw table of the file and where it stands."""

    path: str
    number: int
    raw: Mapping[str, object]

    def parse(self) -> Override:
        unknown = sorted(set(self.raw) - _FIELDS)
        if unknown:
            raise self._error(f"unknown field {', '.join(unknown)}; the fields are {', '.join(sorted(_FIELDS))}")
        closed, opened, close = self._flag("closed"), self._flag("open"), self._close()
        if closed and (opened or close is not None):
            raise self._error("`closed = true` excludes `open` and `close`")
        if not closed and not opened and close is None:
            raise self._error('says nothing; write one of closed = true, close = "13:00", open = true')
        return Override(
            self._text("exchange"), self._day(), closed, opened, close, self._announced_at(), self._text("source")
        )

    def _error(self, problem: str) -> OverrideError:
        return OverrideError(self.path, problem, self.number)

    def _text(self, field: str) -> str:
        value = self.raw.get(field)
        if not isinstance(value, str) or not value.strip():
            raise self._error(f"`{field}` must be a text that is not empty")
        return value.strip()

    def _flag(self, field: str) -> bool:
        value = self.raw.get(field, False)
        if not isinstance(value, bool):
            raise self._error(f"`{field}` must be true or false, not {value!r}")
        return value

    def _day(self) -> date:
        value = self.raw.get("date")
        if isinstance(value, date) and not isinstance(value, datetime):
            return value
        try:
            return date.fromisoformat(str(value))
        except ValueError as error:
            raise self._error(f"`date` must be a day such as 2025-01-09, not {value!r}") from error

    def _close(self) -> time | None:
        value = self.raw.get("close")
        if value is None:
            return None
        if not isinstance(value, str) or not _CLOCK.fullmatch(value):
            raise self._error(f'`close` must be the exchange\'s local time as text, such as "13:00", not {value!r}')
        return time.fromisoformat(value)

    def _announced_at(self) -> str:
        value = self.raw.get("announced_at")
        if isinstance(value, date):
            return value.isoformat()
        try:
            return datetime.fromisoformat(str(value)).isoformat()
        except ValueError as error:
            raise self._error(f"`announced_at` must be a day or a moment in ISO form, not {value!r}") from error
