"""`risk status` and `risk show` as a person meets them: their text, their exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from risk.cli import main
from risk.report import print_session
from risk.settings import get_settings
from risk.storage import schema, server


def words(text: str) -> str:
    """The text with every run of blanks made one: tables are read without their layout."""
    return " ".join(text.split())


@pytest.fixture
def show(plant: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """`show("2022-12-28")` gives the exit code, the words printed and the words on stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["show", *arguments])
        printed = capsys.readouterr()
        return code, words(printed.out), words(printed.err)

    return run


def test_status_counts_each_state(plant: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    told = words(capsys.readouterr().out)
    assert "forecast │ 3 │ 1 │ 1 │ 1" in told
    assert "risk │ 2 │ 1 │ 1 │ 2" in told
    assert "Published: 2022-12-20 to 2022-12-28, the last one" in told
    assert "forecast missing: 2022-12-21" in told
    assert "forecast unfinished: 2022-12-27" in told
    assert "forecast refused: 2022-12-23, run 3: too few bars" in told
    assert "risk refused: 2022-12-22, run 2: VaR is negative" in told
    assert "Rebalances of [paper]: 1 settled, 0 refused, the last of 2022-12-28" in told
    assert "Rebalances of equal: 0 settled, 1 refused, the last of 2022-12-28" in told


def test_status_as_json(plant: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["forecasts_published"], status["risk_published"]) == (3, 2)
    assert status["last_published"] == "2022-12-28"
    states = {(gap["session"], gap["kind"]): gap["state"] for gap in status["gaps"]}
    assert states == {
        ("2022-12-21", "forecast"): "missing",
        ("2022-12-21", "risk"): "missing",
        ("2022-12-22", "risk"): "refused",
        ("2022-12-23", "forecast"): "refused",
        ("2022-12-23", "risk"): "unfinished",
        ("2022-12-27", "forecast"): "unfinished",
        ("2022-12-27", "risk"): "unfinished",
    }


def test_status_names_ten_sessions_of_a_state(plant: Any, capsys: pytest.CaptureFixture[str]) -> None:
    plant.connection.execute(
        "INSERT INTO trading_session SELECT 'XNYS', day, day, day, day, day FROM "
        "generate_series('2023-01-02'::date, '2023-01-13'::date, '1 day') AS day"
    )
    assert main(["status"]) == 0
    assert "2023-01-10 and 3 more, to 2023-01-13" in words(capsys.readouterr().out)


def test_status_of_an_exchange_never_run(
    plant: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISK_EXCHANGE", "XTKS")
    get_settings.cache_clear()
    assert main(["status"]) == 0
    assert "Nothing of XTKS has been run yet; `make run` runs the last session" in words(capsys.readouterr().out)


def test_show_prints_forecasts_worst_first(show: Any) -> None:
    code, told, _ = show("2022-12-28")
    assert code == 0
    assert "published as run 5, revision 1, 2026-05-06 07:08:01 UTC" in told
    # symbol, mu, sigma, q01, q025, q05, q50, q95, es025 of the planted rows
    ge = told.index("GE 0.062 2.500 -7.500 -5.000 -3.750 0.125 4.375 -6.875")
    aapl = told.index("AAPL 0.062 1.250 -3.750 -2.500 -1.875 0.125 2.188 -3.438")
    assert ge < aapl


def test_show_prints_the_risk_of_each_book(show: Any) -> None:
    _, told, _ = show("2022-12-28")
    assert "equal VaR 99.00% 1 session 24,680.50 1,000,000.00 USD 1000 filtered historical" in told
    assert "equal ES 99.00% 1 session 31,415.25 1,000,000.00 USD 1000 filtered historical" in told


def test_show_prints_the_orders_and_the_refused_rebalance(show: Any) -> None:
    _, told, _ = show("2022-12-28")
    assert (
        "Rebalance 1 of [paper]: inverse volatility. Value 1,002,000.00, cash 5,000.00 before and 432.10 after, in USD"
        in told
    )
    assert "GE sell 30 65.50 1,965.00 above its weight" in told
    assert "AAPL buy 1,200 126.04 151,248.00 toward its weight" in told
    assert "Rebalance of equal: refused: no price of GE" in told


def test_show_prints_quarantine_and_checks_with_their_sentences(show: Any) -> None:
    _, told, _ = show("2022-12-28")
    assert "XOM stale XOM has had the same close for 6 sessions" in told
    assert "inputs coverage passed 1 0.9 20 of 20 instruments have a bar" in told
    assert "inputs jumps told 61.5 50 XOM moved by 61.5% [a jump]" in told
    assert "risk sign passed - - every loss is positive" in told


def test_show_says_where_the_numbers_come_from(show: Any) -> None:
    _, told, _ = show("2022-12-28")
    assert "run 5, by backfill (backfill__7)" in told
    assert "bundled: 3 instruments x 2 sessions, 2017-12-26 to 2022-12-28, hash feed5" in told
    assert (
        "assumed (close + 60 min) for 10,000 of 25,200 bars, loaded 2026-03-04 05:06 UTC; cut-off 2022-12-29 14:30 UTC"
        in told
    )
    assert "2022, trained through 2021-12-31, architecture a5c" in told
    assert "weights ba5eba11" in told
    assert "1 shard on cpu in float32, batch size 512, profile 1: 512 is the smallest within 2% of the best" in told
    assert "code sha256 decade" in told
    assert "torch 2.13.0" in told


def test_bars_observed_by_our_clock_are_called_so(plant: Any, show: Any) -> None:
    run = plant.run("2022-12-21", assumed_bars=0)
    plant.check(run, "inputs", "coverage", "all there")
    plant.forecasts(run, "2022-12-21")
    _, told, _ = show("2022-12-21")
    assert "observed by our clock for all 25,200 bars, loaded 2026-03-04 05:06 UTC" in told
    assert f"The risk of the session is unfinished: run {run} has published its forecasts only" in told
    assert "1 shard on cpu in float32, batch size 256, 1,234 rows a second" in told
    assert "Quarantine: no instrument" in told


def test_newer_forecasts_with_older_risk_say_so(plant: Any, show: Any) -> None:
    run = plant.run("2022-12-28")
    plant.check(run, "inputs", "coverage", "all there")
    plant.forecasts(run, "2022-12-28", revision=2)
    _, told, _ = show("2022-12-28")
    assert f"published as run {run}, revision 2" in told
    assert "This risk is of run 5: the forecasts above are newer, theirs is not published yet" in told


def test_an_order_list_may_be_empty(plant: Any, show: Any) -> None:
    plant.connection.execute("DELETE FROM order_line")
    assert "No orders" in show("2022-12-28")[1]


def test_rows_limits_the_forecasts(show: Any) -> None:
    _, told, _ = show("2022-12-28", "--rows", "1")
    assert "and 1 more; all of them: risk show 2022-12-28 --csv" in told
    assert "AAPL 0.062" not in told


def test_forecasts_as_csv(plant: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "2022-12-28", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["symbol"], float(row["q01"]), float(row["es025"])) for row in rows] == [
        ("GE", -7.5, -6.875),
        ("AAPL", -3.75, -3.4375),
    ]


def test_a_refused_risk_is_told_beside_the_forecasts(show: Any) -> None:
    code, told, _ = show("2022-12-22")
    assert code == 0
    assert "The risk of the session is refused (run 2): the VaR of book equal is -3, a loss must be positive" in told


@pytest.mark.parametrize(
    ("session", "sentence"),
    [
        (
            "2022-12-21",
            "session 2022-12-21 of XNYS is missing: no run has been opened for it; "
            "`make run SESSION=2022-12-21` runs it",
        ),
        (
            "2022-12-23",
            "session 2022-12-23 of XNYS is refused (run 3): 12 of 20 instruments have a bar, "
            "90% are needed. Mend what the check names, then `make run SESSION=2022-12-23`",
        ),
        (
            "2022-12-27",
            "session 2022-12-27 of XNYS is unfinished: run 4 has scored 3 of 4 shards and is not published; "
            "see its tasks in Airflow, or `make run SESSION=2022-12-27`, which goes on where it was",
        ),
        (
            "2022-12-26",
            "2022-12-26 is not a session of XNYS in this database; the last one before it is 2022-12-23. "
            "`risk status` lists what is published",
        ),
        ("2999-12-30", "session 2999-12-30 of XNYS is not due: it runs after 2999-12-30 22:00 UTC"),
    ],
)
def test_a_session_that_is_not_published_says_its_state(show: Any, session: str, sentence: str) -> None:
    code, told, error = show(session)
    assert (code, told) == (1, "")
    assert sentence in error


def test_a_refusal_without_checks_tells_the_runs_own_sentence(plant: Any, show: Any) -> None:
    plant.connection.execute("DELETE FROM audit_check WHERE run_id = 3")
    assert "is refused (run 3): too few bars. Mend" in show("2022-12-23")[2]
    plant.connection.execute("UPDATE run SET refusal = NULL WHERE run_id = 3")
    assert "is refused (run 3): its run does not say why. Mend" in show("2022-12-23")[2]


def test_what_is_not_a_date_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["show", "christmas"])
    assert ended.value.code == 2
    assert "'christmas' is not a date; write a session as 2022-12-28" in capsys.readouterr().err


