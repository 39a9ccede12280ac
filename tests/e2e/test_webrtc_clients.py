"""WebRTC clients of other projects publish: werift, GStreamer and Chromium, the last also through coturn."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Playwright

from tests.conftest import shared
from tests.e2e.browser import chromium
from tests.e2e.webrtc_tools import (
    HERE,
    Publisher,
    free_udp_port,
    program,
    read_results,
    rtp_of,
    turn_server,
    werift_folder,
)
from tests.helpers.service import Service

pytestmark = pytest.mark.alone

SECRET = "dummy-turn-secret"  # noqa: S105 - a dummy

#: JavaScript of a minimal WHIP client. It sends only the video of the camera, and opens no data channel.
PUBLISH = """
async ({url, iceServers, policy, codec}) => {
  const pc = window.pc = new RTCPeerConnection({iceServers, iceTransportPolicy: policy});
  const stream = await navigator.mediaDevices.getUserMedia({video: true});
  const transceiver = pc.addTransceiver(stream.getTracks()[0], {direction: 'sendonly'});
  const known = RTCRtpSender.getCapabilities('video').codecs;
  transceiver.setCodecPreferences(known.filter((c) => c.mimeType === `video/${codec}`));
  await pc.setLocalDescription();
  if (pc.iceGatheringState !== 'complete') {
    await Promise.race([new Promise((done) => setTimeout(done, 10000)), new Promise((done) => {
      pc.onicegatheringstatechange = () => pc.iceGatheringState === 'complete' && done(); })]);
  }
  const answer = await fetch(url, {method: 'POST', headers: {'Content-Type': 'application/sdp'},
    body: pc.localDescription.sdp});
  const body = await answer.text();
  if (answer.status === 201) await pc.setRemoteDescription({type: 'answer', sdp: body});
  return {status: answer.status, location: answer.headers.get('Location'), body,
    candidates: pc.localDescription.sdp.split('\\n').filter((l) => l.startsWith('a=candidate')).length};
}
"""
SELECTED_PAIR = """
async () => {
  const stats = [...(await window.pc.getStats()).values()];
  const pair = stats.find((s) => s.type === 'candidate-pair' && s.nominated && s.state === 'succeeded');
  return pair ? stats.find((s) => s.id === pair.localCandidateId).candidateType : null;
}
"""


@pytest.fixture(scope="module")
def people() -> Path:
    """Return the path of a video in which people walk by one after the other."""
    return shared("data/video/one-by-one-person-detection.mp4")


@pytest.fixture(scope="module")
def camera(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert 6 s that all show a person to a Motion JPEG file that cameras repeat: 640x360, 15 fps."""
    ffmpeg = program("ffmpeg", "ffmpeg")
    path = tmp_path_factory.mktemp("camera") / "people.mjpeg"
    command = [ffmpeg, "-loglevel", "error", "-ss", "7.5", "-t", "6", "-i", str(people), "-r", "15"]
    subprocess.run([*command, "-vf", "scale=640:360", "-c:v", "mjpeg", "-q:v", "3", str(path)], check=True)
    return path


@pytest.fixture
def blank(playwright: Playwright, service: Service, camera: Path) -> Iterator[Page]:
    """Open a page of the service that contains no script."""
    with chromium(playwright, camera=camera) as browser:
        page = browser.new_context(permissions=["camera"]).new_page()
        page.goto(f"{service.http_url}/health")
        yield page


def check_people(results: list[dict[str, Any]]) -> None:
    """Assert that the results have a size that senders use for the video, and that most contain a person."""
    sizes = {(r["width"], r["height"]) for r in results}
    assert all(width <= 640 and abs(width / height - 16 / 9) < 0.05 for width, height in sizes), sizes
    assert sum(any(box[5] == 0 for box in r["boxes"]) for r in results) > len(results) / 2


@pytest.mark.parametrize("codec", ["VP8", "H264"])
def test_werift_publishes(service: Service, camera: Path, pytestconfig: pytest.Config, codec: str) -> None:
    assert pytestconfig.cache is not None
    folder = werift_folder(pytestconfig.cache.mkdir("werift"))
    port = free_udp_port()
    node = program("node", "nodejs")
    command = [node, "werift_publisher.mjs", f"{service.http_url}/v1/whip", codec, str(port)]
    with rtp_of(camera, codec, port), Publisher(command, folder) as publisher:
        told = publisher.read()
        assert told["status"] == 201, told
        check_people(read_results(told["location"], 20))
        assert publisher.stop() == {"deleted": 200}
    assert service.get_json(told["location"].removeprefix(service.http_url))["state"] == "ended"


