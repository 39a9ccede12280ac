"""Tests that a release publishes what it has scanned, and that chart and documents name only that."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.release import (
    BUILDS,
    CHART,
    ReleaseError,
    check_tag,
    format_plan,
    read_digests,
    read_release,
    write_chart,
)
from tests.deploy.chart import VALUE_SETS, Chart
from tests.deploy.rules import ROOT
from tests.deploy.workflow_run import REPOSITORY, Published, WorkflowRun

# Each run of the workflow starts hundreds of programs.
pytestmark = pytest.mark.timeout(900)

RELEASE = read_release(REPOSITORY)
_COTURN = yaml.safe_load((CHART / "values.yaml").read_text())["coturn"]["image"]
#: The images of others that the chart may run.
OTHERS = {f"{_COTURN['repository']}:{_COTURN['tag']}"}
PAGES = [ROOT / "README.md", CHART / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_DIGESTS = {image: f"sha256:{str(place) * 64}" for place, image in enumerate(BUILDS, 1)}
#: Values that need each image.
_VALUES: dict[str, dict[str, Any]] = {
    "cpu": {},
    "cpu-drift": {"settings": {"DRIFT_ENGINE": "evidently"}},
    "gpu": {"gpu": {"enabled": True}},
    "gpu-cuda12": {"gpu": {"enabled": True, "cuda": 12}},
}


@pytest.fixture(scope="module")
def published(chart: Chart, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Run the jobs of the release workflow that publish images and chart, and return what they did."""
    run = WorkflowRun("release.yml", tmp_path_factory.mktemp("release"), chart.helm)
    for job in ("plan", "publish-candidate", "publish-image", "publish-chart"):
        run.run(job, ref_name=f"v{RELEASE.version}")
    return run.published()


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]


def steps(published: Published) -> list[str]:
    """Return what the workflow did in the words of the plan, in order."""
    found = []
    for call in published.calls:
        if call[:3] == ["docker", "buildx", "build"]:
            platforms = option(call, "--platform").replace(",", ", ")
            name = dict(entry.split("=") for entry in option(call, "--output").split(","))["name"]
            line = " ".join(call)
            (build, image), *_ = sorted(
                (
                    (each.command_line, image)
                    for image, each in BUILDS.items()
                    if f" {each.command_line} " in line
                ),
                key=lambda found: -len(found[0]),
            )
            found.append(f"build {build} for {platforms}: {name}@{published.built[image]}")
        elif call[1] == "run" and "--exit-code" in call:
            assert option(call, "--image-src") == "remote", "what the registry has, not what this machine has"
            found.append(f"scan {call[-1]} for {option(call, '--platform')}")
        elif call[1] == "run" and "sign" in call:
            found.append(f"sign {call[-1]}")
        elif call[:4] == ["docker", "buildx", "imagetools", "create"]:
            found.append(f"tag {call[-1]}: {option(call, '--tag')}")
        elif call[:2] == ["helm", "push"]:
            found.append(f"push {Path(call[2]).name} to {call[3]}")
    return found


def planned(published: Published) -> list[str]:
    """Return the lines of the plan with the digests of this run."""
    text = format_plan(RELEASE)
    for name, digest in published.built.items():
        text = text.replace(f"DIGEST({name})", digest)
    return text.splitlines()


def images(chart: Chart, values: dict[str, Any] | None, *sets: str) -> set[str]:
    """Return the images of all containers that the chart starts."""
    return set(images_in(list(chart.render(values, *sets).all)))


def images_in(part: Any) -> Iterator[str]:
    """Yield the images of all containers in a part of a manifest, of whatever kind the manifest is."""
    for name, value in part.items() if isinstance(part, dict) else enumerate(part):
        if name in ("containers", "initContainers"):
            yield from (container["image"] for container in value)
        if isinstance(value, dict | list):
            yield from images_in(value)


