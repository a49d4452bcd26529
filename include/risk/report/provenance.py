"""Where a published number comes from: run, data, model, configuration, code and hardware."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True)
class Execution:
    """How shards of a run were scored, as their lineage says; `None` where it does not."""

    shards: int
    device: str | None
    precision: str | None
    batch_size: int | None
    rows_per_second: float | None
    profile_id: int | None
    profile_reason: str | None


@dataclass(frozen=True)
class Provenance:
    """The run behind a publication and everything that it names."""

    run_id: int
    door: str
    dag_run_id: str
    opened_at: datetime
    configuration_hash: str
    close_delay_minutes: int | None
    lineage: dict[str, Any]
    source: str
    snapshot_id: int
    snapshot_hash: str
    cutoff: datetime
    instruments: int
    sessions: int
    first_session: date
    last_session: date
    bars: int
    assumed_bars: int
    last_loaded_at: datetime | None
    vintage: str
    architecture: str
    trained_through: date
    weights_sha256: str
    executions: tuple[Execution, ...] = ()

    def known_at(self) -> str:
        """On which basis the prices are said to have been known by the cut-off."""
        loaded = f"loaded {self.last_loaded_at:%Y-%m-%d %H:%M} UTC" if self.last_loaded_at else "load time not kept"
        if not self.assumed_bars:
            return f"observed by our clock for all {self.bars:,} bars, {loaded}"
        delay = "close + delay" if self.close_delay_minutes is None else f"close + {self.close_delay_minutes} min"
        return f"assumed ({delay}) for {self.assumed_bars:,} of {self.bars:,} bars, {loaded}"


def read_provenance(connection: psycopg.Connection[Any], run_id: int) -> Provenance:
    """Read the provenance of a run that exists."""
    from psycopg.rows import class_row

    with connection.cursor(row_factory=class_row(Provenance)) as cursor:
        found = cursor.execute(PROVENANCE, {"run": run_id}).fetchall()[0]
    with connection.cursor(row_factory=class_row(Execution)) as cursor:
        executions = tuple(cursor.execute(EXECUTIONS, {"run": run_id}).fetchall())
    return replace(found, executions=executions)


PROVENANCE = """
    SELECT r.run_id, r.door, r.dag_run_id, r.opened_at AT TIME ZONE 'UTC' AS opened_at, r.configuration_hash,
           (r.configuration ->> 'close_delay_minutes')::integer AS close_delay_minutes, r.lineage,
           s.source, s.snapshot_id, s.content_hash AS snapshot_hash, s.cutoff AT TIME ZONE 'UTC' AS cutoff,
           cardinality(s.instruments) AS instruments, cardinality(s.sessions) AS sessions,
           s.sessions[1] AS first_session, s.sessions[cardinality(s.sessions)] AS last_session,
           s.bars, s.assumed_bars, s.last_loaded_at AT TIME ZONE 'UTC' AS last_loaded_at,
           v.name AS vintage, v.architecture, v.trained_through, v.weights_sha256
    FROM run r JOIN snapshot s USING (snapshot_id) JOIN model_version v USING (vintage_id)
    WHERE r.run_id = %(run)s"""

EXECUTIONS = """
    WITH scored AS (
        SELECT execution ->> 'device' AS device, execution ->> 'precision' AS precision,
               (execution ->> 'batch_size')::integer AS batch_size,
               (execution ->> 'profile_id')::bigint AS profile_id,
               (execution ->> 'rows_per_second')::double precision AS rows_per_second
        FROM run_shard WHERE run_id = %(run)s
    )
    SELECT count(*) AS shards, s.device, s.precision, s.batch_size, avg(s.rows_per_second) AS rows_per_second,
           s.profile_id, p.reason AS profile_reason
    FROM scored s LEFT JOIN batch_profile p USING (profile_id)
    GROUP BY s.device, s.precision, s.batch_size, s.profile_id, p.reason
    ORDER BY count(*) DESC"""
