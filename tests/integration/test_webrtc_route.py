"""Tests ``/v1/webrtc`` of a real service: offer and answer, results on data channels and as events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest
from aiortc import AudioStreamTrack
from aiortc.codecs import HEADER_EXTENSIONS
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters
from aiortc.rtp import (
    HeaderExtensions,
    HeaderExtensionsMap,
    pack_header_extensions,
    unpack_header_extensions,
)

from tests.conftest import shared
from tests.helpers.service import Service
from tests.helpers.waiting import wait_for
from tests.helpers.webrtc_client import Track, WebrtcClient


@pytest.fixture(scope="module")
def endpoint(service: Service) -> str:
    return f"{service.http_url}/v1/webrtc"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def bus(_: int) -> np.ndarray[Any, Any]:
    """Return a photograph of 404x540 with a bus and people."""
    image = cv2.imread(str(shared("data/images/bus.jpg")))
    assert image is not None
    small: np.ndarray[Any, Any] = cv2.resize(image, (404, 540))
    return small


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, width) * max(0.0, height)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return common / (areas - common)


@pytest.mark.parametrize("codec", ["video/VP8", "video/H264"])
async def test_frames_of_a_video_get_the_boxes_of_the_image(service: Service, codec: str) -> None:
    async with aiohttp.ClientSession() as http:
        still = bytes(cv2.imencode(".png", bus(0))[1])
        async with http.post(f"{service.http_url}/v1/predict", data=still) as response:
            expected = (await response.json())["detections"]
    before = {
        name: service.metric(f"object_detection_frames_{name}_total", transport="webrtc")
        for name in ("received", "inferred", "dropped", "failed")
    }
    # Sessions of earlier tests, whose clients are gone, may still be counted; their number can only fall.
    sessions = service.metric("object_detection_webrtc_sessions")
    streams = service.metric("object_detection_streams", transport="webrtc")
    track = Track(bus, fps=5)
    async with WebrtcClient(f"{service.http_url}/v1/webrtc", codec=codec, track=track) as client:
        (welcome,) = await client.wait_for("welcome")
        assert welcome["model"]["labels"][5] == "bus"
        assert welcome["session"] == client.answer["session"]
        results = await client.wait_for("result", 8)
        assert service.metric("object_detection_webrtc_sessions", state="connected") >= 1
        state = await client.state()
        assert (state["state"], state["ice"], state["dtls"]) == ("connected", "completed", "connected")
        assert state["video"]["packets_lost"] == 0
        async with client.http.delete(client.location) as response:
            assert response.status == 204
        reason = await client.wait_ended()
        assert reason["code"] == "closed"
        async with client.http.delete(client.location) as response:
            assert response.status == 204  # a second DELETE succeeds too
    last = results[-1]
    assert "ts" not in last
    assert (last["width"], last["height"], last["stream"]) == (404, 540, 0)
    # The data channel may reorder results, so sort them before the check of their RTP times.
    ordered = sorted(results, key=lambda result: int(result["seq"]))
    assert all(0 < (b["rtp"] - a["rtp"]) % 2**32 < 60 * 90_000 for a, b in pairwise(ordered))
    for detection in expected:
        if detection["score"] > 0.6:
            assert max(iou(detection["box"], box[:4]) for box in last["boxes"]) > 0.8

    def balances() -> bool:
        counts = {
            name: service.metric(f"object_detection_frames_{name}_total", transport="webrtc") - value
            for name, value in before.items()
        }
        known = counts["inferred"] + counts["dropped"] + counts["failed"]
        return counts["received"] == known and counts["inferred"] >= 8

    def has_ended() -> bool:
        open_streams = service.metric("object_detection_streams", transport="webrtc")
        return service.metric("object_detection_webrtc_sessions") <= sessions and open_streams <= streams

    await asyncio.to_thread(wait_for, balances, "every received frame has its outcome")
    await asyncio.to_thread(wait_for, has_ended, "the session and its stream have ended")


async def test_a_phone_held_sideways_gets_boxes_of_the_upright_image(
    service: Service, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The phone sends unrotated frames, with its orientation in a header extension of the packets."""
    still = bytes(cv2.imencode(".png", bus(0))[1])
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{service.http_url}/v1/predict", data=still) as response,
    ):
        expected = (await response.json())["detections"]
    offered = RTCRtpHeaderExtensionParameters(id=13, uri="urn:3gpp:video-orientation")
    monkeypatch.setitem(HEADER_EXTENSIONS, "video", [*HEADER_EXTENSIONS["video"], offered])
    plain = HeaderExtensionsMap.set

    def sideways(self: HeaderExtensionsMap, values: HeaderExtensions) -> tuple[int, bytes]:
        return pack_header_extensions([*unpack_header_extensions(*plain(self, values)), (13, b"\x01")])

    monkeypatch.setattr(HeaderExtensionsMap, "set", sideways)
    track = Track(lambda number: np.ascontiguousarray(np.rot90(bus(number))), fps=5)
    async with WebrtcClient(endpoint, track=track) as client:
        assert "a=extmap:13 urn:3gpp:video-orientation" in client.answer["sdp"]
        last = (await client.wait_for("result", 4))[-1]
    assert (last["width"], last["height"]) == (404, 540)
    for detection in expected:
        if detection["score"] > 0.6:
            assert max(iou(detection["box"], box[:4]) for box in last["boxes"]) > 0.8


async def test_candidates_may_come_after_the_offer(endpoint: str) -> None:
    async with WebrtcClient(endpoint, candidates_later=True) as client:
        await client.wait_for("result")


