"""Tests that init containers of the chart fetch the models that the service then finds."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from inference.models.manifest import Manifest as ModelManifest
from inference.models.manifest import read_manifest
from tests.deploy.chart import Chart, Manifest, Manifests, Refused
from tests.deploy.test_chart_values import SCHEMA
from tests.helpers.release_server import Server
from tests.helpers.stores import registry as registries

#: Commands start slowly on a busy machine, and one test runs three.
pytestmark = pytest.mark.timeout(400)

BODY = random.Random(4).randbytes(100_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
DIGEST = "sha256:" + "a" * 64
OCI = f"oci://registry.example.org/models/parcels@{DIGEST}"
SHARED = {"models": {"enabled": True}}


def fetching(uri: str, **more: Any) -> Manifest:
    return {"models": {"fetch": {"v1": {"uri": uri, **more}}}}


def init(manifests: Manifests, name: str = "fetch-v1") -> Manifest:
    (container,) = [each for each in manifests.pod["initContainers"] if each["name"] == name]
    return dict(container)


def variables(container: Manifest) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container.get("env", [])}


async def run_fetch(manifests: Manifests, models: Path) -> tuple[int, str, Path]:
    """Run what the init container runs, with ``models`` as its volume; return also the path of the model."""
    (mount,) = [each for each in init(manifests)["volumeMounts"] if each["name"] == "models"]
    arguments = [re.sub(rf"^{mount['mountPath']}/", f"{models}/", each) for each in init(manifests)["args"]]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamer", *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, error = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    path = manifests.environment["MODEL_V1_PATH"].replace(mount["mountPath"], str(models))
    return process.returncode, error.decode(), Path(path)


async def test_the_service_finds_what_the_init_container_has_fetched(chart: Chart, tmp_path: Path) -> None:
    async with Server(BODY) as server:
        values = fetching(
            "https://host.example/Model.onnx",
            sha256=SHA256,
            manifest={"labels": ["parcel", 'it\'s "quoted"'], "input": {"width": 64, "height": 64}},
        )
        manifests = chart.render(values)
        container = init(manifests)
        # Only the address differs from what the chart has: a server on this machine stands in for the host.
        container["args"] = [server.url if each.startswith("https:") else each for each in container["args"]]
        manifests.pod["initContainers"][0].update(container)
        code, error, path = await run_fetch(manifests, tmp_path)
        assert code == 0, error
        assert path.read_bytes() == BODY
        assert path.name == "model.onnx"
        read = read_manifest(path)
        assert (read.labels, read.sha256) == (("parcel", 'it\'s "quoted"'), SHA256)
        path.write_bytes(b"damaged")
        code, error, _ = await run_fetch(manifests, tmp_path)
        assert (code, path.read_bytes() == BODY) == (0, True), error
        seen = len(server.seen)
        code, error, _ = await run_fetch(manifests, tmp_path)
        assert (code, len(server.seen)) == (0, seen), "a file that is there is not fetched again"


@registries.NEEDS_REGISTRY
async def test_a_model_comes_from_a_registry(chart: Chart, tmp_path: Path) -> None:
    digest = registries.make_layout(tmp_path / "layout", {"parcels.onnx": BODY})
    with registries.Registry(tmp_path / "registry") as running:
        await asyncio.to_thread(running.push, tmp_path / "layout", "models/parcels:1")
        manifests = chart.render(fetching(f"oci://{running.address}/models/parcels:1@{digest}"))
        code, error, path = await run_fetch(manifests, tmp_path / "models")
    assert code == 0, error
    assert path.read_bytes() == BODY
    code, error, _ = await run_fetch(manifests, tmp_path / "models")
    assert code == 0, f"a pod that finds the file on its volume needs no registry: {error}"


def test_init_containers_run_as_the_service_does(chart: Chart) -> None:
    for name in ("models-oci", "models-s3"):
        manifests = chart.render(None, name)
        for version in ("v1", "v2"):
            container = init(manifests, f"fetch-{version}")
            assert container["image"] == manifests.container["image"]
            assert container["securityContext"] == manifests.container["securityContext"]
            volumes = {volume["name"] for volume in manifests.pod["volumes"]}
            volumes |= {"spool"}
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            path = manifests.environment[f"MODEL_{version.upper()}_PATH"]
            to, file = container["args"][container["args"].index("--to") + 1], path.rpartition("/")
            assert file[0] == to
        (mount,) = [each for each in manifests.container["volumeMounts"] if each["name"] == "models"]
        assert mount["readOnly"] is True


def test_models_are_kept_in_the_pod_or_on_a_shared_volume(chart: Chart) -> None:
    def volume(values: Manifest) -> Manifest:
        (found,) = [each for each in chart.render(values).pod["volumes"] if each["name"] == "models"]
        return dict(found)

    assert volume(fetching(OCI))["emptyDir"] == {"sizeLimit": "5Gi"}
    shared = volume(fetching(OCI) | {"persistence": SHARED})["persistentVolumeClaim"]
    assert shared == {"claimName": "test-real-time-vision-api-models", "readOnly": False}
    existing = {"models": {"enabled": True, "existingClaim": "detectors"}}
    assert volume({"persistence": existing})["persistentVolumeClaim"] == {
        "claimName": "detectors",
        "readOnly": True,
    }


def test_another_file_gets_another_folder(chart: Chart) -> None:
    """So replicas that still run keep theirs during an update, and a rollback finds it."""
    base = fetching("https://host.example/x.onnx", sha256="1" * 63 + "a")
    others = [
        fetching("https://host.example/x.onnx", sha256="2" * 63 + "a"),
        fetching("https://host.example/x.onnx", sha256="1" * 63 + "a", manifest={"labels": ["a"]}),
        fetching("https://host.example/v2/x.onnx", sha256="1" * 63 + "a"),
    ]
    paths = [chart.render(values).environment["MODEL_V1_PATH"] for values in (base, *others)]
    assert len(set(paths)) == 4
    resigned = fetching("https://host.example/x.onnx?sig=dummy", sha256="1" * 63 + "a")
    assert chart.render(resigned).environment["MODEL_V1_PATH"] == paths[0], "a new signature is no other file"
    assert chart.render(base).environment["MODEL_V1_PATH"] == paths[0]


def test_credentials_come_from_secrets(chart: Chart) -> None:
    oci, s3 = chart.render(None, "models-oci"), chart.render(None, "models-s3")
    private = init(oci)
    path = "/etc/real-time-vision-api/fetch"
    assert variables(private)["REGISTRY_AUTH_FILE"] == f"{path}/.dockerconfigjson"
    assert {"name": "fetch-v1", "mountPath": path, "readOnly": True} in private["volumeMounts"]
    (volume,) = [each for each in oci.pod["volumes"] if each["name"] == "fetch-v1"]
    assert volume["secret"]["secretName"] == "mirror"
    assert "--plain-http" in init(oci, "fetch-v2")["args"]
    bucket = variables(init(s3))
    assert bucket["S3_ENDPOINT_URL"] == "http://minio.storage.svc:9000"
    assert bucket["AWS_SECRET_ACCESS_KEY"]["secretKeyRef"]["name"] == "models-reader"
    assert variables(init(s3, "fetch-v2"))["NETRC"] == f"{path}/netrc"
    # The service itself gets none of them.
    assert not {"AWS_ACCESS_KEY_ID", "REGISTRY_AUTH_FILE", "NETRC"} & set(s3.environment)
    assert all(not each["name"].startswith("fetch") for each in oci.container["volumeMounts"])
    # A variable of `extraEnv` that the chart sets here too must not be there twice.
    twice = fetching("s3://models/x.onnx", sha256=SHA256, region="eu-west-1")
    twice |= {"extraEnv": [{"name": "AWS_REGION", "value": "x"}, {"name": "NO_PROXY", "value": ".svc"}]}
    listed = init(chart.render(twice))["env"]
    assert listed == [{"name": "AWS_REGION", "value": "eu-west-1"}, {"name": "NO_PROXY", "value": ".svc"}]
    same = fetching("s3://models/x.onnx", sha256=SHA256)
    same |= {
        "awsCredentials": {"existingSecret": "minio", "accessKeyIdKey": "id"},
        "s3": {"region": "eu-west-1"},
    }
    found = variables(init(chart.render(same)))
    assert found["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "minio", "key": "id"}}
    assert found["AWS_REGION"] == "eu-west-1"


def test_the_network_policy_lets_models_be_fetched(chart: Chart) -> None:
    def rules(name: str) -> list[str]:
        return [str(rule) for rule in chart.render(None, name).one("NetworkPolicy")["spec"]["egress"]]

    oci = rules("models-oci")
    assert any("10.20.0.0/16" in rule and "'port': 5000" in rule for rule in oci)
    assert any("'kubernetes.io/metadata.name': 'tools'" in rule for rule in oci)
    s3 = rules("models-s3")
    assert any("'kubernetes.io/metadata.name': 'storage'" in rule for rule in s3)
    assert any("0.0.0.0/0" in rule and "'port': 443" in rule for rule in s3)


def test_the_schema_knows_every_field_of_a_manifest() -> None:
    fetch = SCHEMA["properties"]["models"]["properties"]["fetch"]["properties"]
    known = {field.name for field in fields(ModelManifest)} - {"sha256"}
    for version in ("v1", "v2"):
        assert set(fetch[version]["properties"]["manifest"]["properties"]) == known


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"models": {"v1": "/x.onnx", "fetch": {"v1": {"uri": OCI}}}},
            "models.v1 is /x.onnx and models.fetch.v1 is oci://",
        ),
        (
            fetching("s3://models/x.onnx"),
            "models.fetch.v1.sha256 is empty, and nothing else says which file s3:",
        ),
        (fetching("https://host.example/x.onnx"), "models.fetch.v1.sha256 is empty"),
        (
            fetching("oci://host.example/x:1"),
            "without a digest, and models.fetch.v1.sha256 is empty: a tag may",
        ),
        (
            fetching("http://host.example/x.onnx", sha256=SHA256),
            "models.fetch.v1.uri: Does not match pattern",
        ),
        (
            fetching(OCI.replace("parcels", "Parcels")),
            "with a repository of small letters and a digest of 64",
        ),
        (fetching(OCI[:-1]), "with a repository of small letters and a digest of 64 digits"),
        (fetching(OCI, sha256="abc"), "models.fetch.v1.sha256: Does not match pattern"),
        (fetching(OCI, labels=["a"]), "models.fetch.v1: Additional property labels is not allowed"),
        (fetching(OCI, manifest={"lables": []}), "manifest: Additional property lables is not allowed"),
        (fetching(OCI, region="eu-west-1"), "models.fetch.v1.region is eu-west-1 and"),
        (fetching(OCI, plainHttp=True, existingSecret="x"), "credentials are not sent over http"),
        (
            fetching("https://host.example/x.onnx", sha256=SHA256, plainHttp=True),
            "plainHttp is true and models.fetch.v1.uri is https://host.example/x.onnx: allowed with oci://",
        ),
        (fetching("https://host.example/x%20y.onnx", sha256=SHA256), "gives no name for the model"),
        (
            fetching(OCI) | {"persistence": {"models": {"enabled": True, "accessModes": ["ReadOnlyMany"]}}},
            "persistence.models.accessModes is ReadOnlyMany, and models.fetch writes to the volume",
        ),
        (
            fetching(OCI)
            | {"replicaCount": 2}
            | {"persistence": {"models": {"enabled": True, "accessModes": ["ReadWriteOnce"]}}},
            "several replicas on different nodes mount the volume: allowed is ReadWriteMany",
        ),
        (
            fetching(OCI) | {"extraVolumeMounts": [{"name": "mine", "mountPath": "/models"}]},
            "extraVolumeMounts (mine) is /models, and so is the folder of persistence.models.mountPath",
        ),
        (
            fetching(OCI) | {"initContainers": [{"name": "fetch-v1", "image": "x"}]},
            "has fetch-v1, the name of a container of models.fetch",
        ),
        (
            {"persistence": {"spool": {"size": "2Gi"}}},
            "persistence.spool.size is 2Gi, and samples need 2684354560 bytes",
        ),
        (
            {"settings": {"SAMPLES_MAX_BYTES": 10 << 30}},
            "persistence.spool.size is 4Gi, and samples need 12228726329 bytes",
        ),
    ],
)
def test_contradictions_are_refused(chart: Chart, values: Manifest, said: str) -> None:
    with pytest.raises(Refused) as caught:
        chart.render(values)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"persistence": {"spool": {"size": "2Gi"}}, "settings": {"SAMPLES_MAX_BYTES": 1 << 30}},
        {"persistence": {"spool": {"size": "2500Mi"}}, "sampling": {"enabled": False}},
        {"persistence": {"spool": {"size": "2685M"}}},
        {
            "persistence": {"spool": {"size": "0.1Gi"}},
            "settings": {"SAMPLES_MAX_BYTES": 0, "DRIFT_HISTORY_BYTES": 0},
        },
        fetching("oci://host.example/x:1", sha256=SHA256),
        fetching(OCI) | {"persistence": {"models": {"enabled": True, "accessModes": ["ReadWriteOnce"]}}},
    ],
)
def test_values_that_fit_are_taken(chart: Chart, values: Manifest) -> None:
    chart.render(values)
