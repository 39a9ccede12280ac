"""What docstrings and comments put in backticks exists: who renames something renames it there, too."""

from __future__ import annotations

import ast
import builtins
import re
import sys
from functools import cache
from pathlib import Path

from streamer.config.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for name in ("inference", "streamer") for path in (ROOT / name).rglob("*.py"))
#: A name, perhaps dotted, perhaps called, in one or two backticks.
QUOTED = re.compile(r"(`{1,2})([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\(\))?\1")
#: A file with its folder. `tools/export_onnx.py` is of YOLOX.
PATH = re.compile(r"(?<![\w./-])(?!tools/)(?:[\w-]+/)+[\w-]+\.py\b")
COMMENT = re.compile(r"#:? .*")
#: Words of Linux, of file formats, of other libraries and of examples.
FOREIGN = {
    *("memfd", "mprotect", "nohup", "PWD", "PutObject", "Exif", "VP8L", "Focus", "multipart"),
    *("prod", "conf_treshold", "encoded_q95", "selectors.EpollSelector", "supervision.Detections"),
    *("Request.content_type",),
}


@cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text())


class Names:
    """The names that the code defines or uses."""

    def __init__(self) -> None:
        self.all = {*dir(builtins), *sys.stdlib_module_names, *map(str.upper, Settings.model_fields)}
        #: What modules, by their last name, and classes hold.
        self.members: dict[str, set[str]] = {}
        for path in FILES:
            own = path.parent.name if path.stem == "__init__" else path.stem
            self.all.update(path.relative_to(ROOT).with_suffix("").parts)
            self.members.setdefault(path.parent.name, set()).add(path.stem)
            self.members.setdefault(path.parent.parent.name, set()).add(path.parent.name)
            self._take(tree_of(path), [self.members.setdefault(own, set())])

    def _take(self, node: ast.AST, owners: list[set[str]]) -> None:
        for child in ast.iter_child_nodes(node):
            inner, names = owners, self._names(child)
            self.all.update(names)
            for owner in owners:
                owner.update(names)
            if isinstance(child, ast.ClassDef):
                inner = [*owners, self.members.setdefault(child.name, set())]
            self._take(child, inner)

    @staticmethod
    def _names(node: ast.AST) -> list[str]:
        if isinstance(node, ast.Constant):  # words of the protocol, fields of documents, codes
            return [node.value] if isinstance(node.value, str) and len(node.value) < 80 else []
        found = [getattr(node, field, None) for field in ("name", "id", "attr", "arg", "asname")]
        if isinstance(node, ast.alias):
            found += node.name.split(".")
        return [name for name in found if isinstance(name, str)]

    def knows(self, name: str) -> bool:
        """Whether a name stands for something: `a.b` for the b of a, where a is a module or class of ours."""
        if name in self.all or name in FOREIGN:
            return True
        *_, owner, member = "", *name.split(".")
        if member == "py":
            return any(path.stem == owner for path in FILES)
        if owner in self.members:
            return member in self.members[owner]
        return bool(owner) and (owner in sys.stdlib_module_names or {owner, member} <= self.all)


@cache
def prose(path: Path) -> str:
    """Return the docstrings and comments of a file."""
    found = [
        ast.get_docstring(node, clean=False) or ""
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return "\n".join((*found, *COMMENT.findall(path.read_text())))


def test_names_in_backticks_exist() -> None:
    names = Names()
    unknown = {
        f"{path.relative_to(ROOT)}: {match[2]}"
        for path in FILES
        for match in QUOTED.finditer(prose(path))
        if not names.knows(match[2])
    }
    assert not unknown, "\n".join(sorted(unknown))


def test_files_that_prose_names_exist() -> None:
    files = [
        str(path)
        for folder in ("inference", "streamer", "tests", "models")
        for path in (ROOT / folder).rglob("*.py")
    ]
    unknown = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in FILES
        for match in PATH.finditer(prose(path))
        if not any(file.endswith(f"/{match[0]}") for file in files)
    }
    assert not unknown, "\n".join(sorted(unknown))