def test_the_workflow_does_what_the_plan_says(published: Published) -> None:
    done = steps(published)
    expected = [line for line in planned(published) if line.startswith(("build ", "scan ", "sign ", "tag "))]
    charts = [line for line in done if "charts" in line]
    assert sorted(line for line in done if line not in charts) == sorted(expected)
    name = f"real-time-vision-api-{RELEASE.version}.tgz"
    assert charts[0] == f"push {name} to {RELEASE.chart.rpartition('/')[0]}"
    assert re.fullmatch(r"sign ghcr\.io/owner/charts/real-time-vision-api@sha256:[0-9a-f]{64}", charts[1])
    assert len(charts) == 2


def test_each_image_is_built_once_and_scanned_and_signed_before_it_has_a_tag(published: Published) -> None:
    done = steps(published)
    assert len([line for line in done if line.startswith("build ")]) == len(RELEASE.images)
    assert set(published.built) == {"cpu", "cpu-drift", "gpu", "gpu-cuda12"}
    assert len(set(published.built.values())) == len(published.built)
    for image in RELEASE.images:
        digest = f"{image.repository}@{published.built[image.name]}"
        of_it = [line.split()[0] for line in done if digest in line]
        assert of_it == ["build", *["scan"] * len(image.build.platforms), "sign", "tag"]
        assert published.tags[image.reference] == published.built[image.name]
    builds = [call for call in published.calls if call[:3] == ["docker", "buildx", "build"]]
    for call in builds:
        assert option(call, "--provenance") == "mode=max"
        assert option(call, "--sbom") == "true"
        assert "push-by-digest=true" in option(call, "--output")
        assert not {"--tag", "-t"} & set(call)


def test_a_version_is_published_once(tmp_path: Path) -> None:
    run = WorkflowRun("release.yml", tmp_path)
    for job in ("plan", "publish-candidate", "publish-image", "publish-image"):
        run.run(job, ref_name=f"v{RELEASE.version}")
    run.run("publish-candidate")
    before = (run.records / "calls").read_text()
    with pytest.raises(AssertionError, match=r"publish sha256:.* under another version"):
        run.run("publish-image")
    after = (run.records / "calls").read_text().removeprefix(before)
    assert "inspect" in after
    assert '"sign"' not in after
    assert '"create"' not in after


def test_every_value_set_pulls_what_the_release_pushed(published: Published, chart: Chart) -> None:
    installed = Chart(published.chart, chart.helm, chart.home)
    pushed = {f"{name}@{digest}" for name, digest in published.tags.items()}
    pulled = set()
    for name in VALUE_SETS:
        given = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text())
        # A set that pins an image gets a digest that exists.
        pinned = {"image": {"digest": published.built["cpu"]}} if "image" in given else None
        # A set with a mirror of the images and with a container of its own is compared without them.
        foreign = {"global": {"imageRegistry": ""}, "extraContainers": []} if "global" in given else None
        pulled_here = images(installed, pinned or foreign, name)
        if pinned:
            assert pulled_here == {f"{RELEASE.images[0].repository}@{published.built['cpu']}"}
        else:
            pulled |= pulled_here
    assert pulled > OTHERS
    assert all(name.startswith("docker.io/") for name in OTHERS), "a name without a registry means any"
    assert pulled - OTHERS == pushed
    assert set(_VALUES) == set(BUILDS)
    for name, values in _VALUES.items():
        (found,) = images(installed, values)
        assert found == f"{RELEASE.images[0].repository}:{RELEASE.version}-{name}@{published.built[name]}"


def test_other_names_than_those_of_the_release_get_no_digest(published: Published, chart: Chart) -> None:
    installed = Chart(published.chart, chart.helm, chart.home)
    for given, expected in (
        ({"repository": "registry.example.org/vision"}, f"registry.example.org/vision:{RELEASE.version}-cpu"),
        ({"tag": "mine"}, "ghcr.io/owner/real-time-vision-api:mine"),
        ({"digest": _DIGESTS["cpu"]}, f"ghcr.io/owner/real-time-vision-api@{_DIGESTS['cpu']}"),
    ):
        assert images(installed, {"image": given}) == {expected}


