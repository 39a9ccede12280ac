"""Checks manifests against the schemas of Kubernetes; run by the validators' own interpreter, which has them.

Reads ``[[label, first, end, manifest], …]`` from its input: the manifest is meant for the minor versions from
``first`` on and before ``end``. Writes what is wrong, one line each, and at last the versions that were used.
Kinds that Kubernetes itself does not know are left to the models of CRDs.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Any

from kubernetes_validate import SchemaNotFoundError, ValidationError, utils

# It reads a megabyte for every manifest otherwise.
utils.schema_contents = functools.cache(utils.schema_contents)


def main() -> int:
    """Return 1 when a manifest is wrong."""
    wrong, used = 0, set()
    minors = [int(version.split(".")[1]) for version in utils.all_versions()]
    for label, first, end, manifest in json.load(sys.stdin):
        for minor in (minor for minor in minors if first <= minor < end):
            found = _fault(manifest, f"1.{minor}")
            used.add(minor)
            if found:
                wrong += 1
                sys.stdout.write(f"{label}, 1.{minor}, {manifest['kind']}: {found}\n")
    sys.stdout.write(f"versions: {' '.join(map(str, sorted(used)))}\n")
    return int(wrong > 0)


def _fault(manifest: dict[str, Any], version: str) -> str:
    try:
        utils.validate(manifest, version, strict=True)
    except SchemaNotFoundError:
        group = manifest["apiVersion"].split("/")[0]
        return "" if "." in group.removesuffix(".k8s.io") else "no schema"
    except ValidationError as error:
        return f"{'.'.join(str(step) for step in error.path)}: {error.message}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
