"""Removes from an installed environment what the service never reads: `prune.py SITE_PACKAGES`.

The image is smaller by this, and `RECORD` of each package stays true. Every entry below names a package,
because a folder with the same name may be code elsewhere: `evidently.tests` has Evidently's checks.
"""

from __future__ import annotations

import csv
import io
import shutil
import sys
from pathlib import Path

#: Paths below site-packages, as patterns of pathlib, by what they are.
REMOVED = {
    "tests of other projects": (
        "numpy/**/tests",
        "pandas/tests",
        "pyarrow/tests",
        "scipy/**/tests",
        "sklearn/**/tests",
        "statsmodels/**/tests",
        "nltk/test",
    ),
    "types, which only checkers read": ("**/*.pyi",),
    "C headers and sources, for building extensions": (
        "aiohttp/*.pxd",
        "aiohttp/*.pyx",
        "aiohttp/_websocket/*.p[xy][dx]",
        "av/**/*.pxd",
        "numpy/_core/include",
        "numpy/_core/lib",
        "numpy/random/lib",
        "pyarrow/include",
        "pyarrow/src",
        "pyarrow/**/*.p[xy][dxi]",
        "scipy/**/*.pxd",
    ),
    "scripts for language models": ("onnxruntime/transformers/models",),
    "an extension of Jupyter": ("jupyterlab_plotly",),
    # Only `s3` is called; the others are asked for credentials.
    "descriptions of other services of AWS": ("botocore/data/*",),
}
#: What the patterns above would remove and the service needs.
KEPT = {
    f"botocore/data/{name}"
    for name in (
        "_retry.json",
        "endpoints.json",
        "partitions.json",
        "s3",
        "sdk-default-configuration.json",
        "signin",
        "sso",
        "sso-oidc",
        "sts",
    )
}


def prune(site: Path) -> dict[str, int]:
    """Remove the paths, and return the bytes by what they were."""
    sizes = {}
    for what, patterns in REMOVED.items():
        sizes[what] = 0
        for pattern in patterns:
            for path in sorted(site.glob(pattern)):
                if path.relative_to(site).as_posix() not in KEPT and path.exists():
                    sizes[what] += _remove(path)
    for record in site.glob("*.dist-info/RECORD"):
        _forget_removed(site, record)
    return sizes


def _remove(path: Path) -> int:
    """Remove a file or folder; return its bytes."""
    if path.is_dir():
        size = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
        shutil.rmtree(path)
        return size
    size = path.stat().st_size
    path.unlink()
    return size


def _forget_removed(site: Path, record: Path) -> None:
    """Remove the entries of files that no longer exist."""
    rows = [row for row in csv.reader(record.read_text().splitlines()) if row]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(row for row in rows if (site / row[0]).exists())
    record.write_text(text.getvalue())


def main(arguments: list[str]) -> int:
    """Prune the folder that is named; return the exit code."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        sys.stderr.write("prune.py: name the folder site-packages of an environment\n")
        return 2
    for what, size in prune(Path(arguments[0])).items():
        sys.stdout.write(f"removed {size / 1e6:5.1f} MB: {what}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