def test_print_session_writes_to_the_given_console(plant: Any) -> None:
    written = io.StringIO()
    print_session(date(2022, 12, 28), Console(file=written, width=120))
    assert "24,680.50" in written.getvalue()
    assert max(map(len, written.getvalue().splitlines())) <= 120


def test_the_widest_line_fits_a_plain_page(plant: Any, capsys: pytest.CaptureFixture[str]) -> None:
    main(["show", "2022-12-28"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 120


def test_a_database_that_is_down_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISK_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    get_settings.cache_clear()
    assert main(["status"]) == 1
    get_settings.cache_clear()
    told = capsys.readouterr()
    assert "the risk database can't be reached" in told.err
    assert "Traceback" not in told.err


def test_a_database_without_tables_says_what_makes_them(
    postgres: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISK_DATABASE_URL", server.url(postgres, "airflow"))
    get_settings.cache_clear()
    assert main(["status"]) == 1
    get_settings.cache_clear()
    assert "the risk database has no tables yet; `make run` makes them" in capsys.readouterr().err


def test_a_wrong_setting_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISK_CONFIDENCE", "2")
    get_settings.cache_clear()
    assert main(["status"]) == 1
    get_settings.cache_clear()
    assert "a setting is wrong: confidence: Input should be less than 1" in capsys.readouterr().err


def test_before_the_first_run_it_says_how_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISK_STATE_DIR", str(tmp_path))
    get_settings.cache_clear()
    assert main(["status"]) == 1
    get_settings.cache_clear()
    assert "nothing has been run yet" in capsys.readouterr().err


def test_an_embedded_server_that_is_down_is_up_for_the_answer_only(
    make_server_folder: Callable[[], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = make_server_folder()
    data = state / "postgres"
    server.start(data)
    schema.upgrade(server.url(data, "risk"))
    monkeypatch.setenv("RISK_STATE_DIR", str(state))
    monkeypatch.delenv("RISK_DATABASE_URL", raising=False)
    get_settings.cache_clear()
    assert main(["status"]) == 0
    assert (data / "postmaster.pid").exists()  # it was up, it stays up
    server.stop(data)
    assert main(["status"]) == 0
    get_settings.cache_clear()
    assert not (data / "postmaster.pid").exists()
    assert capsys.readouterr().out.count("Nothing of XNYS has been run yet") == 2


def test_the_command_starts_without_the_heavy_libraries() -> None:
    heavy = {"torch", "pandas", "numpy", "sqlalchemy", "airflow"}
    code = f"import sys, risk.cli, risk.report; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert done.stdout.strip() == "set()"


def _environment() -> dict[str, str]:
    project = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": f"{project / 'include'}:{project / 'plugins'}"}
