"""PostgreSQL for the operators: profiles of batch sizes, a SELECT as a source, COPY BINARY as a sink.

`store` is one transaction: it deletes what it replaces and copies the new rows, so that a second run leaves the same
rows and a failed one leaves the old. A table that isn't there is made, from the columns' types; one that is must have
every column that is written.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

import numpy as np
from psycopg import sql
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Double,
    Engine,
    Identity,
    Index,
    Integer,
    MetaData,
    NullPool,
    Table,
    Text,
    create_engine,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import make_url

from batch_inference.binary_copy import FIXED_WIDTH, check_rows, column_type_of, encode, packed
from batch_inference.errors import TableError
from batch_inference.exchange import Source
from batch_inference.profiles import BatchProfile

log = logging.getLogger(__name__)

batch_profile = Table(
    "batch_profile",
    MetaData(),
    Column("profile_id", BigInteger, Identity(always=True), primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("profile_key", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("precision", Text, nullable=False),
    Column("input_shape", Text, nullable=False),
    Column("versions", JSONB, nullable=False),
    Column("batch_size", Integer, nullable=False),
    Column("throughput", Double, nullable=False),
    Column("latency_ms_per_batch", Double, nullable=False),
    Column("latency_ms_per_sample", Double, nullable=False),
    Column("memory_bytes", BigInteger),
    Column("reason", Text, nullable=False),
    Column("curve", JSONB, nullable=False),
)
Index("batch_profile_key", batch_profile.c.profile_key, batch_profile.c.profile_id.desc())


@dataclass(frozen=True)
class StoredProfile:
    """A row of `batch_profile`; `curve` is the profile's rows as JSON."""

    profile_id: int
    batch_size: int
    memory_bytes: int | None
    device: str
    precision: str
    reason: str
    curve: list[dict[str, Any]]


