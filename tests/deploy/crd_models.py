"""Checks custom resources against their CRDs: types with a compiler, patterns and limits with validators."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

#: The package that models each API group. Other groups have no model.
_PACKAGES = {
    "gateway.networking.k8s.io": "gateway-api",
    "keda.sh": "keda",
    "monitoring.coreos.com": "prometheus-operator",
    "networking.istio.io": "istio",
}


def is_modelled(manifest: dict[str, Any]) -> bool:
    """Return whether a package models the API group of the manifest."""
    return manifest["apiVersion"].split("/")[0] in _PACKAGES


def find_faults(models: Path, manifests: list[dict[str, Any]]) -> list[str]:
    """Return the errors of the compiler and the validators; ``models`` is the folder with node_modules."""
    types, checks = [], []
    for number, manifest in enumerate(manifests):
        group, version = manifest["apiVersion"].split("/")
        kind = manifest["kind"]
        where = f"@kubernetes-models/{_PACKAGES[group]}/{group}/{version}/{kind}"
        literal = json.dumps(manifest)
        types.append(f"const m{number}: import({json.dumps(where)}).I{kind} = {literal};")
        checks.append(
            f"{{const {{{kind}}} = await import({json.dumps(where)});"
            f" try {{ new {kind}({literal}).validate(); }}"
            f" catch (error) {{ console.log({json.dumps(kind)} + ': ' + error.message); }} }}"
        )
    with tempfile.TemporaryDirectory(dir=models) as folder:
        (Path(folder) / "types.ts").write_text("\n".join(types) + "\nexport {};\n")
        (Path(folder) / "checks.mjs").write_text("\n".join(checks) + "\n")
        strict = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--pretty", "false"]
        compiler = str(models / "node_modules" / ".bin" / "tsc")
        return [
            *_lines([compiler, *strict, "types.ts"], folder),
            *_lines([shutil.which("node") or "node", "checks.mjs"], folder),
        ]


def _lines(command: list[str], folder: str) -> list[str]:
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    found = [line for line in done.stdout.splitlines() if line.strip()]
    return found or ([done.stderr.strip()[-500:]] if done.returncode else [])
