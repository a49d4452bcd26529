"""What the operators do, without Airflow: profile a model named by text, and score a source into a sink.

Every callable is named `"module:callable"` and gets those of `parameters` that its signature names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batch_inference.devices import describe_device
from batch_inference.errors import ConfigurationError
from batch_inference.exchange import Outcome, Source
from batch_inference.profiles import describe_shape, format_profile, profile_key
from batch_inference.references import named_parameters, names, refuse_unused, resolve

if TYPE_CHECKING:
    from batch_inference.tables import StoredProfile

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProfilingJob:
    """Finds the batch size of a model on this machine: stored, or measured and stored."""

    model: str
    input_shape: Sequence[int]
    database: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    model_key: str | None = None
    example: str | None = None
    input_dtype: str = "float32"
    device: str = "auto"
    precision: str = "float32"
    max_batch_size: int | None = None
    memory_limit: int | None = None
    time_budget_s: float = 20.0
    profile_again: bool = False

    def run(self) -> dict[str, Any]:
        """The stored profile if there is one that fits, else a new one; what the operator returns."""
        from batch_inference import tables

        engine = tables.open_engine(self.database)
        tables.ensure_profile_table(engine)
        model = None if self.model_key else self._make_model()
        key = self._key(model)
        stored = None if self.profile_again else self._usable(tables.find_profile(engine, key))
        if stored is None:
            stored, reused = self._measure(engine, model or self._make_model(), key), False
        else:
            reused = True
        log.info(
            "%s\n%s", "Stored curve" if reused else "Measured curve", format_profile(stored.curve, stored.batch_size)
        )
        log.info(
            "%s profile %d on %s: %s", "Reused" if reused else "Stored", stored.profile_id, stored.device, stored.reason
        )
        return {
            "profile_id": stored.profile_id,
            "batch_size": stored.batch_size,
            "reused": reused,
            "reason": stored.reason,
            "device": stored.device,
            "precision": stored.precision,
        }

    def _make_model(self) -> Callable[..., Any]:
        make = resolve(self.model)
        example = resolve(self.example) if self.example else None
        arguments = named_parameters(make, self.parameters)
        used = set(arguments) | (set(named_parameters(example, self.parameters)) if example else set())
        refuse_unused(self.parameters, used, "the model nor the example")
        model: Callable[..., Any] = make(**arguments)
        return model

    def _key(self, model: Any) -> str:
        return profile_key(
            model=model,
            model_key=self.model_key,
            input_shape=describe_shape(self.input_shape, self.input_dtype),
            device=self.device,
            precision=self.precision,
        )

    def _usable(self, stored: StoredProfile | None) -> StoredProfile | None:
        """A stored profile, unless this job's limits rule its size out."""
        if stored is None:
            return None
        too_much = self.memory_limit is not None and (stored.memory_bytes or 0) > self.memory_limit
        if too_much or stored.batch_size > (self.max_batch_size or stored.batch_size):
            log.info(
                "Stored profile %d is of batch %d, beyond this task's limits", stored.profile_id, stored.batch_size
            )
            return None
        return stored

    def _measure(self, engine: Any, model: Callable[..., Any], key: str) -> StoredProfile:
        from batch_inference import profiler, tables

        example = resolve(self.example) if self.example else None
        rows = (
            example(**named_parameters(example, self.parameters))
            if example
            else profiler.random_rows(self.input_shape, self.input_dtype)
        )
        profile = profiler.profile_batch_size(
            model,
            rows,
            device=self.device,
            precision=self.precision,
            max_batch_size=self.max_batch_size or profiler.LARGEST_BATCH,
            memory_limit=self.memory_limit,
            time_budget_s=self.time_budget_s,
            model_key=self.model_key,
        )
        profile = replace(profile, key=key, model=self.model_key or self.model)
        profile_id = tables.save_profile(engine, profile)
        return tables.StoredProfile(
            profile_id,
            profile.batch_size,
            profile.chosen.memory_bytes,
            profile.device,
            profile.precision,
            profile.reason,
            profile.curve(),
        )


