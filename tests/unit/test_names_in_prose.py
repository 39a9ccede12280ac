"""Tests that names in backticks in docstrings and comments exist, so that renames include the prose."""

from __future__ import annotations

import ast
import builtins
import re
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

from streamer.config.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
#: A name in single or double backticks; it may have dots, and `()` at its end.
QUOTED = re.compile(r"(`{1,2})([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\(\))?\1")
#: A file with its folder. `tools/` is excluded, because `tools/export_onnx.py` belongs to YOLOX.
PATH = re.compile(r"(?<![\w./-])(?!tools/)(?:[\w-]+/)+[\w-]+\.py\b")
WORD = re.compile(r"[A-Za-z_]\w*")
COMMENT = re.compile(r"#:? .*")
#: Known names that are not in our code: from Linux, file formats, other libraries and examples.
FOREIGN = {
    *("memfd", "mprotect", "nohup", "PWD", "PutObject", "Exif", "VP8L", "Focus", "multipart"),
    *("prod", "conf_treshold", "encoded_q95", "selectors.EpollSelector", "supervision.Detections"),
    *("Request.content_type", "somaxconn"),
}


class Source:
    """Holds the prose and the code of a file separately."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines()
        self.classes: list[ast.ClassDef] = []
        found = []
        for node in ast.walk(ast.parse("\n".join(lines))):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.ClassDef):
                self.classes.append(node)
            text = ast.get_docstring(node, clean=False)
            if text is not None:
                found.append(text)
                first = node.body[0]
                for number in range(first.lineno - 1, first.end_lineno or first.lineno):
                    lines[number] = ""
        self.code = [COMMENT.sub("", line) for line in lines]
        self.prose = "\n".join((*found, *(match for line in lines for match in COMMENT.findall(line))))

    def words(self, begin: int = 0, end: int | None = None) -> set[str]:
        """Return the words in a range of code lines: names, and words in strings."""
        return set(WORD.findall("\n".join(self.code[begin:end])))


@cache
def sources() -> list[Source]:
    """Return all Python files of the service, parsed."""
    paths = [path for name in ("inference", "streamer") for path in (ROOT / name).rglob("*.py")]
    return [Source(path) for path in sorted(paths)]


class Names:
    """Holds the names that the code defines or uses."""

    def __init__(self) -> None:
        self.all = {*dir(builtins), *sys.stdlib_module_names, *map(str.upper, Settings.model_fields)}
        #: Names that occur in each package, module and class, by the last part of its name.
        self.members: dict[str, set[str]] = {}
        for source in sources():
            folders = source.path.relative_to(ROOT).with_suffix("").parts
            self.all.update(folders, words := source.words())
            own = folders[-2] if folders[-1] == "__init__" else folders[-1]
            self.members.setdefault(own, set()).update(words)
            for folder, inner in pairwise(folders):
                self.members.setdefault(folder, set()).add(inner)
            for each in source.classes:
                inside = source.words(each.lineno - 1, each.end_lineno)
                self.members.setdefault(each.name, set()).update(inside)

    def knows(self, name: str) -> bool:
        """Return whether a name exists. In `a.b`, if a is our module or class, b must occur in it."""
        if name in self.all or name in FOREIGN:
            return True
        *_, owner, member = "", *name.split(".")
        if member == "py":
            return any(source.path.stem == owner for source in sources())
        if owner in self.members:
            return member in self.members[owner]
        return bool(owner) and (owner in sys.stdlib_module_names or {owner, member} <= self.all)


def test_names_in_backticks_exist() -> None:
    names = Names()
    unknown = {
        f"{source.path.relative_to(ROOT)}: {match[2]}"
        for source in sources()
        for match in QUOTED.finditer(source.prose)
        if not names.knows(match[2])
    }
    assert not unknown, "\n".join(sorted(unknown))


def test_files_that_prose_names_exist() -> None:
    files = [
        str(path)
        for folder in ("inference", "streamer", "tests", "bench", "models")
        for path in (ROOT / folder).rglob("*.py")
    ]
    unknown = {
        f"{source.path.relative_to(ROOT)}: {match[0]}"
        for source in sources()
        for match in PATH.finditer(source.prose)
        if not any(file.endswith(f"/{match[0]}") for file in files)
    }
    assert not unknown, "\n".join(sorted(unknown))
