"""What was published, read from the database and rendered on a terminal; no number is computed here.

1. `read_session` reads one published session: forecasts, risk, orders, quarantine, provenance, checks.
2. `render_session` prints it; `print_session` does both.
3. `read_status` counts the sessions that are published, missing, refused and unfinished; `render_status` prints them.
"""

from __future__ import annotations

from risk.report.errors import NotPublished
from risk.report.render import console, print_session, render_session
from risk.report.session import SessionReport, read_session
from risk.report.status import Status, read_status, render_status

__all__ = [
    "NotPublished",
    "SessionReport",
    "Status",
    "console",
    "print_session",
    "read_session",
    "read_status",
    "render_session",
    "render_status",
]
