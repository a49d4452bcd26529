"""One drop: what is read, and the sentence for each way in which it can be wrong."""

from __future__ import annotations

import gzip
import io
import math
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from risk.errors import SourceError
from risk.market_data.bars import VALUES, Bars
from risk.market_data.drops import read_drop

DAY = date(2022, 11, 25)


def csv(text: str, name: str = "2022-11-25.csv") -> Bars:
    return read_drop(name, text.encode(), DAY)


def parquet(**columns: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def table(bars: Bars) -> dict[str, dict[str, float]]:
    return {
        str(symbol): {name: float(value) for name, value in zip(VALUES, row, strict=True) if not math.isnan(value)}
        for symbol, row in zip(bars.symbols, bars.values, strict=True)
    }


def test_all_columns_in_any_order_and_case() -> None:
    bars = csv("Volume,close,SYMBOL,low,high,open\r\n100,2.5,AAA,2,3,2.25\r\n,1e1,BBB,,,\r\n")
    assert table(bars) == {
        "AAA": {"open": 2.25, "high": 3.0, "low": 2.0, "close": 2.5, "volume": 100.0},
        "BBB": {"close": 10.0},
    }
    assert bars.session_dates.tolist() == [DAY, DAY]
    assert bars.conflicts == ()


def test_symbols_that_look_like_missing_values_or_numbers_stay_texts() -> None:
    text = "symbol,close\nNA,1\nNULL,2\nnan,3\nTRUE,4\n0700,5\nnull,6\n2022-11-25,7\n"
    assert list(table(csv(text))) == ["NA", "NULL", "nan", "TRUE", "0700", "null", "2022-11-25"]


@pytest.mark.parametrize("cell", ["", "NA", "N/A", "NaN", "null", "  "])
def test_a_price_may_be_unknown(cell: str) -> None:
    assert table(csv(f"symbol,close\nAAA,{cell}\n")) == {"AAA": {}}


def test_bad_prices_are_read_as_they_are() -> None:
    closes = csv("symbol,close\nAAA,0\nBBB,-1.5\nCCC,inf\n").values[:, VALUES.index("close")]
    np.testing.assert_array_equal(closes, [0.0, -1.5, math.inf])


def test_a_byte_order_mark_and_a_missing_last_line_end_do_no_harm() -> None:
    assert table(csv("\ufeffsymbol,close\nAAA,1")) == {"AAA": {"close": 1.0}}


def test_compressed_csv() -> None:
    content = gzip.compress(b"symbol,close\nAAA,1\n")
    assert table(read_drop("2022-11-25.csv.gz", content, DAY)) == {"AAA": {"close": 1.0}}


def test_parquet_of_any_numeric_type() -> None:
    content = parquet(
        symbol=pa.array(["AAA", "NA"]).dictionary_encode(),
        close=pa.array([Decimal("1.25"), None]),
        volume=pa.array([100, 200], pa.int32()),
        open=pa.array(["1.5", "NA"]),
    )
    assert table(read_drop("2022-11-25.parquet", content, DAY)) == {
        "AAA": {"open": 1.5, "close": 1.25, "volume": 100.0},
        "NA": {"volume": 200.0},
    }


def test_a_repeated_row_is_left_out_and_two_that_differ_leave_no_price() -> None:
    bars = csv("symbol,close,volume\nAAA,1,\nBBB,2,5\nAAA,1,\nBBB,2.5,5\nCCC,3,1\n")
    assert table(bars) == {"AAA": {"close": 1.0}, "BBB": {}, "CCC": {"close": 3.0, "volume": 1.0}}
    assert bars.conflicts == ("BBB",)


ALLOWED = "its header has symbol and close, and may have open, high, low, volume"
AGAIN = "deliver it again whole, or move it out of the folder"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("d.csv", b"", f"drop d.csv is empty; {AGAIN}"),
        ("d.csv", b"symbol,close\n", f"drop d.csv is empty: it has a header and no row; {AGAIN}"),
        (
            "d.csv", b"symbol,price\nAAA,1\n",
            f"drop d.csv lacks the column 'close' and has the unknown column 'price'; {ALLOWED}",
        ),
        ("d.csv", b"symbol,close,close\nAAA,1,2\n", f"drop d.csv has twice 'close'; {ALLOWED}"),
        (
            "d.csv", b"AAA,1\n",
            f"drop d.csv lacks the column 'symbol', 'close' and has the unknown column 'aaa', '1'; {ALLOWED}",
        ),
        (
            "d.csv", b"symbol,close\nAAA,1\nBBB,12.3.4\n",
            "drop d.csv has '12.3.4' as the close of row 2; a number such as 12.34, or nothing where it is not known, "
            "is "
            "allowed; correct the row and deliver the drop again",
        ),
        (
            "d.csv", b"symbol,close\nAAA,1\n ,2\n",
            "drop d.csv has '' as the symbol of row 2; a symbol is a text that is not empty; correct the row and "
            "deliver "
            "the drop again",
        ),
        (
            "d.parquet", parquet(symbol=[700, 5], close=[1.0, 2.0]),
            f"drop d.parquet has symbols of the type int64, which are no texts; {ALLOWED}",
        ),
        (
            "d.parquet", parquet(symbol=["AAA", None], close=[1.0, 2.0]),
            "drop d.parquet has '' as the symbol of row 2; a symbol is a text that is not empty; correct the row and "
            "deliver the drop again",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(name: str, content: bytes, sentence: str) -> None:
    with pytest.raises(SourceError) as raised:
        read_drop(name, content, DAY)
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.csv", b"symbol,close\nAAA,1\nBBB\n"),
        ("d.csv", b"symbol,close\n\xff\xfe,1\n"),
        ("d.csv", b"\xff\xfes\x00\n"),
        ("d.csv.gz", b"symbol,close\nAAA,1\n"),
        ("d.csv.gz", gzip.compress(b"symbol,close\n" + b"AAA,1\n" * 1000)[:-12]),
        ("d.csv.gz", b"\x1f\x8b\x08\x00" + b"\x07" * 40),
        ("d.parquet", b"PAR1 and then nothing"),
        ("d.parquet", parquet(symbol=["AAA"], close=[1.0])[:-20]),
    ],
)
def test_a_cut_or_damaged_file_is_named(name: str, content: bytes) -> None:
    with pytest.raises(SourceError) as raised:
        read_drop(name, content, DAY)
    assert str(raised.value).startswith(f"drop {name} can't be read (")
    assert str(raised.value).endswith(AGAIN)
