"""The threat model names every control S1 to S26, and tests that exist for each."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "threat-model.md").read_text()
CONTROLS = [f"S{number}" for number in range(1, 27)]
ROW = re.compile(r"^\| \*\*(S\d+)\*\* .*\|(.*)\|$", re.MULTILINE)


def rows() -> dict[str, list[str]]:
    """Return the test files of each control."""
    return {control: re.findall(r"`([^`]+\.py)`", tests) for control, tests in ROW.findall(TEXT)}


def test_every_control_is_there_once_and_in_order() -> None:
    assert [control for control, _ in ROW.findall(TEXT)] == CONTROLS


def test_every_control_has_tests_that_exist() -> None:
    for control, files in rows().items():
        assert files, f"{control} names no test"
        for name in files:
            path = ROOT / "tests" / name
            assert path.is_file(), f"{control} names tests/{name}, which does not exist"
            names = [
                node.name
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            assert any(each.startswith("test_") for each in names), f"tests/{name} has no test"


def test_every_threat_is_met_by_controls_and_every_control_meets_one() -> None:
    table = TEXT.partition("## Threats and controls")[2].partition("## Controls")[0]
    named = [set(re.findall(r"\bS\d+\b", line.rpartition(" | ")[2])) for line in table.splitlines()]
    named = [controls for controls in named if controls]
    assert len(named) == 6, "STRIDE has six letters"
    assert set().union(*named) == set(CONTROLS)


def test_tests_of_this_folder_say_which_control_they_hold() -> None:
    named = {name for files in rows().values() for name in files}
    for path in sorted((ROOT / "tests" / "security").glob("test_*.py")):
        said = re.findall(r"\bS\d+\b", (ast.get_docstring(ast.parse(path.read_text())) or ""))
        if path != Path(__file__):
            assert f"security/{path.name}" in named, path.name
            for control in said:
                if control in CONTROLS:
                    assert f"security/{path.name}" in rows()[control], f"{control} does not name {path.name}"


def test_a_reader_finds_them() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "SECURITY.md" in readme
    assert "docs/threat-model.md" in readme
    assert "threat-model.md" in (ROOT / "docs" / "operations" / "security.md").read_text()
    for path in (ROOT / "SECURITY.md", ROOT / "docs" / "threat-model.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