def open_engine(url: str) -> Engine:
    """An engine for a PostgreSQL URL of any driver; the driver used is psycopg 3. It keeps no connection open.

    Raises:
        TableError: the URL isn't PostgreSQL's.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise TableError(
            f"the database URL begins with {parsed.drivername!r}; results are stored by PostgreSQL's binary COPY: give "
            "postgresql://user@host/database"
        )
    return create_engine(parsed.set(drivername="postgresql+psycopg"), poolclass=NullPool)


def ensure_profile_table(engine: Engine) -> None:
    """Make the table `batch_profile` where no migration has. Safe from several tasks at once."""
    if inspect(engine).has_table(batch_profile.name):
        return
    with engine.begin() as connection:
        _lock(connection, batch_profile.name)
        batch_profile.metadata.create_all(connection)


def find_profile(engine: Engine, key: str) -> StoredProfile | None:
    """The newest stored profile of `key`."""
    table = batch_profile.c
    columns = [table[field.name] for field in fields(StoredProfile)]
    query = select(*columns).where(table.profile_key == key).order_by(table.profile_id.desc()).limit(1)
    with engine.connect() as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else StoredProfile(*row)


def save_profile(engine: Engine, profile: BatchProfile) -> int:
    """Store a profile with its whole curve; gives its `profile_id`."""
    values = {
        "profile_key": profile.key,
        "model": profile.model,
        "device": profile.device,
        "precision": profile.precision,
        "input_shape": profile.input_shape,
        "versions": dict(profile.versions),
        "batch_size": profile.batch_size,
        "throughput": profile.chosen.throughput,
        "latency_ms_per_batch": profile.chosen.latency_ms_per_batch,
        "latency_ms_per_sample": profile.chosen.latency_ms_per_sample,
        "memory_bytes": profile.chosen.memory_bytes,
        "reason": profile.reason,
        "curve": profile.curve(),
    }
    with engine.begin() as connection:
        identity = connection.execute(batch_profile.insert().values(values).returning(batch_profile.c.profile_id))
        return int(identity.scalar_one())


def read_select(
    engine: Engine,
    query: str,
    key_columns: Sequence[str],
    parameters: Mapping[str, Any] | None = None,
    dtype: str = "float32",
) -> Source:
    """The rows of a SELECT: `key_columns` name them, the other columns, in order, are the `(rows, columns)` inputs.

    Args:
        engine: of the database.
        query: the SELECT; `:name` stands for a parameter.
        key_columns: columns of the SELECT that name a row.
        parameters: values for the query's `:name`s.
        dtype: of the inputs.

    Raises:
        TableError: a key that isn't selected, no input column, or one with a NULL or a text in it.
    """
    with engine.connect() as connection:
        result = connection.execute(text(query), dict(parameters or {}))
        names, rows = list(result.keys()), result.all()
    missing = [name for name in key_columns if name not in names]
    inputs = [name for name in names if name not in key_columns]
    if missing or not inputs:
        raise TableError(
            f"the SELECT gives {', '.join(names)}; it must give the key columns {', '.join(key_columns)} and at "
            "least one more, the model's input"
        )
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())
    numbers = [_numbers(name, columns[name], dtype) for name in inputs]
    return Source({name: np.array(columns[name]) for name in key_columns}, np.stack(numbers, axis=1))


def store(
    engine: Engine,
    table: str,
    columns: Mapping[str, Any],
    *,
    key_columns: Sequence[str] = (),
    replace: Mapping[str, Any] | None = None,
) -> int:
    """Write rows by COPY BINARY, in one transaction with the removal of those they replace.

    Args:
        engine: of the database.
        table: the table, `"name"` or `"schema.name"`; made where it isn't there.
        columns: an array of one value a row by column name, keys and outputs alike.
        key_columns: those of `columns` that name a row.
        replace: constants by column name, written on every row. All rows of the table with these values are replaced.
            Without it, the rows with the same keys are.

    Returns:
        The rows written.

    Raises:
        TableError: the table lacks a column, a value doesn't fit its column, or nothing says what to replace.
    """
    constants = dict(replace or {})
    _check_replaced(constants, columns, key_columns)
    rows = check_rows(columns)
    with engine.begin() as connection:
        _lock(connection, f"{table} {json.dumps(constants, sort_keys=True, default=str)}")
        types = _column_types(connection, table)
        if not types:
            types = _create(connection, table, columns, constants, key_columns)
        lacking = [name for name in (*constants, *columns) if name not in types]
        if lacking:
            raise TableError(f"table {table} has no column {', '.join(lacking)}; it has {', '.join(types)}")
        filled = {name: np.full(rows, value, dtype=object) for name, value in constants.items()}
        if constants:
            _delete_constants(connection, table, constants)
        else:
            _delete_keys(connection, table, {name: columns[name] for name in key_columns}, types)
        _copy(connection, _identifier(table), {**filled, **columns}, types)
    return rows


def _check_replaced(constants: Mapping[str, Any], columns: Mapping[str, Any], key_columns: Sequence[str]) -> None:
    unknown = [name for name in key_columns if name not in columns]
    if unknown:
        raise TableError(f"key columns {', '.join(unknown)} are not among the columns {', '.join(columns)}")
    twice = [name for name in constants if name in columns]
    if twice:
        raise TableError(f"columns {', '.join(twice)} are both in replace and in the rows; leave them out of one")
    if any(value is None for value in constants.values()):
        raise TableError(f"replace is {constants}; every value must be given, or rows could not be told apart")
    if not constants and not key_columns:
        raise TableError(
            "neither replace nor a key says which rows of the table these replace, so a second run would write them "
            "twice; give replace, as in {'run_date': '{{ ds }}'}, or key_columns"
        )


def _column_types(connection: Connection, table: str) -> dict[str, str]:
    """The types of a table's columns, in order; empty if there is no such table."""
    query = text(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = to_regclass(:name) "
        "AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    found = connection.execute(query, {"name": _identifier(table).as_string()})
    return {str(name): str(kind) for name, kind in found}


def _create(
    connection: Connection, table: str, columns: Mapping[str, Any], constants: Mapping[str, Any], keys: Sequence[str]
) -> dict[str, str]:
    types = {name: column_type_of([value]) for name, value in constants.items()}
    types |= {name: column_type_of(values) for name, values in columns.items()}
    parts = [sql.SQL("{} {} NOT NULL").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in types.items()]
    if keys:
        unique = sql.SQL(", ").join(sql.Identifier(name) for name in (*constants, *keys))
        parts.append(sql.SQL("PRIMARY KEY ({})").format(unique))
    statement = sql.SQL("CREATE TABLE {} ({})").format(_identifier(table), sql.SQL(", ").join(parts))
    _cursor(connection).execute(statement)
    log.info("Table %s was not there and was made: %s", table, statement.as_string())
    return types


def _delete_constants(connection: Connection, table: str, constants: Mapping[str, Any]) -> None:
    where = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in constants)
    _cursor(connection).execute(
        sql.SQL("DELETE FROM {} WHERE {}").format(_identifier(table), where), [str(v) for v in constants.values()]
    )


