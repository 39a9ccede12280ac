"""S22: pins and installed packages are not older than security/floors.toml allows; C parsers are in use."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT: dict[str, Any] = tomllib.loads((ROOT / "security" / "floors.toml").read_text())
FLOORS = {name: Version(entry["floor"]) for name, entry in DOCUMENT.items() if "floor" in entry}
#: Packages that only an option needs. They are not pinned; the floor applies where they are installed.
OPTIONAL = {"pyjwt"}
#: What the image gpu-cuda12 has in place of the pins for all images.
CUDA12 = ROOT / "constraints-cuda12.txt"


def pins(text: str) -> list[tuple[str, Version]]:
    """Return every pin of a requirements file: a package may have several, for different Pythons."""
    found = re.findall(
        r"^([a-z0-9][a-z0-9._-]*)(?:\[[^]]*\])?==([^\s;\\]+)", text, re.MULTILINE | re.IGNORECASE
    )
    return [(name.lower().replace("_", "-"), Version(version)) for name, version in found]


def below(found: list[tuple[str, Version]]) -> list[str]:
    return [f"{name} {version}" for name, version in found if name in FLOORS and version < FLOORS[name]]


def files() -> list[Path]:
    return sorted(set(ROOT.glob("constraints*.txt")) - {CUDA12})


def test_every_floor_says_why() -> None:
    for name, entry in DOCUMENT.items():
        assert "packages" in entry or len(entry["why"]) > 10, name


@pytest.mark.parametrize("path", files(), ids=[path.name for path in files()])
def test_no_pin_is_below_its_floor(path: Path) -> None:
    found = pins(path.read_text())
    assert len(found) > 30
    assert below(found) == []


def test_only_what_is_accepted_is_below_its_floor_in_the_image_for_cuda_12() -> None:
    found = below(pins(CUDA12.read_text()))
    assert [entry.partition(" ")[0] for entry in found] == DOCUMENT["accepted-in-gpu-cuda12"]["packages"]


def test_every_floor_is_about_a_pinned_package() -> None:
    pinned = {name for name, _ in pins((ROOT / "constraints.txt").read_text())}
    assert set(FLOORS) - pinned - OPTIONAL == set()


def test_a_pin_below_its_floor_is_found() -> None:
    assert below(
        pins("aiohttp==3.13.2\nPillow==12.9 ; python_version > '3'\nav==18.1.0 \\\n    --hash=x")
    ) == [
        "aiohttp 3.13.2",
        "pillow 12.9",
    ]


def test_what_is_installed_is_not_below_its_floor() -> None:
    installed = []
    for name in FLOORS:
        try:
            installed.append((name, Version(metadata.version(name))))
        except metadata.PackageNotFoundError:
            continue
    assert len(installed) >= 10
    assert below(installed) == []


def test_the_declared_dependencies_allow_nothing_below_a_floor() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [
        line for extra in project["optional-dependencies"].values() for line in extra
    ]
    declared = [re.match(r"([a-z0-9-]+)>=([\d.]+)", line) for line in lines]
    found = [(match.group(1), Version(match.group(2))) for match in declared if match is not None]
    assert len(found) > 10
    assert below(found) == []


def test_aiohttp_uses_its_parsers_in_c() -> None:
    # The pure-Python parsers have had most of the request-smuggling faults.
    code = (
        "import aiohttp.http_parser as parser, aiohttp.http_websocket as socket;"
        "print(parser.HttpRequestParser.__module__, parser.HttpRequestParserC.__module__,"
        " socket.WebSocketReader.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "aiohttp._http_parser",
        "aiohttp._http_parser",
        "aiohttp._websocket.reader_c",
    ]


def requirements() -> set[str]:
    """Return the names of all packages that the extra `server` requires here, directly or indirectly."""
    known: set[tuple[str, str]] = set()
    waiting = [("real-time-vision-api", ""), ("real-time-vision-api", "server")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in known:
            continue
        known.add((name, extra))
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, needed):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(requirement.name), each) for each in ("", *requirement.extras)]
    return {name for name, _ in known}


def test_what_must_not_be_in_an_image_is_not_required_by_the_service() -> None:
    needed = requirements()
    assert {"aiohttp", "av", "evidently", "aiortc", "pydantic"} <= needed
    assert needed & set(DOCUMENT["forbidden-in-image"]["packages"]) == set()
