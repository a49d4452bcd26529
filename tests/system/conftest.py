"""An HTTP server that answers as Airflow does, and consoles that remember what was printed."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from rich.console import Console

from risk.settings import Settings
from risk.system.api import AirflowApi

Answer = tuple[int, Any]


class Airflow:
    """Answers by method and path; a callable is asked with the query and the body."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {("GET", "/auth/token"): (201, {"access_token": "secret"})}
        self.asked: list[tuple[str, str, Any]] = []
        self.tokens: list[str | None] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = int(self.server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def says(self, method: str, path: str, answer: Any, status: int = 200) -> None:
        """The answer to a request below /api/v2: a body, or a function of query and body that gives one."""
        self.answers[(method, f"/api/v2{path}")] = answer if callable(answer) else (status, answer)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        airflow = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                parts = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                airflow.asked.append((self.command, self.path, body))
                airflow.tokens.append(self.headers.get("Authorization"))
                answer = airflow.answers.get((self.command, parts.path), (404, {"detail": "Not Found"}))
                if callable(answer):
                    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                    answer = (200, answer(query, body))
                status, content = answer
                raw = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = _answer  # noqa: N815  (the base class's names)

            def log_message(self, *_: object) -> None:
                """Not on the terminal."""

        return Handler


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    running = Airflow()
    thread = threading.Thread(target=running.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.server.shutdown()
    thread.join()
    running.server.server_close()


@pytest.fixture
def api(airflow: Airflow) -> Iterator[AirflowApi]:
    with AirflowApi(airflow.url) as client:
        yield client


@pytest.fixture
def console() -> Console:
    """It records; `console.export_text()` gives what was printed."""
    return Console(record=True, width=200, file=io.StringIO())


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    def make(**given: Any) -> Settings:
        url = "postgresql://me@nowhere/risk"
        chosen = {"state_dir": tmp_path, "database_url": url, "airflow_database_url": url, **given}
        return Settings(_env_file=None, **chosen)

    return make
