"""Tests the WebSocket routes of a real service message by message, with an independent client."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import shared
from tests.helpers.service import Service
from tests.helpers.waiting import wait_for
from tests.helpers.wire_client import WireClient
from tests.unit.heif_files import libavif_file, libheif_file


@pytest.fixture(scope="module")
def bus() -> bytes:
    """Return a JPEG of 810x1080 with a bus and people."""
    return shared("data/images/bus.jpg").read_bytes()


@pytest.fixture(scope="module")
def grey() -> bytes:
    """Return a small JPEG without any object."""
    return bytes(cv2.imencode(".jpg", np.full((120, 160, 3), 90, np.uint8))[1])


async def refused(url: str, **options: Any) -> tuple[int, str]:
    """Connect, expect a refusal before the upgrade, and return its status and body."""
    with pytest.raises(InvalidStatus) as caught:
        async with WireClient(url, **options):
            pass
    response = caught.value.response
    assert response.headers["Content-Type"].startswith("application/problem+json")
    return response.status_code, (response.body or b"").decode()


@pytest.mark.parametrize("subprotocol", ["detect.v1.json", "detect.v1.msgpack", ""])
async def test_a_frame_is_answered_in_the_negotiated_encoding(
    service: Service, bus: bytes, subprotocol: str
) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream", subprotocol=subprotocol) as client:
        assert client.socket.subprotocol == (subprotocol or None)
        welcome = await client.hello()
        assert welcome["resumed"] is False
        assert welcome["model"]["version"] == "v1"
        assert welcome["model"]["labels"][5] == "bus"
        # A slow machine may grant less than any rate.
        assert (welcome["flow"]["win"], "max_fps" in welcome["flow"]) == (2, True)
        assert welcome["params"]["conf_threshold"] == 0.25
        assert welcome["limits"]["message_bytes"] == 2 << 20
        await client.send_frame(1, bus, ts=123456789, epoch=7)
        result = await client.receive("result")
        assert (result["stream"], result["seq"], result["ts"], result["epoch"]) == (0, 1, 123456789, 7)
        assert (result["width"], result["height"], result["ack"], result["dropped"]) == (810, 1080, 1, 0)
        assert len(result["boxes"]) == 5
        assert [type(value) for value in result["boxes"][0]] == [float] * 5 + [int]
        assert set(result["t"]) == {"queue_ms", "infer_ms", "server_ms"}


async def test_the_first_offered_subprotocol_that_is_known_is_taken(service: Service) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream", subprotocol="detect.v9,detect.v1.msgpack") as client:
        assert client.socket.subprotocol == "detect.v1.msgpack"


async def test_what_can_be_refused_is_refused_before_the_upgrade(service: Service) -> None:
    status, body = await refused(f"{service.ws_url}/v1/stream", subprotocol="detect.v2.json")
    assert (status, "detect.v1.json" in body) == (400, True)
    status, body = await refused(f"{service.ws_url}/v3/stream")
    assert (status, "v1, v2" in body) == (404, True)
    status, body = await refused(f"{service.ws_url}/v1/stream", headers={"Origin": "https://evil.example"})
    assert (status, "evil.example" in body) == (403, True)
    assert service.get("/v1/stream")[0] == 426


async def test_a_page_of_this_server_may_open_a_stream(service: Service) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream", headers={"Origin": service.http_url}) as client:
        assert (await client.hello())["type"] == "welcome"


async def test_rotation_turns_the_image_upright_and_boxes_with_it(service: Service, bus: bytes) -> None:
    image = cv2.imdecode(np.frombuffer(bus, np.uint8), cv2.IMREAD_COLOR)
    lying = bytes(cv2.imencode(".png", cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE))[1])
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello()
        await client.send_frame(1, bus)
        upright = await client.receive("result")
        await client.send_frame(2, lying, codec="png", rotation=1)
        turned = await client.receive("result")
    assert (turned["width"], turned["height"]) == (810, 1080)
    np.testing.assert_allclose(turned["boxes"], upright["boxes"], atol=0.6)


async def test_frames_may_be_heic_and_avif(service: Service, bus: bytes) -> None:
    image = np.asarray(cv2.imdecode(np.frombuffer(bus, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello(streams=[{"id": 0, "codec": "heic"}])
        results = []
        for seq, (codec, data) in enumerate(
            (("jpeg", bus), ("heic", libheif_file(image)), ("avif", libavif_file(image))), 1
        ):
            await client.send_frame(seq, data, codec=codec)
            results.append(await client.receive("result"))
    for result in results:
        assert (result["width"], result["height"]) == (810, 1080)
        np.testing.assert_allclose(result["boxes"], results[0]["boxes"], atol=6)


async def test_parameters_change_in_mid_stream_and_are_echoed(service: Service, bus: bytes) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello(params={"classes": ["bus"]})
        await client.send_frame(1, bus)
        first = await client.receive("result")
        assert ({box[5] for box in first["boxes"]}, first["cfg"]) == ({5}, 0)
        await client.send(
            {"type": "configure", "cfg": 3, "params": {"classes": ["person"], "conf_threshold": 0.8}}
        )
        configured = await client.receive("configured")
        assert (configured["cfg"], configured["params"]["classes"]) == (3, ["person"])
        assert configured["params"]["iou_threshold"] == 0.45
        await client.send_frame(2, bus)
        second = await client.receive("result")
        assert ([box[5] for box in second["boxes"]], second["cfg"]) == ([0, 0], 3)


async def test_tracking_adds_an_id_that_stays_with_its_object(service: Service, bus: bytes) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello(params={"track": True})
        ids = []
        for seq in (1, 2, 3):
            await client.send_frame(seq, bus, ts=seq * 33_000)
            result = await client.receive("result")
            ids.append([box[6] for box in result["boxes"]])
        assert ids[0][:4] == [1, 2, 3, 4]
        assert ids[0] == ids[1] == ids[2]


@pytest.mark.parametrize("how", [{"flags": 2}, {"epoch": 1}])
async def test_a_break_in_the_image_begins_tracking_anew(
    service: Service, bus: bytes, how: dict[str, int]
) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello(params={"track": True, "classes": ["bus"]})
        ids = []
        for seq in range(1, 5):
            await client.send_frame(
                seq, bus, ts=seq * 33_000, **(how if seq == 3 or ("epoch" in how and seq > 3) else {})
            )
            ids.append((await client.receive("result"))["boxes"][0][6])
        assert ids[0] == ids[1] != ids[2] == ids[3]


async def test_several_streams_share_a_socket_each_with_its_own_numbers(
    service: Service, grey: bytes
) -> None:
    streams = [{"id": number, "codec": "jpeg", "mode": "live"} for number in (0, 3, 7)]
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello(streams=streams)
        for number in (0, 3, 7):
            await client.send_frame(1, grey, stream=number)
        for number in (0, 3, 7):
            await client.until_outcomes([1], stream=number)
        await client.send_frame(1, grey, stream=5)
        error = await client.receive("error")
        assert (error["code"], error["seq"], error["fatal"]) == ("unknown_stream", 1, False)


async def test_mode_all_answers_every_frame_in_order(service: Service, grey: bytes) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        welcome = await client.hello(streams=[{"id": 0, "codec": "jpeg", "mode": "all"}])
        window, acked, sent, seen = welcome["flow"]["win"], 0, 0, []
        windows = []
        while acked < 40:
            while sent - acked < window and sent < 40:
                sent += 1
                await client.send_frame(sent, grey)
            result = await client.receive("result")
            seen.append(result["seq"])
            acked, window = result["ack"], result["win"]
            windows.append(window)
    assert seen == list(range(1, 41))
    assert max(windows) <= 8


async def test_a_ping_is_answered_with_pong_and_the_present_grant(service: Service) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello()
        await client.send({"type": "ping", "t0": 42})
        pong = await client.receive("pong")
        assert (pong["t0"], pong["t1"] <= pong["t2"]) == (42, True)
        flow = await client.receive("flow")
        assert (flow["win"], flow["stream"]) == (2, 0)


async def test_a_paused_stream_infers_nothing_until_it_resumes(service: Service, grey: bytes) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello()
        await client.send({"type": "pause", "stream": 0})
        await client.send_frame(1, grey)
        assert (await client.receive("drop"))["reason"] == "rate"
        await client.send({"type": "resume", "stream": 0})
        await client.receive("flow")
        await client.send_frame(2, grey)
        assert (await client.receive("result"))["seq"] == 2


async def test_bye_is_followed_by_the_outcomes_in_flight_and_a_clean_close(
    service: Service, bus: bytes
) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello()
        await client.send_frame(1, bus)
        await client.send({"type": "bye"})
        assert (await client.receive("result"))["seq"] == 1
        assert (await client.closed())[0] == 1000


async def test_a_frame_in_text_form_is_a_frame(service: Service, bus: bytes) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello()
        data = base64.b64encode(bus).decode()
        await client.send({"type": "frame", "seq": 1, "ts": 9, "codec": "jpeg", "data": data})
        result = await client.receive("result")
        assert (result["ts"], len(result["boxes"])) == (9, 5)


async def test_a_lost_socket_can_be_resumed_with_its_parameters(service: Service, bus: bytes) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        session = (await client.hello(params={"classes": ["bus"]}))["session"]
        await client.send_frame(1, bus)
        await client.receive("result")
        client.socket.transport.abort()
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        welcome = await client.hello(resume={"session": session, "acks": {"0": 1}})
        assert (welcome["resumed"], welcome["session"], welcome["params"]["classes"]) == (
            True,
            session,
            ["bus"],
        )
        await client.send_frame(2, bus)
        result = await client.receive("result")
        assert (result["seq"], [box[5] for box in result["boxes"]]) == (2, [5])


async def test_a_newer_connection_takes_a_session_over_and_the_older_is_closed_with_4409(
    service: Service, grey: bytes
) -> None:
    async with (
        WireClient(f"{service.ws_url}/v1/stream") as old,
        WireClient(f"{service.ws_url}/v1/stream") as new,
    ):
        session = (await old.hello())["session"]
        welcome = await new.hello(resume={"session": session})
        assert welcome["resumed"] is True
        assert (await old.closed())[0] == 4409
        await new.send_frame(1, grey)
        await new.receive("result")


async def test_an_unknown_session_is_not_resumed_but_served(service: Service, grey: bytes) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        welcome = await client.hello(resume={"session": "nobody-knows"})
        assert welcome["resumed"] is False
        await client.send_frame(501, grey)
        result = await client.receive("result")
        assert (result["seq"], result["ack"]) == (501, 501)


async def test_frames_of_posts_and_both_versions_are_served_at_once(service: Service, bus: bytes) -> None:
    async def stream(version: str) -> int:
        async with WireClient(f"{service.ws_url}/{version}/stream") as client:
            await client.hello()
            for seq in range(1, 6):
                await client.send_frame(seq, bus)
                await client.until_outcomes([seq])
            return len(client.outcomes[0])

    counts = await asyncio.gather(stream("v1"), stream("v2"), stream("v1"))
    assert list(counts) == [5, 5, 5]


async def test_the_metrics_ledger_balances(service: Service, grey: bytes) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello()
        for seq in range(1, 60):
            await client.send_frame(seq, grey if seq % 7 else b"no image")
            await asyncio.sleep(0.004)
        await client.until_outcomes(range(1, 60))
    assert sorted(client.outcomes[0]) == list(range(1, 60))

    def balances() -> bool:
        received, inferred, dropped, failed, in_flight = (
            service.metric(f"object_detection_frames_{name}", transport="websocket")
            for name in ("received_total", "inferred_total", "dropped_total", "failed_total", "in_flight")
        )
        streams = service.metric("object_detection_streams", transport="websocket")
        return streams == in_flight == 0 and received == inferred + dropped + failed >= 59

    await asyncio.to_thread(wait_for, balances, "each frame has its outcome")


def test_the_worker_never_maps_onnxruntime_and_the_inference_process_no_aiohttp(service: Service) -> None:
    for worker in service.workers:
        assert "onnxruntime" not in Path(f"/proc/{worker.pid}/maps").read_text()
    maps = Path(f"/proc/{service.inference.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "aiohttp" not in maps


async def test_a_wrong_hello_neither_takes_a_session_over_nor_loses_it(service: Service, grey: bytes) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as old:
        session = (await old.hello())["session"]
        async with WireClient(f"{service.ws_url}/v1/stream") as new:
            resume = {"session": session}
            await new.send({"type": "hello", "resume": resume, "params": {"classes": ["unicorn"]}})
            assert (await new.receive("error"))["field"] == "params.classes[0]"
            await old.send_frame(1, grey)
            assert (await old.receive("result"))["seq"] == 1
            assert (await new.hello(resume=resume))["resumed"] is True
        assert (await old.closed())[0] == 4409


@pytest.mark.parametrize("origin", ["http://[", "http://a\u2100b", "http://\u00ff"])
async def test_an_origin_that_is_none_is_forbidden(service: Service, origin: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    head = (
        "GET /v1/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Origin: {origin}\r\n\r\n"
    )
    writer.write(head.encode())
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"application/problem+json" in answer
    writer.close()
    await writer.wait_closed()
