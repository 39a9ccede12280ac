"""The chart as tests see it: rendered by a real helm into manifests, or refused with a word."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "real-time-vision-api"
#: Value sets that every check of validity goes through.
VALUE_SETS = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
RELEASE, NAMESPACE = "test", "vision"

Manifest = dict[str, Any]


class Refused(Exception):
    """helm did not render; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Manifests:
    """What one rendering made."""

    all: tuple[Manifest, ...]

    def of(self, kind: str) -> list[Manifest]:
        """Return all manifests of a kind."""
        return [manifest for manifest in self.all if manifest["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> Manifest:
        """Return the only manifest of a kind whose name ends so; AssertionError when there is not one."""
        named = [m for m in self.of(kind) if m["metadata"]["name"].endswith(suffix)]
        if not suffix and len(named) > 1:  # the service's own: what stands beside it has a longer name
            shortest = min(len(m["metadata"]["name"]) for m in named)
            named = [m for m in named if len(m["metadata"]["name"]) == shortest]
        assert len(named) == 1, f"{len(named)} manifests are a {kind} …{suffix}"
        return named[0]

    @property
    def workload(self) -> Manifest:
        """The StatefulSet, or the service's Deployment."""
        return self.one("StatefulSet") if self.of("StatefulSet") else self.one("Deployment")

    @property
    def pod(self) -> Manifest:
        """The specification of the service's pods."""
        return dict(self.workload["spec"]["template"]["spec"])

    @property
    def container(self) -> Manifest:
        """The service's container."""
        containers = self.pod["containers"]
        assert len(containers) == 1
        return dict(containers[0])

    @property
    def environment(self) -> dict[str, Any]:
        """Variable to its value, or to where it comes from."""
        entries = self.container["env"]
        names = [entry["name"] for entry in entries]
        assert len(names) == len(set(names)), f"a variable is set twice: {sorted(names)}"
        return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in entries}

    def pod_specifications(self) -> Iterator[Manifest]:
        """Yield the specifications of all pods."""
        for manifest in self.all:
            if manifest["kind"] in ("StatefulSet", "Deployment"):
                yield manifest["spec"]["template"]["spec"]


@dataclass(frozen=True, slots=True)
class Chart:
    """The chart in ``folder`` and the helm that renders it."""

    folder: Path
    helm: Path
    home: Path
    #: What was rendered before, by everything that it depends on: many tests look at the same manifests.
    _rendered: dict[tuple[str, ...], str] = field(default_factory=dict)

    def copied(self, home: Path) -> Chart:
        """Return a chart whose files a test may change; ``home`` is a folder of the test's own."""
        return Chart(copy_chart(home), self.helm, home)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run helm, with its own homes and nobody's cluster."""
        homes = {f"HELM_{name}_HOME": str(self.home / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            [str(self.helm), *arguments], capture_output=True, text=True, timeout=60, check=False, env=homes
        )

    def text(self, values: Manifest | None = None, *sets: str, kubernetes: str = "1.31") -> str:
        """Return rendered manifests as YAML. ``sets`` name files of ci/. Raises Refused."""
        arguments = ["template", RELEASE, str(self.folder), "-n", NAMESPACE, "--kube-version", kubernetes]
        if "auth" not in (values or {}) and not sets:
            # Who may use the service is not what most tests are about, and the chart wants to know.
            values = {**(values or {}), "auth": {"allowAnonymous": True}}
        for name in sets:
            arguments += ["-f", str(CHART / "ci" / f"{name}-values.yaml")]
        if values is not None:
            given = self.home / "values.json"
            given.write_text(json.dumps(values))
            arguments += ["-f", str(given)]
        key = (*arguments, json.dumps(values))
        if key not in self._rendered:
            done = self.run(*arguments)
            if done.returncode:
                raise Refused(done.stderr)
            self._rendered[key] = done.stdout
        return self._rendered[key]

    def render(self, values: Manifest | None = None, *sets: str, kubernetes: str = "1.31") -> Manifests:
        """Return rendered manifests. Raises Refused."""
        documents = yaml.load_all(self.text(values, *sets, kubernetes=kubernetes), Loader=yaml.CSafeLoader)
        return Manifests(tuple(document for document in documents if document))


def copy_chart(folder: Path) -> Path:
    """Copy the chart, with stand-ins for rules and dashboard where the tree has none; returns the copy."""
    copied = folder / CHART.name
    shutil.copytree(CHART, copied)
    (copied / "files").mkdir(exist_ok=True)
    for name, text in (("alerts.yaml", "groups: []\n"), ("dashboard.json", "{}\n")):
        if not (copied / "files" / name).exists():
            (copied / "files" / name).write_text(text)
    return copied
