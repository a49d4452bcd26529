"""`python -m risk.system up | down | run | backfill`: what the Makefile's targets call."""

from __future__ import annotations

import argparse
import signal
import sys
from datetime import date
from types import FrameType

from pydantic import ValidationError

from risk.errors import RiskError
from risk.report import console as plain_or_terminal
from risk.settings import get_settings
from risk.system import commands


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when all went well, 1 when a session failed or was refused, 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    console = plain_or_terminal()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        settings = get_settings()
        match options.command:
            case "up":
                if not commands.up(settings, console):
                    console.print("Already up")
                return 0
            case "down":
                commands.down(settings, console)
                return 0
            case "run":
                return 0 if commands.run(settings, console, options.session) else 1
            case _:
                done = commands.backfill(settings, console, options.first, options.last, again=options.again)
                return 0 if done else 1
    except ValidationError as error:
        sentences = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        console.print(f"A setting is wrong: {sentences}", style="red", markup=False)
        return 2
    except RiskError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted: what this command started has been stopped; a run goes on where it was next time")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m risk.system", description=__doc__)
    commands_ = parser.add_subparsers(dest="command", required=True)
    commands_.add_parser("up", help="start PostgreSQL and Airflow, and leave them running")
    commands_.add_parser("down", help="end everything that `up` started")
    night = commands_.add_parser("run", help="one night, from a close to orders")
    night.add_argument("--session", type=_date, help="an ISO date; default: the last session that can be run")
    history = commands_.add_parser("backfill", help="every session of a range")
    history.add_argument("first", type=_date)
    history.add_argument("last", type=_date)
    history.add_argument("--again", action="store_true", help="run sessions that succeeded once more")
    return parser


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date; write it as 2022-12-28") from None


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
