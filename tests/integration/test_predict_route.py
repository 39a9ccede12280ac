"""The predict routes of a real service: every kind of image and every wrong field gets a defined answer."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import cv2
import msgpack
import numpy as np
import pytest

from tests.conftest import shared
from tests.helpers.predict_post import post
from tests.helpers.reference import iou
from tests.helpers.service import Service
from tests.unit.heif_files import (
    irot,
    libavif_file,
    libheif_file,
    nclx,
    picture_of,
    read_independently,
    single,
)
from tests.unit.images import encode, jpeg_claiming, png_claiming, scene, with_exif


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture(scope="module")
def bus() -> bytes:
    return shared("data/images/bus.jpg").read_bytes()


def form(*images: bytes, **fields: str) -> aiohttp.FormData:
    data = aiohttp.FormData()
    for name, value in fields.items():
        data.add_field(name, value)
    for image in images:
        data.add_field("file", image, filename="a.jpg", content_type="image/jpeg")
    return data


TWENTY_MEGAPIXELS = (5472, 3648)
SCENE = encode(scene())


def cmyk_jpeg() -> bytes:
    pillow = pytest.importorskip("PIL.Image", reason="needs Pillow to write a CMYK JPEG")
    buffer = io.BytesIO()
    pillow.fromarray(scene()[:, :, ::-1].copy()).convert("CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"", 400, "image"),
        (jpeg_claiming(65000, 16000), 413, "65000x16000"),
        (png_claiming(65000, 16000), 413, "65000x16000"),
        (encode(scene(4000, 3000))[:20_000], 422, "damaged"),
        (SCENE[: len(SCENE) // 2], 422, "damaged"),
        (b"this is no image at all, only text", 415, "text"),
        (b"GIF89a" + bytes(40), 415, "GIF"),
        (b"II*\x00" + bytes(40), 415, "TIFF"),
        (b"BM" + bytes(60), 415, "BMP"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(40), 422, "damaged"),
        (b"\x00\x00\x00\x18ftypmsf1" + bytes(12) + b"\x00\x00\x00\x08moov", 415, "HEIF sequence"),
        (b"%PDF-1.7" + bytes(40), 415, "PDF"),
    ],
    ids=[
        "empty",
        "huge jpeg",
        "huge png",
        "cut",
        "cut early",
        "text",
        "gif",
        "tiff",
        "bmp",
        "heic",
        "heif sequence",
        "pdf",
    ],
)
@pytest.mark.parametrize("as_form", [False, True], ids=["raw", "form"])
async def test_what_is_no_usable_image_is_refused_with_a_reason(
    service: Service, session: aiohttp.ClientSession, data: bytes, status: int, said: str, *, as_form: bool
) -> None:
    body = form(data) if as_form else data
    found, answer = await post(session, f"{service.http_url}/v1/predict", body)
    assert (found, said in answer["detail"] or said in str(answer)) == (status, True), answer


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
async def test_heic_and_avif_get_the_boxes_of_their_upright_pixels(
    service: Service, session: aiohttp.ClientSession, bus: bytes, kind: str
) -> None:
    pixels = np.asarray(cv2.imdecode(np.frombuffer(bus, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    lying = np.ascontiguousarray(np.rot90(pixels))
    picture = picture_of(libheif_file(lying) if kind == "HEIC" else libavif_file(lying))
    data = single(picture, nclx(6, full_range=True), irot(3)).build()
    url = f"{service.http_url}/v1/predict"
    status, answer = await post(session, url, data)
    assert (status, answer["image"]) == (200, {"width": 810, "height": 1080})
    _, expected = await post(session, url, encode(read_independently(data), ".png"))
    assert len(expected["detections"]) >= 4
    for found, one in zip(answer["detections"], expected["detections"], strict=True):
        assert found["label"] == one["label"]
        np.testing.assert_allclose(found["box"], one["box"], atol=3)
    async with session.post(url, data=io.BytesIO(data), headers={"Accept": "image/jpeg"}) as annotated:
        drawn = cv2.imdecode(np.frombuffer(await annotated.read(), np.uint8), cv2.IMREAD_COLOR)
    assert np.asarray(drawn).shape == (1080, 810, 3)


async def test_json_bodies_get_the_same_boxes_as_the_image_itself(
    service: Service, session: aiohttp.ClientSession, bus: bytes
) -> None:
    url, text = f"{service.http_url}/v1/predict", base64.b64encode(bus).decode()

    async def send(document: object, query: str = "") -> tuple[int, dict[str, Any]]:
        return await post(
            session, url + query, json.dumps(document).encode(), Content_Type="application/json"
        )

    _, expected = await post(session, f"{url}?classes=bus,person", bus)
    assert len(expected["detections"]) >= 4
    status, one = await send({"image": f"data:image/jpeg;base64,{text}", "classes": ["bus", "person"]})
    assert (status, one["detections"]) == (200, expected["detections"])
    status, several = await send({"images": [text, text[:60]]}, "?classes=bus,person")
    assert (status, several["results"][0]["detections"]) == (200, expected["detections"])
    assert several["results"][1]["error"]["status"] == 422
    status, several = await send({"images": ["https://a.example/1.jpg", text]}, "?classes=bus,person")
    assert (status, several["results"][1]["detections"]) == (200, expected["detections"])
    assert several["results"][0]["error"]["code"] == "url_not_allowed"
    status, refused = await send({"image": text, "classes": "bus", "threshold": 1})
    assert (status, refused["field"]) == (400, "threshold")
    status, refused = await send({"image": text, "conf_threshold": 0.5}, "?conf_threshold=0.4")
    assert (status, refused["field"]) == (400, "conf_threshold")
    status, refused = await post(
        session, url, json.dumps({"image": text}).encode(), Content_Type="text/plain"
    )
    assert (status, "text/plain" in refused["detail"]) == (415, True)
    kind = "application/x-www-form-urlencoded"
    status, refused = await post(session, url, json.dumps({"image": text}).encode(), Content_Type=kind)
    assert (status, "send JSON as application/json" in refused["detail"]) == (415, True)


async def test_the_largest_json_body_fits_into_the_byte_budget(
    service: Service, session: aiohttp.ClientSession
) -> None:
    text = base64.b64encode(bytes(8 << 20)).decode()
    body = json.dumps({"images": [text] * 4}).encode()
    status, answer = await post(
        session, f"{service.http_url}/v1/predict", body, Content_Type="application/json"
    )
    assert (status, [each["error"]["status"] for each in answer["results"]]) == (200, [415] * 4)


def image(name: str) -> tuple[bytes, int, int]:
    """Return an unusual but valid image with its width and height."""
    if name == "cmyk jpeg":
        return cmyk_jpeg(), 160, 96
    if name == "20 megapixels":
        width, height = TWENTY_MEGAPIXELS
        return encode(np.full((height, width, 3), 90, np.uint8)), width, height
    image: np.ndarray[Any, Any] = {
        "grey": scene()[:, :, 0],
        "16 bit png": scene().astype(np.uint16) * 257,
        "rgba png": cv2.cvtColor(scene(), cv2.COLOR_BGR2BGRA),
        "one pixel": scene()[:1, :1],
        "one row": scene(3000, 1),
        "webp": scene(),
    }[name]
    suffix = ".webp" if name == "webp" else ".png"
    return encode(image, suffix), image.shape[1], image.shape[0]


@pytest.mark.parametrize(
    "name",
    ["cmyk jpeg", "20 megapixels", "grey", "16 bit png", "rgba png", "one pixel", "one row", "webp"],
)
async def test_unusual_but_sound_images_are_taken(
    service: Service, session: aiohttp.ClientSession, name: str
) -> None:
    data, width, height = image(name)
    status, answer = await post(session, f"{service.http_url}/v1/predict", data)
    assert status == 200, answer
    assert answer["image"] == {"width": width, "height": height}
    assert isinstance(answer["detections"], list)


async def test_the_answer_has_all_its_parts(
    service: Service, session: aiohttp.ClientSession, bus: bytes
) -> None:
    status, answer = await post(session, f"{service.http_url}/v1/predict", bus, X_Request_Id="my-id-1")
    assert status == 200
    assert answer["request_id"] == "my-id-1"
    assert (answer["model"]["version"], answer["model"]["name"]) == ("v1", "yolox_nano")
    assert len(answer["model"]["sha256"]) == 64
    assert answer["image"] == {"width": 810, "height": 1080}
    assert set(answer["timings_ms"]) == {"decode", "queue", "inference", "total"}
    assert answer["timings_ms"]["total"] >= answer["timings_ms"]["inference"] > 0
    scores = [found["score"] for found in answer["detections"]]
    assert scores == sorted(scores, reverse=True)
    assert {found["label"] for found in answer["detections"]} >= {"bus", "person"}


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
async def test_boxes_are_in_pixels_of_the_upright_image(
    service: Service, session: aiohttp.ClientSession, bus: bytes, orientation: int
) -> None:
    """A phone stores a rotated image with an EXIF orientation; the boxes must refer to the upright image."""
    upright = cv2.imdecode(np.frombuffer(bus, np.uint8), cv2.IMREAD_COLOR)
    assert upright is not None
    turns = {
        3: cv2.ROTATE_180,
        6: cv2.ROTATE_90_COUNTERCLOCKWISE,
        8: cv2.ROTATE_90_CLOCKWISE,
    }
    stored = upright if orientation == 1 else cv2.rotate(upright, turns[orientation])
    data = with_exif(encode(stored, ".png"), orientation)
    status, answer = await post(session, f"{service.http_url}/v1/predict?classes=bus", data)
    assert status == 200
    assert answer["image"] == {"width": 810, "height": 1080}
    _, plain = await post(session, f"{service.http_url}/v1/predict?classes=bus", encode(upright, ".png"))
    (found,), (expected,) = answer["detections"], plain["detections"]
    assert iou(found["box"], expected["box"]) > 0.999


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("conf_threshold=nan", "conf_threshold"),
        ("conf_threshold=-0.1", "conf_threshold"),
        ("conf_threshold=1.01", "conf_threshold"),
        ("conf_threshold=", "conf_threshold"),
        ("iou_threshold=inf", "iou_threshold"),
        ("iou_threshold=much", "iou_threshold"),
        ("max_detections=0", "max_detections"),
        ("max_detections=1.5", "max_detections"),
        ("max_detections=100000", "max_detections"),
        ("classes=unicorn", "classes"),
        ("classes=80", "classes"),
        ("classes=-1", "classes"),
        ("treshold=0.5", "treshold"),
        ("conf_threshold=0.5&conf_threshold=0.6", "conf_threshold"),
    ],
)
@pytest.mark.parametrize("where", ["query", "form"])
async def test_a_wrong_parameter_is_named_with_what_is_allowed(
    service: Service, session: aiohttp.ClientSession, query: str, field: str, where: str
) -> None:
    url = f"{service.http_url}/v1/predict"
    if where == "query":
        status, answer = await post(session, f"{url}?{query}", SCENE)
    else:
        data = form(SCENE)
        for name, value in parse_qsl(query, keep_blank_values=True):
            data.add_field(name, value)
        status, answer = await post(session, url, data)
    assert status == 400
    assert answer["field"] == field
    assert "allowed" in answer["detail"]


async def test_parameters_act_and_the_form_counts_as_much_as_the_query(
    service: Service, session: aiohttp.ClientSession, bus: bytes
) -> None:
    url = f"{service.http_url}/v1/predict"
    _, everything = await post(session, url, bus)
    _, certain = await post(session, url, form(bus, conf_threshold="0.8"))
    assert 0 < len(certain["detections"]) < len(everything["detections"])
    assert all(found["score"] >= 0.8 for found in certain["detections"])
    _, buses = await post(session, f"{url}?classes=bus,dog&classes=5", bus)
    assert {found["label"] for found in buses["detections"]} == {"bus"}
    _, one = await post(session, f"{url}?max_detections=1", bus)
    assert len(one["detections"]) == 1
    # An IoU threshold of 1 switches suppression off, so every overlapping box stays.
    _, crowd = await post(session, f"{url}?iou_threshold=1", bus)
    assert len(crowd["detections"]) > len(everything["detections"])


async def test_several_images_are_answered_in_order_and_a_bad_one_spoils_only_its_entry(
    service: Service, session: aiohttp.ClientSession, bus: bytes
) -> None:
    status, answer = await post(session, f"{service.http_url}/v1/predict", form(SCENE, b"text here", bus))
    assert status == 200
    first, second, third = answer["results"]
    assert first["image"] == {"width": 160, "height": 96}
    assert second["error"]["status"] == 415
    assert third["image"] == {"width": 810, "height": 1080}
    assert third["detections"]
    status, answer = await post(session, f"{service.http_url}/v1/predict", form(*[SCENE] * 17))
    assert (status, "16" in answer["detail"]) == (413, True)


async def test_other_forms_of_the_answer(
    service: Service, session: aiohttp.ClientSession, bus: bytes
) -> None:
    url = f"{service.http_url}/v1/predict"
    async with session.post(url, data=bus, headers={"Accept": "application/msgpack"}) as answer:
        assert (answer.status, answer.content_type) == (200, "application/msgpack")
        assert msgpack.unpackb(await answer.read())["image"] == {"width": 810, "height": 1080}
    async with session.post(url, data=bus, headers={"Accept": "image/jpeg"}) as answer:
        assert (answer.status, answer.content_type) == (200, "image/jpeg")
        drawn = cv2.imdecode(np.frombuffer(await answer.read(), np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None
    assert drawn.shape == (1080, 810, 3)
    plain = cv2.imdecode(np.frombuffer(bus, np.uint8), cv2.IMREAD_COLOR)
    assert plain is not None
    changed = np.abs(drawn.astype(int) - plain.astype(int)).max(axis=2) > 60
    assert changed.sum() > 1000, "boxes are drawn"
    status, answer_406 = await post(session, url, bus, Accept="text/html")
    assert (status, "application/json" in answer_406["detail"]) == (406, True)


async def test_a_gateway_names_the_version_behind_the_address_without_one(
    service: Service, session: aiohttp.ClientSession
) -> None:
    url = f"{service.http_url}/predict"
    versions = []
    for header in ({}, {"X_Model_Version": "v1"}, {"X_Model_Version": "v2"}):
        status, answer = await post(session, url, SCENE, **header)
        assert status == 200
        versions.append(answer["model"]["version"])
    assert versions == ["v1", "v1", "v2"]
    status, answer = await post(session, url, SCENE, X_Model_Version="v9")
    assert (status, "known: v1, v2" in answer["detail"]) == (404, True)
    status, answer = await post(session, f"{service.http_url}/v1/predict", SCENE, X_Model_Version="v2")
    assert (status, answer["model"]["version"]) == (200, "v1"), "the address wins"
