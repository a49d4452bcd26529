"""The yearly vintages: weights as safetensors, beside one `manifest.json` that says what each of them is.

1. `list_vintages` reads the manifest; `vintage_for` picks the vintage in force for a session. Neither imports torch.
2. `load_vintage` checks the weights' SHA-256 before it builds the network.
3. `save_vintage` writes both, the weights first.

The manifest's `basis` is "observed" when the vintage was decided before it took effect, and "assumed" when its
assignment was made with hindsight, as for every year trained long after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risk.model.errors import NoVintageError, VintageFolderError, WeightsChangedError

if TYPE_CHECKING:
    from risk.model.network import VolatilityNetwork
    from risk.model.scores import Scores
    from risk.model.training import TrainedVintage

SHIPPED = Path(__file__).resolve().parent / "vintages"
MANIFEST = "manifest.json"
_SOURCES = ("network.py", "distribution.py")
_LIBRARIES = ("torch", "numpy", "pandas", "safetensors")


@dataclass(frozen=True)
class Vintage:
    """One trained version of the model and the sessions it may serve."""

    name: str
    architecture: str
    trained_through: date
    """The last session whose return was trained on."""
    effective_from: date
    """It serves sessions from this date on, until a later vintage takes over."""
    decided_at: datetime
    basis: str
    """"observed" or "assumed": whether the assignment was made before it took effect."""
    decided_by: str
    reason: str
    weights_sha256: str
    path: Path
    card: Mapping[str, Any] = field(compare=False, repr=False)
    """The whole manifest entry: settings, seeds, training rows, hash of the closes, scores, library versions."""


def list_vintages(folder: Path | None = None) -> list[Vintage]:
    """The vintages of a folder (default: the shipped ones), oldest first.

    Raises:
        VintageFolderError: the folder has no manifest, or one that can't be read.
    """
    folder = folder or SHIPPED
    vintages = [_vintage(entry, folder) for entry in _entries(folder)]
    return sorted(vintages, key=lambda vintage: (vintage.effective_from, vintage.trained_through))


def vintage_for(session: date, folder: Path | None = None) -> Vintage:
    """The vintage in force: the latest with `effective_from <= session` and `trained_through < session`.

    Raises:
        NoVintageError: none may serve the session; the sentence says which sessions are served.
        VintageFolderError: the folder has no manifest, or one that can't be read.
    """
    folder = folder or SHIPPED
    vintages = list_vintages(folder)
    allowed = [each for each in vintages if each.effective_from <= session and each.trained_through < session]
    if not allowed:
        raise NoVintageError(session, vintages[0].effective_from if vintages else None, folder)
    return allowed[-1]


def load_vintage(vintage: Vintage) -> VolatilityNetwork:
    """The network with the vintage's weights, in evaluation mode, without gradients.

    Raises:
        WeightsChangedError: the file is not the one that the manifest names; nothing was loaded.
        VintageFolderError: the file is missing.
    """
    try:
        content = vintage.path.read_bytes()
    except FileNotFoundError as error:
        raise VintageFolderError(vintage.path.parent / MANIFEST, f"{vintage.path.name} is missing") from error
    found = hashlib.sha256(content).hexdigest()
    if found != vintage.weights_sha256:
        raise WeightsChangedError(vintage.path, vintage.weights_sha256, found)

    from safetensors.torch import load

    from risk.model.network import VolatilityNetwork

    network = VolatilityNetwork(hidden=int(vintage.card["settings"]["hidden"]))
    network.load_state_dict(load(content))
    return network.eval().requires_grad_(False)


def save_vintage(
    trained: TrainedVintage,
    scores: tuple[Scores, Scores] | None,
    folder: Path,
    decided_by: str = "make train",
    decided_at: datetime | None = None,
) -> Vintage:
    """Write a vintage's weights and its manifest entry, in place of an earlier one of the same year.

    Args:
        trained: the vintage.
        scores: of the model and of the baseline on the vintage's own year; None when the closes end before it.
        folder: made when missing.
        decided_by: who assigns it.
        decided_at: when, with a time zone; default: now.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    entries = _entries(folder) if (folder / MANIFEST).exists() else []
    content = save({name: value.contiguous() for name, value in trained.network.state_dict().items()})
    decided_at = decided_at or datetime.now(UTC)
    effective_from = date(trained.year, 1, 1)
    entry = {
        "name": str(trained.year),
        "file": f"{trained.year}.safetensors",
        "architecture": architecture_key(),
        "trained_through": trained.trained_through.isoformat(),
        "effective_from": effective_from.isoformat(),
        "decided_at": decided_at.isoformat(timespec="seconds"),
        "basis": "observed" if decided_at.date() <= effective_from else "assumed",
        "decided_by": decided_by,
        "reason": f"yearly vintage: serves from {effective_from} until the next one",
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "seeds": [trained.settings.seed],
        "settings": asdict(trained.settings),
        "training_rows": trained.training_rows,
        "closes_sha256": trained.closes_sha256,
        "scores": None if scores is None else {"model": scores[0].as_dict(), "ewma_normal": scores[1].as_dict()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
    }
    entries = sorted([*(each for each in entries if each["name"] != entry["name"]), entry], key=_by_name)
    _replace(folder / str(entry["file"]), content)
    _replace(folder / MANIFEST, (json.dumps({"format": 1, "vintages": entries}, indent=1) + "\n").encode())
    return _vintage(entry, folder)


def architecture_key() -> str:
    """A short hash of the network's source: batch profiles and model cards made by another source don't match it."""
    digest = hashlib.sha256()
    for source in _SOURCES:
        digest.update(Path(__file__).with_name(source).read_bytes())
    return digest.hexdigest()[:16]


def _entries(folder: Path) -> list[dict[str, Any]]:
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise VintageFolderError(path, "there is no such file") from error
    except ValueError as error:
        raise VintageFolderError(path, f"it is not JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != 1 or not isinstance(content.get("vintages"), list):
        raise VintageFolderError(path, 'it does not hold {"format": 1, "vintages": [...]}')
    entries: list[dict[str, Any]] = content["vintages"]
    return entries


def _vintage(entry: Mapping[str, Any], folder: Path) -> Vintage:
    try:
        return Vintage(
            name=entry["name"],
            architecture=entry["architecture"],
            trained_through=date.fromisoformat(entry["trained_through"]),
            effective_from=date.fromisoformat(entry["effective_from"]),
            decided_at=datetime.fromisoformat(entry["decided_at"]),
            basis=entry["basis"],
            decided_by=entry["decided_by"],
            reason=entry["reason"],
            weights_sha256=entry["weights_sha256"],
            path=folder / Path(entry["file"]).name,
            card=dict(entry),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise VintageFolderError(folder / MANIFEST, f"an entry is incomplete or malformed ({error!r})") from error


def _by_name(entry: Mapping[str, Any]) -> str:
    return str(entry["name"])


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
