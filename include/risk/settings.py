"""The one place for settings: environment variables `RISK_*`, then `.env` in the project folder, then defaults.

An empty value means the default: no database URL means the embedded PostgreSQL of `risk.storage.server`.
"""

from __future__ import annotations

import hashlib
import json
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT = Path(__file__).resolve().parents[2]


class Settings(BaseSettings):
    """Everything a deployment may change, with its unit and its default."""

    model_config = SettingsConfigDict(
        env_prefix="RISK_", env_file=PROJECT / ".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    # Sessions
    exchange: str = Field("XNYS", description="an exchange_calendars code: XNYS, XLON, XTKS, XHKG ...")
    close_delay_minutes: int = Field(60, ge=0, le=720, description="a session runs this long after its close")
    overrides: Path | None = Field(None, description="TOML file of sessions the calendar package gets wrong")
    start_session: date | None = Field(None, description="the scheduler starts here; empty: with the next close")

    # Market data
    source: Literal["bundled", "files"] = Field("bundled", description="where bars come from")
    files_path: Path | None = Field(None, description="folder of the `files` source: one drop a session")

    # Storage
    state_dir: Path = Field(PROJECT / ".state", description="embedded PostgreSQL, logs, caches")
    database_url: str = Field("", description="PostgreSQL of the risk database; empty: embedded")
    ui_port: int = Field(8080, ge=1024, le=65535, description="Airflow's UI and API, on 127.0.0.1 only")
    airflow_database_url: str = Field("", description="PostgreSQL of Airflow's metadata; empty: embedded")

    # Model and inference
    vintages_dir: Path | None = Field(None, description="folder of trained vintages; empty: the shipped ones")
    device: str = Field("auto", description="auto (CUDA, then CPU), cuda, cuda:1, cpu")
    precision: Literal["float32", "tf32", "bfloat16", "float16", "auto"] = "float32"
    precision_tolerance: float = Field(1e-3, gt=0, description="allowed error, of each output column's spread")
    memory_limit_mib: int = Field(2048, gt=0, description="memory that scoring may take on the device")
    max_batch_size: int = Field(16384, ge=1, description="largest batch the profile tries")
    profile_budget_s: float = Field(5.0, gt=0, description="seconds that measuring batch sizes may take")
    gpu_slots: int = Field(2, ge=1, description="tasks that may use the accelerator at once: the pool `gpu`")
    shard_size: int = Field(5000, ge=1, description="instruments that one mapped task scores")

    # Checks: what blocks and what is told
    history_sessions: int = Field(1260, ge=257, description="sessions a snapshot reads: model and scenarios")
    min_coverage: float = Field(0.9, gt=0, le=1, description="share of the universe that must have tonight's bar")
    max_jump_percent: float = Field(50.0, gt=0, description="a log return beyond this is told")
    max_jump_share: float = Field(0.1, gt=0, le=1, description="share of jumps beyond which the drop is refused")
    max_sigma_percent: float = Field(50.0, gt=0, description="a daily sigma beyond this is refused")
    max_sigma_change: float = Field(5.0, gt=1, description="median sigma may move by this factor from the last session")

    # Risk and rebalance
    confidence: float = Field(0.99, gt=0.5, lt=1)
    scenarios: int = Field(1000, ge=250, description="filtered historical scenarios")
    book_capital: float = Field(1_000_000.0, gt=0, description="starting value of the example books, in dollars")
    order_timeout_minutes: int = Field(360, ge=1, description="how long a session waits for the one before it")

    @field_validator("state_dir", "files_path", "overrides", "vintages_dir")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else (PROJECT / value.expanduser()).resolve()

    @model_validator(mode="after")
    def _files_need_a_folder(self) -> Settings:
        if self.source == "files" and self.files_path is None:
            raise ValueError("RISK_SOURCE=files needs RISK_FILES_PATH, the folder with one drop a session")
        return self

    @model_validator(mode="after")
    def _history_holds_the_scenarios(self) -> Settings:
        need = self.scenarios + 76  # 75 sessions warm the filter up, and a return takes two closes
        if self.history_sessions < need:
            raise ValueError(
                f"RISK_HISTORY_SESSIONS={self.history_sessions} is too short for RISK_SCENARIOS={self.scenarios}: "
                f"give at least {need} sessions, or fewer scenarios"
            )
        return self

    def configuration(self) -> dict[str, object]:
        """The settings that can change a published forecast: part of a run's identity."""
        names = (
            "exchange", "close_delay_minutes", "source", "history_sessions", "min_coverage", "max_jump_percent",
            "max_jump_share", "max_sigma_percent", "max_sigma_change", "confidence", "scenarios",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def configuration_hash(self) -> str:
        """SHA-256 of `configuration()` in canonical JSON."""
        canonical = json.dumps(self.configuration(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
