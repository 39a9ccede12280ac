"""Tests of the Job that judges the drift of all replicas: command, credentials, network, contradictions."""

from __future__ import annotations

from typing import Any

import pytest
from typer.main import get_command

from streamer.cli.drift import app
from tests.deploy.chart import Chart, Manifest, Manifests, Refused

ON = {"driftEvaluation": {"enabled": True}, "sampling": {"store": "s3"}}


def pod_of(manifests: Manifests) -> Manifest:
    job = manifests.one("CronJob", "-drift")["spec"]["jobTemplate"]["spec"]
    assert job["backoffLimit"] == 0, "drift is no error that another try would mend"
    return dict(job["template"]["spec"])


def container_of(manifests: Manifests) -> Manifest:
    (container,) = pod_of(manifests)["containers"]
    return dict(container)


def environment_of(manifests: Manifests) -> dict[str, Any]:
    entries = container_of(manifests)["env"]
    assert len({entry["name"] for entry in entries}) == len(entries)
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in entries}


def test_it_is_off_by_default(chart: Chart) -> None:
    manifests = chart.render()
    assert not manifests.of("CronJob")
    assert "DRIFT_ROWS" not in manifests.environment


def test_replicas_store_rows_and_the_job_evaluates_them(chart: Chart) -> None:
    manifests = chart.render(None, "s3-store")
    assert manifests.environment["DRIFT_ROWS"] == "true"
    job = manifests.one("CronJob", "-drift")["spec"]
    assert (job["schedule"], job["timeZone"]) == ("15 2 * * *", "Europe/Berlin")
    container = container_of(manifests)
    assert container["image"] == manifests.container["image"]
    assert container["args"][:3] == ["drift", "evaluate", "s3://parcels/line-4"]
    command = get_command(app).commands["evaluate"]  # type: ignore[attr-defined]
    with command.make_context("evaluate", list(container["args"][2:])) as context:
        given = context.params
    assert given["period"] == "24h"
    assert given["reference"] == "2026-11-01..2026-11-14"
    assert (given["timezone"], given["min_streams"], given["stream"]) == ("Europe/Berlin", 2, ["gate"])
    assert given["out"] == "s3://parcels/line-4/reports/drift/%Y-%m-%d"
    environment = environment_of(manifests)
    for name in ("S3_BUCKET_NAME", "S3_PREFIX", "S3_ENDPOINT_URL", "AWS_REGION", "DRIFT_WINDOW_S"):
        assert environment[name] == manifests.environment[name]
    key = environment["AWS_SECRET_ACCESS_KEY"]["secretKeyRef"]
    assert key == {"name": "minio-reader", "key": "secret-key"}
    own = manifests.environment["AWS_SECRET_ACCESS_KEY"]["secretKeyRef"]
    assert own == {"name": "minio-writer", "key": "secret-key"}, "replicas need not read"


def test_without_credentials_of_its_own_it_has_those_of_the_replicas(chart: Chart) -> None:
    given = {"existingSecret": "writer"}
    manifests = chart.render(ON | {"awsCredentials": given})
    assert environment_of(manifests)["AWS_ACCESS_KEY_ID"]["secretKeyRef"]["name"] == "writer"
    assert pod_of(manifests)["serviceAccountName"] == manifests.pod["serviceAccountName"]
    role = {"enabled": True, "serviceAccount": {"create": True, "annotations": {"role": "reader"}}}
    manifests = chart.render(ON | {"awsCredentials": given, "driftEvaluation": role})
    assert "AWS_ACCESS_KEY_ID" not in environment_of(manifests), "a key would take precedence over the role"
    account = manifests.one("ServiceAccount", "-drift")
    assert account["metadata"]["annotations"] == {"role": "reader"}
    assert pod_of(manifests)["serviceAccountName"] == account["metadata"]["name"]


def test_it_reaches_the_bucket_alone_and_is_no_replica(chart: Chart) -> None:
    manifests = chart.render(None, "s3-store")
    template = manifests.one("CronJob", "-drift")["spec"]["jobTemplate"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    policies = [each["spec"] for each in manifests.of("NetworkPolicy")]
    (own,) = [each for each in policies if each["podSelector"]["matchLabels"].items() <= labels.items()]
    assert (own["policyTypes"], own.get("ingress")) == (["Ingress", "Egress"], None)
    dns, bucket = own["egress"]
    assert {port["port"] for port in dns["ports"]} == {53, 5353}
    assert bucket in manifests.one("NetworkPolicy")["spec"]["egress"]
    selectors = [service["spec"]["selector"] for service in manifests.of("Service")]
    selectors.append(manifests.workload["spec"]["selector"]["matchLabels"])
    assert not any(selector.items() <= labels.items() for selector in selectors)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"driftEvaluation": {"enabled": True}},
            "driftEvaluation.enabled is true, and samples stay on the volumes",
        ),
        (ON | {"settings": {"DRIFT": False}}, "settings.DRIFT is false: replicas would store no rows"),
        (ON | {"settings": {"DRIFT_ROWS": False}}, "settings.DRIFT_ROWS is false: replicas would store"),
        (ON | {"driftEvaluation": {"enabled": True, "schedule": "daily"}}, "driftEvaluation.schedule"),
        (ON | {"driftEvaluation": {"enabled": True, "timeZone": "Berlin time"}}, "driftEvaluation.timeZone"),
        (ON | {"driftEvaluation": {"enabled": True, "reports": "/x"}}, "driftEvaluation.reports"),
    ],
)
def test_contradictions_are_refused(chart: Chart, values: Manifest, said: str) -> None:
    with pytest.raises(Refused) as caught:
        chart.render(values)
    assert said in str(caught.value)
