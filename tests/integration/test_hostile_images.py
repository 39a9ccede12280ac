"""Sends hostile and damaged images to a real service: each gets its defined answer; probes do not wait."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from tests.helpers.model_factory import null_model
from tests.helpers.probe_rider import ProbeRider
from tests.helpers.service import PATIENT, Service
from tests.helpers.wire_client import WireClient
from tests.unit import hostile_builders as build
from tests.unit import hostile_jpegs as jpegs
from tests.unit.hostile_images import CORPUS, Outcome
from tests.unit.images import encode

pytestmark = pytest.mark.alone

STATUS = {
    Outcome.WHOLE: 200,
    Outcome.PARTLY: 200,
    Outcome.DAMAGED: 422,
    Outcome.UNSUPPORTED: 415,
    Outcome.TOO_LARGE: 413,
}
WHOLE = build.JPEG
PARTLY = build.first_part(WHOLE, 0.9, jpegs.EOI)
#: A different image than in the POST, because decoders decode identical bytes only once.
PARTLY_STREAMED = build.first_part(encode(build.photograph(), ".jpg"), 0.91)


@pytest.fixture(scope="module")
def idle_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Start a service whose model does nothing, so that only the images take time."""
    path = null_model(tmp_path_factory.mktemp("models") / "null.onnx")
    with Service(PATIENT | {"MODEL_V1_PATH": str(path)}) as service:
        yield service


async def post(session: aiohttp.ClientSession, service: Service, data: bytes) -> tuple[int, dict[str, Any]]:
    form = aiohttp.FormData()
    form.add_field("file", io.BytesIO(data), filename="image")  # aiohttp warns about large bytes
    async with session.post(f"{service.http_url}/v1/predict", data=form) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_every_hostile_image_has_its_answer_and_probes_do_not_wait(idle_model: Service) -> None:
    wrong = {}
    async with aiohttp.ClientSession() as session:
        with ProbeRider(idle_model.port) as rider:
            for name, hostile in CORPUS.items():
                status, answer = await post(session, idle_model, hostile.make())
                damaged = status == 200 and answer["image"].get("damaged", False)
                if (status, damaged) != (STATUS[hostile.outcome], hostile.outcome is Outcome.PARTLY):
                    wrong[name] = answer
    assert wrong == {}
    # Without limits on images a probe waits for about 30 s. The bound is generous because this test builds
    # its images on the same processors.
    rider.ride.check(at_least_s=3.0)


async def test_a_damaged_frame_is_marked_in_its_result(idle_model: Service) -> None:
    async with WireClient(f"{idle_model.ws_url}/v1/stream") as client:
        await client.hello()
        await client.send_frame(1, PARTLY_STREAMED)
        result = await client.receive("result")
        assert (result["seq"], result["damaged"], result["width"]) == (1, True, 320)
        await client.send_frame(2, WHOLE)
        result = await client.receive("result")
        assert (result["seq"], "damaged" in result) == (2, False)
        await client.send_frame(3, build.first_part(WHOLE, 0.2, jpegs.EOI))
        drop = await client.receive("drop")
        assert (drop["reason"], "rows can be read" in drop["message"]) == ("decode_error", True)


async def test_an_answer_says_that_an_image_is_damaged(idle_model: Service) -> None:
    async with aiohttp.ClientSession() as session:
        assert (await post(session, idle_model, WHOLE))[1]["image"] == {"width": 320, "height": 240}
        status, answer = await post(session, idle_model, PARTLY)
        assert (status, answer["image"]) == (200, {"width": 320, "height": 240, "damaged": True})
        status, answer = await post(session, idle_model, build.first_part(WHOLE, 0.2, jpegs.EOI))
        assert (status, answer["code"]) == (422, "damaged_image")
