"""docker-compose.yaml is valid and safe to start: no default password, nothing beyond loopback."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
COMPOSE = PROJECT / "docker-compose.yaml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return dict(loaded["services"])


def test_it_obeys_the_compose_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_has_every_service(services: dict[str, Any]) -> None:
    airflow = {"airflow-init", "api-server", "scheduler", "dag-processor", "triggerer", "worker", "gpu-worker"}
    assert set(services) == airflow | {"postgres", "redis"}


def test_no_secret_has_a_default() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    secrets = re.findall(r"\$\{(\w*(?:PASSWORD|KEY|SECRET)\w*)([^}]*)\}", text)
    assert len(secrets) >= 5
    assert {rest for _, rest in secrets} == {":?set it in .env"}
    example = (PROJECT / ".env.example").read_text(encoding="utf-8")
    assert [name for name, _ in secrets if f"\n{name}=\n" not in example] == []


def test_ports_are_bound_to_loopback(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_service_that_stays_up_says_whether_it_is_well(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if "healthcheck" not in service} == {"airflow-init"}


def test_the_gpu_worker_alone_serves_the_gpu_queue_and_has_the_device(services: dict[str, Any]) -> None:
    assert services["gpu-worker"]["command"][-4:] == ["--queues", "gpu", "--concurrency", "1"]
    device = services["gpu-worker"]["deploy"]["resources"]["reservations"]["devices"][0]
    assert (device["count"], device["capabilities"]) == (1, ["gpu"])
    assert services["worker"]["command"][-1] == "${WORKER_QUEUES:-default}"
    assert "deploy" not in services["worker"]


def test_the_image_is_pinned_and_not_run_as_root() -> None:
    lines = (PROJECT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert "FROM python:3.11-slim-bookworm" in lines
    assert [line for line in lines if line.startswith("USER ")] == ["USER risk"]


def test_everything_that_the_image_copies_exists() -> None:
    copied = re.findall(
        r"^COPY (?:--\S+ )?(.+) \S+$", (PROJECT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    names = {name for line in copied for name in line.split()}
    allowed = set(re.findall(r"^!(\S+)$", (PROJECT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    assert names == allowed
    assert {name for name in names if not (PROJECT / name).exists()} == set()
