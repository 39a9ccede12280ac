"""Tests that the compose file is valid, safe by default, and uses only settings that the service has."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.config.settings import Settings
from tests.deploy.rules import ROOT, tool

#: Variables that botocore reads; they are not settings of the service.
CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Return the file as docker-compose resolves it with no environment variable but PATH."""
    program = tool("docker-compose", "docker-compose")
    done = subprocess.run(
        [program, "config"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def test_it_is_valid_without_any_setting(compose: dict[str, Any]) -> None:
    done = subprocess.run(
        [tool("docker-compose", "docker-compose"), "config", "-q"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert set(compose["services"]) == {"cpu", "gpu", "s3", "prometheus", "grafana", "turn"}


def test_the_cpu_profile_is_what_runs_unless_another_one_is_asked_for(compose: dict[str, Any]) -> None:
    assert re.search(r"^COMPOSE_PROFILES=cpu$", (ROOT / ".env").read_text(), re.MULTILINE)
    profiles = {name: service.get("profiles") for name, service in compose["services"].items()}
    assert {name for name, its in profiles.items() if its} == {"cpu", "gpu"}
    assert profiles["cpu"] == ["cpu"]
    assert profiles["gpu"] == ["gpu"]


def test_no_port_is_open_to_others_unless_said_so(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) >= 6
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_service_runs_without_rights_and_with_settings_that_exist(
    compose: dict[str, Any], name: str
) -> None:
    service = compose["services"][name]
    assert service["build"]["target"] == name
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    known = {field.upper() for field in Settings.model_fields}
    assert set(service["environment"]) - CREDENTIALS <= known


def test_it_is_given_longer_to_end_than_it_may_take(compose: dict[str, Any]) -> None:
    settings = Settings.model_fields
    drain_s = sum(settings[name].default for name in ("drain_delay_s", "drain_timeout_s", "samples_drain_s"))
    # The supervisor adds five seconds to the workers' time and five to the sampling process's.
    assert int(compose["services"]["cpu"]["stop_grace_period"].removesuffix("s")) > drain_s + 10


def test_every_mounted_file_is_there(compose: dict[str, Any]) -> None:
    mounted = [
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
        if volume.startswith("/")
    ]
    assert len(mounted) >= 6
    for path in mounted:
        assert (ROOT / path).exists(), path


def test_images_of_others_are_pinned(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if name not in ("cpu", "gpu"):
            assert re.search(r":v?\d+\.\d+", service["image"]), service["image"]


def test_the_volume_of_the_store_is_the_bucket_that_the_service_writes_to(compose: dict[str, Any]) -> None:
    bucket = compose["services"]["cpu"]["environment"]["S3_BUCKET_NAME"]
    assert compose["services"]["s3"]["volumes"] == [f"bucket:/buckets/{bucket}:rw"]


#: An address to which the file lets the relay send, one to which it must not send, and the relay's own. The
#: test adds them to the loopback interface of a separate network namespace.
_INSIDE, _OUTSIDE, _RELAY = "172.30.55.6", "10.99.0.1", "172.30.55.5"
_RELAYING = """
for address in $INSIDE $OUTSIDE $RELAY; do ip addr add $address/32 dev lo; done
ip link set lo up
sh -ec "$@" -L $RELAY --pidfile=$FOLDER/pid >$FOLDER/log 2>&1 &
relay=$!
for address in $INSIDE $OUTSIDE; do turnutils_peer -L $address >/dev/null 2>&1 & peers="$peers $!"; done
# Wait until the relay and both peers listen, on the ports 3478 and 3480.
listeners() { grep -c ":$1 " /proc/net/udp; }
until [ $(listeners 0D96) -ge 1 ] && [ $(listeners 0D98) -ge 2 ]; do sleep 0.1; done
echo "=== arguments $(tr '\\0' ' ' </proc/$relay/cmdline)" >$FOLDER/arguments
for address in $INSIDE $OUTSIDE; do
    timeout 20 turnutils_uclient -e $address -u somebody -W dummy-turn-secret -n 1 -m 1 $RELAY
    echo "=== end of $address"
done
kill $relay $peers
"""


def test_the_relay_sends_to_the_service_and_to_nothing_else(compose: dict[str, Any], tmp_path: Path) -> None:
    for program in ("turnserver", "turnutils_uclient", "turnutils_peer"):
        tool(program, "coturn")
    names = {"INSIDE": _INSIDE, "OUTSIDE": _OUTSIDE, "RELAY": _RELAY, "FOLDER": str(tmp_path)}
    relay = compose["services"]["turn"]
    assert relay["entrypoint"] == ["sh", "-ec"]
    command = [
        part.replace("$$", "$").replace("/tmp/", f"{tmp_path}/")  # noqa: S108
        for part in relay["command"]
    ]
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", _RELAYING, "relay", *command],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"} | names | relay["environment"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    if "unshare failed" in done.stderr:
        pytest.skip("needs a network namespace of its own (unshare -n, as root)")
    inside, outside, _ = (done.stdout + done.stderr).replace("\r", "").split("=== end of")
    assert "Total lost packets 0 " in inside
    assert "403 (Forbidden IP)" in outside
    assert "Total lost packets" not in outside
    arguments = (tmp_path / "arguments").read_text()
    assert "turnserver" in arguments
    assert relay["environment"]["TURN_SECRET"] not in arguments


def test_no_key_is_needed_where_only_this_machine_reaches_the_port(compose: Any) -> None:
    for name in ("cpu", "gpu"):
        service = compose["services"][name]
        assert service["environment"]["ALLOW_ANONYMOUS"] == "1"
        (port,) = service["ports"]
        assert "127.0.0.1" in str(port)
