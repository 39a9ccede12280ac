"""Network cameras, simulated by small local servers: what they send, and how often the client asks them."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler
from typing import Any

import av
import numpy as np
import pytest

from streamer.client import snapshots, sources, video
from streamer.client.capture import Captured, Source
from streamer.client.errors import SourceFailed
from streamer.client.snapshots import Snapshots
from streamer.client.sources import SourceOptions, open_source
from streamer.client.video import LiveVideo
from streamer.client.video_source import VideoSource
from streamer.core.backoff import Backoff
from tests.helpers.fake_camera import Camera, Cameras, Respond, answer
from tests.helpers.ports import free_port
from tests.unit.images import encode, scene
from tests.unit.test_client_sources import NoWait

JPEG = encode(scene())
PASSWORD = "dummy@#:1"  # noqa: S105 - a dummy
#: Number of frames in the test stream, which lasts two seconds.
COUNT = 20


@pytest.fixture(autouse=True)
def _time_for_slow_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "REQUEST_TIMEOUT_S", 60.0)
    for name in ("OPEN_TIMEOUT_S", "READ_TIMEOUT_S", "STALE_S"):
        monkeypatch.setattr(video, name, 60.0)


@pytest.fixture
def camera() -> Iterator[Callable[[Respond], Camera]]:
    cameras = Cameras()
    yield cameras.start
    cameras.close()


def take(source: Source, count: int, stop: threading.Event | None = None) -> list[Captured]:
    stop, found = stop or threading.Event(), []
    for frame in source.frames(stop):
        found.append(frame)
        if len(found) == count:
            stop.set()
    return found


def transport_stream() -> list[tuple[float, bytes]]:
    """Return time and bytes of each MPEG-TS frame: only the first is a key frame, and brightness rises."""
    memory = io.BytesIO()
    pieces = []
    with av.open(memory, "w", format="mpegts", options={"flush_packets": "1"}) as container:
        stream = container.add_stream(
            "libx264", rate=10, options={"g": "1000", "crf": "10", "tune": "zerolatency"}
        )
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(COUNT):
            image = np.full((64, 96, 3), 20 + 10 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            for packet in stream.encode(frame):
                begun = memory.tell()
                container.mux(packet)
                pieces.append((number / 10, memory.getvalue()[begun:]))
    return pieces


def number_of(frame: Captured) -> int:
    return round((float(np.mean(frame.pixels())) - 20) / 10)


def in_real_time(send: Callable[[bytes], object]) -> None:
    begun = time.monotonic()
    for time_s, data in transport_stream():
        time.sleep(max(0.0, begun + time_s - time.monotonic()))
        send(data)


def test_a_stream_begins_with_the_key_frame_at_which_it_was_joined(
    camera: Callable[[Respond], Camera],
) -> None:
    """Check that the client keeps the first key frame: it is the only one, so no frame decodes without it."""

    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "video/mp2t")
        handler.end_headers()
        in_real_time(handler.wfile.write)

    server = camera(respond)
    source = open_source(server.url("/live"), SourceOptions(reconnect=False))
    assert isinstance(source, LiveVideo)
    frames = take(source, COUNT - 2)
    assert [number_of(frame) for frame in frames] == list(range(COUNT - 2))
    assert [frame.media_s for frame in frames] == [pytest.approx(number / 10) for number in range(COUNT - 2)]
    assert len(server.requests) == 1  # probed and played over one connection


def test_the_same_over_udp() -> None:
    port = free_port(socket.SOCK_DGRAM)
    pieces = [data for _, data in transport_stream()]
    ended = threading.Event()

    def send() -> None:
        """Send the stream again and again, because the receiver may bind after the first datagram."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not ended.is_set():
                for data in pieces:
                    for begin in range(0, len(data), 1316):
                        sender.sendto(data[begin : begin + 1316], ("127.0.0.1", port))
                    ended.wait(0.05)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        source = open_source(f"udp://127.0.0.1:{port}", SourceOptions(reconnect=False))
        assert isinstance(source, LiveVideo)
        assert take(source, 3)[0].pixels().shape == (64, 96, 3)
    finally:
        ended.set()
        thread.join()