@pytest.mark.parametrize(("codec", "encoder"), [("VP8", "vp8enc"), ("H264", "openh264enc")])
def test_gstreamer_publishes_with_its_own_rsa_certificate(
    service: Service, people: Path, codec: str, encoder: str
) -> None:
    check = "import gi; gi.require_version('GstWebRTC', '1.0')"
    inspect = program("gst-inspect-1.0", "gstreamer1.0-tools")
    if subprocess.run([inspect, "--exists", encoder], check=False).returncode:
        pytest.skip(f"needs {encoder} of GStreamer's plugins, which is not installed")
    if subprocess.run(["/usr/bin/python3", "-c", check], capture_output=True, check=False).returncode:
        pytest.skip("needs python3-gst-1.0 and gir1.2-gst-plugins-bad-1.0, which are not installed")
    script = str(HERE / "gstreamer_publisher.py")
    with Publisher(
        ["/usr/bin/python3", script, f"{service.http_url}/v1/whip", str(people), codec]
    ) as publisher:
        told = publisher.read()
        assert told["status"] == 201, told
        results = read_results(told["location"], 20)
        assert {(r["width"], r["height"]) for r in results} == {(640, 360)}
        assert publisher.stop() == {"deleted": 200}


@pytest.mark.browser
@pytest.mark.parametrize("codec", ["VP8", "H264"])
def test_chromium_publishes_by_a_few_lines_of_script(service: Service, blank: Page, codec: str) -> None:
    wanted = {"url": f"{service.http_url}/v1/whip", "iceServers": [], "policy": "all", "codec": codec}
    told = blank.evaluate(PUBLISH, wanted)
    assert told["status"] == 201, told
    check_people(read_results(told["location"], 40))
    state = service.get_json(told["location"].removeprefix(service.http_url))
    assert (state["state"], state["video"]["frames"] >= 40) == ("connected", True)
    assert (
        blank.evaluate("async url => (await fetch(url, {method: 'DELETE'})).status", told["location"]) == 200
    )


@pytest.mark.browser
def test_chromium_is_told_which_codecs_are_taken(service: Service, blank: Page) -> None:
    wanted = {"url": f"{service.http_url}/v1/whip", "iceServers": [], "policy": "all", "codec": "VP9"}
    told = blank.evaluate(PUBLISH, wanted)
    assert told["status"] == 422
    assert "taken are VP8, H.264" in told["body"]


@pytest.mark.browser
def test_through_a_turn_server_with_the_credentials_that_we_gave(
    playwright: Playwright, yolox_nano: Path, camera: Path, tmp_path: Path
) -> None:
    with turn_server(tmp_path, SECRET) as port:
        settings = {
            "MODEL_V1_PATH": str(yolox_nano),
            "STREAM_MIN_FPS": "0",
            "ICE_SERVERS": f"turn:127.0.0.1:{port}?transport=udp",
            "TURN_SECRET": SECRET,
            # A busy machine may need longer to connect than users would wait.
            "WEBRTC_CONNECT_TIMEOUT_S": "30",
        }
        with Service(settings) as service, chromium(playwright, camera=camera) as browser:
            page = browser.new_context(permissions=["camera"]).new_page()
            page.goto(f"{service.http_url}/health")
            servers = service.get_json("/v1/webrtc")["ice_servers"]
            wanted = {
                "url": f"{service.http_url}/v1/whip",
                "iceServers": servers,
                "policy": "relay",
                "codec": "VP8",
            }
            told = page.evaluate(PUBLISH, wanted)
            assert (told["status"], told["candidates"] > 0) == (201, True), told
            results = read_results(told["location"], 10)
            assert results, service.get(told["location"].removeprefix(service.http_url))
            assert page.evaluate(SELECTED_PAIR) == "relay"
            wrong = [dict(servers[0], credential="wrong")]
            told = page.evaluate(PUBLISH, wanted | {"iceServers": wrong})
            assert told["candidates"] == 0
