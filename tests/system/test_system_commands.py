"""`python -m risk.system`: wrong lines, wrong settings, and what is refused before anything is started."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from risk.errors import ServiceError
from risk.settings import Settings, get_settings
from risk.storage.database import connect
from risk.system import commands
from risk.system.__main__ import main
from risk.system.processes import ProcessTable

Make = Callable[..., Settings]

# They are meant to outlive the command that starts them.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture(autouse=True)
def fresh_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("RISK_STATE_DIR", str(tmp_path))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()
    signal.signal(signal.SIGTERM, before)


def test_a_wrong_setting_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RISK_MIN_COVERAGE", "2")
    monkeypatch.setenv("RISK_SOURCE", "files")
    assert main(["down"]) == 2
    told = capsys.readouterr().out
    assert told.startswith("A setting is wrong: ")
    assert "min_coverage: Input should be less than or equal to 1" in told


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["run", "--session", "28.12.2022"], "'28.12.2022' is not a date; write it as 2022-12-28"),
        (["backfill", "2022-11-21", "soon"], "'soon' is not a date"),
        (["backfill", "2022-11-21"], "the following arguments are required: last"),
        ([], "the following arguments are required: command"),
    ],
)
def test_a_wrong_command_line_ends_with_2(line: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_backfill_that_ends_before_it_begins_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backfill", "2022-12-02", "2022-11-21"]) == 1
    told = capsys.readouterr().out
    assert "the backfill would end on 2022-11-21, before it begins on 2022-12-02; give FROM first, then TO" in told


def test_down_with_nothing_running_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down"]) == 0
    assert capsys.readouterr().out == "Nothing was running\n"


def test_down_ends_what_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child = ProcessTable(tmp_path).start("scheduler", ["sleep", "60"], {"PATH": os.environ["PATH"]})
    assert main(["down"]) == 0
    assert capsys.readouterr().out == "Stopped scheduler\n"
    assert not child.alive()


def test_up_is_told_when_all_of_it_runs_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = ProcessTable(tmp_path)
    for name in commands.COMPONENTS:
        table.start(name, ["sleep", "60"], {"PATH": os.environ["PATH"]})
    try:
        assert main(["up"]) == 0
    finally:
        table.stop()
    assert capsys.readouterr().out == "Already up\n"


@pytest.mark.parametrize("line", [["up"], ["run", "--session", "2022-12-28"], ["backfill", "2022-12-27", "2022-12-28"]])
def test_a_taken_port_is_refused_before_anything_is_started(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("RISK_UI_PORT", str(port))
        assert main(line) == 1
    assert f"port {port} of 127.0.0.1 is taken by another program" in capsys.readouterr().out
    assert not (tmp_path / "postgres").exists()
    assert not (tmp_path / "processes.json").exists()


def test_an_interruption_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(commands, "down", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert main(["down"]) == 130
    assert "Interrupted" in capsys.readouterr().out


def test_a_system_that_was_up_stays_up(make_settings: Make, tmp_path: Path, console: Console) -> None:
    table = ProcessTable(tmp_path)
    for name in commands.COMPONENTS:
        table.start(name, ["sleep", "60"], {"PATH": os.environ["PATH"]})
    try:
        with commands.running_system(make_settings(), console):
            pass
        assert len(table.running()) == len(commands.COMPONENTS)
    finally:
        table.stop()


def started(tmp_path: Path, *names: str) -> ProcessTable:
    table = ProcessTable(tmp_path)
    for name in names:
        table.start(name, ["sleep", "60"], {"PATH": os.environ["PATH"]})
    return table


HEALTHY = {name: {"status": "healthy"} for name in ("metadatabase", "scheduler", "dag_processor", "triggerer")}


def test_the_wait_for_health_ends_with_the_pools(airflow: Any, make_settings: Make, tmp_path: Path) -> None:
    table = started(tmp_path, *commands.COMPONENTS)
    airflow.says("GET", "/monitor/health", HEALTHY)
    airflow.says("GET", "/importErrors", {"import_errors": []})
    airflow.says("GET", "/dags/nightly_risk", {})
    airflow.says("GET", "/dags/rebalance", {})
    airflow.says("POST", "/pools", {})
    try:
        commands._wait_healthy(make_settings(ui_port=airflow.port, gpu_slots=3), table)
    finally:
        table.stop()
    assert airflow.asked[-1][2]["slots"] == 3


def test_what_never_gets_ready_is_told(
    airflow: Any, make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "START_PATIENCE_S", 0.0)
    settings = make_settings(ui_port=airflow.port)
    table = started(tmp_path, *commands.COMPONENTS)
    try:
        with pytest.raises(ServiceError, match=r"not ready after 0 s \(not healthy: metadatabase, scheduler"):
            commands._wait_healthy(settings, table)
        airflow.says("GET", "/monitor/health", HEALTHY)
        airflow.says("GET", "/importErrors", {"import_errors": []})
        with pytest.raises(ServiceError, match="its DAGs are not read"):
            commands._wait_healthy(settings, table)
        errors = {"import_errors": [{"filename": "a.py", "stack_trace": "SyntaxError: here"}]}
        airflow.says("GET", "/importErrors", errors)
        with pytest.raises(ServiceError, match=r"can't read the DAG folder: a\.py: SyntaxError: here"):
            commands._wait_healthy(settings, table)
    finally:
        table.stop()


def test_a_component_that_ended_by_itself_is_told_with_its_log(
    make_settings: Make, airflow: Any, tmp_path: Path
) -> None:
    table = started(tmp_path, *(name for name in commands.COMPONENTS if name != "scheduler"))
    (tmp_path / "logs" / "scheduler.log").write_text("ValueError: no such thing\n")
    try:
        with pytest.raises(ServiceError, match=r"(?s)Airflow's scheduler ended by itself.*ValueError: no such thing"):
            commands._wait_healthy(make_settings(ui_port=airflow.port), table)
    finally:
        table.stop()


def test_run_and_backfill_of_a_system_that_is_up(
    airflow: Any, make_settings: Make, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("risk.system.watch.POLL_S", 0.001)
    base = "/dags/nightly_risk/dagRuns"
    airflow.says("POST", "/backfills", {"id": 7})
    airflow.says("GET", base, {"dag_runs": []})
    table = started(tmp_path, *commands.COMPONENTS)
    first, last = date(2022, 12, 27), date(2022, 12, 28)
    try:
        assert commands.backfill(make_settings(ui_port=airflow.port), console, first, last, again=False) is True
    finally:
        table.stop()
    body = next(body for method, path, body in airflow.asked if method == "POST")
    assert (body["max_active_runs"], body["reprocess_behavior"]) == (6, "failed")


def migrating(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let `airflow db migrate` be this Python code, run as a process like Airflow's own."""
    monkeypatch.setattr(commands, "airflow_command", lambda *arguments: [sys.executable, "-c", code, *arguments])


