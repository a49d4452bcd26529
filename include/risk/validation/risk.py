"""Checks of a run's risk: is it measured for every book, and is it possible?

1. `read_measures` reads the run's rows and the books that ought to have them.
2. `check_risk` judges them, without a database.
3. `validate_risk` stores the judgement and settles the run's risk state, in one transaction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from risk.books import MIN_SCENARIOS, measured_books
from risk.settings import Settings
from risk.validation.check import Check, store_checks
from risk.validation.outcome import already_published, lock_run, settle

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True)
class Measure:
    """A stored measure: `value` is a loss and `book_value` a value, both in the book's currency."""

    book: str
    measure: str
    confidence: float
    value: float
    book_value: float
    scenarios: int


def check_risk(measures: Sequence[Measure], books: Sequence[str], settings: Settings) -> list[Check]:
    """Judge the measures at the confidence of the settings of every book that ought to be measured; all block."""
    of = {(m.book, m.measure): m for m in measures if math.isclose(m.confidence, settings.confidence)}
    if not books:
        sentence = "There is no book to measure; make one of kind equal_weight."
        return [Check("measured", 0.0, 1.0, "block", False, sentence)]
    pairs = [(book, of.get((book, "VaR")), of.get((book, "ES"))) for book in books]
    return [check for book, var, shortfall in pairs for check in _check_book(book, var, shortfall, settings)]


def validate_risk(connection: psycopg.Connection[Any], run_id: int, settings: Settings) -> list[Check]:
    """Audit a run's risk: store every check and make the run's risk `audited` or `refused`.

    This function commits `connection`, also when it raises `CheckError`: a refusal is stored with its sentences.
    Checks of an earlier audit of the risk are replaced. A run whose risk is published is left alone: nothing is
    written, and the one check returned says so.

    Raises:
        CheckError: a blocking check failed; with its sentences.
        RiskError: there is no such run.
    """
    lock_run(connection, run_id)
    done = already_published(connection, run_id, "risk")
    if done is not None:
        return [done]
    checks = check_risk(read_measures(connection, run_id), measured_books(connection), settings)
    store_checks(connection, run_id, "risk", checks)
    settle(connection, run_id, "risk")
    return checks


def read_measures(connection: psycopg.Connection[Any], run_id: int) -> list[Measure]:
    """The run's measures of all books, at every confidence."""
    rows = connection.execute(
        "SELECT name, measure, confidence, value, book_value, scenarios FROM risk_measure JOIN book USING (book_id) "
        "WHERE run_id = %s",
        (run_id,),
    )
    return [Measure(*row) for row in rows]


def _check_book(book: str, var: Measure | None, shortfall: Measure | None, settings: Settings) -> list[Check]:
    measured, at = (var is not None) + (shortfall is not None), f"at {settings.confidence:.1%}"
    if var is None or shortfall is None:
        lack = "VaR and ES" if measured == 0 else "VaR" if var is None else "ES"
        sentence = f"Book {book} lacks its {lack} {at}; measure it, then audit again."
        return [Check("measured", float(measured), 2.0, "block", False, sentence, book)]
    value, tail, count = var.value, shortfall.value, min(var.scenarios, shortfall.scenarios)
    facts: tuple[tuple[str, float, float, bool, str], ...] = (
        ("measured", 2.0, 2.0, True, f"Book {book} has its VaR and ES {at}."),
        ("var_positive", value, 0.0, math.isfinite(value) and value > 0,
         f"VaR of {book} is {value:,.2f}; a finite loss above zero is allowed."),
        ("var_below_value", value, var.book_value, value < var.book_value,
         f"VaR of {book} is {value:,.2f}; less than the book's value, {var.book_value:,.2f}, is allowed."),
        ("es_at_least_var", tail, value, math.isfinite(tail) and tail >= value,
         f"ES of {book} is {tail:,.2f}; a finite loss of at least VaR, {value:,.2f}, is allowed."),
        ("scenarios", float(count), float(MIN_SCENARIOS), count >= MIN_SCENARIOS,
         f"The risk of {book} rests on {count} scenarios; at least {MIN_SCENARIOS} are asked."),
    )  # fmt: skip
    return [
        Check(name, _number(observed), _number(threshold), "block", passed, sentence, book)
        for name, observed, threshold, passed, sentence in facts
    ]


def _number(value: float) -> float | None:
    """The value, or None where it is NaN or infinite (the sentence tells it)."""
    return value if math.isfinite(value) else None
