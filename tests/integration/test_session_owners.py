"""Sessions belong to one key, and what a key may see and use of those of others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import cv2
import numpy as np
import pytest

from streamer.access.key_ring import make_key
from tests.helpers.keyed_requests import ANN, BOB, ask, bearer
from tests.helpers.service import PATIENT, Service
from tests.helpers.webrtc_client import WebrtcClient
from tests.helpers.wire_client import WireClient


async def test_a_session_is_resumed_by_its_own_key_alone(keyed: Service) -> None:
    url = f"{keyed.ws_url}/v1/stream"
    async with WireClient(url, headers=bearer(ANN)) as client:
        session = (await client.hello())["session"]
    # Either worker may accept a connection; with six attempts, some reach the worker that holds the session.
    for _ in range(6):
        async with WireClient(url, headers=bearer(BOB)) as client:
            welcome = await client.hello(resume={"session": session})
            assert (welcome["resumed"], welcome["session"] != session) == (False, True)
        async with WireClient(url) as client:
            welcome = await client.hello(token=BOB, resume={"session": session})
            assert welcome["resumed"] is False
    async with WireClient(url, headers=bearer(ANN)) as client:
        assert (await client.hello(resume={"session": session}))["resumed"] is True


async def test_a_live_session_is_not_torn_from_its_owner(keyed: Service) -> None:
    url = f"{keyed.ws_url}/v1/stream"
    async with WireClient(url, headers=bearer(ANN)) as owner:
        session = (await owner.hello())["session"]
        for _ in range(6):
            async with WireClient(url, headers=bearer(BOB)) as thief:
                assert (await thief.hello(resume={"session": session}))["resumed"] is False
        await owner.send({"type": "ping", "t0": 1})
        assert (await owner.receive("pong"))["t0"] == 1


async def test_a_session_is_not_handed_over_to_another_key(
    keyed: Service, http: aiohttp.ClientSession
) -> None:
    async with WireClient(f"{keyed.ws_url}/v1/stream", headers=bearer(ANN)) as client:
        session = (await client.hello())["session"]
    url = f"{keyed.http_url}/v1/stream/{session}"
    for _ in range(4):
        assert (await ask(http, "POST", url))[0] == 401
        assert (await ask(http, "POST", url, **bearer(BOB)))[0] == 404
    assert (await ask(http, "POST", url, **bearer(ANN)))[0] == 200


@pytest.mark.parametrize("kind", ["whip", "webrtc"])
async def test_a_video_session_is_seen_and_ended_by_its_own_key_alone(
    keyed: Service, http: aiohttp.ClientSession, kind: str
) -> None:
    async with WebrtcClient(f"{keyed.http_url}/v1/{kind}", kind=kind, key=ANN) as client:
        url = client.location
        for _ in range(4):  # either worker may answer; repeat to reach both
            for method, path in (("GET", url), ("GET", f"{url}/results"), ("DELETE", url)):
                assert (await ask(http, method, path, **bearer(BOB)))[0] == 404
            body, content = b"a=candidate:x", "application/trickle-ice-sdpfrag"
            if kind == "webrtc":
                body, content = b'{"candidate": ""}', "application/json"
            status, _, _ = await ask(
                http, "PATCH", url, body, Content_Type=content, If_Match="*", **bearer(BOB)
            )
            assert status == 404
            assert (await ask(http, "GET", url, **bearer(ANN)))[0] == 200
        assert (await ask(http, "DELETE", url, **bearer(ANN)))[0] in (200, 204)
        assert (await ask(http, "GET", url, **bearer(BOB)))[0] == 404, "not even why it ended"


async def test_offers_of_one_client_leave_room_for_another(
    null_path: Path, http: aiohttp.ClientSession
) -> None:
    settings = {"MODEL_V1_PATH": str(null_path), "WEBRTC_SESSIONS_MAX": "16"} | PATIENT
    with Service(settings) as service:
        url = f"{service.http_url}/v1/webrtc"
        greedy = WebrtcClient(url)
        sdp = await greedy.offer()

        async def offer() -> tuple[int, str]:
            async with http.post(url, json={"type": "offer", "sdp": sdp}) as response:
                return response.status, response.headers.get("Retry-After", "")

        answers = [await offer() for _ in range(100)]
        assert answers.count((201, "")) == 4
        assert set(answers) == {(201, ""), (429, "2")}
        # The polite client uses another source address; on loopback, 127.0.0.2 works without setup.
        polite = WebrtcClient(url)
        await polite.http.close()
        polite.http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=("127.0.0.2", 0)))
        async with polite:
            await polite.wait_for("result", 20)
        await greedy.close()


async def test_names_of_streams_are_for_administrators(
    null_path: Path, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    file = tmp_path / "keys.toml"
    made = {name: make_key(name, [scope], None, {}) for name, scope in (("boss", "admin"), ("cam", "stream"))}
    await asyncio.to_thread(file.write_text, "\n".join(key.line("toml") for key in made.values()))
    settings = {"MODEL_V1_PATH": str(null_path), "API_KEYS_FILE": str(file)} | PATIENT
    settings |= {"SAMPLES_CANDIDATE_S": "0.1", "DRIFT_SAMPLE_INTERVAL_S": "0.1", "DRIFT_ENGINE": "builtin"}
    image = bytes(cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1])

    async def text(path: str, key: str = "") -> str:
        headers = bearer(key) if key else {}
        async with http.get(service.http_url + path, headers=headers) as response:
            assert response.status == 200
            return await response.text()

    with Service(settings) as service:
        async with WireClient(f"{service.ws_url}/v1/stream", headers=bearer(made["cam"].key)) as client:
            await client.hello(streams=[{"id": 0, "name": "canary-gate"}])
            seq = 0
            async with asyncio.timeout(120):
                while "canary-gate" not in await text("/drift/status", made["boss"].key):
                    seq += 1
                    await client.send_frame(seq, image)
                    await asyncio.sleep(0.1)
                while "canary-gate" not in await text("/metrics", made["boss"].key):
                    await asyncio.sleep(0.2)
        for path in ("/drift/status", "/metrics", "/health"):
            for key in ("", "wrong", made["cam"].key):
                assert "canary-gate" not in await text(path, key)
        assert "object_detection_frames_received_total" in await text("/metrics")
