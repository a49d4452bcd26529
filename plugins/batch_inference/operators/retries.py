"""Which failures of a task are worth another try."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy

from batch_inference.errors import BatchInferenceError, DeviceLostError

if TYPE_CHECKING:
    from airflow.sdk import Context

_CONNECTION_ERRORS = (
    ("psycopg", ("OperationalError", "InterfaceError")),
    ("sqlalchemy.exc", ("OperationalError", "InterfaceError")),
)
_DATA_ERRORS = (("psycopg", ("DataError", "IntegrityError", "ProgrammingError", "NotSupportedError")),)
_OWN_FAULTS = (ValueError, TypeError, LookupError, AttributeError, ImportError, NotImplementedError)


class RetryTransient(RetryPolicy):
    """Retry what may pass, fail at once on what can't.

    | cause, anywhere in the chain | decision |
    |---|---|
    | a lost database or network connection | retry after `delay` |
    | a dead device context (`DeviceLostError`) | retry at once: a new process has a new context |
    | bad data, a wrong argument, a bug | fail |
    | anything else | the task's own `retries` and `retry_delay` |
    """

    def __init__(self, delay: timedelta = timedelta(seconds=30)) -> None:
        self.delay = delay

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide by the exception's type and those of its causes."""
        chain = list(_causes(exception))
        if any(isinstance(error, (ConnectionError, TimeoutError, *_loaded(_CONNECTION_ERRORS))) for error in chain):
            return RetryDecision.retry(self.delay, "the connection was lost")
        if any(isinstance(error, DeviceLostError) for error in chain):
            return RetryDecision.retry(timedelta(0), "the device's context is dead; a new process has a new one")
        if any(isinstance(error, (BatchInferenceError, *_loaded(_DATA_ERRORS))) for error in chain):
            return RetryDecision.fail(f"{type(exception).__name__}: the same arguments and data would fail again")
        if isinstance(exception, _OWN_FAULTS):
            return RetryDecision.fail(f"{type(exception).__name__}: the same code would fail again")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """The policy as JSON."""
        return {"delay_s": self.delay.total_seconds()}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> RetryTransient:
        """The policy of `serialize`'s JSON."""
        return cls(timedelta(seconds=data["delay_s"]))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _loaded(names: Sequence[tuple[str, Sequence[str]]]) -> Any:
    """Those exception classes whose modules this process has imported: only they can have been raised."""
    return tuple(
        getattr(sys.modules[module], name) for module, found in names if module in sys.modules for name in found
    )
