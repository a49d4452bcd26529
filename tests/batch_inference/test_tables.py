"""Rows to PostgreSQL and back, as another client sees them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import psycopg
import pytest

from batch_inference.binary_copy import column_type_of
from batch_inference.errors import TableError
from batch_inference.profiles import BatchProfile, measured_row
from batch_inference.tables import ensure_profile_table, find_profile, open_engine, read_select, save_profile, store

IDS = np.array([3, 1, 2])


def query(database: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database, autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def test_every_fixed_width_type_comes_back(database: str) -> None:
    query(
        database,
        "CREATE TABLE t (i2 smallint, i4 integer, i8 bigint, f4 real, f8 double precision, b boolean, d date, "
        "ts timestamp, tz timestamptz)",
    )
    values = {
        "i2": np.array([-1, 32767]),
        "i4": ["7", "-8"],
        "i8": np.array([2**40, -(2**40)]),
        "f4": np.array([0.5, np.nan]),
        "f8": np.array([1e300, -np.inf]),
        "b": np.array([True, False]),
        "d": ["1999-12-31", "2022-11-25"],
        "ts": np.array(["2022-11-25T13:00", "1999-01-01T00:00:00.000001"], "datetime64[ns]"),
        "tz": [datetime(2022, 11, 25, 13, tzinfo=timezone(timedelta(hours=-5))), datetime(2000, 1, 1, tzinfo=UTC)],
    }
    assert store(open_engine(database), "t", values, key_columns=["i8"]) == 2
    first, second = query(database, "SELECT *, tz AT TIME ZONE 'UTC' FROM t ORDER BY i2 DESC")
    assert second[:4] == (-1, 7, 2**40, 0.5)
    assert second[4:8] == (1e300, True, date(1999, 12, 31), datetime(2022, 11, 25, 13))
    assert second[9] == datetime(2022, 11, 25, 18)
    assert first[:3] == (32767, -8, -(2**40))
    assert np.isnan(first[3])
    assert first[4:8] == (-np.inf, False, date(2022, 11, 25), datetime(1999, 1, 1, 0, 0, 0, 1))
    assert first[9] == datetime(2000, 1, 1)


def test_text_and_other_types_come_back(database: str) -> None:
    query(database, "CREATE TABLE t (name text, id integer, x real, d date, n numeric)")
    columns = {"name": ["é", "b"], "id": IDS[:2], "x": np.array([1.5, 2.5]), "d": ["2022-11-25"] * 2, "n": [1.25, 2.5]}
    store(open_engine(database), "t", columns, key_columns=["name"])
    assert query(database, "SELECT name, id, x, d::text, n::float FROM t ORDER BY id") == [
        ("b", 1, 2.5, "2022-11-25", 2.5),
        ("é", 3, 1.5, "2022-11-25", 1.25),
    ]


def test_a_missing_table_is_made_with_its_key(database: str) -> None:
    columns = {"id": IDS, "name": ["a", "b", "c"], "y": np.array([1.0, 2.0, 3.0], "f4"), "z": np.ones(3, bool)}
    store(open_engine(database), "t", columns, key_columns=["id"], replace={"day": "2022-11-25"})
    found = query(database, "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 't'")
    assert dict(found) == {"day": "date", "id": "bigint", "name": "text", "y": "real", "z": "boolean"}
    key = query(database, "SELECT column_name FROM information_schema.key_column_usage WHERE table_name = 't'")
    assert key == [("day",), ("id",)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([1], "i2"), "integer"),
        (np.array([1], "i8"), "bigint"),
        (np.array([1], "f4"), "real"),
        (np.array([1.0]), "double precision"),
        (["2022-11-25"], "date"),
        (["2022-13-25"], "text"),
        (np.array(["2022-11-25"], "datetime64[D]"), "date"),
        (np.array(["2022-11-25T10"], "datetime64[s]"), "timestamp without time zone"),
        ([], "double precision"),
    ],
)
def test_column_types_follow_the_values(values: Any, kind: str) -> None:
    assert column_type_of(values) == kind


@pytest.mark.parametrize("replace", [None, {"day": "2022-11-25"}])
def test_the_second_run_leaves_the_same_rows(database: str, replace: dict[str, Any] | None) -> None:
    engine = open_engine(database)
    for shift in (0, 10):
        store(engine, "t", {"id": IDS, "y": IDS * 2.0 + shift}, key_columns=["id"], replace=replace)
    assert query(database, "SELECT id, y FROM t ORDER BY id") == [(1, 12.0), (2, 14.0), (3, 16.0)]


def test_replace_leaves_other_constants_and_keys_leave_other_keys(database: str) -> None:
    engine = open_engine(database)
    for day in ("2022-11-25", "2022-11-28"):
        store(engine, "t", {"id": IDS, "y": IDS}, key_columns=["id"], replace={"day": day})
    store(engine, "t", {"id": IDS[:1], "y": [9]}, key_columns=["id"], replace={"day": "2022-11-28"})
    assert query(database, "SELECT day::text, count(*) FROM t GROUP BY day ORDER BY day") == [
        ("2022-11-25", 3),
        ("2022-11-28", 1),
    ]
    store(engine, "u", {"id": IDS, "name": ["a", "b", "c"]}, key_columns=["name"])
    store(engine, "u", {"id": [7], "name": ["a"]}, key_columns=["name"])
    assert query(database, "SELECT id, name FROM u ORDER BY name") == [(7, "a"), (1, "b"), (2, "c")]


def test_a_schema_may_be_named(database: str) -> None:
    query(database, "CREATE SCHEMA IF NOT EXISTS other")
    query(database, "DROP TABLE IF EXISTS other.t")
    store(open_engine(database), "other.t", {"id": IDS}, key_columns=["id"])
    assert query(database, "SELECT count(*) FROM other.t") == [(3,)]


def test_a_failed_store_leaves_the_old_rows(database: str) -> None:
    engine = open_engine(database)
    store(engine, "t", {"id": IDS, "y": [1, 2, 3]}, key_columns=["id"], replace={"day": "2022-11-25"})
    with pytest.raises(psycopg.errors.UniqueViolation):
        store(engine, "t", {"id": [5, 5], "y": [1, 2]}, key_columns=["id"], replace={"day": "2022-11-25"})
    assert query(database, "SELECT count(*) FROM t") == [(3,)]


def test_no_rows_replace_all(database: str) -> None:
    engine = open_engine(database)
    store(engine, "t", {"id": IDS}, key_columns=["id"], replace={"part": 1})
    assert store(engine, "t", {"id": IDS[:0]}, key_columns=["id"], replace={"part": 1}) == 0
    assert query(database, "SELECT count(*) FROM t") == [(0,)]


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no such column": (
        {"id": IDS, "q": IDS},
        {"key_columns": ["id"]},
        "table t has no column q; it has id, i2, x, d, b",
    ),
    "nothing to replace": ({"id": IDS}, {}, "a second run would write them twice"),
    "unknown key": ({"id": IDS}, {"key_columns": ["k"]}, "key columns k are not among the columns id"),
    "twice": ({"id": IDS}, {"replace": {"id": 1}}, "both in replace and in the rows"),
    "no constant": ({"id": IDS}, {"replace": {"x": None}}, "every value must be given"),
    "lengths": ({"id": IDS, "x": IDS[:2]}, {"key_columns": ["id"]}, "different numbers of rows"),
    "too large": ({"id": IDS, "i2": IDS * 30000}, {"key_columns": ["id"]}, "column i2 is smallint and has values from"),
    "fraction": ({"id": IDS, "i2": IDS / 2}, {"key_columns": ["id"]}, "give whole numbers"),
    "words": ({"id": IDS, "i2": ["a", "b", "c"]}, {"key_columns": ["id"]}, "column i2 is smallint, which can't hold"),
    "beyond": ({"id": IDS, "x": IDS * 1e300}, {"key_columns": ["id"]}, "use double precision"),
    "no time": ({"id": IDS, "d": np.array(["NaT"] * 3, "M8[D]")}, {"key_columns": ["id"]}, "has 3 missing times"),
    "no boolean": ({"id": IDS, "b": IDS}, {"key_columns": ["id"]}, "give True and False"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_columns_are_refused_in_a_sentence(database: str, kind: str) -> None:
    query(database, "CREATE TABLE t (id integer, i2 smallint, x real, d date, b boolean)")
    columns, options, sentence = BAD[kind]
    with pytest.raises(TableError, match=sentence):
        store(open_engine(database), "t", columns, **options)


def test_only_postgresql_is_spoken() -> None:
    with pytest.raises(TableError, match="the database URL begins with 'sqlite'"):
        open_engine("sqlite:///x.db")


def test_select_gives_keys_and_inputs_in_order(database: str) -> None:
    query(database, "CREATE TABLE f AS SELECT i AS id, i * 2.0 AS x, i * 3 AS y FROM generate_series(1, 3) i")
    engine = open_engine(database)
    source = read_select(engine, "SELECT x, id, y FROM f WHERE id > :least ORDER BY id", ["id"], {"least": 1})
    np.testing.assert_array_equal(source.keys["id"], [2, 3])
    np.testing.assert_array_equal(source.rows, np.array([[4, 6], [6, 9]], "f4"))
    assert source.rows.dtype == np.float32
    assert read_select(engine, "SELECT id, x, y FROM f WHERE false", ["id"]).rows.shape == (0, 2)


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("SELECT 1 AS x", "the SELECT gives x; it must give the key columns id"),
        ("SELECT 1 AS id", "at least one more, the model's input"),
        ("SELECT 1 AS id, NULL::real AS x", "input column x has 1 NULLs"),
        ("SELECT 1 AS id, 'a' AS x", "input column x isn't numeric"),
    ],
)
def test_bad_select_is_refused_in_a_sentence(database: str, sql: str, sentence: str) -> None:
    with pytest.raises(TableError, match=sentence):
        read_select(open_engine(database), sql, ["id"])


def test_profiles_are_found_by_key_newest_first(database: str) -> None:
    engine = open_engine(database)
    ensure_profile_table(engine)
    ensure_profile_table(engine)
    rows = (measured_row(1, [0.1], 10), measured_row(2, [0.1], 20))
    profile = BatchProfile(rows, rows[1], "because", "key", "m", "cpu (x)", "float32", "3 float32", {"torch": "2"})
    first, second = save_profile(engine, profile), save_profile(engine, profile)
    stored = find_profile(engine, "key")
    assert stored is not None
    assert (stored.profile_id, stored.batch_size, stored.memory_bytes, stored.reason) == (second, 2, 20, "because")
    assert stored.curve == profile.curve()
    assert first < second
    assert find_profile(engine, "another") is None