def test_a_stream_of_jpegs_is_played_over_one_connection(camera: Callable[[Respond], Camera]) -> None:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
        handler.end_headers()
        while True:
            part = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(JPEG)}\r\n\r\n".encode()
            handler.wfile.write(part + JPEG + b"\r\n")
            time.sleep(0.01)

    server = camera(respond)
    source = open_source(server.url("/mjpeg"), SourceOptions(reconnect=False))
    assert isinstance(source, LiveVideo)
    assert len(take(source, 5)) == 5
    assert len(server.requests) == 1


def test_a_live_decoder_holds_no_frames_back() -> None:
    """Check that decoding is not threaded by frame, which would delay as many frames as there are cores."""
    data = io.BytesIO(b"".join(piece for _, piece in transport_stream()))
    with av.open(data) as container:
        video._set_threads(container.streams.video[0], live=True)
        sent = got = 0
        for packet in container.demux(video=0):
            sent += bool(packet.size)
            got += len(packet.decode())
            if packet.size:
                assert got == sent


def test_an_address_of_one_image_is_polled_and_asked_only_for_news(
    camera: Callable[[Respond], Camera],
) -> None:
    images = [encode(scene(160, 96 + 8 * number)) for number in range(3)]
    asked = [0]

    def respond(handler: BaseHTTPRequestHandler) -> None:
        number = asked[0] // 2  # each image is served twice
        asked[0] += 1
        if handler.headers["If-None-Match"] == f'"{number}"':
            assert handler.headers["If-Modified-Since"] == "Mon, 30 Nov 2026 12:00:00 GMT"
            answer(handler, b"", 304)
        else:
            image = images[number % 3]
            answer(handler, image, ETag=f'"{number}"', Last_Modified="Mon, 30 Nov 2026 12:00:00 GMT")

    server = camera(respond)
    source = open_source(server.url(), SourceOptions(fps=100))
    assert isinstance(source, Snapshots)
    assert source.live
    frames = take(source, 4)
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    numbers = [images.index(frame.image) for frame in frames if isinstance(frame.image, bytes)]
    # Opening the source may already have consumed an image, so any image may come first.
    assert numbers == [(numbers[0] + n) % 3 for n in range(4)]


async def test_snapshots_are_read_in_an_event_loop_and_left_at_any_time(
    camera: Callable[[Respond], Camera],
) -> None:
    server = camera(lambda handler: answer(handler, JPEG))
    async for frame in VideoSource(server.url(), fps=100):
        assert frame.image == JPEG
        if frame.number == 2:
            break
    async with asyncio.timeout(60):
        while "snapshots" in [thread.name for thread in threading.enumerate()]:
            gc.collect()  # collects the abandoned iteration
            await asyncio.sleep(0.01)


