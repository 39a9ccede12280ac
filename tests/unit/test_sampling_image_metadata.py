"""In all three formats metadata is removed, while the pixels and the orientation stay."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from streamer.imaging.decode import decode
from streamer.imaging.image_header import Limits, read_header
from streamer.protocol.wire import Codec
from streamer.sampling.candidate_image import strip_metadata
from tests.unit.images import encode, png_chunk, riff, scene, webp_chunk, with_exif, with_jpeg_segment

SECRET = b"GPS 52.5200 N 13.4050 E"
LIMITS = Limits()


def secretive(suffix: str, orientation: int) -> bytes:
    """Return an image with an orientation, and with the secret in the metadata blocks of its format."""
    # OpenCV writes lossy WebP, which with_exif needs, when it gets a quality.
    quality = (cv2.IMWRITE_WEBP_QUALITY, 80) if suffix == ".webp" else ()
    data = with_exif(encode(scene(), suffix, *quality), orientation)
    if suffix == ".jpg":
        for marker, body in (
            (0xE1, b"http://ns.adobe.com/xap/1.0/\x00" + SECRET),
            (0xED, SECRET),
            (0xFE, SECRET),
        ):
            data = with_jpeg_segment(data, marker, body)
        return with_jpeg_segment(data, 0xE1, b"Exif\x00\x00" + SECRET) if orientation == 1 else data
    if suffix == ".png":
        return data[:33] + png_chunk(b"tEXt", b"Comment\x00" + SECRET) + data[33:]
    return riff(data[12:] + webp_chunk(b"XMP ", SECRET))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_and_orientation_stay_and_the_rest_goes(suffix: str, orientation: int) -> None:
    data = secretive(suffix, orientation)
    assert SECRET in data
    header = read_header(data, LIMITS)
    bare = strip_metadata(data, header.codec, header.orientation)
    assert SECRET not in bare
    after = read_header(bare, LIMITS)
    assert (after.orientation, after.upright_size) == (orientation, header.upright_size)
    np.testing.assert_array_equal(decode(bare, after).pixels, decode(data, header).pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_an_image_without_metadata_stays_as_it_is(suffix: str) -> None:
    data = encode(scene(), suffix)
    assert strip_metadata(data, read_header(data, LIMITS).codec, 1) == data


def test_a_progressive_jpeg_and_its_colour_profile_stay_whole() -> None:
    data = encode(scene(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    data = with_jpeg_segment(data, 0xE2, b"ICC_PROFILE\x00\x01\x01" + b"p" * 100)
    assert strip_metadata(data, read_header(data, LIMITS).codec, 1) == data


def test_a_png_and_a_webp_that_are_cut_off_behind_their_image_become_complete() -> None:
    png = encode(scene(), ".png")
    assert strip_metadata(png[:-12], Codec.PNG, 1) == png
    assert strip_metadata(png[:-3], Codec.PNG, 1) == png
    assert strip_metadata(png[:-14], Codec.PNG, 1) == png  # within the checksum of its data
    with pytest.raises(ValueError, match="cut off in its image data"):
        strip_metadata(png[:-17], Codec.PNG, 1)
    webp = with_exif(encode(scene(), ".webp", cv2.IMWRITE_WEBP_QUALITY, 80), 1)
    without = strip_metadata(webp, Codec.WEBP, 1)
    assert strip_metadata(webp[:-3], Codec.WEBP, 1) == without


def test_what_is_cut_off_is_refused_not_kept() -> None:
    data = encode(scene())
    with pytest.raises(ValueError, match="cut off"):
        strip_metadata(data[:30], read_header(data, LIMITS).codec, 1)
