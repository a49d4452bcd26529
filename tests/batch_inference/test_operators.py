"""The operators, run as a task runs them, against a real database."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from airflow.sdk import DAG, RetryAction

from batch_inference import Outcome, describe_device
from batch_inference.errors import (
    ConfigurationError,
    DeviceLostError,
    ImportStringError,
    InputError,
    OutputError,
    TooLargeError,
)
from batch_inference.operators import BatchInferenceOperator, ProfileBatchSizeOperator, database_url
from batch_inference.operators.retries import RetryTransient

PLUGINS = Path(__file__).parents[2] / "plugins"

pytestmark = pytest.mark.usefixtures("named_callables")


def score(**options: Any) -> Any:
    defaults = {"model": "shop:make_model", "source": "shop:read_rows", "device": "cpu"}
    return BatchInferenceOperator(task_id="score", **{**defaults, **options}).execute({})  # type: ignore[arg-type]


def profile(database: str, **options: Any) -> dict[str, Any]:
    defaults = {"model": "shop:make_model", "input_shape": [2], "device": "cpu", "max_batch_size": 4}
    return ProfileBatchSizeOperator(task_id="profile", database=database, **{**defaults, **options}).execute({})  # type: ignore[arg-type]


def query(database: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database, autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def test_callable_source_to_a_table(database: str) -> None:
    options = {"table": "scored", "database": database, "batch_size": 2, "output_columns": ["y"]}
    for slope in (2.0, 3.0):
        told = score(**options, parameters={"slope": slope, "count": 3}, replace={"run_date": "2022-11-25"})
    assert query(database, "SELECT run_date::text, item, y FROM scored ORDER BY item") == [
        ("2022-11-25", 0, 3.0),
        ("2022-11-25", 1, 6.0),
        ("2022-11-25", 2, 9.0),
    ]
    assert (told["table"], told["rows"], told["batch_size"], told["precision"]) == ("scored", 3, 2, "float32")
    assert told["latency_ms_per_sample"] == pytest.approx(told["latency_ms_per_batch"] / 2)


def test_select_to_a_table(database: str) -> None:
    query(
        database,
        "CREATE TABLE item AS SELECT i AS id, i AS x1, 1.5 AS x2, 'n' || i AS name FROM generate_series(1, 5) i",
    )
    score(
        source="SELECT id, name, x1, x2 FROM item WHERE id <= :most ORDER BY id",
        parameters={"most": 2},
        key_columns=["id", "name"],
        table="scored",
        database=database,
    )
    assert query(database, "SELECT id, name, output FROM scored ORDER BY id") == [(1, "n1", 5.0), (2, "n2", 7.0)]


def test_several_outputs_are_columns(database: str) -> None:
    score(model="shop:make_two_outputs", parameters={"count": 2}, table="scored", database=database)
    assert query(database, "SELECT item, total, pair_0, pair_1 FROM scored ORDER BY item") == [
        (0, 1.0, 0.0, 1.0),
        (1, 2.0, 1.0, 1.0),
    ]
    score(model="shop:make_two_outputs", parameters={"count": 0}, table="scored", database=database)
    with pytest.raises(OutputError, match="the model gives 3 columns"):
        score(model="shop:make_two_outputs", table="scored", database=database, output_columns=["a"])


def test_sink_gets_the_outcome_and_what_it_names() -> None:
    import shop

    told = score(sink="shop:keep", parameters={"label": "a", "count": 4, "first": 2})
    assert told == {"rows": 4, "label": "a"}
    kept: Outcome = shop.outcomes[-1]
    assert list(kept.keys["item"]) == [2, 3, 4, 5]
    assert kept.outputs[:, 0].tolist() == [6.0, 8.0, 10.0, 12.0]
    assert kept.statistics.rows == 4


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"table": "t", "sink": "shop:keep"}, ConfigurationError, "either sink='module:callable' or table="),
        ({}, ConfigurationError, "either sink"),
        ({"table": "t"}, ConfigurationError, "needs database"),
        ({"sink": "shop:keep", "source": "SELECT 1"}, ConfigurationError, "needs database"),
        ({"sink": "shop"}, ImportStringError, "'shop' is not of the form 'module:callable'"),
        ({"sink": "nowhere:f"}, ImportStringError, "no module 'nowhere'; it must be on the worker's PYTHONPATH"),
        ({"sink": "shop:nothing"}, ImportStringError, "there is no 'nothing' in shop; it has .*make_model"),
        ({"sink": "shop:NOT_CALLABLE"}, ImportStringError, "is a int; it must be callable"),
        ({"sink": "shop:keep", "parameters": {"lable": 1}}, ImportStringError, "parameters has lable, which neither"),
        ({"sink": "shop:keep", "model": "shop:keep"}, ImportStringError, "shop:keep needs outcome, which parameters"),
        ({"sink": "shop:keep", "source": "shop:read_nothing"}, ConfigurationError, "return batch_inference.Source"),
        ({"sink": "shop:keep", "batch_size": 0}, ConfigurationError, "batch_size is 0"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(
    options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        score(**options)


@pytest.mark.parametrize("model_key", [None, "my model"])
def test_profile_is_stored_and_reused(database: str, model_key: str | None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = profile(database, model_key=model_key)
    assert (first["reused"], first["precision"], first["device"]) == (False, "float32", str(describe_device("cpu")))
    assert "<- chosen" in caplog.text
    caplog.clear()
    second = profile(database, model_key=model_key)
    assert second == {**first, "reused": True}
    assert "<- chosen" in caplog.text
    assert f"Reused profile {first['profile_id']}" in caplog.text
    again = profile(database, model_key=model_key, profile_again=True)
    assert again["profile_id"] > first["profile_id"]
    assert profile(database, model_key=model_key)["profile_id"] == again["profile_id"]
    assert query(database, "SELECT count(*), min(jsonb_array_length(curve)) FROM batch_profile") == [(2, 3)]


def test_profile_beyond_this_tasks_limits_is_measured_again(database: str) -> None:
    first = profile(database, model_key="m", max_batch_size=1024)
    second = profile(database, model_key="m", max_batch_size=1)
    assert second["batch_size"] == 1
    assert second["reused"] is (first["batch_size"] == 1)


def test_profile_of_example_rows(database: str) -> None:
    assert profile(database, example="shop:example_rows")["batch_size"] <= 4
    with pytest.raises(ImportStringError, match="neither the model nor the example names"):
        profile(database, example="shop:example_rows", parameters={"slop": 1})


def test_profile_sets_the_batch_size_on_its_own_device_only(caplog: pytest.LogCaptureFixture) -> None:
    import shop

    here = {"profile_id": 7, "device": str(describe_device("cpu")), "batch_size": 3}
    for options, size in (
        ({"profile": here}, 3),
        ({"profile": here, "batch_size": "2"}, 2),
        ({"profile": {**here, "device": "cuda (another)"}}, 5),
    ):
        score(sink="shop:keep", **options)
        assert shop.outcomes[-1].statistics.batch_size == size
    assert "The profile is of cuda (another)" in caplog.text


def test_a_sink_that_names_the_profile_gets_the_one_that_was_used() -> None:
    here = {"profile_id": 7, "device": str(describe_device("cpu")), "batch_size": 3}
    assert score(sink="shop:keep_profile", profile=here) == here
    assert score(sink="shop:keep_profile", profile={**here, "device": "cuda (another)"}) is None
    assert score(sink="shop:keep_profile", profile=here, batch_size=2) is None
    assert score(sink="shop:keep_profile") is None
    assert score(sink="shop:keep_profile", profile=here, parameters={"profile": "mine"}) == "mine"
    assert score(sink="shop:keep_all", profile=here, parameters={"label": "a"}) == {"label": "a"}
    with pytest.raises(ImportStringError, match="parameters has profile, which neither"):
        score(sink="shop:keep", profile=here, parameters={"profile": "mine"})


def test_database_is_a_url_a_callable_or_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    assert database_url("postgresql://a@b/c") == "postgresql://a@b/c"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", "postgresql://anna:secret@db/shop")
    assert database_url("shop") == "postgres://anna:secret@db/shop"
    with pytest.raises(ConfigurationError, match="shop:not_a_url must return a database URL as text"):
        database_url("shop:not_a_url")


@pytest.mark.parametrize("operator", [BatchInferenceOperator, ProfileBatchSizeOperator])
def test_mapped_tasks_keep_queue_pool_limits_and_retries(operator: type[Any]) -> None:
    needed = {"model": "shop:make_model", "device": "cpu"}
    needed |= {"source": "shop:read_rows", "sink": "shop:keep"} if operator is BatchInferenceOperator else {}
    needed |= {} if operator is BatchInferenceOperator else {"input_shape": [2], "database": "shop"}
    with DAG("d", schedule=None):
        plain = operator(task_id="plain", **needed)
        mapped = operator.partial(task_id="mapped", **needed).expand(parameters=[{"count": 1}, {"count": 2}])
        elsewhere = operator.partial(task_id="else", pool="p", queue="q", **needed).expand(parameters=[{}])
    for task in (plain, mapped):
        assert (task.queue, task.pool, task.retries) == ("gpu", "gpu", 2)
        assert task.retry_delay == timedelta(seconds=30)
        assert isinstance(task.retry_policy, RetryTransient)
        assert timedelta(minutes=15) <= task.execution_timeout <= timedelta(hours=2)
    assert (elsewhere.queue, elsewhere.pool) == ("q", "p")
    assert {"model", "parameters", "database"} <= set(mapped.template_fields)


def test_templated_arguments_are_named_so_in_the_documentation() -> None:
    for operator in (BatchInferenceOperator, ProfileBatchSizeOperator):
        entries = re.split(r"\n {8}(?! )", (operator.__doc__ or "").partition("Args:")[2])
        named = {entry.partition(":")[0].strip() for entry in entries if "(templated)" in entry}
        assert named == set(operator.template_fields)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "action", "delay"),
    [
        (psycopg.OperationalError("gone"), RetryAction.RETRY, timedelta(seconds=30)),
        (caused(RuntimeError("wrapped"), psycopg.OperationalError("gone")), RetryAction.RETRY, timedelta(seconds=30)),
        (ConnectionResetError(), RetryAction.RETRY, timedelta(seconds=30)),
        (DeviceLostError(64, RuntimeError("illegal address")), RetryAction.RETRY, timedelta(0)),
        (InputError("bad"), RetryAction.FAIL, None),
        (TooLargeError("cpu"), RetryAction.FAIL, None),
        (psycopg.errors.UniqueViolation("twice"), RetryAction.FAIL, None),
        (KeyError("x"), RetryAction.FAIL, None),
        (OSError("disk"), RetryAction.DEFAULT, None),
    ],
)
def test_retry_what_may_pass_and_fail_what_cannot(
    error: Exception, action: RetryAction, delay: timedelta | None
) -> None:
    policy = RetryTransient.deserialize(RetryTransient().serialize())
    decision = policy.evaluate(error, 1, 3)
    assert (decision.action, decision.retry_delay) == (action, delay)


def test_a_sinks_lost_connection_reaches_the_retry_policy() -> None:
    with pytest.raises(psycopg.OperationalError) as raised:
        score(sink="shop:database_is_down")
    assert RetryTransient().evaluate(raised.value, 1, 3).action is RetryAction.RETRY


def test_importing_the_operators_costs_no_heavy_module() -> None:
    """Beyond what Airflow itself has loaded."""
    code = (
        "import sys; from airflow.sdk import BaseHook, BaseOperator, RetryPolicy; before = set(sys.modules);"
        "import batch_inference.operators; heavy = {'torch', 'numpy', 'pandas', 'sqlalchemy', 'psycopg', 'pyarrow'};"
        "print(sorted(heavy & (set(sys.modules) - before)), 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PLUGINS)}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert told.stdout.strip().splitlines()[-1] == "[] False False"


def test_reused_profile_with_a_model_key_does_not_import_torch(database: str) -> None:
    profile(database, model_key="m", device="auto")
    code = (
        "import sys; from batch_inference.operators import ProfileBatchSizeOperator;"
        f"told = ProfileBatchSizeOperator(task_id='p', model='shop:make_model', input_shape=[2], model_key='m',"
        f"database={database!r}, max_batch_size=4).execute({{}});"
        "print(told['reused'], 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PLUGINS), str(Path(__file__).parent)])}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert told.stdout.strip().splitlines()[-1] == "True False"


def test_public_names_are_all_there() -> None:
    import batch_inference

    assert all(getattr(batch_inference, name) is not None for name in batch_inference.__all__)
    with pytest.raises(AttributeError, match="its public names are BatchInference"):
        _ = batch_inference.nothing
