"""PostgreSQL's binary forms to and from numpy arrays: COPY rows out of columns, and arrays sent whole.

`batch_inference.binary_copy` lays out the rows; arrays follow `array_send` in PostgreSQL's source. Days and moments
count from 2000-01-01, as the server keeps them: `date` in days, `timestamptz` in microseconds UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batch_inference.binary_copy import packed

if TYPE_CHECKING:
    import psycopg

Integers = NDArray[np.integer[Any]]

EPOCH_DAY = date(2000, 1, 1)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ARRAY_HEADER = 20


def to_day(day: date) -> int:
    """A date as PostgreSQL keeps it."""
    return (day - EPOCH_DAY).days


def from_day(day: int) -> date:
    """The date of a PostgreSQL day."""
    return EPOCH_DAY + timedelta(days=day)


def to_microseconds(moment: datetime) -> int:
    """An aware moment as PostgreSQL keeps it."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(moment: int) -> datetime:
    """The moment of a PostgreSQL timestamp, in UTC."""
    return _EPOCH + moment * _MICROSECOND


def copy_rows(
    connection: psycopg.Connection[Any], table: str, columns: Sequence[tuple[str, NDArray[Any]]], order: Integers
) -> None:
    """Write columns of equal length to a table by COPY BINARY, in the given order; none may hold a null.

    Args:
        connection: its transaction is the caller's.
        table: the table's name.
        columns: names with arrays `(rows,)` whose item sizes are the columns' own: int32 for integer and date (days),
            int64 for bigint and timestamptz (microseconds), float64 for double precision.
        order: `(rows,)` the positions to write, one after the other.
    """
    names = ", ".join(name for name, _ in columns)
    with connection.cursor().copy(f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)".encode()) as copy:
        for chunk in packed([values[order] for _, values in columns]):
            copy.write(chunk)


def sent_array(content: bytes, kind: str) -> NDArray[Any]:
    """The values of a one-dimensional array without nulls, out of `array_send`.

    Args:
        content: what `array_send` made.
        kind: the type of one value: `"i4"`, `"i8"` or `"f8"`.
    """
    item = np.dtype([("length", ">i4"), ("value", ">" + kind)])
    return np.frombuffer(content, dtype=item, offset=_ARRAY_HEADER)["value"].astype(kind)
