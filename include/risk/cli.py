"""`risk status` and `risk show SESSION`: what is published, from the risk database.

Exit codes: 0 told; 1 a session that is not published, or a database that can't be read; 2 a wrong command line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Any

from risk.errors import DatabaseError, RiskError

if TYPE_CHECKING:
    import psycopg

    from risk.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Run one command and give its exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = _settings()
        with _database(settings) as connection:
            if options.command == "status":
                _status(connection, settings, options)
            else:
                _show(connection, settings, options)
    except RiskError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _status(connection: psycopg.Connection[Any], settings: Settings, options: argparse.Namespace) -> None:
    from risk.report import console, read_status, render_status

    status = read_status(connection, settings.exchange)
    if options.json:
        print(status.as_json())
    else:
        render_status(status, console())


def _show(connection: psycopg.Connection[Any], settings: Settings, options: argparse.Namespace) -> None:
    from risk.report import console, read_session, render_session

    report = read_session(connection, settings.exchange, options.session)
    if options.csv:
        import csv
        from dataclasses import asdict, fields

        from risk.report.session import Forecast

        writer = csv.DictWriter(sys.stdout, [field.name for field in fields(Forecast)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(forecast) for forecast in report.forecasts)
    else:
        render_session(report, console(), limit=options.rows)


def _settings() -> Settings:
    """The settings; a wrong one as a sentence.

    Raises:
        RiskError: a setting is wrong.
    """
    from pydantic import ValidationError

    from risk.settings import get_settings

    try:
        return get_settings()
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        raise RiskError(f"a setting is wrong: {found}; see .env.example for what is allowed") from error


@contextmanager
def _database(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the risk database; an embedded server that is down is up for as long as this lasts.

    Raises:
        DatabaseError: it can't be reached, or nothing was ever run.
    """
    from psycopg.errors import UndefinedTable

    from risk.storage.database import connect, database_url

    try:
        with _embedded_server(settings), connect(database_url(settings)) as connection:
            yield connection
    except UndefinedTable as error:
        raise DatabaseError("the risk database has no tables yet; `make run` makes them and runs a session") from error


@contextmanager
def _embedded_server(settings: Settings) -> Iterator[None]:
    """Start the embedded server if it is the one to be used and is down, and stop it again."""
    from risk.storage import server

    data = settings.state_dir / "postgres"
    if not settings.database_url and not (data / "PG_VERSION").exists():
        raise DatabaseError(
            f"nothing has been run yet: there is no database in {data}; `make run` runs the last session"
        )
    if settings.database_url or _answers(settings):
        yield
        return
    server.start(data)
    try:
        yield
    finally:
        if _alone(settings):
            server.stop(data)


def _answers(settings: Settings) -> bool:
    from risk.storage.database import connect, database_url

    try:
        with connect(database_url(settings)):
            return True
    except DatabaseError:
        return False


def _alone(settings: Settings) -> bool:
    """Whether nobody else is connected to the embedded server: `make up` may have begun to use it."""
    from risk.storage.database import connect, database_url

    with connect(database_url(settings)) as connection:
        others = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchone()
    return others == (0,)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="risk", description="What the nightly risk job has published.")
    commands = parser.add_subparsers(dest="command", required=True)
    status = commands.add_parser("status", help="sessions published, missing, refused and unfinished; rebalances")
    status.add_argument("--json", action="store_true", help="one JSON object")
    show = commands.add_parser("show", help="one published session: forecasts, risk, orders, provenance, checks")
    show.add_argument("session", type=_session, help="an ISO date, such as 2022-12-28")
    show.add_argument("--csv", action="store_true", help="only the forecasts, all of them, as CSV")
    show.add_argument("--rows", type=int, default=25, help="forecasts to print (default 25)")
    return parser


def _session(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date; write a session as 2022-12-28") from None


if __name__ == "__main__":
    sys.exit(main())