def test_the_databases_are_prepared_and_airflow_s_is_migrated_once(
    make_settings: Make, database_url: str, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(database_url=database_url, airflow_database_url=database_url)
    migrating(monkeypatch, f"open({str(tmp_path / 'asked')!r}, 'a').write('once ')")
    for _ in range(2):
        commands._prepare_databases(settings, console)
    assert (tmp_path / "asked").read_text() == "once "
    with connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM book").fetchone() == (2,)
        connection.execute("DROP TABLE alembic_version")
    commands._migrate_airflow(settings)  # another schema than the one that was left there
    assert (tmp_path / "asked").read_text() == "once once "
    text = console.export_text()
    assert "Starting PostgreSQL" not in text
    assert "Migrating the databases" in text


def test_a_migration_that_fails_is_told_with_its_end(
    make_settings: Make, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(database_url=database_url, airflow_database_url=database_url)
    migrating(monkeypatch, "import sys; sys.exit('no such revision')")
    sentence = r"(?s)can't be migrated; check RISK_AIRFLOW_DATABASE_URL.*no such revision"
    with pytest.raises(ServiceError, match=sentence):
        commands._migrate_airflow(settings)


def test_up_leaves_nothing_behind_when_a_component_ends_by_itself(
    make_settings: Make, database_url: str, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = make_settings(database_url=database_url, airflow_database_url=database_url, ui_port=port)
    migrating(monkeypatch, "import sys; sys.exit(0 if 'migrate' in sys.argv else 'no configuration')")
    with pytest.raises(ServiceError, match=r"(?s)Airflow's .* ended by itself; the end of its log:.*no configuration"):
        commands.up(settings, console)
    assert ProcessTable(settings.state_dir).running() == []
    assert not (settings.state_dir / "processes.json").exists()
