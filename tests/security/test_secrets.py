"""S21: no secret can be read in a command line, an environment, the log, an answer or a metric."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers.service import Service

KEY = "canary-key-0123456789abcdef"
#: Environment variables, each with a canary in it. The last three are secrets of other programs, which the
#: service must not spread either.
CANARIES = {
    "API_KEYS": KEY,
    "TURN_SECRET": "canary-turn",
    "AWS_ACCESS_KEY_ID": "canary-access",
    "AWS_SECRET_ACCESS_KEY": "canary-secret-access",
    "AWS_SESSION_TOKEN": "canary-session",
    "HTTPS_PROXY": "http://user:canary-proxy@127.0.0.1:9",
    "CI_JOB_TOKEN": "canary-job",
    "DB_PASS": "canary-database",
    "BROKER_URL": "amqp://user:canary-broker/slash@host//",
}
SECRETS = {"canary-proxy", "canary-broker", *CANARIES.values()} - {
    CANARIES["HTTPS_PROXY"],
    CANARIES["BROKER_URL"],
}
#: Secrets that the sampling process needs to reach the store.
OF_THE_STORE = {"canary-access", "canary-secret-access", "canary-session", "canary-proxy"}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    settings = CANARIES | {
        "SAMPLES_STORE": "s3",
        "S3_ENDPOINT_URL": "http://127.0.0.1:9",
        "ICE_SERVERS": "turn:127.0.0.1:3478",
    }
    with Service(settings) as running:
        yield running


def processes(service: Service) -> dict[str, psutil.Process]:
    """Return every process of the service, by its process id and command line."""
    found = {}
    for process in [service.supervisor, *service.supervisor.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            found[f"{process.pid} {' '.join(process.cmdline())}"] = process
    return found


def links(process: psutil.Process) -> list[str]:
    """Return what the descriptors of a process refer to; it may close some of them meanwhile."""
    found = []
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return found


def test_no_environment_of_a_process_holds_a_secret(service: Service) -> None:
    found = processes(service)
    assert sum("inference.engine.process" in name for name in found) == 2  # with its fork server
    assert sum("streamer.server.worker" in name for name in found) == 1
    for name, process in found.items():
        text = Path(f"/proc/{process.pid}/environ").read_bytes().decode(errors="replace")
        allowed = OF_THE_STORE if "streamer.sampling.process" in name else set()
        held = {canary for canary in SECRETS if canary in text}
        assert held <= allowed, name
        assert "canary" not in name


def test_no_child_keeps_the_settings_open(service: Service) -> None:
    for name, process in processes(service).items():
        if process.pid != service.supervisor.pid:
            assert not [link for link in links(process) if "memfd:settings" in link], name


def test_no_process_leaves_its_memory_in_a_core_dump(service: Service) -> None:
    for name, process in processes(service).items():
        assert max(resource.prlimit(process.pid, resource.RLIMIT_CORE)) <= 1, name


def requests(service: Service) -> Iterator[urllib.request.Request]:
    """Yield requests with the key in the header, in a wrong token, in the path and in the query."""
    base = service.http_url
    for path in ("/v1/predict", "/v1/webrtc", "/v1/whip", f"/{KEY}", f"/v1/predict?token={KEY}", "/health"):
        for headers in ({"Authorization": f"Bearer {KEY}"}, {"Authorization": f"Bearer wrong-{KEY}"}):
            for method in ("GET", "POST", "DELETE", "PUT"):
                yield urllib.request.Request(  # noqa: S310 - loopback
                    base + path, headers=headers, method=method, data=b"{}" if method == "POST" else None
                )


def test_neither_answers_nor_log_nor_metrics_hold_a_secret(service: Service) -> None:
    answers = []
    for request in requests(service):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
                answers.append(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                answers.append(error.read() + str(error.headers).encode())
    for line in (
        f"GET /{KEY} HTTP/1.1\r\nHost",
        f"{KEY}\r\n\r\n",
        f"GET / HTTP/1.1\r\nX{KEY}\x00: 1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", service.port), timeout=60) as raw:
            raw.sendall(line.encode())
            raw.shutdown(socket.SHUT_WR)
            answers.append(raw.recv(65536))
    answers.extend(service.get(path)[1] for path in ("/health", "/metrics", "/openapi.json"))
    # An answer may repeat the key in a path or a title, because the caller sent it; no other secret may show.
    others = [canary.encode() for canary in SECRETS - {KEY}]
    assert not [answer for answer in answers for canary in others if canary in answer]
    assert "canary" not in service.get("/metrics")[1].decode()
    log = service.log
    assert not [canary for canary in SECRETS if canary in log]
    for entry in log.rpartition("\n")[0].splitlines():
        json.loads(entry)


def test_a_wrong_setting_does_not_show_the_secret() -> None:
    with pytest.raises(AssertionError) as caught, Service({"API_KEYS": "canary-key\x7f", "PORT": "canary"}):
        pass  # pragma: no cover - it does not start
    assert "canary-key" not in str(caught.value)
    assert "PORT" in str(caught.value)
