"""Links, anchors and file names in the documentation exist, and the index of decisions is complete."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = ROOT / "docs" / "decisions"
FOLDERS = ("streamer", "inference", "tests", "models", "deploy", "charts", "docs")


@cache
def tracked() -> frozenset[str]:
    """Return the paths of all files of the project, relative to its root."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("needs a git checkout")
    return frozenset(path for path in listing.stdout.splitlines() if (ROOT / path).exists())


def pages() -> list[Path]:
    """Return the pages that describe the project as it is now."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "models" / "README.md"]
    return sorted(page for page in found if page.name != "CHANGELOG.md")


def prose(page: Path) -> str:
    """Return the text of a page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def identify(page: Path) -> str:
    """Return the name of a page for the test report."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=identify)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("https:", "http:")):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        assert not anchor or linked.suffix != ".md" or anchor in anchors(linked), target


@pytest.mark.parametrize("page", pages(), ids=identify)
def test_source_files_that_are_named_exist(page: Path) -> None:
    """A name with a folder must be a path in the project; a name alone must be the name of some file."""
    names = {Path(path).name for path in tracked()}
    for named in re.findall(r"`([\w./-]+\.py)`", prose(page)):
        if "/" not in named:
            assert named in names, named
        else:
            places = [named, *(f"{folder}/{named}" for folder in FOLDERS)]
            assert any(place in tracked() for place in places), named


def test_the_index_lists_every_decision_with_its_title_newest_first() -> None:
    titles = []
    for page in sorted(DECISIONS.glob("0*.md"), reverse=True):
        title = re.match(r"# (\d{4}): (.+)\n", page.read_text())
        assert title, f"{page.name} opens with its number and title"
        assert page.name.startswith(title[1]), page.name
        titles.append((title[1], page.name, title[2]))
    rows = re.findall(
        r"^\| \[(\d{4})\]\(([\w-]+\.md)\) \| (.+?) \| .+ \|$",
        (DECISIONS / "README.md").read_text(),
        re.MULTILINE,
    )
    assert rows == titles
