"""Every package is pinned exactly, the pins are complete, and they agree with each other."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[2]
FILES = sorted(path.name for path in PROJECT.glob("requirements*.txt"))
TORCHS_OWN = ("nvidia-", "cuda-", "triton")  # torch's metadata pins its CUDA packages exactly


def lines(name: str) -> list[str]:
    text = (PROJECT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(name: str) -> dict[str, Requirement]:
    """The requirements of a file and of those it includes, by canonical name."""
    found: dict[str, Requirement] = {}
    for line in lines(name):
        if line.startswith("-r "):
            found |= pins(line.removeprefix("-r "))
        else:
            requirement = Requirement(line)
            found[canonicalize_name(requirement.name)] = requirement
    return found


def wants(requirement: Requirement) -> list[Requirement]:
    """What a package needs here, its extras included; nothing where it is not installed."""
    try:
        needed = distribution(requirement.name).requires or []
    except PackageNotFoundError:
        return []
    extras = requirement.extras or {""}
    parsed = [Requirement(text) for text in needed]
    return [item for item in parsed if not item.marker or any(item.marker.evaluate({"extra": e}) for e in extras)]


@pytest.mark.parametrize("name", FILES)
def test_every_line_is_one_exact_public_pin(name: str) -> None:
    loose = [line for line in lines(name) if not re.fullmatch(r"-r requirements\.txt|[\w.-]+(\[\w+\])?==[\w.]+", line)]
    assert loose == []


@pytest.mark.parametrize("name", FILES)
def test_no_package_is_pinned_twice(name: str) -> None:
    named = [canonicalize_name(Requirement(line).name) for line in lines(name) if not line.startswith("-r ")]
    assert sorted(named) == sorted(set(named))


@pytest.mark.parametrize("name", FILES)
def test_what_a_pinned_package_needs_is_pinned_too(name: str) -> None:
    pinned = pins(name)
    missing = {
        f"{owner} needs {needed.name}"
        for owner, requirement in pinned.items()
        for needed in wants(requirement)
        if canonicalize_name(needed.name) not in pinned and not needed.name.startswith(TORCHS_OWN)
    }
    assert missing == set()


@pytest.mark.parametrize("name", FILES)
def test_a_pin_satisfies_every_package_that_needs_it(name: str) -> None:
    pinned = pins(name)
    broken = {
        f"{owner} needs {needed}"
        for owner, requirement in pinned.items()
        for needed in wants(requirement)
        if (pin := pinned.get(canonicalize_name(needed.name)))
        and not needed.specifier.contains(next(iter(pin.specifier)).version, prereleases=True)
    }
    assert broken == set()


def test_the_installed_packages_agree() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "No broken requirements found.")


@pytest.mark.parametrize("name", [*FILES, "pyproject.toml", "Makefile", "Dockerfile"])
def test_nothing_names_an_index_or_a_folder_of_one_machine(name: str) -> None:
    text = (PROJECT / name).read_text(encoding="utf-8")
    assert re.findall(r"index-url|find-links|file://|https?://(?!127\.0\.0\.1)|/(home|root)/", text) == []
