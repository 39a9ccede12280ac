"""Tests that `name_kind` names the format of data that the service does not accept as an image."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.imaging.image_header import name_kind

AS_TEXT = "an image whose bytes were changed because they were read or sent as text (send them as binary)"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"GIF89a....", "GIF"),
        (b"BM123456", "BMP"),
        (b"II*\x00\x08\x00", "TIFF"),
        (b"MM\x00*\x00\x08", "TIFF"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51\x00", "JPEG 2000"),
        (b"\x00\x00\x00\x1cftypavif", "AVIF"),
        (b"\x00\x00\x00\x1cftypheic", "HEIC"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic", "HEIC"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1avif", "AVIF"),
        (b"\x00\x00\x00\x14ftypmif1\x00\x00\x00\x00mif1avif", "HEIF"),
        (b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x01crx isom", "Canon raw"),
        (b"\x00\x00\x00\x1cftypisom", "MP4 or QuickTime video"),
        (b"\x1a\x45\xdf\xa3\x01", "Matroska or WebM video"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "AVI video"),
        (b"P6 2 2 255\n", "PNM"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04", "ZIP"),
        (b'<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b'<?xml version="1.0"?>\n<svg/>', "SVG"),
        (b"\n<!DOCTYPE html><html>", "HTML"),
        (b"data:image/jpeg;base64,/9j/4AAQ", "data URL (send the bytes, not base64)"),
        (b"/9j/4AAQSkZJRg", "base64 (send the bytes, or base64 in JSON)"),
        (b"iVBORw0KGgoAAAANSUhEUg", "base64 (send the bytes, or base64 in JSON)"),
        (b"\x89PNG\r\n\x1a\n".decode("latin-1").encode(), AS_TEXT),
        (b"\xff\xd8\xff\xe0".decode("latin-1").encode(), AS_TEXT),
        (b"\xff\xd8\xff\xe0".decode("utf-8", "replace").encode(), AS_TEXT),
        (b"\x89PNG\r\n\x1a\n".decode("utf-8", "replace").encode(), AS_TEXT),
        (b"\x89PNG\n\x1a\n", AS_TEXT),
        (b'{"image": "..."}', "text"),
        (b"\x00\x01\x02\x03", "unknown data"),
    ],
)
def test_formats_are_named(data: bytes, name: str) -> None:
    assert name_kind(data) == name


@given(st.binary(max_size=600))
def test_every_blob_has_a_name(data: bytes) -> None:
    assert name_kind(data)
