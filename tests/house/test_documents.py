"""A document that names a file, a folder, a module or a command names one that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
FOLDERS = {"dags", "plugins", "include", "tests", "benchmarks", "docs", ".ci"}
ENDINGS = (".py", ".md", ".toml", ".yaml", ".txt", ".sql", ".json", ".safetensors", ".mako")
PACKAGES = {"risk": PROJECT / "include/risk", "batch_inference": PROJECT / "plugins/batch_inference"}
OURS = [path for folder in FOLDERS for path in (PROJECT / folder).rglob("*") if "__pycache__" not in path.parts]


def prose(path: Path) -> str:
    """The document without its code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def spans(path: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(path))


def stale_path(token: str) -> bool:
    """Whether a token that reads as a path of this project leads nowhere."""
    if not re.fullmatch(r"[\w.*/-]+", token) or (re.search(r"[A-Z]{3,}", Path(token).stem) and "/" in token):
        return False  # no path, or a pattern such as results/NAME.json
    if "/" in token:
        return token.split("/")[0] in FOLDERS and not any(PROJECT.glob(token.rstrip("/")))
    if token.endswith(ENDINGS) and "*" not in token:
        return not (PROJECT / token).exists() and all(path.name != token for path in OURS)
    return False


def stale_module(token: str) -> bool:
    """Whether a token such as `risk.storage.server` names a module, or a public name, that is not there."""
    found = re.fullmatch(r"(risk|batch_inference)\.(\w+)[\w.:()]*", token)
    if not found:
        return False
    folder, name = PACKAGES[found[1]], found[2]
    there = (folder / name).is_dir() or (folder / f"{name}.py").exists()
    return not there and name not in (folder / "__init__.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_a_named_file_or_module_exists(path: Path) -> None:
    assert [token for token in spans(path) if stale_path(token) or stale_module(token)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_a_link_leads_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose(path))
    local = [target for target in targets if "://" not in target and not target.startswith("mailto:")]
    assert [target for target in local if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_a_named_make_target_exists(path: Path) -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = {name for line in re.findall(r"^([a-z][a-z -]*):", makefile, re.MULTILINE) for name in line.split()}
    named = {match[1] for match in re.finditer(r"`make ([a-z-]+)\b", prose(path))}
    assert named - targets == set()


@pytest.mark.parametrize(
    ("token", "stale"),
    [
        ("include/risk/settings.py", False),
        ("include/risk/no_such_file.py", True),
        ("tests/house/", False),
        ("dags/*.py", False),
        ("no_such_file.py", True),
        ("settings.py", False),
        ("benchmarks/results/NAME.json", False),
        ("close/open", False),
        ("2022-12-28", False),
    ],
)
def test_the_test_of_paths_tells_them_apart(token: str, stale: bool) -> None:
    assert stale_path(token) is stale


@pytest.mark.parametrize(
    ("token", "stale"),
    [
        ("risk.settings", False),
        ("risk.no_such_module", True),
        ("risk.storage.server.start", False),
        ("torch.nn", False),
    ],
)
def test_the_test_of_modules_tells_them_apart(token: str, stale: bool) -> None:
    assert stale_module(token) is stale
