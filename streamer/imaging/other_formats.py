"""Names the format of data that `image_header` does not accept as an image, for error messages."""

from __future__ import annotations

import struct

from streamer.imaging.heif_boxes import name_heif

_TIFF = "TIFF, or a camera's raw image in it"
#: Where a format has its signature, the signature, and the name. The first entry that fits wins.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (8, b"CR\x02", "Canon raw"),
    (0, b"II*\x00", _TIFF),
    (0, b"MM\x00*", _TIFF),
    (0, b"II+\x00", "TIFF"),
    (0, b"MM\x00+", "TIFF"),
    (0, b"II\xbc\x01", "JPEG XR"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (0, b"gimp xcf", "GIMP"),
    (0, b"\x00\x00\x01\x00", "icon"),
    (0, b"icns", "Apple icon"),
    (0, b"DDS ", "DDS"),
    (0, b"\xabKTX ", "KTX"),
    (0, b"\x13\xab\xa1\x5c", "ASTC"),
    (0, b"qoif", "QOI"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"FLIF", "FLIF"),
    (0, b"\x8aMNG", "MNG"),
    (0, b"\x8bJNG", "JNG"),
    (0, b"\x01\xda\x00", "SGI"),
    (0, b"\x01\xda\x01", "SGI"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"#?RGBE", "Radiance HDR"),
    (0, b"\x59\xa6\x6a\x95", "Sun raster"),
    (0, b"farbfeld", "farbfeld"),
    (0, b"/* XPM", "XPM"),
    (0, b"AT&TFORM", "DjVu"),
    (128, b"DICM", "DICOM"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"FUJIFILMCCD-RAW", "Fujifilm raw"),
    (0, b"IIRO", "Olympus raw"),
    (0, b"IIRS", "Olympus raw"),
    (0, b"MMOR", "Olympus raw"),
    (0, b"IIU\x00", "Panasonic raw"),
    (0, b"FOVb", "Sigma raw"),
    (0, b"\x00MRM", "Minolta raw"),
    (6, b"HEAPCCDR", "Canon raw"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (40, b" EMF", "EMF"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\x00", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard"),
    (0, b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (0, b"Rar!", "RAR"),
    (0, b"\x93NUMPY", "NumPy array"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM video"),
    (8, b"AVI ", "AVI video"),
    (8, b"WAVE", "WAVE audio"),
    (0, b"RIFF", "a RIFF file other than WebP"),
    (0, b"FLV\x01", "FLV video"),
    (0, b"OggS", "Ogg"),
    (0, b"\x00\x00\x01\xba", "MPEG video"),
    (0, b"\x00\x00\x01\xb3", "MPEG video"),
    (0, b"\x00\x00\x00\x01", "raw H.264 or H.265 video"),
    (0, b"ID3", "MP3 audio"),
    (0, b"fLaC", "FLAC audio"),
    (8, b"ILBM", "ILBM"),
    (8, b"PBM ", "ILBM"),
)
#: Where MPEG-TS has its mark: at the start of each packet.
_TS_PACKET_BYTES, _TS_MARK = 188, 0x47
_TGA_FOOTER = b"TRUEVISION-XFILE.\x00"
#: Types of images in TGA, with its palette and without, and bits of a pixel.
_TGA_KINDS, _TGA_DEPTHS = (1, 2, 3, 9, 10, 11), (8, 15, 16, 24, 32)
_PCX_VERSIONS, _PCX_DEPTHS = (0, 2, 3, 4, 5), (1, 2, 4, 8)
#: Beginnings of images whose bytes a program read or sent as text, and of those in base64.
_AS_TEXT = (
    b"\xc3\xbf\xc3\x98",
    b"\xef\xbf\xbd\xef\xbf\xbd",
    b"\xc2\x89PNG",
    b"\xef\xbf\xbdPNG",
    b"\x89PNG\n\x1a",
)
_AS_BASE64 = (b"/9j/", b"iVBORw0KGgo", b"UklGR")
_TEXT_BYTES = 512
_TEXT_CONTROLS = frozenset(b"\t\n\r\x0c\x1b")


def name_kind(data: bytes) -> str:
    """Return a short, readable name of the format of ``data``; never raises.

    Some formats have no signature. Their name says "perhaps" if the fields of the header fit them.
    """
    for offset, signature, name in _SIGNATURES:
        if data.startswith(signature, offset):
            return name
    return _name_signed(data) or _name_text(data[:_TEXT_BYTES]) or _name_unsigned(data) or "unknown data"


def _name_signed(data: bytes) -> str:
    """Name what has a signature that is no fixed text at a fixed place; otherwise return an empty string."""
    name = ""
    if data.startswith(_AS_TEXT):
        name = (
            "an image whose bytes were changed because they were read or sent as text (send them as binary)"
        )
    elif data.startswith(_AS_BASE64):
        name = "base64 (send the bytes, or base64 in JSON)"
    elif data[4:8] == b"ftyp":
        name = name_heif(data) or ("Canon raw" if data[8:12] == b"crx " else "MP4 or QuickTime video")
    elif len(data) > 2 and data[:1] == b"P" and data[1:2] in b"1234567fF" and data[2:3].isspace():
        name = "PNM"
    elif len(data) > _TS_PACKET_BYTES and data[0] == data[_TS_PACKET_BYTES] == _TS_MARK:
        name = "MPEG-TS video"
    elif data.endswith(_TGA_FOOTER):
        name = "TGA"
    return name


def _name_text(head: bytes) -> str:
    """Distinguish markup and other text; return an empty string for anything else."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text in UTF-16"
    if any(byte < 0x20 and byte not in _TEXT_CONTROLS for byte in head):
        return ""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"<") and b"<svg" in text:
        return "SVG"
    if text.startswith((b"<!doctype html", b"<html")):
        return "HTML"
    if text.startswith(b"data:image/"):
        return "data URL (send the bytes, not base64)"
    return "text"


def _name_unsigned(data: bytes) -> str:
    """Name a format without a signature if the values of its header are plausible; else return ""."""
    if len(data) >= 128 and data[0] == 0x0A and data[1] in _PCX_VERSIONS and data[2] <= 1:
        left, top, right, bottom = struct.unpack_from("<4H", data, 4)
        if data[3] in _PCX_DEPTHS and left <= right and top <= bottom:
            return "PCX"
    if data.startswith(b"\x00\x00\x02\x00") and len(data) >= 22 and data[4]:  # in TGA, that byte is 0
        return "cursor"
    if len(data) > 18 and data[1] <= 1 and data[2] in _TGA_KINDS and data[16] in _TGA_DEPTHS:
        width, height = struct.unpack_from("<2H", data, 12)
        has_palette = data[2] in (1, 9)
        if width and height and has_palette == data[1] and not data[17] & 0xC0:
            return "unknown data, perhaps TGA"
    return ""
