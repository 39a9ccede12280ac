"""Tests that the service runs with the environment of the chart's pod and ends within its grace period."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.deploy.chart import Chart, Manifests
from tests.helpers.service import Service
from tests.helpers.waiting import wait_for


def run_helm_test(manifests: Manifests, service: Service, keys: str) -> None:
    """Run the command of the pod of `helm test` against the service, with and without the right key."""
    (container,) = manifests.one("Pod")["spec"]["containers"]
    given = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    given |= {"URL": f"http://127.0.0.1:{service.port}", "PATH": ""}
    assert container["command"] == ["python", "-c"]
    for key, code in ((keys, 0), ("another-key", 1)):
        command = [sys.executable, "-c", *container["args"]]
        done = subprocess.run(
            command, env=given | {"API_KEYS": key}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, done.stderr
        assert "/health 200" in done.stdout
        assert ("/v1/predict 200" in done.stdout) is (code == 0)


def test_the_service_lives_as_its_pod_is_told_to(chart: Chart, null: Path, tmp_path: Path) -> None:
    values = {
        "models": {"v1": str(null)},
        "persistence": {"spool": {"mountPath": str(tmp_path)}},
        "auth": {"apiKeys": ["dummy-key-for-tests"]},
        "webrtc": {"udpPortRange": "50200-50250"},
    }
    manifests = chart.render(values)
    # The values that the kubelet would put in place of references.
    resolved = {
        "REPLICA_ADDRESS": "127.0.0.1",
        "INFERENCE_LANES": manifests.container["resources"]["requests"]["cpu"],
        "API_KEYS": manifests.one("Secret")["stringData"]["api-keys"],
        # The names of the peers do not resolve here, and the service must choose a free port.
        "REPLICA_PEERS": "127.0.0.1",
        "PORT": "0",
    }
    environment = manifests.environment | resolved
    assert all(isinstance(value, str) for value in environment.values())
    container = manifests.container
    with Service(environment) as service:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert service.get(container[probe]["httpGet"]["path"])[0] == 200, probe
        assert service.get("/metrics")[0] == 200
        run_helm_test(manifests, service, environment["API_KEYS"])
        # The sampling process makes this folder; it may still be starting when the service is ready.
        wait_for((tmp_path / "samples").is_dir, "the spool lies on the replica's volume")
        readiness = container["readinessProbe"]
        begun = time.monotonic()
        service.signal(signal.SIGTERM)
        noticed: list[float] = []

        def watch() -> None:
            while not noticed and service.get(readiness["httpGet"]["path"])[0] == 200:
                time.sleep(readiness["periodSeconds"])
            noticed.append(time.monotonic() - begun)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        # The grace period includes 5 s in which the preStop hook sleeps before SIGTERM.
        grace_s = manifests.pod["terminationGracePeriodSeconds"] - 5
        assert service.wait(grace_s) == 0
        watcher.join(10)
        assert noticed
        assert noticed[0] < float(environment["DRAIN_DELAY_S"]), "not ready before the port is closed"