def _delete_keys(connection: Connection, table: str, keys: Mapping[str, Any], types: Mapping[str, str]) -> None:
    names = sql.SQL(", ").join(sql.Identifier(name) for name in keys)
    same = sql.SQL(" AND ").join(sql.SQL("kept.{0} = gone.{0}").format(sql.Identifier(name)) for name in keys)
    gone, target = sql.Identifier("batch_inference_keys"), _identifier(table)
    cursor = _cursor(connection)
    like = sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA")
    cursor.execute(like.format(gone, names, target))
    _copy(connection, gone, keys, types)
    cursor.execute(sql.SQL("DELETE FROM {} AS kept USING {} AS gone WHERE {}").format(target, gone, same))


def _copy(connection: Connection, target: sql.Identifier, columns: Mapping[str, Any], types: Mapping[str, str]) -> None:
    names = sql.SQL(", ").join(sql.Identifier(name) for name in columns)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(target, names)
    kinds = [types[name] for name in columns]
    with _cursor(connection).copy(statement) as copy:
        if all(kind in FIXED_WIDTH for kind in kinds):
            for chunk in packed([encode(name, columns[name], types[name]) for name in columns]):
                copy.write(chunk)
            return
        copy.set_types(kinds)
        for row in zip(*(_objects(name, values, types[name]) for name, values in columns.items()), strict=True):
            copy.write_row(row)


def _objects(name: str, values: Any, kind: str) -> list[Any]:
    """Python values of a column for psycopg to encode one by one."""
    array = np.asarray(values)
    if kind in ("text", "character varying", "character"):
        return [value if value is None else str(value) for value in array.tolist()]
    if kind == "date":
        return list(array.astype("datetime64[D]").tolist())
    if kind == "numeric":
        return [Decimal(str(value)) for value in array.tolist()]
    if kind in FIXED_WIDTH and array.dtype.kind in "iufb":
        return list(encode(name, array, kind).tolist())
    return list(array.tolist())


def _numbers(name: str, values: Sequence[Any], dtype: str) -> np.ndarray[Any, Any]:
    missing = sum(value is None for value in values)
    if missing:
        raise TableError(
            f"input column {name} has {missing} NULLs; leave those rows out of the SELECT or fill them in it"
        )
    try:
        return np.array(values, dtype=dtype)
    except (ValueError, TypeError) as error:
        raise TableError(
            f"input column {name} isn't numeric ({error}); name it in key_columns, or leave it out of the SELECT"
        ) from error


def _identifier(table: str) -> sql.Identifier:
    return sql.Identifier(*table.split("."))


def _lock(connection: Connection, name: str) -> None:
    """Wait for another transaction that writes the same thing; held until this one ends."""
    query = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
    connection.execute(query, {"name": f"batch_inference {name}"})


def _cursor(connection: Connection) -> Any:
    """A psycopg cursor within the connection's transaction."""
    driver = connection.connection.driver_connection
    if driver is None:
        raise TableError("the database connection is closed; open another")
    return driver.cursor()
