"""Columns of numpy arrays as PostgreSQL's binary COPY format, packed by numpy without a Python loop over rows.

Columns of fixed width (numbers, booleans, dates, timestamps) are laid out by one structured dtype: a row is its number
of fields, then length and big-endian value of each. Format: PostgreSQL manual, COPY, "Binary Format".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from batch_inference.errors import TableError

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_CHUNK_ROWS = 20_000

_INTEGERS = {"smallint": "i2", "integer": "i4", "bigint": "i8"}
_FLOATS = {"real": "f4", "double precision": "f8"}
_TIMES = {
    "date": "datetime64[D]",
    "timestamp without time zone": "datetime64[us]",
    "timestamp with time zone": "datetime64[us]",
}
_EPOCH = np.datetime64("2000-01-01")  # PostgreSQL's
FIXED_WIDTH = frozenset({*_INTEGERS, *_FLOATS, *_TIMES, "boolean"})


def packed(columns: Sequence[np.ndarray[Any, Any]]) -> Iterator[bytes]:
    """The whole COPY stream of columns that `encode` gave, in chunks."""
    yield HEADER
    rows = len(columns[0])
    layout: list[tuple[str, str]] = [("fields", ">i2")]
    for index, column in enumerate(columns):
        layout += [(f"length{index}", ">i4"), (f"value{index}", column.dtype.newbyteorder(">").str)]
    for start in range(0, rows, _CHUNK_ROWS):
        chunk = np.empty(min(_CHUNK_ROWS, rows - start), np.dtype(layout))
        chunk["fields"] = len(columns)
        for index, column in enumerate(columns):
            chunk[f"length{index}"] = column.dtype.itemsize
            chunk[f"value{index}"] = column[start : start + _CHUNK_ROWS]
        yield chunk.tobytes()
    yield TRAILER


def encode(name: str, values: Any, column_type: str) -> np.ndarray[Any, Any]:
    """`values` as the numbers that PostgreSQL keeps for a column of a fixed-width type.

    Raises:
        TableError: a value that the type can't hold.
    """
    array = np.asarray(values)
    try:
        if column_type in _TIMES:
            return _encode_times(name, array, column_type)
        if column_type in _INTEGERS:
            return _encode_integers(name, array, column_type)
        if column_type in _FLOATS:
            return _encode_floats(name, array, column_type)
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"column {name} is {column_type}, which can't hold its values ({error})") from error
    if array.dtype.kind != "b":
        raise TableError(f"column {name} is boolean and its values are {array.dtype}; give True and False")
    return array


def column_type_of(values: Any) -> str:
    """The PostgreSQL type that fits an array; text of ISO dates is a date."""
    array = np.asarray(values)
    by_kind = {"b": "boolean", "M": "date" if array.dtype == "datetime64[D]" else "timestamp without time zone"}
    if array.dtype.kind in "iu":
        return "integer" if array.dtype.itemsize <= 2 or array.dtype == np.int32 else "bigint"
    if array.dtype.kind == "f":
        return "real" if array.dtype.itemsize <= 4 else "double precision"
    if array.dtype.kind in "UO" and array.size and all(_is_iso_date(str(value)) for value in array[:100]):
        return "date"
    return by_kind.get(array.dtype.kind, "text")


def check_rows(columns: Mapping[str, Any]) -> int:
    """The rows that all columns have.

    Raises:
        TableError: columns of different lengths.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise TableError(f"the columns have different numbers of rows: {lengths}; give every column the same rows")
    return next(iter(lengths.values()), 0)


def _encode_integers(name: str, array: np.ndarray[Any, Any], column_type: str) -> np.ndarray[Any, Any]:
    if array.dtype.kind == "f":
        raise TableError(f"column {name} is {column_type} and its values are {array.dtype}; give whole numbers")
    whole = array if array.dtype.kind in "iu" else array.astype("i8")
    bounds = np.iinfo(_INTEGERS[column_type])
    if whole.size and (int(whole.min()) < bounds.min or int(whole.max()) > bounds.max):
        raise TableError(
            f"column {name} is {column_type} and has values from {whole.min()} to {whole.max()}; use a wider type"
        )
    return whole.astype(_INTEGERS[column_type])


def _encode_floats(name: str, array: np.ndarray[Any, Any], column_type: str) -> np.ndarray[Any, Any]:
    numbers = array if array.dtype.kind in "fiub" else array.astype("f8")
    with np.errstate(over="ignore"):
        encoded = numbers.astype(_FLOATS[column_type])
    if not np.array_equal(np.isinf(encoded), np.isinf(numbers)):
        raise TableError(f"column {name} is {column_type} and has values beyond it; use double precision")
    return encoded


def _encode_times(name: str, array: np.ndarray[Any, Any], column_type: str) -> np.ndarray[Any, Any]:
    if array.dtype.kind == "O":
        array = np.array([_in_utc(value) for value in array], dtype=_TIMES[column_type])
    times = array.astype(_TIMES[column_type])
    if np.isnat(times).any():
        raise TableError(f"column {name} has {int(np.isnat(times).sum())} missing times; leave those rows out")
    since: np.ndarray[Any, Any] = (times - _EPOCH.astype(times.dtype)).astype("i8")
    return since.astype("i4") if column_type == "date" else since


def _in_utc(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def _is_iso_date(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).date().isoformat() == text
    except ValueError:  # fromisoformat's answer for "no date"
        return False
