"""Renders the Helm chart with a real helm, and gives tests access to the manifests."""

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
#: Sets of values with which every check of validity renders the chart.
VALUE_SETS = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
RELEASE, NAMESPACE = "test", "vision"

Manifest = dict[str, Any]


class UniqueKeyLoader(yaml.CSafeLoader):  # type: ignore[misc]  # the stubs have no type for it
    """Loads YAML and refuses a key that a mapping has twice, as `helm install` and kubectl do."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping. Raises AssertionError if a key is there twice."""
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{node.start_mark}: {sorted(twice)} is there twice"
        return dict(super().construct_mapping(node, deep=deep))


class Refused(Exception):
    """helm has refused to render the chart; the text is its error message."""


@dataclass(frozen=True, slots=True)
class Manifests:
    """Holds the manifests of one rendering."""

    all: tuple[Manifest, ...]

    def of(self, kind: str) -> list[Manifest]:
        """Return all manifests of a kind."""
        return [manifest for manifest in self.all if manifest["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> Manifest:
        """Return the only manifest of a kind whose name ends with ``suffix``, or raise AssertionError."""
        named = [m for m in self.of(kind) if m["metadata"]["name"].endswith(suffix)]
        if not suffix and len(named) > 1:  # take the service's own: the names of its neighbours are longer
            shortest = min(len(m["metadata"]["name"]) for m in named)
            named = [m for m in named if len(m["metadata"]["name"]) == shortest]
        assert len(named) == 1, f"{len(named)} manifests are a {kind} …{suffix}"
        return named[0]

    @property
    def workload(self) -> Manifest:
        """The StatefulSet or Deployment of the service."""
        return self.one("StatefulSet") if self.of("StatefulSet") else self.one("Deployment")

    @property
    def pod(self) -> Manifest:
        """The specification of the service's pods."""
        return dict(self.workload["spec"]["template"]["spec"])

    @property
    def container(self) -> Manifest:
        """The service's container."""
        (container,) = [each for each in self.pod["containers"] if each["name"] == "service"]
        return dict(container)

    @property
    def environment(self) -> dict[str, Any]:
        """The environment variables, by name: the value, or the source of the value."""
        entries = self.container["env"]
        names = [entry["name"] for entry in entries]
        assert len(names) == len(set(names)), f"a variable is set twice: {sorted(names)}"
        return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in entries}

    def pod_specifications(self) -> Iterator[Manifest]:
        """Yield the specifications of all pods."""
        for manifest in self.all:
            if manifest["kind"] in ("StatefulSet", "Deployment"):
                yield manifest["spec"]["template"]["spec"]
            elif manifest["kind"] == "CronJob":
                yield manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            elif manifest["kind"] == "Pod":
                yield manifest["spec"]


@dataclass(frozen=True, slots=True)
class Chart:
    """Renders the chart in ``folder`` with ``helm``, whose own files are in ``home``."""

    folder: Path
    helm: Path
    home: Path
    #: Cache of renderings by arguments and values, because many tests need the same manifests.
    _rendered: dict[tuple[str, ...], str] = field(default_factory=dict)

    def copied(self, home: Path) -> Chart:
        """Return a copy of the chart, whose files a test may change, in the test's own folder ``home``."""
        return Chart(copy_chart(home), self.helm, home)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run helm with its own folders and without access to a cluster."""
        homes = {f"HELM_{name}_HOME": str(self.home / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        # Without HOME, helm would write what it discovers of a cluster into the working directory.
        homes["HOME"] = str(self.home)
        return subprocess.run(
            [str(self.helm), *arguments], capture_output=True, text=True, timeout=60, check=False, env=homes
        )

    def text(
        self,
        values: Manifest | None = None,
        *sets: str,
        kubernetes: str = "1.31",
        release: str = RELEASE,
        namespace: str = NAMESPACE,
    ) -> str:
        """Return the rendered manifests as YAML; ``sets`` are names of files in ci/. Raises Refused."""
        arguments = ["template", release, str(self.folder), "-n", namespace, "--kube-version", kubernetes]
        if "auth" not in (values or {}) and not sets:
            # The chart requires a setting of authentication, which does not matter to most tests.
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

    def render(
        self,
        values: Manifest | None = None,
        *sets: str,
        kubernetes: str = "1.31",
        release: str = RELEASE,
        namespace: str = NAMESPACE,
    ) -> Manifests:
        """Return the rendered manifests. Raises Refused."""
        text = self.text(values, *sets, kubernetes=kubernetes, release=release, namespace=namespace)
        documents = yaml.load_all(text, Loader=UniqueKeyLoader)
        return Manifests(tuple(document for document in documents if document))


def copy_chart(folder: Path) -> Path:
    """Copy the chart, with placeholders if rules or dashboard are absent; return the copy's path."""
    copied = folder / CHART.name
    shutil.copytree(CHART, copied)
    (copied / "files").mkdir(exist_ok=True)
    for name, text in (("alerts.yaml", "groups: []\n"), ("dashboard.json", "{}\n")):
        if not (copied / "files" / name).exists():
            (copied / "files" / name).write_text(text)
    return copied
