"""What docstrings and comments put in backticks exists: who renames something renames it there, too."""

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
#: A name, perhaps dotted, perhaps called, in one or two backticks.
QUOTED = re.compile(r"(`{1,2})([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\(\))?\1")
#: A file with its folder. `tools/export_onnx.py` is of YOLOX.
PATH = re.compile(r"(?<![\w./-])(?!tools/)(?:[\w-]+/)+[\w-]+\.py\b")
WORD = re.compile(r"[A-Za-z_]\w*")
COMMENT = re.compile(r"#:? .*")
#: Words of Linux, of file formats, of other libraries and of examples.
FOREIGN = {
    *("memfd", "mprotect", "nohup", "PWD", "PutObject", "Exif", "VP8L", "Focus", "multipart"),
    *("prod", "conf_treshold", "encoded_q95", "selectors.EpollSelector", "supervision.Detections"),
    *("Request.content_type",),
}


class Source:
    """A file, its prose apart from its code."""

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
        """Return the words of some lines of code: names, and what stands in short texts."""
        return set(WORD.findall("\n".join(self.code[begin:end])))


@cache
def sources() -> list[Source]:
    """Return all files of the service."""
    paths = [path for name in ("inference", "streamer") for path in (ROOT / name).rglob("*.py")]
    return [Source(path) for path in sorted(paths)]


class Names:
    """The names that the code defines or uses."""

    def __init__(self) -> None:
        self.all = {*dir(builtins), *sys.stdlib_module_names, *map(str.upper, Settings.model_fields)}
        #: What modules, by their last name, and classes hold.
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
        """Whether a name stands for something: `a.b` for the b of a, where a is a module or class of ours."""
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
