"""Airflow operators: profile a model's batch size on the worker, and score any source with any model into any table.

    profile = ProfileBatchSizeOperator(
        task_id="profile", model="shop.models:make", input_shape=[2], database="shop_db"
    )
    BatchInferenceOperator(
        task_id="score", model="shop.models:make", source="SELECT sku, x1, x2 FROM features", key_columns=["sku"],
        table="scores", replace={"run_date": "{{ ds }}"}, profile=profile.output, database="shop_db",
    )

Callables are named `"module:callable"`, importable on the worker, and get those of `parameters` that their signatures
name; a parameter that none names is refused. `database` is an Airflow connection id, a PostgreSQL URL, or
`"module:callable"` that returns a URL: the last keeps a password out of the rendered template in the UI.

Importing this module costs neither torch nor numpy nor SQLAlchemy: a DAG file may do it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, BaseOperator, RetryPolicy

from batch_inference.errors import ConfigurationError
from batch_inference.operators.retries import RetryTransient
from batch_inference.references import is_reference, resolve

if TYPE_CHECKING:
    from airflow.sdk import Context

    from batch_inference.progress import Progress

GPU = "gpu"
"""The queue and the pool of both operators: workers with a GPU serve the queue, the pool has a slot for each."""

RETRY = RetryTransient()


class _DeviceOperator(BaseOperator):
    """What both operators share: a device's queue, pool, time limit and retries."""

    def __init__(
        self,
        *,
        queue: str = GPU,
        pool: str = GPU,
        retries: int = 2,
        retry_delay: timedelta = timedelta(seconds=30),
        retry_policy: RetryPolicy | None = RETRY,
        execution_timeout: timedelta | None = timedelta(hours=2),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            queue=queue,
            pool=pool,
            retries=retries,
            retry_delay=retry_delay,
            retry_policy=retry_policy,
            execution_timeout=execution_timeout,
            **kwargs,
        )

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """The operator, to be mapped; of a mapped task Airflow takes the pool from here, not from `__init__`."""
        return super().partial(**{"pool": GPU, **kwargs})


class ProfileBatchSizeOperator(_DeviceOperator):
    """Find the batch size of a model on this worker: a stored profile of the same key, or a new one, stored.

    Safe to repeat: a second run finds the first one's profile. Logs the whole curve as a table and the choice in a
    sentence. Returns `{"profile_id", "batch_size", "reused", "reason", "device", "precision"}`.

    Args:
        model: `"module:callable"` that makes the model. (templated)
        input_shape: of one row. (templated)
        database: where profiles are stored, in the table `batch_profile`, made where no migration has. (templated)
        parameters: keyword arguments of `model` and `example`. (templated)
        model_key: your own name for the model's code and shape. With it a stored profile is found without importing
            torch; change it when they change. `None`: a hash of the model's source and parameter shapes. (templated)
        example: `"module:callable"` that gives example rows to measure with, instead of random numbers. (templated)
        input_dtype: of one row.
        device: `"auto"` (CUDA, then CPU), `"cpu"`, `"cuda"` or `"cuda:N"`. (templated)
        precision: `"float32"`, `"tf32"`, `"bfloat16"` or `"float16"`. (templated)
        max_batch_size: the largest size tried; 32,768 unless stated.
        memory_limit: bytes a batch may take; 85% of what is free unless stated.
        time_budget_s: seconds for measuring.
        profile_again: measure even where a stored profile fits.
    """

    template_fields: Sequence[str] = (
        "model", "input_shape", "database", "parameters", "model_key", "example", "device", "precision",
    )  # fmt: skip

    def __init__(
        self,
        *,
        model: str,
        input_shape: Sequence[int],
        database: str,
        parameters: Mapping[str, Any] | None = None,
        model_key: str | None = None,
        example: str | None = None,
        input_dtype: str = "float32",
        device: str = "auto",
        precision: str = "float32",
        max_batch_size: int | None = None,
        memory_limit: int | None = None,
        time_budget_s: float = 20.0,
        profile_again: bool = False,
        execution_timeout: timedelta | None = timedelta(minutes=15),
        **kwargs: Any,
    ) -> None:
        super().__init__(execution_timeout=execution_timeout, **kwargs)
        self.model = model
        self.input_shape = input_shape
        self.database = database
        self.parameters = parameters
        self.model_key = model_key
        self.example = example
        self.input_dtype = input_dtype
        self.device = device
        self.precision = precision
        self.max_batch_size = max_batch_size
        self.memory_limit = memory_limit
        self.time_budget_s = time_budget_s
        self.profile_again = profile_again

    def execute(self, context: Context) -> dict[str, Any]:
        """Reuse or measure, log, and return the choice."""
        from batch_inference.operators.jobs import ProfilingJob

        return ProfilingJob(
            model=self.model, input_shape=[int(size) for size in self.input_shape], input_dtype=self.input_dtype,
            database=database_url(self.database), parameters=self.parameters or {}, model_key=self.model_key,
            example=self.example,
            device=self.device, precision=self.precision, max_batch_size=self.max_batch_size,
            memory_limit=self.memory_limit, time_budget_s=self.time_budget_s, profile_again=self.profile_again,
        ).run()  # fmt: skip


