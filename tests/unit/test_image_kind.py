"""Tests that `name_kind` names the format of data that the service does not accept as an image."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.imaging.other_formats import name_kind

AS_TEXT = "an image whose bytes were changed because they were read or sent as text (send them as binary)"


def pcx() -> bytes:
    """Return the header of a PCX of 64 x 48 pixels."""
    return struct.pack("<4B6H", 10, 5, 1, 8, 0, 0, 63, 47, 72, 72) + bytes(112)


def tga(*, kind: int = 2, palette: int = 0, depth: int = 24) -> bytes:
    """Return the header of a TGA of 64 x 48 pixels, which has no signature."""
    return struct.pack("<3B2HB4H2B", 0, palette, kind, 0, 256 * palette, 24 * palette, 0, 0, 64, 48, depth, 0)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"GIF89a....", "GIF"),
        (b"BM123456", "BMP"),
        (b"II*\x00\x08\x00", "TIFF, or a camera's raw image in it"),
        (b"MM\x00*\x00\x08", "TIFF, or a camera's raw image in it"),
        (b"II*\x00\x10\x00\x00\x00CR\x02\x00", "Canon raw"),
        (b"FUJIFILMCCD-RAW 0201", "Fujifilm raw"),
        (b"IIRO\x08\x00\x00\x00", "Olympus raw"),
        (b"IIU\x00\x18\x00\x00\x00", "Panasonic raw"),
        (b"8BPS\x00\x01", "Photoshop"),
        (b"DDS \x7c\x00\x00\x00", "DDS"),
        (b"\x00\x00\x01\x00\x01\x00\x10\x10", "icon"),
        (b"\x00\x00\x02\x00\x01\x00\x10\x10" + bytes(20), "cursor"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"II\xbc\x01", "JPEG XR"),
        (b"v/1\x01\x02\x00\x00\x00", "OpenEXR"),
        (b"qoif\x00\x00\x00\x01", "QOI"),
        (pcx(), "PCX"),
        (tga() + bytes(64 * 48 * 3), "unknown data, perhaps TGA"),
        (tga() + bytes(64 * 48 * 3 + 8) + b"TRUEVISION-XFILE.\x00", "TGA"),
        (tga(kind=9, palette=1, depth=8) + bytes(900), "unknown data, perhaps TGA"),
        (tga(kind=7) + bytes(900), "unknown data"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"<!-- drawn -->\n<svg>", "SVG"),
        ("<svg/>".encode("utf-16"), "text in UTF-16"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
        (b"RIFF\x00\x00\x00\x00ACON", "a RIFF file other than WebP"),
        ((b"G" + bytes(187)) * 3, "MPEG-TS video"),
        (b"\x00\x00\x00\x01\x67\x42", "raw H.264 or H.265 video"),
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
