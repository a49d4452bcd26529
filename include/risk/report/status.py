"""Which sessions are published, and which ought to be and are not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg
    from rich.console import Console

LISTED = 10  # sessions of one state that are named on the terminal


@dataclass(frozen=True)
class Gap:
    """A session that ought to be published and is not."""

    session: date
    kind: str
    state: str
    run_id: int | None
    refusal: str | None


@dataclass(frozen=True)
class Books:
    """The rebalances of one book."""

    book: str
    published: int
    refused: int
    last_session: date


@dataclass(frozen=True)
class Status:
    """The job's standing on one exchange; the gaps count from the first session ever run."""

    exchange: str
    forecasts_published: int
    risk_published: int
    first_published: date | None
    last_published: date | None
    gaps: tuple[Gap, ...]
    rebalances: tuple[Books, ...]

    def sessions(self, kind: str, state: str) -> tuple[date, ...]:
        """The sessions whose publication of this kind is in this state, ascending."""
        return tuple(gap.session for gap in self.gaps if (gap.kind, gap.state) == (kind, state))

    def as_json(self) -> str:
        """One JSON object; dates in ISO form."""
        import json

        return json.dumps(asdict(self), default=str, indent=2)


def read_status(connection: psycopg.Connection[Any], exchange: str) -> Status:
    """Read the standing of one exchange."""
    from psycopg.rows import class_row

    key = {"exchange": exchange}
    with connection.cursor(row_factory=class_row(Gap)) as cursor:
        gaps = cursor.execute(
            "SELECT session_date AS session, kind, state, run_id, refusal FROM publication_gap "
            "WHERE exchange = %(exchange)s ORDER BY session_date, kind",
            key,
        ).fetchall()
    with connection.cursor(row_factory=class_row(Books)) as cursor:
        books = cursor.execute(
            "SELECT k.name AS book, count(*) FILTER (WHERE r.state = 'published') AS published, "
            "count(*) FILTER (WHERE r.state = 'refused') AS refused, max(r.session_date) AS last_session "
            "FROM rebalance r JOIN book k USING (book_id) WHERE r.exchange = %(exchange)s "
            "GROUP BY k.name ORDER BY k.name",
            key,
        ).fetchall()
    forecasts, risk, first, last = connection.execute(
        "SELECT count(DISTINCT session_date) FILTER (WHERE kind = 'forecast'), "
        "count(DISTINCT session_date) FILTER (WHERE kind = 'risk'), "
        "min(session_date), max(session_date) FROM publication WHERE exchange = %(exchange)s",
        key,
    ).fetchall()[0]
    return Status(exchange, forecasts, risk, first, last, tuple(gaps), tuple(books))


def render_status(status: Status, console: Console) -> None:
    """Print the standing: counts, the sessions behind them, refusals with their sentences."""
    from rich.table import Table
    from rich.text import Text

    if status.last_published is None and not status.gaps:
        console.print(f"Nothing of {status.exchange} has been run yet; `make run` runs the last session")
        return
    table = Table(title=f"Sessions of {status.exchange}", title_justify="left")
    for name in ("", "published", "missing", "refused", "unfinished"):
        table.add_column(name, justify="right" if name else "left")
    for kind, published in (("forecast", status.forecasts_published), ("risk", status.risk_published)):
        gaps = [str(len(status.sessions(kind, state))) for state in ("missing", "refused", "unfinished")]
        table.add_row(kind, str(published), *gaps)
    console.print(table)
    if status.last_published:
        console.print(f"Published: {status.first_published} to {status.last_published}, the last one")
    for state in ("missing", "unfinished"):
        for kind in ("forecast", "risk"):
            _print_sessions(console, f"{kind} {state}", status.sessions(kind, state))
    for gap in status.gaps:
        if gap.state == "refused":
            console.print(Text(f"{gap.kind} refused: {gap.session}, run {gap.run_id}: {gap.refusal or 'no sentence'}"))
    for book in status.rebalances:
        console.print(
            Text(
                f"Rebalances of {book.book}: {book.published} settled, {book.refused} refused, "
                f"the last of {book.last_session}"
            )
        )


def _print_sessions(console: Console, what: str, sessions: tuple[date, ...]) -> None:
    if sessions:
        named = ", ".join(map(str, sessions[:LISTED]))
        more = f" and {len(sessions) - LISTED} more, to {sessions[-1]}" if len(sessions) > LISTED else ""
        console.print(f"{what}: {named}{more}")
