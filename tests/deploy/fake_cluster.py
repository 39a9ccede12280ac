"""Serves so much of the Kubernetes API, in memory, that a real helm can install and upgrade a release.

Objects are stored as they are sent. Patches are merged field by field, which is what Kubernetes does with the
fields that the tests look at; lists are replaced. Nothing runs: there are no controllers and no defaults.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

#: Kinds that the chart creates without custom resources, with their plural names, by group and version.
_KINDS = {
    "v1": {
        "Secret": "secrets",
        "Service": "services",
        "ServiceAccount": "serviceaccounts",
        "ConfigMap": "configmaps",
        "Pod": "pods",
    },
    "apps/v1": {"StatefulSet": "statefulsets", "Deployment": "deployments"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
}
#: Kind and version of the objects at a plural name.
_PLURALS = {plural: (kind, version) for version, kinds in _KINDS.items() for kind, plural in kinds.items()}
_VERBS = ["get", "list", "create", "patch", "update", "delete", "watch"]


class FakeCluster:
    """Holds the objects of a cluster by the path of their addresses."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.objects: dict[str, dict[str, Any]] = {}

    def named(self, plural: str, name: str) -> dict[str, Any]:
        """Return the only object of a kind and name."""
        (found,) = [self.objects[path] for path in self.objects if path.endswith(f"/{plural}/{name}")]
        return found


@contextmanager
def running_cluster() -> Iterator[FakeCluster]:
    """Yield an empty cluster, which listens on a port of loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    cluster = FakeCluster(server.server_address[1])
    server.cluster = cluster  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _described(path: str) -> dict[str, Any] | None:
    """Return the answer about versions and kinds at a path, if it has one."""
    groups = sorted(version for version in _KINDS if "/" in version)
    if path == "/version":
        return {"major": "1", "minor": "31", "gitVersion": "v1.31.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        listed = []
        for version in groups:
            named = {"groupVersion": version, "version": version.partition("/")[2]}
            group = version.partition("/")[0]
            listed.append({"name": group, "versions": [named], "preferredVersion": named})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version in _KINDS:
        resources = [
            {"name": plural, "singularName": "", "namespaced": True, "kind": kind, "verbs": _VERBS}
            for kind, plural in _KINDS[version].items()
        ]
        return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
    return None


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(patch, dict):
        return patch
    merged = dict(old)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif not key.startswith("$"):
            merged[key] = _merged(old.get(key), value)
    return merged


class _Handler(BaseHTTPRequestHandler):
    """Answers one request of helm."""

    protocol_version = "HTTP/1.1"

    @property
    def objects(self) -> dict[str, dict[str, Any]]:
        cluster: FakeCluster = self.server.cluster  # type: ignore[attr-defined]
        return cluster.objects

    def log_message(self, *_: object) -> None:
        """Write nothing to stderr."""

    def _answer(self, body: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _missing(self, path: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound"}
        self._answer(status | {"message": f"{path} not found", "code": 404}, 404)

    def _body(self) -> dict[str, Any]:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return dict(json.loads(content or b"{}"))

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        described = _described(asked.path)
        if described is not None:
            self._answer(described)
        elif asked.path in self.objects:
            self._answer(self.objects[asked.path])
        elif asked.path.rpartition("/")[2] in _PLURALS:
            kind, version = _PLURALS[asked.path.rpartition("/")[2]]
            wanted = parse_qs(asked.query).get("labelSelector", [""])[0]
            labels = dict(pair.split("=", 1) for pair in wanted.split(",") if pair)
            items = [
                item
                for path, item in sorted(self.objects.items())
                if path.rpartition("/")[0] == asked.path
                and labels.items() <= item["metadata"].get("labels", {}).items()
            ]
            self._answer({"kind": f"{kind}List", "apiVersion": version, "metadata": {}, "items": items})
        else:
            self._missing(asked.path)

    def do_POST(self) -> None:
        made = self._body()
        path = f"{urlsplit(self.path).path}/{made['metadata']['name']}"
        self.objects[path] = made
        self._answer(made, 201)

    def do_PUT(self) -> None:
        path = urlsplit(self.path).path
        self.objects[path] = self._body()
        self._answer(self.objects[path])

    def do_PATCH(self) -> None:
        path = urlsplit(self.path).path
        patch = self._body()
        if path in self.objects:
            self.objects[path] = _merged(self.objects[path], patch)
            self._answer(self.objects[path])
        else:
            self._missing(path)

    def do_DELETE(self) -> None:
        path = urlsplit(self.path).path
        self._body()
        if self.objects.pop(path, None) is None:
            self._missing(path)
        else:
            self._answer({"kind": "Status", "apiVersion": "v1", "status": "Success"})
