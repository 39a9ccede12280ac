"""Tests the real image: builds it from the Dockerfile, runs it unprivileged and drains it under load."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.deploy.image import BASE, TAG, USER, Container, Images
from tests.deploy.rules import ROOT
from tests.helpers.wire_client import WireClient

pytestmark = pytest.mark.timeout(1800)

STILL = ROOT / "data" / "stills" / "belt.jpg"
#: The same as `stop_grace_period` in docker-compose.yml.
GRACE_S = 60
POSTING_CLIENTS = 3
#: Limit on the size of the image `cpu`, in millions of bytes, with a base like Python's slim image.
SIZE_MB = 700


@pytest.fixture(scope="module")
def running(images: Images) -> Iterator[Container]:
    with Container(images, "vision-test-running", {"SAMPLES_RANDOM_EVERY_S": "1"}) as container:
        yield container


def test_it_says_what_it_is_and_runs_as_nobody(images: Images, capsys: pytest.CaptureFixture[str]) -> None:
    found = images.inspect()
    config = found["Config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["StopSignal"] == "SIGTERM"
    assert found["Healthcheck"]["Test"] == ["CMD", "python3", "-m", "streamer.supervisor.healthcheck"]
    assert "HOST=0.0.0.0" in config["Env"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert labels["title"] == "real-time-vision-api"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["revision"] == "tested"
    base, size = (images.inspect(tag)["Size"] / 1e6 for tag in (BASE, TAG))
    with capsys.disabled():
        print(f"\nimage size {size:.0f} MB, of which the base {base:.0f} MB", flush=True)  # noqa: T201 - for the docs
    assert size < SIZE_MB


def test_nothing_in_it_can_build_or_install(images: Images) -> None:
    tools = "gcc cc make ld git pip pip3 uv curl wget"
    script = (
        f"for tool in {tools}; do command -v $tool; done; ls /src /var/cache/pip /etc/pip.conf 2>/dev/null"
    )
    done = images.podman(
        *("run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=512:512"),
        *("--entrypoint", "sh", TAG, "-c", script),
        check=False,
    )
    assert done.stdout == ""


def test_it_has_the_build_of_onnxruntime_that_fits_and_every_dependency_at_its_pin(images: Images) -> None:
    script = (
        "import json, importlib.metadata as m;"
        "names = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()};"
        "print(json.dumps(names))"
    )
    installed = json.loads(images.python("-c", script))
    assert {"onnxruntime", "pyjwt", "zxing-cpp", "opentelemetry-sdk"} <= set(installed)
    assert not {"onnxruntime-gpu", "evidently", "pandas"} & set(installed)
    pins: dict[str, set[str]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, _, version = line.partition(";")[0].strip().partition("==")
        pins.setdefault(name, set()).add(version)
    loose = {name: version for name, version in installed.items() if version not in pins.get(name, set())}
    assert set(loose) == {"real-time-vision-api"}


def test_it_detects_with_the_model_that_comes_along(
    running: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    async def post() -> tuple[int, dict[str, object]]:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{running.port}/v1/predict", data=STILL.read_bytes()) as answer,
        ):
            return answer.status, await answer.json()

    status, body = asyncio.run(post())
    assert status == 200
    model, detections = body["model"], body["detections"]
    assert isinstance(model, dict)
    assert model["name"] == "codes_v1"
    assert isinstance(detections, list)
    assert {"qr_code"} <= {found["label"] for found in detections}
    with capsys.disabled():
        print(f"\nready {running.start_s:.1f} s after podman run", flush=True)  # noqa: T201 - a figure for the docs


def test_it_has_no_rights_and_nowhere_to_write_but_its_volume(running: Container) -> None:
    status = dict(
        line.split(":", 1) for line in running.shell("cat /proc/1/status").splitlines() if ":" in line
    )
    assert set(status["Uid"].split()) == {USER}
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    for folder in ("/", "/opt/venv", "/usr", "/etc", "/var", "/run"):
        assert running.shell(f"touch {folder}/x 2>/dev/null && echo written; true") == "", folder
    assert running.shell("touch /data/x && rm /data/x && echo written") == "written\n"


def test_its_memory_is_bounded_and_it_keeps_well_below(running: Container) -> None:
    limit = running.shell(
        "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    )
    assert int(limit) == 1 << 30
    assert running.state()["OOMKilled"] is False


def test_its_health_check_agrees(running: Container) -> None:
    assert running.probe() == 0


async def drained_under_load(container: Container) -> tuple[list[int], list[str], set[int], set[int], int]:
    """Stop the container while clients POST and stream.

    Returns the statuses and the failures of the POSTs, the sequence numbers of the frames that the stream
    sent and of those that were answered, and the stream's close code.
    """
    image, url = STILL.read_bytes(), f"http://127.0.0.1:{container.port}"
    statuses: list[int] = []
    failures: list[str] = []
    sent: set[int] = set()
    told = asyncio.Event()

    async def post_until_refused() -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.post(f"{url}/v1/predict", data=image) as answer:
                        await answer.read()
                        statuses.append(answer.status)
                except aiohttp.ClientConnectorError:
                    return  # the port is closed, so the service did not accept this request
                except aiohttp.ClientError as error:
                    failures.append(repr(error))

    async def stream_until_told(client: WireClient) -> None:
        while not told.is_set():
            sent.add(seq := len(sent) + 1)
            await client.send_frame(seq, image)
            await asyncio.sleep(0.1)

    async with WireClient(f"ws://127.0.0.1:{container.port}/v1/stream") as client:
        await client.hello()
        posting = [asyncio.create_task(post_until_refused()) for _ in range(POSTING_CLIENTS)]
        streaming = asyncio.create_task(stream_until_told(client))
        await client.receive("result", timeout_s=60)
        stopping = asyncio.create_task(asyncio.to_thread(container.stop, GRACE_S))
        await client.receive("bye", timeout_s=60)
        told.set()
        await streaming
        code, _ = await client.closed(60)
        answered = {seq for seqs in client.outcomes.values() for seq in seqs}
        await asyncio.wait_for(asyncio.gather(*posting, stopping), GRACE_S + 60)
    return statuses, failures, sent, answered, code


def test_sigterm_under_load_fails_no_request_and_ends_in_time(
    images: Images, capsys: pytest.CaptureFixture[str]
) -> None:
    with Container(images, "vision-test-drained", {}) as container:
        statuses, failures, sent, answered, code = asyncio.run(drained_under_load(container))
        state = container.state()
        log = container.log()
    assert failures == []
    assert len(statuses) >= POSTING_CLIENTS
    assert set(statuses) == {200}
    assert sent <= answered
    assert code == 1012
    # The exit code would be 137 if Docker had sent SIGKILL after the grace period.
    assert state["ExitCode"] == 0, log
    assert state["OOMKilled"] is False
    with capsys.disabled():
        print(f"\n{len(statuses)} requests and {len(sent)} frames around SIGTERM, none failed", flush=True)  # noqa: T201 - for the docs


def test_settings_that_are_wrong_end_it_with_their_own_code(images: Images) -> None:
    done = images.podman(
        *("run", "--rm", "--network", "none", "--read-only", "--ulimit", "nofile=1024:1024"),
        *("--ulimit", "nproc=512:512", "--env", "PORT=http", TAG),
        check=False,
    )
    assert done.returncode == 2
    assert "PORT='http'" in done.stderr


def test_no_setting_of_this_machine_is_in_it(images: Images, tmp_path: Path) -> None:
    text = images.podman("history", "--no-trunc", TAG).stdout + json.dumps(images.inspect()["Config"])
    for word in ("PIP_INDEX_URL", "PIP_CERT", "extra-index-url", f"{Path.home()}/", str(tmp_path.parent)):
        assert word not in text, word
