"""What made a number: hashes of the code and of the pinned libraries, and the versions that matter."""

from __future__ import annotations

import hashlib
import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from risk.settings import PROJECT

CODE = ("dags", "plugins", "include")
LIBRARIES = ("torch", "numpy", "pandas", "exchange_calendars", "apache-airflow")


@lru_cache(maxsize=1)
def code_hash() -> str:
    """SHA-256 over the project's Python and SQL files, names and contents."""
    digest = hashlib.sha256()
    for folder in CODE:
        for path in sorted((PROJECT / folder).rglob("*")):
            if path.suffix in {".py", ".sql"}:
                digest.update(path.relative_to(PROJECT).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def lineage(calendar_version: str) -> dict[str, object]:
    """The lineage of a run at its opening; device, precision and batch size are added by each shard."""
    lock = PROJECT / "requirements.txt"
    return {
        "code_sha256": code_hash(),
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else None,
        "calendar": calendar_version,
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
