"""Runs jobs of a workflow on this machine with stand-ins for docker, helm and curl, and records their calls.

The stand-in of docker returns another digest for each build and keeps the tags that it is given, so a test
sees whether one digest is scanned, signed and published. The other programs of the steps are the real ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.release import BUILDS
from tests.deploy.rules import ROOT

#: As GitHub writes it; registries allow lower case only.
REPOSITORY = "Owner/real-time-vision-api"
_RECORD = """#!{python} -S
import hashlib, json, os, sys
folder = os.environ["RECORDS"]
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
log = os.path.join(folder, "calls")
with open(log, "a+") as file:
    file.seek(0)
    number = len(file.readlines())
    file.write(json.dumps(words) + "\\n")
digest = "sha256:" + hashlib.sha256(str(number).encode()).hexdigest()
after = lambda word: words[words.index(word) + 1]
"""
_DOCKER = """
def build_of(words):
    own = {"VERSION", "REVISION", "SOURCE"}
    for word, value in zip(words, words[1:]):
        if word == "--target" or word == "--build-arg" and value.partition("=")[0] not in own:
            yield word + " " + value

tags = os.path.join(folder, "tags")
known = json.load(open(tags)) if os.path.exists(tags) else {}
if words[1:3] == ["buildx", "build"]:
    json.dump({"containerimage.digest": digest}, open(after("--metadata-file"), "w"))
    json.dump(known | {"built " + " ".join(build_of(words)): digest}, open(tags, "w"))
elif words[1:4] == ["buildx", "imagetools", "create"]:
    json.dump(known | {after("--tag"): words[-1].partition("@")[2]}, open(tags, "w"))
elif words[1:4] == ["buildx", "imagetools", "inspect"]:
    print(known[words[-1]])
elif words[1] == "inspect":
    print(0)
"""
_HELM = """
if words[1] == "push":
    assert os.path.exists(words[2]), words[2]
    print("Pushed: " + words[3], "Digest: " + digest, sep="\\n", file=sys.stderr)
elif words[1] != "registry" and os.environ["REAL_HELM"]:
    os.execv(os.environ["REAL_HELM"], words)