def test_documents_name_only_what_is_published() -> None:
    names = {image.reference for image in RELEASE.images} | {RELEASE.chart}
    names |= {f"{RELEASE.chart.removeprefix('oci://')}:{RELEASE.version}"}
    found = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"(?:oci://)?ghcr\.io/owner/[^\s\"'`)]+", page.read_text())
    }
    assert {page for page, _ in found} == {"README.md", "deployment.md"}
    assert {name for _, name in found} <= names
    assert f"--version {RELEASE.version}" in (CHART / "README.md").read_text()
    identity = "/.github/workflows/release.yml@refs/tags/v" + RELEASE.version
    assert identity in (ROOT / "docs" / "deployment.md").read_text()


def test_an_image_that_is_built_as_documented_is_the_one_that_the_chart_pulls(chart: Chart) -> None:
    text = (CHART / "README.md").read_text()
    (pushed,) = re.findall(r"docker push (\S+)", text)
    assert f"docker build --target cpu -t {pushed} ." in text
    assert images(chart, {"image": {"repository": pushed.partition(":")[0]}}) == {pushed}


def test_compose_builds_what_make_builds_and_can_run_what_is_published() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    makefile = (ROOT / "Makefile").read_text()
    assert "--tag real-time-vision-api:$(or $(TARGET),cpu)" in makefile
    for target in ("cpu", "gpu"):
        assert services[target]["image"] == f"${{IMAGE:-real-time-vision-api:{target}}}"
    guide = (ROOT / "docs" / "deployment.md").read_text()
    assert f"IMAGE={RELEASE.images[0].reference}" in guide


def test_the_lint_workflow_lints_renders_and_scans_every_value_set(tmp_path: Path) -> None:
    run = WorkflowRun("chart.yml", tmp_path)
    run.run("chart")
    calls = [json.loads(line) for line in (run.records / "calls").read_text().splitlines()]
    for command in ("lint", "template"):
        given = [Path(option(call, "--values")).name for call in calls if call[:2] == ["helm", command]]
        assert sorted(name.removesuffix("-values.yaml") for name in given) == VALUE_SETS
    scanned = run.checkout / "rendered"
    assert {path.name.removesuffix("-values.yaml") for path in scanned.iterdir()} == set(VALUE_SETS)
    (scan,) = [call for call in calls if "config" in call]
    assert option(scan, "--volume").partition(":")[0] == str(scanned)
    assert option(scan, "--exit-code") == "1"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["cpu=" + _DIGESTS["cpu"]], "each of"),
        ([f"{name}={digest}" for name, digest in _DIGESTS.items()] * 2, "each of"),
        ([f"{name}={digest}" for name, digest in (_DIGESTS | {"gpu": ""}).items()], "--digest of gpu is ''"),
    ],
)
def test_a_digest_that_is_absent_or_wrong_is_refused(given: list[str], said: str) -> None:
    with pytest.raises(ReleaseError, match=re.escape(said)):
        read_digests(RELEASE, given)


def test_a_tag_of_another_version_and_a_strange_repository_are_refused(tmp_path: Path) -> None:
    check_tag(RELEASE, f"v{RELEASE.version}")
    with pytest.raises(ReleaseError, match=r"the tag is v9\.9\.9, and pyproject\.toml says version"):
        check_tag(RELEASE, "v9.9.9")
    with pytest.raises(ReleaseError, match="allowed is OWNER/NAME"):
        read_release("real-time-vision-api")
    written = write_chart(RELEASE, _DIGESTS, tmp_path)
    annotations = yaml.safe_load((written / "Chart.yaml").read_text())["annotations"]
    assert set(annotations) == {"category", "licenses", "artifacthub.io/images"}


@pytest.mark.parametrize("name", BUILDS)
def test_make_builds_each_image_as_the_release_does(name: str) -> None:
    command = ["make", "--dry-run", "image", f"TARGET={name}", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"deploy/release.py arguments {name}) " in done.stdout
    said = subprocess.run(
        [sys.executable, "deploy/release.py", "arguments", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == BUILDS[name].command_line
