"""Tests that JSON bodies may be cut anywhere, and that ambiguous fields and non-images are refused."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.http.problem_details import Problem
from streamer.imaging.image_header import Limits
from streamer.predict.image_url import ImageUrl
from streamer.predict.json_body import SHORT_BYTES, STEP_BYTES, JsonBody

LIMITS = Limits(image_bytes=1 << 20, total_bytes=3 << 19, max_images=3)
SMALL = b"\xff\xd8\xff" + bytes(range(256)) * 2
LARGE = b"\xff\xd8\xff" + bytes(range(256)) * 40
AVIF = b"\x00\x00\x00\x18ftypavif" + bytes(4000)
HEIF = b"\x00\x00\x00\x14ftypmif1\x00\x00\x00\x00"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(4000)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read(body: bytes, cuts: tuple[int, ...] = (), limits: Limits = LIMITS) -> JsonBody:
    """Feed ``body`` in pieces that end at ``cuts``, and return the JsonBody that has read it."""
    found = JsonBody(limits)
    for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True):
        found.feed(body[start:stop])
    found.finish()
    return found


def images(document: object, limits: Limits = LIMITS) -> list[bytes]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return [bytes(each) for each in read(body, limits=limits).images if not isinstance(each, ImageUrl)]


@settings(max_examples=60)
@given(st.data())
def test_pieces_may_be_cut_anywhere(data: st.DataObject) -> None:
    document = {
        "images": [b64(LARGE), f"data:image/jpeg;base64,{b64(SMALL)}"],
        "classes": ["grün", 'a"\\'],
        "collect": False,
    }
    body = json.dumps(document, indent=1).replace("/", "\\/").encode()
    cuts = data.draw(st.sets(st.integers(1, len(body) - 1), max_size=200))
    found = read(body, tuple(sorted(cuts)))
    assert [bytes(image) for image in found.images if not isinstance(image, ImageUrl)] == [LARGE, SMALL]
    assert found.fields == [("classes", "grün"), ("classes", 'a"\\'), ("collect", "false")]


@pytest.mark.parametrize("data", [SMALL, LARGE, LARGE + b"x", LARGE + b"xy"], ids=len)
@pytest.mark.parametrize(
    "form",
    [
        str,
        lambda text: text.rstrip("="),
        lambda text: text.replace("+", "-").replace("/", "_"),
        lambda text: "\n".join(text[start : start + 76] for start in range(0, len(text), 76)) + "\r\n",
        lambda text: f"data:image/jpeg;base64,{text}",
        lambda text: f"DATA:image/JPEG;name=a.jpg;BASE64,{text}",
        lambda text: f"data:;base64,{text}",
        lambda text: f"data:application/octet-stream;base64,{text}",
    ],
    ids=["plain", "unpadded", "alphabet for URLs", "lines", "data URL", "capitals", "no type", "bytes"],
)
def test_base64_as_clients_write_it(data: bytes, form: Any) -> None:
    assert images({"image": form(b64(data))}) == [data]


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=len)
def test_escapes_that_json_writers_use_are_understood(data: bytes) -> None:
    text = b64(data).replace("/", "\\/").replace("+", "\\u002B").replace("=", "\\u003d")
    assert images(f'\ufeff {{"image": "{text}"}}'.encode()) == [data]


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=len)
def test_line_breaks_of_a_shell_are_taken(data: bytes) -> None:
    assert images(b'{"image": "' + base64.encodebytes(data) + b'"}') == [data]


def test_urls_are_left_for_later_and_null_is_absent() -> None:
    url = "https://example.com/a.jpg?x=1"
    found = read(
        json.dumps(
            {"image": None, "images": [url, b64(PNG)], "iou_threshold": None, "conf_threshold": 0.25}
        ).encode()
    )
    assert found.images[0] == ImageUrl("images[0]", url)
    assert found.fields == [("conf_threshold", "0.25")]


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=len)
def test_images_may_have_the_names_that_they_have_in_forms(data: bytes) -> None:
    assert images({"file": b64(data)}) == [data]
    assert images({"files": [b64(data), b64(data)], "image": None}) == [data, data]


BIG = b64(LARGE)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "empty"),
        (b" ", 400, "empty"),
        (b"[]", 400, "begins with '[]'"),
        (b'"' + BIG.encode() + b'"', 400, "begins with"),
        (b"\xff\xd8\xff\xe0", 400, "begins with"),
        (b"{}", 400, "no image"),
        (b'{"images": []}', 400, "no image"),
        (b'{"image": "' + BIG.encode(), 400, "ends within a string"),
        (b'{"image": "' + BIG.encode() + b'"', 400, "not valid JSON"),
        (b'{"image": "' + BIG.encode() + b'"} x', 400, "not valid JSON"),
        (b'{"image": "\xff\xfe"}', 400, "not valid JSON"),
        (b'{"a": ' + b"[" * 50_000, 400, "not valid JSON"),
        (b'{"conf_threshold": NaN, "image": ""}', 400, "NaN"),
        (b'{"image": "", "image": ""}', 400, "'image' twice"),
        ({"image": BIG, "images": [BIG]}, 400, "both `image` and `images`"),
        ({"image": BIG, "file": BIG}, 400, "both `image` and `file`"),
        ({"files": [BIG], "file": BIG}, 400, "both `file` and `files`"),
        ({"files": [BIG, None]}, 400, "`files[1]` is 'null'"),
        ({"file": 5}, 400, "`file` is 'a number'"),
        (
            {"photo": BIG},
            400,
            "`photo` has a text of more than 2048 characters; images are taken from the fields",
        ),
        ({"image": [BIG]}, 400, "`image` is 'a list'"),
        ({"image": {"data": BIG}}, 400, "`image` is 'an object'"),
        ({"image": 5}, 400, "`image` is 'a number'"),
        ({"images": BIG}, 400, "`images` is 'a text'"),
        ({"images": [BIG, None]}, 400, "`images[1]` is 'null'"),
        ({"image": ""}, 400, "`image` is empty"),
        ({"image": "data:image/png;base64,"}, 400, "`image` is empty"),
        ({"image": "photo.jpg"}, 400, "`image` is no base64: it has '.jpg'"),
        ({"images": [BIG, BIG[:5000] + "*" + BIG]}, 400, "`images[1]` is no base64: it has '*"),
        ({"image": BIG + "===="}, 400, "`image`"),
        ({"image": b64(LARGE + b"x") + b64(LARGE)}, 400, "`image`"),
        ({"image": b64(SMALL + b"xx") + b64(SMALL)}, 400, "`image`"),
        ({"image": BIG[: len(BIG) // 4 * 4 - 3]}, 400, "cut off"),
        ({"image": "ä" + BIG}, 400, "`image` is no base64"),
        ({"image": "x\\" + BIG}, 400, "`image` is no base64"),
        ({"image": 'x"' + BIG}, 400, "`image` is no base64"),
        ({"image": BIG + '"' + BIG}, 400, "is no base64"),
        ({"image": "data:image/jpeg," + BIG}, 400, "`image` is a data URL without `;base64`"),
        ({"image": "data:image/jpeg" + BIG}, 400, "`image` is a data URL without `TYPE/SUBTYPE;base64,`"),
        ({"image": "data:image/png;base64," + BIG}, 415, "data URL of image/png, and its data are JPEG"),
        (
            {"image": "data:image/jpeg;base64," + b64(PNG)},
            415,
            "data URL of image/jpeg, and its data are PNG",
        ),
        ({"image": "data:image/jpeg;base64," + b64(b"GIF89a" + bytes(60))}, 415, "its data are GIF"),
        ({"image": "data:image/heic;base64," + b64(AVIF)}, 415, "URL of image/heic, and its data are AVIF"),
        ({"image": "data:image/avif;base64," + b64(HEIF + b"heic")}, 415, "and its data are HEIC"),
        ({"image": "data:text/plain;base64," + BIG}, 415, "data URL of text/plain"),
        ({"image": "https://h/" + "x" * 5000}, 400, f"`image` is a URL of more than {SHORT_BYTES}"),
        ({"image": BIG, "classes": "x" * 5000}, 400, "more than 2048 characters"),
        ({"image": BIG, "x" * 5000: 1}, 400, "more than 2048 characters"),
        ({"image": BIG, "classes": ["x" * 5000]}, 400, "more than 2048 characters"),
        ({"image": BIG, "classes": [1.5]}, 400, "`classes`"),
        ({"image": BIG, "classes": [""] * 1001}, 400, "`classes` is '1001 items'"),
        ({"image": BIG, **{f"p{number}": 1 for number in range(65)}}, 413, "more than 64 fields"),
        ({"image": BIG, "conf_threshold": [0.5]}, 400, "`conf_threshold` is 'a list'"),
        ({"image": b64(bytes(2 << 20))}, 413, "more than 1048576 bytes"),
        ({"images": [b64(bytes(1 << 20))] * 2}, 413, "more than 524288 bytes"),
        ({"images": [BIG] * 4}, 413, "more than 3 images"),
        ({"images": [b64(SMALL)] * 4}, 413, "has 4 images; allowed are 3"),
        (b'{"image": ""' + b" " * 100_000, 413, "besides its images"),
    ],
)
@pytest.mark.parametrize("piece_bytes", [STEP_BYTES, 7], ids=["steps", "pieces"])
def test_what_is_no_image_or_ambiguous_is_refused(
    body: Any, status: int, said: str, piece_bytes: int
) -> None:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    if piece_bytes == 7 and len(text) > 20_000:
        piece_bytes = 4093
    with pytest.raises(Problem) as refused:
        read(text, tuple(range(piece_bytes, len(text), piece_bytes)))
    assert (refused.value.status, said in refused.value.detail) == (status, True), refused.value.detail


def test_only_decoded_images_are_held() -> None:
    body = json.dumps({"images": [BIG, BIG]}).encode()
    found, most = JsonBody(LIMITS), 0
    for start in range(0, len(body), 1000):
        found.feed(body[start : start + 1000])
        most = max(most, found.held_bytes)
    assert most < 2 * len(LARGE) + SHORT_BYTES + 1000


@pytest.mark.parametrize(
    "step",
    [
        b'"",' * (STEP_BYTES // 3),
        b'"\\"' * (STEP_BYTES // 3),
        b"\\" * STEP_BYTES,
        b"A" * STEP_BYTES,
        b"\\n" * (STEP_BYTES // 2),
    ],
    ids=["strings", "quotes", "backslashes", "base64", "line breaks"],
)
def test_one_step_is_a_bounded_number_of_calls(step: bytes) -> None:
    """The event loop waits for each step, which may take at most 50 ms, so a step must make few calls."""
    found, calls = JsonBody(Limits()), 0
    found.feed(b'{"image": "' if step[:1] != b'"' else b'{"image": [')

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    with contextlib.suppress(Problem):
        found.feed(step)
    sys.setprofile(None)
    assert 0 < calls < 250_000
