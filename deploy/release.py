"""Says what a release builds, scans, signs and publishes, and prepares the chart that it publishes.

    release.py plan --repository OWNER/NAME                     what a release would do, as text
    release.py outputs --repository OWNER/NAME --tag vVERSION   the names as outputs of a GitHub Actions job
    release.py arguments IMAGE                                  what `docker build` needs for one image
    release.py chart FOLDER --repository OWNER/NAME --digest cpu=sha256:… --digest gpu=sha256:… …

.github/workflows/release.yml takes every name from `outputs`, so `plan` shows what it will do. `chart` copies
the chart to FOLDER and writes into it where the images of the release are. The version is that of
pyproject.toml.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "real-time-vision-api"
REGISTRY = "ghcr.io"

#: Annotation of charts with the images that they use. The template `rtv.image` reads it too.
IMAGES_ANNOTATION = "artifacthub.io/images"
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class ReleaseError(Exception):
    """The release cannot be made as asked; the text says why."""


@dataclass(frozen=True, slots=True)
class Build:
    """How an image is built from the Dockerfile."""

    target: str
    platforms: tuple[str, ...]
    #: Build arguments that differ from the defaults of the Dockerfile.
    arguments: tuple[str, ...] = ()

    @property
    def command_line(self) -> str:
        """The arguments of `docker build`, without platforms."""
        return " ".join((f"--target {self.target}", *(f"--build-arg {each}" for each in self.arguments)))


_EVERYWHERE, _X86 = ("linux/amd64", "linux/arm64"), ("linux/amd64",)
#: What a release publishes, by the last part of the tag.
BUILDS = {
    "cpu": Build("cpu", _EVERYWHERE),
    "cpu-drift": Build("cpu", _EVERYWHERE, ("EXTRAS=drift",)),
    # On arm64 the target gpu can be built for CUDA 13, but nobody has run it there yet.
    "gpu": Build("gpu", _X86),
    "gpu-cuda12": Build("gpu", _X86, ("CUDA=12",)),
}


@dataclass(frozen=True, slots=True)
class Image:
    """An image that a release publishes."""

    name: str
    build: Build
    repository: str
    tag: str

    @property
    def reference(self) -> str:
        """The name under which the image is pulled."""
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Release:
    """What a release publishes."""

    version: str
    images: tuple[Image, ...]
    #: Repository of charts to which `helm push` adds the chart.
    charts: str

    @property
    def chart(self) -> str:
        """The name under which the chart is installed."""
        return f"oci://{self.charts}/{CHART.name}"


def read_release(repository: str) -> Release:
    """Return what a release of ``repository``, OWNER/NAME on GitHub, publishes. Raises ReleaseError."""
    if not _REPOSITORY.fullmatch(repository):
        raise ReleaseError(f"--repository is {repository!r}; allowed is OWNER/NAME")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    # Registries allow lower case only.
    name = f"{REGISTRY}/{repository.lower()}"
    images = tuple(Image(image, build, name, f"{version}-{image}") for image, build in BUILDS.items())
    return Release(version, images, f"{name.rpartition('/')[0]}/charts")


def check_tag(release: Release, tag: str) -> None:
    """Raise ReleaseError unless ``tag`` is the tag of the version."""
    if tag != f"v{release.version}":
        raise ReleaseError(f"the tag is {tag}, and pyproject.toml says version {release.version}")


def read_digests(release: Release, given: Sequence[str]) -> dict[str, str]:
    """Return the digests by image from ``IMAGE=DIGEST`` for each one. Raises ReleaseError."""
    digests = dict(entry.partition("=")[::2] for entry in given)
    names = [image.name for image in release.images]
    if len(given) != len(digests) or sorted(digests) != sorted(names):
        raise ReleaseError(f"--digest names {sorted(digests)}; each of {names} is needed once")
    for name, digest in digests.items():
        if not _DIGEST.fullmatch(digest):
            raise ReleaseError(f"--digest of {name} is {digest!r}; allowed is sha256: and 64 hex digits")
    return digests


def format_plan(release: Release) -> str:
    """Return what a release does, one line for each step and image."""
    lines = [f"version {release.version}"]
    for image in release.images:
        digest = f"{image.repository}@DIGEST({image.name})"
        build = image.build
        lines.append(f"build {build.command_line} for {', '.join(build.platforms)}: {digest}")
        lines += [f"scan {digest} for {platform}" for platform in build.platforms]
        lines += [f"sign {digest}", f"tag {digest}: {image.reference}"]
        lines.append(f"chart refers to {image.reference}@DIGEST({image.name})")
    lines += [f"publish and sign the chart: {release.chart} --version {release.version}"]
    return "\n".join(lines) + "\n"


def format_outputs(release: Release) -> str:
    """Return the lines that a job writes to `$GITHUB_OUTPUT`."""
    matrix = [
        {
            "name": image.name,
            "target": image.build.target,
            "arguments": image.build.command_line,
            "platforms": ",".join(image.build.platforms),
            "repository": image.repository,
            "tag": image.tag,
        }
        for image in release.images
    ]
    return f"version={release.version}\nimages={json.dumps(matrix)}\ncharts={release.charts}\n"


def write_chart(release: Release, digests: dict[str, str], folder: Path) -> Path:
    """Copy the chart into ``folder``, make it refer to the images of the release, and return its path.

    Raises:
        ReleaseError: The chart's files do not have the lines that this function replaces.
    """
    copied = folder / CHART.name
    shutil.copytree(CHART, copied)
    values = copied / "values.yaml"
    local, written = f"  repository: {CHART.name}\n", f"  repository: {release.images[0].repository}\n"
    if values.read_text().count(local) != 1:
        raise ReleaseError(f"{CHART / 'values.yaml'} does not have the line {local.strip()!r} exactly once")
    values.write_text(values.read_text().replace(local, written))
    described = copied / "Chart.yaml"
    if not described.read_text().rstrip().split("\nannotations:\n")[-1].startswith("  "):
        raise ReleaseError(f"{CHART / 'Chart.yaml'} does not end with its annotations")
    images = "".join(
        f"    - name: {image.name}\n      image: {image.reference}@{digests[image.name]}\n"
        for image in release.images
    )
    described.write_text(f"{described.read_text().rstrip()}\n  {IMAGES_ANNOTATION}: |\n{images}")
    return copied


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(prog="release.py", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("plan", "outputs", "chart"):
        commands.add_parser(name).add_argument("--repository", required=True, metavar="OWNER/NAME")
    commands.choices["outputs"].add_argument("--tag", required=True)
    commands.choices["chart"].add_argument("folder", type=Path, metavar="FOLDER")
    commands.choices["chart"].add_argument("--digest", action="append", default=[], metavar="IMAGE=DIGEST")
    commands.add_parser("arguments").add_argument("image", choices=BUILDS, metavar="IMAGE")
    given = parser.parse_args(arguments)
    if given.command == "arguments":
        sys.stdout.write(f"{BUILDS[given.image].command_line}\n")
        return 0
    try:
        release = read_release(given.repository)
        if given.command == "plan":
            sys.stdout.write(format_plan(release))
        elif given.command == "outputs":
            check_tag(release, given.tag)
            sys.stdout.write(format_outputs(release))
        else:
            write_chart(release, read_digests(release, given.digest), given.folder)
    except ReleaseError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