"""
_PROGRAMS = {"docker": _DOCKER, "helm": _HELM, "curl": "print('qr_code')", "sudo": ""}


@dataclass(frozen=True, slots=True)
class Published:
    """What the jobs of the release have done."""

    #: Each call of a stand-in, in order.
    calls: list[list[str]]
    #: Digests by the tags under which images were published.
    tags: dict[str, str]
    #: Digests by image of the release; the last one, if an image was built twice.
    built: dict[str, str]
    #: The packaged chart.
    chart: Path


class WorkflowRun:
    """Runs jobs of one workflow in ``folder``, on a copy of the files that their steps need.

    With a real ``helm``, charts are packaged; without one, its calls are only recorded.
    """

    def __init__(self, name: str, folder: Path, helm: Path | None = None) -> None:
        self.workflow: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
        self.checkout = folder / "checkout"
        self.records = folder / "records"
        programs = folder / "programs"
        for new in (self.checkout, self.records, programs):
            new.mkdir()
        for copied in ("charts", "deploy"):
            shutil.copytree(ROOT / copied, self.checkout / copied)
        shutil.copy(ROOT / "pyproject.toml", self.checkout)
        for program, text in _PROGRAMS.items():
            written = programs / program
            written.write_text(_RECORD.replace("{python}", sys.executable) + text)
            written.chmod(0o755)
        self._environment = {
            "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(folder),
            "RECORDS": str(self.records),
            "REAL_HELM": str(helm or ""),
            "GITHUB_ACTOR": "somebody",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_SHA": "0" * 40,
        }
        #: Outputs of the jobs that have run.
        self.outputs: dict[str, dict[str, str]] = {}

    def run(self, job: str, ref_name: str = "main") -> None:
        """Run all steps of a job, for each entry of its matrix."""
        described = self.workflow["jobs"][job]
        needs = described.get("needs", [])
        # A job sees the outputs of the jobs that it names, and of no others.
        context: dict[str, Any] = {"needs": {name: {"outputs": self.outputs.get(name, {})} for name in needs}}
        context |= {"secrets": {"GITHUB_TOKEN": "dummy"}, "github": {"actor": "somebody"}}
        matrix = described.get("strategy", {}).get("matrix", {"include": [{}]})["include"]
        self.outputs[job] = {}
        for entry in self._filled(matrix, context):
            found = self._run_entry(described, context | {"matrix": entry}, ref_name)
            self.outputs[job] |= {name: value for name, value in found.items() if value}

    def published(self) -> Published:
        """Return what the jobs have done until now."""
        calls = [json.loads(line) for line in (self.records / "calls").read_text().splitlines()]
        tags = json.loads((self.records / "tags").read_text())
        built = {name: tags.pop(f"built {build.command_line}") for name, build in BUILDS.items()}
        (chart,) = (self.checkout / "build").glob("*.tgz")
        return Published(calls, tags, built, chart)

    def _run_entry(self, job: dict[str, Any], context: dict[str, Any], ref_name: str) -> dict[str, str]:
        """Run the steps of one entry of the matrix; return the outputs of the job."""
        context["steps"] = {}
        added: dict[str, str] = {}
        for step in job["steps"]:
            if "run" not in step or not self._evaluated(step.get("if", "always()"), context):
                continue
            files = {name: self.records / name for name in ("GITHUB_ENV", "GITHUB_OUTPUT")}
            for file in files.values():
                file.write_text("")
            given = [self.workflow.get("env", {}), job.get("env", {}), step.get("env", {})]
            environment = self._environment | {"GITHUB_REF_NAME": ref_name}
            environment |= {name: str(file) for name, file in files.items()} | added
            for variables in given:
                environment |= {name: self._filled(value, context) for name, value in variables.items()}
            self._run_step(self._filled(step["run"], context), environment)
            added |= _read_lines(files["GITHUB_ENV"])
            context["steps"][step.get("id", "")] = {"outputs": _read_lines(files["GITHUB_OUTPUT"])}
        return {name: self._filled(value, context) for name, value in job.get("outputs", {}).items()}

    def _run_step(self, script: str, environment: dict[str, str]) -> None:
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=self.checkout,
            env=environment | {"LANG": os.environ.get("LANG", "C.UTF-8")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"

    def _filled(self, value: Any, context: dict[str, Any]) -> Any:
        """Return ``value`` with its expressions evaluated."""
        if not isinstance(value, str):
            return value
        whole = re.fullmatch(r"\$\{\{ ([^}]+) \}\}", value)
        if whole:
            return self._evaluated(whole[1], context)
        return re.sub(r"\$\{\{ (.+?) \}\}", lambda found: str(self._evaluated(found[1], context)), value)

    def _evaluated(self, expression: str, context: dict[str, Any]) -> Any:
        """Return the value of an expression: a name, an index, `fromJSON`, `always()` or a comparison."""
        if expression == "always()":
            return True
        if " == " in expression:
            left, right = expression.split(" == ")
            return self._evaluated(left, context) == right.strip("'")
        call = re.fullmatch(r"fromJSON\((.+)\)", expression)
        if call:
            return json.loads(self._evaluated(call[1], context))
        index = re.fullmatch(r"(.+)\[(.+)\]", expression)
        if index:
            return self._evaluated(index[1], context)[self._evaluated(index[2], context)]
        found: Any = context
        for name in expression.split("."):
            found = found[name]
        return found


def _read_lines(file: Path) -> dict[str, str]:
    """Return the variables that a step has written; one that it has not written is empty, as on GitHub."""
    lines = (line.partition("=") for line in file.read_text().splitlines())
    return defaultdict(str, {name: value for name, _, value in lines})
