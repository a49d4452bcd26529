"""One drop: the bytes of a CSV or Parquet file to bars, or a sentence that says what is wrong with it.

1. `read_drop` chooses by the name's end.
2. `_csv_table` reads every cell of a CSV as text, so that the symbols NA and NULL stay symbols.
3. `_bars` checks the columns and turns prices into numbers, naming the first cell that is none.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from risk.market_data.bars import VALUES, Bars, merge_repeats
from risk.market_data.errors import ColumnsWrong, DropUnreadable, ValueWrong

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".csv.gz", ".parquet")
COLUMNS = ("symbol", "close", "open", "high", "low", "volume")
"""The columns of a drop: the first two must be there."""
NOT_KNOWN = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
"""How a CSV says that a price is not known."""

_REQUIRED = COLUMNS[:2]


def read_drop(name: str, content: bytes, session: date) -> Bars:
    """The bars of one drop, one row a symbol.

    Args:
        name: the file's name, whose end is one of `SUFFIXES`.
        content: its bytes.
        session: the session that its name says.

    Raises:
        DropUnreadable: empty, cut or damaged.
        ColumnsWrong: a column is missing, unknown or there twice.
        ValueWrong: a symbol is empty, or a price is no number.
    """
    import pyarrow as pa

    if not content:
        raise DropUnreadable(name, "is empty")
    try:
        table = _parquet_table(content) if name.endswith(".parquet") else _csv_table(name, content)
    except (pa.ArrowException, EOFError, OSError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise DropUnreadable(name, f"can't be read ({reason})") from error
    _check_columns(name, table.column_names)
    if table.num_rows == 0:
        raise DropUnreadable(name, "is empty: it has a header and no row")
    return _bars(name, table, session)


def _parquet_table(content: bytes) -> pa.Table:
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(pa.BufferReader(content))
    return table.rename_columns([column.strip().lower() for column in table.column_names])


def _csv_table(name: str, content: bytes) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    if name.endswith(".gz"):
        content = gzip.decompress(content)
    content = content.removeprefix(b"\xef\xbb\xbf")
    first_line = content.partition(b"\n")[0].decode()
    header = [column.strip().lower() for column in next(csv.reader(io.StringIO(first_line)), [])]
    _check_columns(name, header)
    return arrow_csv.read_csv(
        pa.BufferReader(content),
        read_options=arrow_csv.ReadOptions(column_names=header, skip_rows=1, use_threads=False),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
        ),
    )


def _check_columns(name: str, header: list[str]) -> None:
    unknown = [column for column in header if column not in COLUMNS]
    lacking = [column for column in _REQUIRED if column not in header]
    twice = sorted({column for column in header if header.count(column) > 1})
    problems = [
        f"{problem} {', '.join(map(repr, columns))}"
        for problem, columns in (
            ("lacks the column", lacking),
            ("has the unknown column", unknown),
            ("has twice", twice),
        )
        if columns
    ]
    if problems:
        raise ColumnsWrong(name, " and ".join(problems), COLUMNS)


def _bars(name: str, table: pa.Table, session: date) -> Bars:
    values = np.full((table.num_rows, len(VALUES)), np.nan)
    for at, column in enumerate(VALUES):
        if column in table.column_names:
            values[:, at] = _numbers(name, column, table.column(column))
    days = np.full(table.num_rows, np.datetime64(session, "D"))
    return merge_repeats(Bars(days, _symbols(name, table.column("symbol")), values))


def _symbols(name: str, column: pa.ChunkedArray) -> NDArray[np.object_]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise ColumnsWrong(name, f"has symbols of the type {column.type}, which are no texts", COLUMNS)
    symbols = np.array(pc.utf8_trim_whitespace(column).to_pylist(), dtype=object)
    for row, symbol in enumerate(symbols, start=1):
        if not symbol:
            raise ValueWrong(name, row, "symbol", symbol or "")
    return symbols


def _numbers(name: str, column: str, cells: pa.ChunkedArray) -> NDArray[np.float64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        cells = pc.utf8_trim_whitespace(cells)
        unknown = pc.is_in(cells, value_set=pa.array(NOT_KNOWN, cells.type))
        cells = pc.if_else(unknown, pa.scalar(None, cells.type), cells)
    try:
        numbers = cells.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        row, value = _first_that_fails(cells)
        raise ValueWrong(name, row, column, value) from error
    filled: NDArray[np.float64] = pc.fill_null(numbers, float("nan")).to_numpy()
    return filled


def _first_that_fails(cells: pa.ChunkedArray) -> tuple[int, str]:
    import pyarrow as pa

    def fails(cell: Any) -> bool:
        try:
            cell.cast(pa.float64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return True
        return False

    return next((row, str(cell.as_py())) for row, cell in enumerate(cells, start=1) if fails(cell))