@dataclass(frozen=True)
class ScoringJob:
    """Scores a source with a model and hands the outcome to a sink."""

    model: str
    source: str
    sink: str | None = None
    table: str | None = None
    database: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    key_columns: Sequence[str] | None = None
    output_columns: Sequence[str] | None = None
    replace: Mapping[str, Any] | None = None
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    profile: Mapping[str, Any] | None = None

    def run(self) -> Any:
        """Read, score, write; what the sink returns."""
        make = self._resolved()
        source = self._read()
        from batch_inference.engine import BatchInference

        model = make(**named_parameters(make, self.parameters))
        result = BatchInference(model, **self.engine_options).run(source.rows)
        log.info("Scored %s", result.statistics)
        log.info("Precision: %s", result.statistics.precision_reason)
        return self._write(Outcome(source.keys, result.outputs, result.statistics))

    def _resolved(self) -> Callable[..., Any]:
        """The model's callable, after everything that can be refused without work was looked at."""
        if (self.sink is None) == (self.table is None):
            raise ConfigurationError("give either sink='module:callable' or table='name', where the results go")
        if self.database is None and (self.table is not None or is_select(self.source)):
            raise ConfigurationError("a table or a SELECT needs database: a connection id, a URL or 'module:callable'")
        make = resolve(self.model)
        used = set(named_parameters(make, self.parameters))
        if is_select(self.source):
            used |= {name for name in self.parameters if f":{name}" in self.source}
        else:
            used |= set(named_parameters(resolve(self.source), self.parameters))
        if self.sink is not None:
            used |= set(self._for_sink(resolve(self.sink)))
        refuse_unused(self.parameters, used, "the model, the source nor the sink")
        return make

    def _read(self) -> Source:
        if is_select(self.source):
            from batch_inference import tables

            used = {name: value for name, value in self.parameters.items() if f":{name}" in self.source}
            return tables.read_select(tables.open_engine(str(self.database)), self.source, self.key_columns or (), used)
        function = resolve(self.source)
        source = function(**named_parameters(function, self.parameters))
        if not isinstance(source, Source):
            raise ConfigurationError(
                f"{self.source} gave a {type(source).__name__}; return batch_inference.Source(keys, rows)"
            )
        return source

    def _for_sink(self, sink: Callable[..., Any]) -> dict[str, Any]:
        """The parameters that a sink names, and `profile` where it names that one and no parameter is called so."""
        offered = {"profile": self.profile} if names(sink, "profile", skip=1) else {}
        return named_parameters(sink, {**offered, **self.parameters}, skip=1)

    def _write(self, outcome: Outcome) -> Any:
        if self.sink is not None:
            function = resolve(self.sink)
            return function(outcome, **self._for_sink(function))
        from batch_inference import tables
        from batch_inference.columns import output_columns

        keys = {name: outcome.keys[name] for name in self.key_columns or outcome.keys}
        columns = {**keys, **output_columns(outcome.outputs, self.output_columns)}
        engine = tables.open_engine(str(self.database))
        rows = tables.store(engine, str(self.table), columns, key_columns=tuple(keys), replace=self.replace)
        log.info("Stored %d rows in %s", rows, self.table)
        return summary(str(self.table), rows, outcome)


def is_select(source: str) -> bool:
    """Whether a source is a SELECT, and not a `"module:callable"`."""
    return source.split(None, 1)[:1] != [] and source.split(None, 1)[0].upper() in ("SELECT", "WITH", "TABLE", "VALUES")


def summary(table: str, rows: int, outcome: Outcome) -> dict[str, Any]:
    """What the operator returns for a stored table."""
    run = outcome.statistics
    return {
        "table": table,
        "rows": rows,
        "batch_size": run.batch_size,
        "throughput": run.throughput,
        "latency_ms_per_batch": run.latency_ms_per_batch,
        "latency_ms_per_sample": run.latency_ms_per_sample,
        "device": run.device,
        "precision": run.precision,
    }


def usable_profile(batch_size: int | None, profile: Mapping[str, Any] | None, device: str) -> Mapping[str, Any] | None:
    """The profile whose batch size is to be used: where none is stated, and it is of this worker's device."""
    if batch_size is not None or profile is None:
        return None
    here = str(describe_device(device))
    if profile["device"] != here:
        log.warning("The profile is of %s and this worker has %s: it is not used", profile["device"], here)
        return None
    return profile
