"""Checks manifests against the schemas of Kubernetes.

The Python of the validators' virtual environment runs this file, because only it has the schemas. The file
reads ``[[label, first, end, manifest], …]`` from standard input: each manifest is meant for the minor
versions from ``first`` to before ``end``. It writes each fault on one line, and then the versions that it
used. It skips kinds that Kubernetes itself does not define, which the models of CRDs check.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Any

from kubernetes_validate import SchemaNotFoundError, ValidationError, utils

# Cache the schemas, because the library reads a megabyte for every manifest otherwise.
utils.schema_contents = functools.cache(utils.schema_contents)


def main() -> int:
    """Check all manifests; return 1 if one is wrong."""
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
