"""Tests that following a section of the chart's README renders what the section's heading promises."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from streamer.config.network_settings import parse_ice_servers
from tests.deploy.chart import CHART, Chart, Manifests

README = (CHART / "README.md").read_text()


def section(title: str) -> str:
    """Return the text under a heading."""
    found = re.search(rf"^### {re.escape(title)}\n(.*?)(?=^##)", README, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def follow(chart: Chart, title: str, folder: Path) -> Manifests:
    """Save the values of a section in the file that it names, and render the chart with its command."""
    text = section(title)
    (name,) = set(re.findall(r"Save as\s`([a-z0-9]+\.yaml)`", text))
    (folder / name).write_text(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    (command,) = [line for line in text.splitlines() if line.startswith("helm upgrade --install ")]
    words = shlex.split(command)[3:]
    assert words[:2] == ["detect", "charts/real-time-vision-api"]
    namespace = words[words.index("-n") + 1]
    assert words[words.index("-f") + 1] == name
    options = ["-n", namespace, "--kube-version", "1.31", "-f", str(folder / name)]
    done = chart.run("template", "detect", str(chart.folder), *options)
    assert done.returncode == 0, done.stderr
    documents = yaml.load_all(done.stdout, Loader=yaml.CSafeLoader)
    manifests = Manifests(tuple(document for document in documents if document))
    assert manifests.container["image"].startswith("registry.example.org/real-time-vision-api:")
    created = set(re.findall(r"create secret generic ([a-z-]+) ", text))
    referred = {
        value["secretKeyRef"]["name"]: value["secretKeyRef"]["key"]
        for value in manifests.environment.values()
        if isinstance(value, dict) and "secretKeyRef" in value
    }
    assert set(referred) == created, "what is referred to was made before"
    for name, key in referred.items():
        assert re.search(rf"generic {name} .*--from-literal={key}=", text)
    return manifests


def test_one_gpu_node(chart: Chart, tmp_path: Path) -> None:
    manifests = follow(chart, "One GPU node", tmp_path)
    assert manifests.workload["spec"]["replicas"] == 1
    assert manifests.container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert manifests.container["image"].endswith(":0.1.0-gpu")
    assert manifests.pod["runtimeClassName"] == "nvidia"
    assert (manifests.environment["DEVICE"], manifests.environment["WORKERS"]) == ("cuda", "4")
    own = re.findall(r"```yaml\n(.*?)```", section("One GPU node"), re.DOTALL)[1]
    values = yaml.safe_load(own)
    assert chart.render(values).environment["MODEL_V1_PATH"] == "/models/parcels.onnx"
    (applied,) = re.findall(r"<<'EOF'\n(.*?)\nEOF", section("One GPU node"), re.DOTALL)
    claim, pod = yaml.safe_load_all(applied)
    name = values["persistence"]["models"]["existingClaim"]
    assert claim["metadata"]["name"] == name
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": name}


def test_three_replicas_with_keda(chart: Chart, tmp_path: Path) -> None:
    manifests = follow(chart, "Three replicas with KEDA", tmp_path)
    scaled = manifests.one("ScaledObject")["spec"]
    assert scaled["minReplicaCount"] == 3
    assert scaled["scaleTargetRef"]["name"] == manifests.workload["metadata"]["name"]
    assert manifests.of("HorizontalPodAutoscaler") == []
    assert manifests.of("PodDisruptionBudget")
    annotations = manifests.one("Ingress")["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/affinity"] == "cookie"
    assert manifests.one("ServiceMonitor")["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_a_store_with_an_existing_secret(chart: Chart, tmp_path: Path) -> None:
    manifests = follow(chart, "S3-compatible store with an existing secret", tmp_path)
    environment = manifests.environment
    assert environment["SAMPLES_STORE"] == "s3"
    assert environment["S3_ENDPOINT_URL"] == "http://minio.storage.svc:9000"
    assert environment["AWS_ACCESS_KEY_ID"]["secretKeyRef"] == {"name": "minio-writer", "key": "access-key"}
    assert manifests.of("Secret") == []
    allowed = str(manifests.one("NetworkPolicy")["spec"]["egress"])
    assert "storage" in allowed, "the policy lets samples out"


def test_webrtc_through_turn(chart: Chart, tmp_path: Path) -> None:
    manifests = follow(chart, "WebRTC through TURN", tmp_path)
    servers = parse_ice_servers(manifests.environment["ICE_SERVERS"])
    assert servers[0] == "turn:turn.example.org:3478?transport=udp"
    service = manifests.one("Service", "-coturn")
    assert service["metadata"]["name"] in section("WebRTC through TURN")
    assert service["spec"]["type"] == "LoadBalancer"
    (container,) = manifests.one("Deployment", "-coturn")["spec"]["template"]["spec"]["containers"]
    assert container["env"][0]["valueFrom"] == manifests.environment["TURN_SECRET"]


def test_installs_can_be_combined(chart: Chart, tmp_path: Path) -> None:
    follow(chart, "S3-compatible store with an existing secret", tmp_path)
    text = (tmp_path / "s3.yaml").read_text()
    manifests = chart.render(yaml.safe_load(text), "gpu-node", "coturn")
    assert {"DEVICE", "AWS_ACCESS_KEY_ID", "ICE_SERVERS"} <= set(manifests.environment)


@pytest.mark.parametrize(
    ("values", "said", "unsaid"),
    [
        ({}, ["port-forward service/test-real-time-vision-api 8000:80", "TURN server"], ["no API keys"]),
        (
            {"ingress": {"enabled": True, "hosts": ["detect.example.org"]}},
            ["http://detect.example.org/v1/predict", "no API keys are set"],
            ["port-forward"],
        ),
        (
            {"ingress": {"enabled": True, "hosts": ["a.example"]}, "auth": {"keysFileSecret": "named-keys"}},
            ['-H "Authorization: Bearer $KEY"'],
            ["no API keys are set"],
        ),
        ({"persistence": {"spool": {"enabled": False}}}, ["lost with it"], ["outlive the release"]),
        ({"autoscaling": {"enabled": True}}, ["adapter-rules", "serviceMonitor.enabled is false"], []),
        ({"persistence": {"models": {"enabled": True}}}, ["is new and empty"], []),
    ],
)
def test_notes_say_what_to_do_next(
    chart: Chart, tmp_path: Path, values: dict[str, object], said: list[str], unsaid: list[str]
) -> None:
    # helm prints the notes only after it has contacted a cluster. An extra template that includes them in a
    # manifest renders them without one.
    changed = chart.copied(tmp_path)
    shown = '{{ include (print .Template.BasePath "/NOTES.txt") . | quote }}'
    manifest = f"{{apiVersion: v1, kind: Notes, metadata: {{name: notes}}, text: {shown}}}\n"
    (changed.folder / "templates" / "notes-shown.yaml").write_text(manifest)
    notes = changed.render(values).one("Notes")["text"]
    assert all(words in notes for words in said), notes
    assert not any(words in notes for words in unsaid), notes


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert target.startswith("https://") or (CHART / target).exists()
