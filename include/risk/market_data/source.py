"""Where bars come from: a source says what it covers and which batches are not loaded yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from typing import Protocol

from risk.errors import SourceError
from risk.market_data.bars import Batch
from risk.settings import Settings


class Source(Protocol):
    """A source of bars. Nothing is read before `batches` is asked."""

    @property
    def name(self) -> str:
        """The name that its instruments, batches and snapshots are stored under."""
        ...

    @property
    def first_session(self) -> date | None:
        """The first session it has; None where that is not known."""
        ...

    @property
    def last_session(self) -> date | None:
        """The last session it will ever have; None where it goes on."""
        ...

    def batches(self, through: date, loaded: AbstractSet[str], is_session: Callable[[date], bool]) -> Sequence[Batch]:
        """The batches that are not loaded, in session order.

        Args:
            through: the last session wanted. A history comes whole all the same: its bars say when they were known.
            loaded: content hashes of the batches loaded before.
            is_session: whether the exchange trades on a day.

        Raises:
            SourceError: the source can't be read.
        """
        ...

    def missing(self, session: date) -> SourceError:
        """The error that says why it has no bars of a session, and what to do."""
        ...


def make_source(settings: Settings) -> Source:
    """The source that the settings name."""
    if settings.source == "bundled":
        from risk.market_data.bundled import BundledSource

        return BundledSource()
    from risk.market_data.files import FilesSource

    if settings.files_path is None:
        raise SourceError("RISK_SOURCE=files needs RISK_FILES_PATH, the folder with one drop a session")
    return FilesSource(settings.files_path)