class BatchInferenceOperator(_DeviceOperator):
    """Score the rows of a source with a torch model, in batches, and store the results.

    Safe to repeat: the default sink replaces the rows of an earlier run in the transaction that writes the new ones; a
    sink of your own must do the same. Mapped tasks that write one table must differ in `replace`, or leave it out and
    be told apart by their keys: each replaces all rows with its `replace` values.

    Args:
        model: `"module:callable"` that makes the model. (templated)
        source: `"module:callable"` that returns a `batch_inference.Source`, or a SELECT whose `key_columns` name the
            rows and whose other columns, in order, are the `(rows, columns)` float32 inputs; `:name` in it is a
            parameter. (templated)
        sink: `"module:callable"`, called with a `batch_inference.Outcome` and parameters; it writes in a transaction of
            its own and returns a small JSON value, which the task returns. One that names `profile` gets the profile
            whose batch size was used, or None. (templated)
        table: instead of `sink`: where COPY BINARY writes keys and outputs; made where it isn't there. (templated)
        key_columns: columns that name a row; of a source callable, all of its keys unless stated. (templated)
        output_columns: names of the model's output columns; after its keys or fields unless stated. (templated)
        replace: constant columns written on every row, whose rows are replaced. (templated)
        parameters: keyword arguments of model, source and sink. (templated)
        database: for a SELECT and for `table`. (templated)
        batch_size: rows a batch. (templated)
        profile: what `ProfileBatchSizeOperator` returned; its batch size is used where none is stated and the profile
            is of this worker's device. (templated)
        device: `"auto"` (CUDA, then CPU), `"cpu"`, `"cuda"` or `"cuda:N"`. (templated)
        precision: `"float32"`, or one that is proven on the rows first: `"tf32"`, `"bfloat16"`, `"float16"`, `"auto"`.
            (templated)
        precision_tolerance: the largest error of a reduced precision, in units of each output column's spread.
        memory_limit: bytes that scoring may take.
        num_workers: worker processes that read a `Dataset`.
        pin_memory: stage batches in page-locked memory on CUDA.
    """

    template_fields: Sequence[str] = (
        "model", "source", "sink", "table", "key_columns", "output_columns", "replace", "parameters", "database",
        "batch_size", "profile", "device", "precision",
    )  # fmt: skip

    def __init__(
        self,
        *,
        model: str,
        source: str,
        sink: str | None = None,
        table: str | None = None,
        key_columns: Sequence[str] | None = None,
        output_columns: Sequence[str] | None = None,
        replace: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        database: str | None = None,
        batch_size: int | None = None,
        profile: Mapping[str, Any] | None = None,
        device: str = "auto",
        precision: str = "float32",
        precision_tolerance: float = 1e-3,
        memory_limit: int | None = None,
        num_workers: int = 0,
        pin_memory: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.source = source
        self.sink = sink
        self.table = table
        self.key_columns = key_columns
        self.output_columns = output_columns
        self.replace = replace
        self.parameters = parameters
        self.database = database
        self.batch_size = batch_size
        self.profile = profile
        self.device = device
        self.precision = precision
        self.precision_tolerance = precision_tolerance
        self.memory_limit = memory_limit
        self.num_workers = num_workers
        self.pin_memory = pin_memory

    def execute(self, context: Context) -> Any:
        """Read the source, score it, and hand the outcome to the sink."""
        from batch_inference.operators.jobs import ScoringJob, usable_profile

        stated = None if self.batch_size is None else int(self.batch_size)
        profile = usable_profile(stated, self.profile, self.device)
        return ScoringJob(
            model=self.model, source=self.source, sink=self.sink, table=self.table, parameters=self.parameters or {},
            key_columns=self.key_columns, output_columns=self.output_columns, replace=self.replace,
            database=None if self.database is None else database_url(self.database),
            engine_options=self._engine_options(stated if profile is None else int(profile["batch_size"])),
            profile=profile,
        ).run()  # fmt: skip

    def _engine_options(self, batch_size: int | None) -> dict[str, Any]:
        return {
            "device": self.device,
            "batch_size": batch_size,
            "precision": self.precision,
            "precision_tolerance": self.precision_tolerance,
            "memory_limit": self.memory_limit,
            "num_workers": self.num_workers,
            "pin_memory": self.pin_memory,
            "progress": self._log_progress,
        }

    def _log_progress(self, progress: Progress) -> None:
        self.log.info("Scoring: %s", progress)


def database_url(database: str) -> str:
    """The SQLAlchemy URL that `database` stands for: itself, what a `"module:callable"` returns, or a connection's.

    Raises:
        ConfigurationError: a callable that returned no URL.
    """
    if "://" in database:
        return database
    if not is_reference(database):
        return str(BaseHook.get_connection(database).get_uri())
    url = resolve(database)()
    if not isinstance(url, str) or "://" not in url:
        raise ConfigurationError(f"{database} must return a database URL as text; it returned a {type(url).__name__}")
    return url