async def test_a_camera_that_starts_later_is_waited_for(
    camera: Callable[[Respond], Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "Backoff", lambda: Backoff(lambda _low, _high: 0.0))
    troubles: list[Respond] = [lambda handler: handler.send_error(503)] * 3
    server = camera(lambda handler: troubles.pop()(handler) if troubles else answer(handler, JPEG))
    said: list[str] = []
    async for frame in VideoSource(server.url(), fps=100, on_trouble=said.append):
        assert frame.image == JPEG
        break
    assert len(said) == 3
    assert all("cannot be opened" in text for text in said)


def test_images_without_validators_are_asked_for_again(camera: Callable[[Respond], Camera]) -> None:
    server = camera(lambda handler: answer(handler, JPEG))
    frames = take(open_source(server.url(), SourceOptions(fps=100)), 3)
    assert [frame.image for frame in frames] == [JPEG] * 3
    assert not any("if-none-match" in request for request in server.requests)


def test_trouble_with_a_snapshot_is_reported_and_polling_goes_on(
    camera: Callable[[Respond], Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "MAX_BYTES", 2 * len(JPEG))
    troubles: list[Respond] = [
        lambda handler: handler.send_error(500),
        lambda handler: answer(handler, b"<html>log in</html>", Content_Type="text/html"),
        lambda handler: answer(handler, JPEG + bytes(2 * len(JPEG))),
        lambda handler: answer(handler, JPEG[:50], Content_Length=str(len(JPEG))),
    ]
    responses: list[Respond] = []

    def respond(handler: BaseHTTPRequestHandler) -> None:
        (responses.pop(0) if responses else lambda handler: answer(handler, JPEG))(handler)
        handler.close_connection = True

    server = camera(respond)
    said: list[str] = []
    source = open_source(
        f"{server.url()}?token={PASSWORD[:5]}", SourceOptions(fps=100, on_trouble=said.append)
    )
    responses += troubles
    assert take(source, 2, NoWait())[1].image == JPEG
    kinds = ["answers HTTP 500", "answers text/html instead of an image", "the image is longer than", ""]
    assert len(said) == len(kinds)
    for text, kind in zip(said, kinds, strict=True):
        assert kind in text
        assert "next try in" in text
        assert PASSWORD[:5] not in text
    responses += troubles[:1]
    with pytest.raises(SourceFailed, match="HTTP 500"):
        take(Snapshots(server.url(), reconnect=False), 1)


@pytest.mark.parametrize("scheme", ["Digest", "Basic"])
def test_credentials_are_sent_as_the_camera_asks(camera: Callable[[Respond], Camera], scheme: str) -> None:
    expected = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
    challenge = 'Digest realm="cam", nonce="abc", qop="auth"' if scheme == "Digest" else 'Basic realm="cam"'

    def respond(handler: BaseHTTPRequestHandler) -> None:
        given = handler.headers["Authorization"] or ""
        if scheme == "Digest":
            good = re.search(r'^Digest .*username="admin"', given) and _digest_is_right(handler.path, given)
        else:
            good = given == f"Basic {expected}"
        if good:
            answer(handler, JPEG)
        else:
            answer(handler, b"", 401, WWW_Authenticate=challenge)

    server = camera(respond)
    user = "admin:dummy%40%23%3A1@"
    assert len(take(open_source(server.url(user=user), SourceOptions(fps=100)), 3)) == 3
    assert "authorization" in server.requests[-1]
    with pytest.raises(SourceFailed, match=r"\*\*\*@.*user name or the password .* wrong \(401\)") as caught:
        open_source(server.url(user="admin:wrong-dummy@"))
    assert "wrong-dummy" not in str(caught.value)
    assert not caught.value.temporary  # trying again might lock the account


def _digest_is_right(path: str, given: str) -> bool:
    """Compute the response of RFC 7616, 3.4.1 for MD5 and qop auth."""
    from hashlib import md5  # noqa: PLC0415 - only here

    def digest(text: str) -> str:
        return md5(text.encode(), usedforsecurity=False).hexdigest()

    fields: dict[str, Any] = dict(re.findall(r'(\w+)="?([^",]*)"?', given))
    secret, request = digest(f"admin:cam:{PASSWORD}"), digest(f"GET:{path}")
    middle = f"{fields['nonce']}:{fields['nc']}:{fields['cnonce']}:{fields['qop']}"
    return bool(fields["response"] == digest(f"{secret}:{middle}:{request}"))


def test_a_redirect_to_another_host_gets_no_password(camera: Callable[[Respond], Camera]) -> None:
    other = camera(lambda handler: answer(handler, JPEG))
    first = camera(lambda handler: answer(handler, b"", 302, Location=other.url()))
    take(Snapshots(first.url(user="admin:dummy@")), 1)
    assert other.requests
    assert not any("authorization" in request for request in other.requests)


@pytest.mark.parametrize(("status", "temporary"), [(404, False), (403, False), (500, True), (503, True)])
def test_which_answers_may_change(camera: Callable[[Respond], Camera], status: int, temporary: bool) -> None:
    server = camera(lambda handler: handler.send_error(status))
    with pytest.raises(SourceFailed) as caught:
        open_source(server.url())
    assert caught.value.temporary is temporary