async def test_audio_is_accepted_and_costs_nothing(service: Service, endpoint: str) -> None:
    (worker,) = service.workers
    client = WebrtcClient(endpoint)
    # Audio is the first media section of the offer, so its transport carries the video too.
    client.peer.addTransceiver(AudioStreamTrack(), "sendonly")
    async with client:
        await client.wait_for("result", 3)
        with_audio = worker.num_threads()
        assert client.peer.remoteDescription.sdp.index("m=audio") < client.peer.remoteDescription.sdp.index(
            "m=video"
        )
    async with WebrtcClient(endpoint) as silent:
        await silent.wait_for("result", 3)
        assert with_audio <= worker.num_threads() + 1


async def test_control_messages_are_obeyed_and_wrong_ones_named(endpoint: str) -> None:
    body = {"params": {"conf_threshold": 0.5, "track": True}, "anotate": True}
    async with WebrtcClient(endpoint, body=body) as client:
        assert client.answer["params"]["conf_threshold"] == 0.5
        assert client.answer["ignored"] == ["anotate"]
        await client.wait_for("result")
        client.send({"type": "configure", "cfg": 7, "params": {"classes": ["bus"]}})
        (configured,) = await client.wait_for("configured")
        assert (configured["cfg"], configured["params"]["classes"]) == (7, ["bus"])
        client.send({"type": "configure", "cfg": 8, "params": {"classes": ["unicorn"]}})
        client.send({"type": "hello"})
        client.send({"type": "ping", "t0": 5})
        (pong,) = await client.wait_for("pong")
        assert pong["t0"] == 5
        errors = await client.wait_for("error", 2)
        assert "unicorn" in errors[0]["message"]
        assert "hello" in errors[1]["message"]
        client.send({"type": "pause", "stream": 0})
        await client.wait_for("drop")
        paused = len(client.of_type("result"))
        await asyncio.sleep(0.5)
        assert len(client.of_type("result")) <= paused + 2
        assert client.of_type("drop")[-1]["reason"] == "rate"
        client.send({"type": "resume", "stream": 0})
        results = await client.wait_for("result", paused + 4)
        assert results[-1]["cfg"] == 7
        client.send({"type": "bye"})
        assert (await client.wait_ended())["code"] == "closed"


async def test_the_video_comes_back_with_its_boxes_drawn(endpoint: str) -> None:
    client = WebrtcClient(endpoint, track=Track(bus, fps=5), body={"annotate": True}, direction="sendrecv")
    back: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def look(track: Any) -> None:
        while not back.done():
            frame = await track.recv()
            if client.of_type("result"):
                back.set_result(frame.to_ndarray(format="bgr24"))

    looking: list[asyncio.Task[None]] = []
    client.peer.on("track", lambda track: looking.append(asyncio.create_task(look(track))))
    async with client:
        results = await client.wait_for("result", 3)
        async with asyncio.timeout(60):
            image = await back
        looking[0].cancel()
    assert image.shape == (540, 404, 3)
    left, top, right, bottom = (round(value) for value in results[-1]["boxes"][0][:4])
    was = bus(0)
    # The service draws the outline of the best box and leaves the pixels inside it unchanged.
    edge = slice(top + 60, bottom - 20), slice(max(0, left - 1), left + 2)
    middle = slice((top + bottom) // 2 - 20, (top + bottom) // 2 + 20), slice(left + 40, right - 40)
    changed = [np.abs(image[part].astype(int) - was[part]).mean() for part in (edge, middle)]
    assert changed[0] > 2 * changed[1], changed


async def test_a_video_is_sent_back_only_to_those_who_receive_one(endpoint: str) -> None:
    client = WebrtcClient(endpoint)
    sdp = await client.offer()
    async with client.http.post(endpoint, json={"type": "offer", "sdp": sdp, "annotate": True}) as response:
        assert response.status == 400
        assert "sendrecv" in await response.text()
    await client.close()


async def test_two_messages_of_one_frame_and_nothing_twice(endpoint: str) -> None:
    async with WebrtcClient(endpoint, track=Track(fps=30)) as client:
        await client.wait_for("result", 20)
        seqs = [result["seq"] for result in client.of_type("result")]
        drops = [n for drop in client.of_type("drop") for n in range(drop["from"], drop["to"] + 1)]
    assert len(set(seqs)) == len(seqs)
    assert not set(seqs) & set(drops)


async def test_the_results_are_also_sent_as_events_and_on_a_websocket(endpoint: str) -> None:
    async with WebrtcClient(endpoint) as client:
        await client.wait_for("result")
        async with client.http.get(f"{client.location}/results") as events:
            assert events.content_type == "text/event-stream"
            assert (await next_event(events))["type"] == "welcome"
            while (await next_event(events))["type"] != "result":
                pass
        async with client.http.ws_connect(
            f"{client.location}/results", protocols=["detect.v1.json"]
        ) as socket:
            assert (await socket.receive_json())["type"] == "welcome"
            await socket.send_json({"type": "configure", "cfg": 3, "params": {}})
            async with asyncio.timeout(60):
                while (await socket.receive_json())["type"] != "configured":
                    pass


async def next_event(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """Return the data of the next server-sent event."""
    async with asyncio.timeout(60):
        while True:
            line = await response.content.readline()
            assert line, "the events have ended"
            if line.startswith(b"data: "):
                data: dict[str, Any] = json.loads(line[6:])
                return data
