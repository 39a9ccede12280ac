"""S24: calls that could execute data are banned from the service, except for a list with reasons."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("inference", "streamer", "static", "data", "deploy", "models")
#: Modules that can build arbitrary objects from bytes, and telnetlib.
BANNED_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "telnetlib",
}
#: Banned calls, by the last two parts of their name; a name without a dot is a builtin.
BANNED_CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen", "tempfile.mktemp"),
    *("asyncio.create_subprocess_shell", "ssl._create_unverified_context"),
}
#: Banned attributes of aiohttp's requests: they parse headers with the mail parser, which takes quadratic
#: time, or read bodies without our size limit.
BANNED_OF_REQUESTS = {
    *("content_type", "charset", "content_disposition", "json", "text", "post", "multipart", "cookies")
}
BANNED_OPTIONS = {("shell", True), ("allow_pickle", True), ("verify", False), ("weights_only", False)}
#: Calls that start another program. The map below names each file that may use them, and the reason.
STARTING = re.compile(r"(subprocess\.\w+|(asyncio\.)?create_subprocess_exec|os\.(exec|spawn|posix_spawn)\w*)")
MAY_START = {
    "deploy/install.py": "pip and uv, with what the Makefile asks for; runs at installation alone",
    "deploy/pins.py": "docker, with the names of images in the project's own files; developers call it",
    "inference/ipc/child_process.py": "the processes of the service, by a fixed command line",
    "streamer/cli/serve.py": "this program, to download a model; the name is one of the registry",
    "streamer/decoding/fork_client.py": "the process that decoders are forked from",
    "streamer/drift/engine.py": "Evidently, by a fixed command line; the data go to its stdin",
    "streamer/supervisor/engine_devices.py": "the count of GPUs, by a fixed command line",
    "streamer/model_tools/wake_up.py": "an echo of single bytes, by a fixed command line, to measure with",
}
#: JavaScript that turns text into markup or code, which no page may use.
BANNED_IN_PAGES = re.compile(
    r"\binnerHTML\b|\bouterHTML\b|insertAdjacentHTML|document\.write|\beval\(|new Function\(|\bsrcdoc\b"
    r"|setTimeout\(\s*['\"`]|javascript:"
)


def dotted(node: ast.expr) -> str:
    """Return a call's name, at most its last two parts."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value).rpartition('.')[2]}.{node.attr}"
    return ""


def faults(source: str, path: str) -> Iterator[str]:
    """Yield a description of each forbidden import, call or attribute of a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            if dotted(node.value).endswith("request") and node.attr in BANNED_OF_REQUESTS:
                yield f"asks request.{node.attr}"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            yield from (f"imports {name}" for name in names if name.split(".")[0] in BANNED_MODULES)
        elif isinstance(node, ast.Call):
            yield from _faults_of_call(node, path)


def _faults_of_call(node: ast.Call, path: str) -> Iterator[str]:
    name = dotted(node.func)
    if name in BANNED_CALLS:
        yield f"calls {name}"
    elif STARTING.fullmatch(name) and path not in MAY_START:
        yield f"starts a program by {name}"
    for keyword in node.keywords:
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
        if (keyword.arg, value) in {
            ("shell", True),
            ("allow_pickle", True),
            ("verify", False),
            ("weights_only", False),
        }:
            yield f"says {keyword.arg}={value!r}"
        if name == "torch.load" and not any(each.arg == "weights_only" for each in node.keywords):
            yield "calls torch.load without weights_only"


def test_no_file_runs_what_data_say() -> None:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 200
    found = {}
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        wrong = list(faults(path.read_text(), name))
        if wrong:
            found[name] = wrong
    assert found == {}


def test_every_exception_is_still_one() -> None:
    for name in MAY_START:
        assert list(faults((ROOT / name).read_text(), "elsewhere")), f"{name} starts nothing any more"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from marshal import loads",
        "eval('1')",
        "import yaml\nyaml.load(x)",
        "import subprocess\nsubprocess.run(['ls'])",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import os\nos.system('ls')",
        "import asyncio\nasyncio.create_subprocess_shell('ls')",
        "import numpy as np\nnp.load(x, allow_pickle=True)",
        "requests.get(x, verify=False)",
        "kind = request.content_type",
        "reading = self.request.post()",
    ],
)
def test_what_is_banned_is_found(source: str) -> None:
    assert list(faults(source, "somewhere.py"))


def test_no_page_makes_markup_of_text() -> None:
    pages = [*(ROOT / "static").rglob("*.js"), *(ROOT / "static").rglob("*.html")]
    assert len(pages) > 20
    assert {path.name: BANNED_IN_PAGES.findall(path.read_text()) for path in pages} == {
        path.name: [] for path in pages
    }


def test_pages_have_no_script_of_their_own() -> None:
    for path in (ROOT / "static").rglob("*.html"):
        assert re.findall(r"<script(?![^>]*\bsrc=)|\son\w+=|style=", path.read_text()) == [], path.name


def test_the_security_rules_of_ruff_are_on_for_the_service() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'select = \[[^]]*"S"', text)
    # Only tests and benchmarks may ignore these rules; elsewhere each line says why (`noqa: S… - reason`).
    excused = re.findall(r'^"([^"]+)" = \[\n((?:    .*\n)*)\]', text, re.MULTILINE)
    assert {path for path, rules in excused if re.search(r'"S\d', rules)} <= {"tests/**", "bench/**"}
    for folder in ("inference", "streamer"):
        for path in (ROOT / folder).rglob("*.py"):
            for line in path.read_text().splitlines():
                if re.search(r"noqa: S\d+", line):
                    assert re.search(r"noqa: S\d+(, \w+)* - \S", line), f"{path.name}: {line.strip()}"
