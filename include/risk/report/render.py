"""A published session on the terminal: numbers as the database holds them, and where they come from."""

from __future__ import annotations

import sys
from datetime import date
from typing import TYPE_CHECKING

from risk.report.provenance import Execution
from risk.report.session import Check, Rebalance, SessionReport, read_session

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_WIDTH = 120
QUANTILES = ("mu", "sigma", "q01", "q025", "q05", "q50", "q95", "es025")


def console() -> Console:
    """A console of the terminal's width; without a terminal, plain text 120 wide."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


def print_session(session: date, console: Console, *, limit: int | None = 25) -> None:
    """Read a session of the settings' exchange and print it.

    Raises:
        NotPublished: it has no published forecasts.
        DatabaseError: the risk database can't be reached.
    """
    from risk.settings import get_settings
    from risk.storage.database import connect

    with connect() as connection:
        report = read_session(connection, get_settings().exchange, session)
    render_session(report, console, limit=limit)


def render_session(report: SessionReport, console: Console, *, limit: int | None = 25) -> None:
    """Print a session, its forecasts at most `limit` rows long (`None`: all of them)."""
    console.print(
        f"Session {report.session} of {report.exchange}: published as run {report.provenance.run_id}, "
        f"revision {report.revision}, {report.published_at:%Y-%m-%d %H:%M:%S} UTC"
    )
    _forecasts(report, console, limit)
    _risk(report, console)
    for rebalance in report.rebalances:
        _rebalance(rebalance, console)
    _quarantine(report, console)
    _provenance(report, console)
    _checks(report.checks, console)


def _forecasts(report: SessionReport, console: Console, limit: int | None) -> None:
    table = _table("Forecasts of the next session's log return, in percent, worst es025 first", "symbol", *QUANTILES)
    for forecast in report.forecasts[:limit]:
        _row(table, forecast.symbol, *(f"{getattr(forecast, name):.3f}" for name in QUANTILES))
    console.print()
    console.print(table)
    hidden = len(report.forecasts) - len(report.forecasts[:limit])
    if hidden:
        console.print(f"and {hidden} more; all of them: risk show {report.session} --csv")


def _risk(report: SessionReport, console: Console) -> None:
    console.print()
    if report.risk:
        table = _table(
            "Risk: a loss, positive when money is lost",
            "book", "measure", "confidence", "horizon", "loss", "of value", "currency", "scenarios", "basis",
        )  # fmt: skip
        for item in report.risk:
            _row(
                table, item.book, item.measure, f"{item.confidence:.2%}", _sessions(item.horizon),
                f"{item.value:,.2f}", f"{item.book_value:,.2f}", item.currency, str(item.scenarios), item.basis,
            )  # fmt: skip
        console.print(table)
    other = {item.run_id for item in report.risk} - {report.provenance.run_id}
    if other:
        _line(console, f"This risk is of run {min(other)}: the forecasts above are newer, theirs is not published yet")
    if report.risk_gap:
        _line(console, report.risk_gap)


def _rebalance(rebalance: Rebalance, console: Console) -> None:
    console.print()
    if rebalance.state != "published":
        _line(console, f"Rebalance of {rebalance.book}: {rebalance.state}: {rebalance.reason}")
        return
    _line(
        console,
        f"Rebalance {rebalance.rebalance_id} of {rebalance.book}: {rebalance.reason}. Value "
        f"{_money(rebalance.book_value)}, cash {_money(rebalance.cash_before)} before and "
        f"{_money(rebalance.cash_after)} after, in {rebalance.currency}",
    )
    if not rebalance.orders:
        console.print("No orders")
        return
    table = _table("Orders", "symbol", "side", "quantity", "price", "value", "reason")
    for order in rebalance.orders:
        _row(
            table, order.symbol, order.side, f"{order.quantity:,}", _money(order.price),
            _money(order.value), order.reason,
        )  # fmt: skip
    console.print(table)


def _quarantine(report: SessionReport, console: Console) -> None:
    console.print()
    if not report.quarantine:
        console.print("Quarantine: no instrument")
        return
    table = _table("Quarantine: instruments without a forecast", "symbol", "reason", "sentence")
    for item in report.quarantine:
        _row(table, item.symbol, item.reason, item.sentence)
    console.print(table)


def _provenance(report: SessionReport, console: Console) -> None:
    found = report.provenance
    lineage = {name: value for name, value in found.lineage.items() if not isinstance(value, dict)}
    libraries = found.lineage.get("libraries") or {}
    lines = {
        "run": f"{found.run_id}, by {found.door} ({found.dag_run_id}), opened {found.opened_at:%Y-%m-%d %H:%M:%S} UTC",
        "snapshot": f"{found.snapshot_id} of {found.source}: {found.instruments} instruments x "
        f"{found.sessions} sessions, {found.first_session} to {found.last_session}, hash {found.snapshot_hash}",
        "prices known at": f"{found.known_at()}; cut-off {found.cutoff:%Y-%m-%d %H:%M} UTC",
        "vintage": f"{found.vintage}, trained through {found.trained_through}, architecture {found.architecture}",
        "weights": found.weights_sha256,
        "configuration": found.configuration_hash,
        **{f"scored {number}": _execution(item) for number, item in enumerate(found.executions, start=1)},
        **{name.replace("_", " "): str(value) for name, value in lineage.items()},
        "libraries": ", ".join(f"{name} {version}" for name, version in libraries.items()) or "not kept",
    }
    table = _table("Provenance", "what", "which")
    for name, sentence in lines.items():
        _row(table, name, sentence)
    console.print()
    console.print(table)


def _execution(item: Execution) -> str:
    shards = f"{item.shards} shard{'s' if item.shards > 1 else ''}"
    rate = "" if item.rows_per_second is None else f", {item.rows_per_second:,.0f} rows a second"
    profile = ""
    if item.profile_id is not None:
        profile = f", profile {item.profile_id}: {item.profile_reason}"
    return f"{shards} on {item.device} in {item.precision}, batch size {item.batch_size}{rate}{profile}"


def _checks(checks: tuple[Check, ...], console: Console) -> None:
    table = _table("Checks", "stage", "check", "result", "observed", "threshold", "sentence")
    for check in checks:
        result = "passed" if check.passed else {"block": "FAILED", "warn": "told"}[check.severity]
        name = f"{check.name} {check.subject}".rstrip()
        _row(table, check.stage, name, result, _number(check.observed), _number(check.threshold), check.sentence)
    console.print()
    console.print(table)


RIGHT = {
    *QUANTILES,
    "confidence",
    "loss",
    "of value",
    "scenarios",
    "quantity",
    "price",
    "value",
    "observed",
    "threshold",
}


def _table(title: str, *columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in RIGHT else "left", overflow="fold")
    return table


def _row(table: Table, *cells: str) -> None:
    """Add a row of plain text: square brackets in it are no markup."""
    from rich.text import Text

    table.add_row(*(Text(cell) for cell in cells))


def _line(console: Console, sentence: str) -> None:
    console.print(sentence, markup=False)


def _sessions(horizon: int) -> str:
    return f"{horizon} session{'s' if horizon > 1 else ''}"


def _money(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
