"""Tests that metrics, settings, files and links in the operations pages exist; checks the IAM policy too."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import pytest

from streamer.config.settings import Settings
from tests.deploy.clients import HttpClient
from tests.helpers.media import images
from tests.helpers.service import ROOT, Service
from tests.helpers.waiting import wait_for

FOLDER = ROOT / "docs" / "operations"
PAGES = sorted(FOLDER.glob("*.md"))
#: Variables that programs other than the service read: AWS libraries, the shell, the command line and others.
FOREIGN = re.compile(r"(?:AWS|OTEL)_[A-Z_]*|STREAMER_TOKEN|TMPDIR|PROMETHEUS_MULTIPROC_DIR|KUBECONFIG")
#: A variable is a word in capitals with an underscore. Placeholders for the reader's own names have no
#: underscore, except those in `PLACEHOLDERS`.
VARIABLE = re.compile(r"(?<![A-Za-z_.:/])([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?![A-Za-z_])")
#: The end of the pattern excludes names of files, such as `sampler_factory.py`.
METRIC = re.compile(r"\b(?:object_detection|active_learning|sampler)_[a-z_]+\b(?!\.py)")
LABELS = re.compile(r"\b((?:object_detection|active_learning|sampler)_[a-z_]+)\{(\w+)(?:=\"(\w+)\")?\}")
PLACEHOLDERS = {"OIDC_PROVIDER"}


@pytest.fixture(scope="module")
def page() -> dict[str, str]:
    return {path.name: path.read_text() for path in PAGES}


def metrics(service: Service) -> tuple[list[str], set[str]]:
    """Return the lines of all series, and the names of all metrics."""
    exposed = service.get("/metrics")[1].decode()
    samples = [line for line in exposed.splitlines() if line and not line.startswith("#")]
    typed = re.findall(r"^# TYPE (\w+)", exposed, re.M)
    return samples, {re.split(r"[{ ]", line)[0] for line in samples} | set(typed)


async def test_every_metric_that_is_named_exists(null: Path, page: dict[str, str]) -> None:
    named = {(name, metric) for name, text in page.items() for metric in METRIC.findall(text)}
    assert len(named) > 20
    with Service({"MODEL_V1_PATH": str(null)}) as service:
        async with HttpClient(service.http_url) as client:
            await client.predict(images(1, (160, 120))[0])
            assert client.statuses == [200]

        def unknown() -> set[tuple[str, str]]:
            known = metrics(service)[1]
            return {(name, metric) for name, metric in named if metric not in known}

        # The sampling process exposes its metrics a moment after the service is ready.
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not unknown())
        assert unknown() == set()
        samples, _ = metrics(service)
    for name, text in page.items():
        for metric, label, value in LABELS.findall(text):
            wanted = f'{label}="{value}"' if value else f'{label}="'
            assert any(line.startswith(f"{metric}{{") and wanted in line for line in samples) or (
                metric == "object_detection_requests_total" and label == "status"
            ), f"{name}: no series {metric} with {wanted}"


def test_every_setting_that_is_named_exists(page: dict[str, str]) -> None:
    known = {name.upper() for name in Settings.model_fields}
    samples = {path.name: path.read_text() for path in (*FOLDER.glob("*.conf"), *FOLDER.glob("*.cfg"))}
    named = {
        (name, variable) for name, text in (page | samples).items() for variable in VARIABLE.findall(text)
    }
    assert len(named) > 30
    wrong = {
        (name, variable)
        for name, variable in named
        if variable not in known | PLACEHOLDERS and FOREIGN.fullmatch(variable) is None
    }
    assert wrong == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_and_source_files_exist(path: Path) -> None:
    text = path.read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), f"{path.name} links to {target}"
        if anchor and linked.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.M)
            assert anchor in {slug(heading) for heading in headings}, f"{path.name} links to {target}"
    for source in re.findall(r"`((?:streamer|inference)/[\w/]+\.py)`", text):
        assert (ROOT / source).is_file(), f"{path.name} names {source}"


def slug(heading: str) -> str:
    """Return the anchor that GitHub generates for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_policy_gives_one_right() -> None:
    policy = json.loads((FOLDER / "iam-policy.json").read_text())
    assert [statement["Action"] for statement in policy["Statement"]] == ["s3:PutObject"]
    bucket = Settings.model_fields["s3_bucket_name"].default
    assert policy["Statement"][0]["Resource"] == f"arn:aws:s3:::{bucket}/*"
    (block,) = re.findall(r"```json\n(.+?)```", (FOLDER / "security.md").read_text(), re.S)
    assert json.loads(block)["Action"] == "kms:GenerateDataKey"
