"""Forms are read piece by piece, and a form that no real client writes is refused before it costs much."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.http.problem_details import Problem
from streamer.imaging.image_header import Limits
from streamer.predict.request_body import FormReader, read_boundary

PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
FIELD = b'--b\r\nContent-Disposition: form-data; name="classes"\r\n\r\n'
LIMITS = Limits(image_bytes=1000, total_bytes=1500, max_images=3)


async def read(pieces: Iterable[bytes], limits: Limits = LIMITS, boundary: str = "b") -> FormReader:
    """Read a form that arrives in these pieces."""
    waiting = iter((*pieces, b""))
    form = FormReader(boundary, limits)

    async def next_piece() -> bytes:
        return next(waiting)

    await form.read(next_piece)
    return form


@given(st.data())
async def test_pieces_may_be_cut_anywhere(data: st.DataObject) -> None:
    image = b"\xff\xd8--b\r\n--\r\n-\r\n--c" * 5 + b"\r"
    body = PART + image + b"\r\n" + FIELD + "grün,bus".encode() + b"\r\n" + PART + b"\r\n--b--\r\n"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(body) - 1))))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    form = await read(pieces)
    assert (form.images, form.fields) == ([image, b""], [("classes", "grün,bus")])


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "malformed"),
        (b"\r\n" * 500 + PART + b"x\r\n--b--", 400, "malformed"),
        (b"preamble\r\n" + b"." * 100, 400, "malformed"),
        (PART + b"x", 400, "too early"),
        (PART + b"x\r\n--b", 400, "too early"),
        (PART + b"x" * 1001 + b"\r\n--b--", 413, "Image 0 has more than 1000"),
        ((PART + b"x" * 800 + b"\r\n") * 2 + b"--b--", 413, "Image 1 has more than 700"),
        ((PART + b"x\r\n") * 4 + b"--b--", 413, "more than 3 images"),
        ((FIELD + b"x\r\n") * 65 + b"--b--", 413, "more than 64 fields"),
        (FIELD + b"x" * 8193 + b"\r\n--b--", 413, "Field `classes` has more than 8192"),
        (FIELD + b"\xff\r\n--b--", 400, "UTF-8"),
        (PART[:-2] + b"X: " + b"y" * 3000 + b"\r\n\r\nx\r\n--b--", 400, "malformed"),
        (PART[:-2] + b"X: y\r\n" * 20 + b"\r\nx\r\n--b--", 400, "malformed"),
        (PART[:-2] + b"X: y\r\n z\r\n\r\nx\r\n--b--", 400, "malformed"),
        (PART[:-2] + b"Content-Encoding: gzip\r\n\r\nx\r\n--b--", 415, "Content-Encoding"),
        (PART[:-2] + b"Content-Transfer-Encoding: base64\r\n\r\nx\r\n--b--", 415, "base64"),
        (PART[:-2] + b"Content-Type: multipart/mixed; boundary=c\r\n\r\nx\r\n--b--", 400, "within"),
        (b'--b\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n\r\n--b--', 400, "`a`"),
        (b"--b\r\nContent-Disposition: attachment\r\n\r\n\r\n--b--", 400, "malformed"),
        (b"--b\r\n\r\nx\r\n--b--", 400, "malformed"),
        (b"--b\n\n", 400, "malformed"),
    ],
)
@pytest.mark.parametrize("piece_bytes", [1 << 20, 7], ids=["whole", "pieces"])
async def test_what_is_no_sound_form_is_refused(
    body: bytes, status: int, said: str, piece_bytes: int
) -> None:
    pieces = [body[start : start + piece_bytes] for start in range(0, len(body), piece_bytes)]
    with pytest.raises(Problem) as caught:
        await read(pieces)
    assert (caught.value.status, said in caught.value.detail) == (status, True), caught.value.detail


async def test_a_line_end_may_stand_around_the_form_and_no_more() -> None:
    body = PART + b"x\r\n--b--"
    assert (await read([b"\r\n" + body, b"\r\n"])).images == [b"x"]
    with pytest.raises(Problem, match="malformed"):
        await read([body, *[b"\r\n"] * 600])


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", "abc"),
        ('multipart/form-data; charset=utf-8; boundary="a b"', "a b"),
        ("multipart/form-data; boundary=" + "x" * 70, "x" * 70),
        ("multipart/form-data; boundary=" + "x" * 71, None),
        ("multipart/form-data; boundary=", None),
        ('multipart/form-data; boundary="a\u00e9"', None),
        ("multipart/form-data", None),
    ],
)
def test_a_boundary_is_short_and_printable(content_type: str, boundary: str | None) -> None:
    if boundary is None:
        with pytest.raises(Problem, match="boundary"):
            read_boundary(content_type)
    else:
        assert read_boundary(content_type) == boundary


#: The worst input of each kind. One piece from the socket holds at most the first 256 KiB of it.
HOSTILE = {
    "newlines": b"\r\n" * (128 << 10),
    "boundaries that almost match": PART + (b"\r\n--" + b"a" * 69) * 3500,
    "carriage returns": PART + b"\r" * (255 << 10),
    "repetition of the boundary's letter": PART + b"a" * (255 << 10),
    "headers of options": PART[:-2]
    + (b'Content-Disposition: form-data; name="file"' + b';a="b\\' * 300 + b"\r\n") * 100,
    "parts without a name": (b"--b\r\nContent-Disposition: form-data\r\n\r\n\r\n") * 5000,
    "empty files": (PART + b"\r\n") * 3000,
}


async def longest_step_s(name: str) -> float:
    """Read a form of the kind, and return the longest processor time between two pieces in seconds."""
    generous = Limits(max_images=5000)
    boundary = "a" * 70 if name.startswith(("boundaries", "repetition")) else "b"
    body = HOSTILE[name].replace(b"--b\r", b"--" + boundary.encode() + b"\r")
    form = FormReader(boundary, generous)
    waiting = iter([body[: 256 << 10]])
    longest_s = 0.0
    begun = time.thread_time()

    async def next_piece() -> bytes:
        nonlocal begun, longest_s
        longest_s = max(longest_s, time.thread_time() - begun)
        begun = time.thread_time()
        return next(waiting, b"")

    with pytest.raises(Problem):
        await form.read(next_piece)
    return max(longest_s, time.thread_time() - begun)


@pytest.mark.parametrize("name", HOSTILE)
async def test_one_piece_never_takes_long(name: str) -> None:
    # The least of several tries contains no garbage collection.
    assert min([await longest_step_s(name) for _ in range(3)]) < 0.05


@pytest.mark.parametrize("name", ["file", "files", "image", "images", "file[]", "images[]"])
async def test_images_come_in_fields_of_common_names(name: str) -> None:
    part = PART.replace(b'"file"', f'"{name}"'.encode())
    form = await read([part + b"first\r\n" + PART + b"second\r\n--b--"])
    assert form.images == [b"first", b"second"]


async def test_a_file_in_another_field_is_refused_with_the_names_that_are_taken() -> None:
    with pytest.raises(Problem, match="fields named file, image, images, files"):
        await read([PART.replace(b'"file"', b'"photo"') + b"x\r\n--b--"])
