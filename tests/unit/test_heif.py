"""HEIC and AVIF have the pixels that libheif and libavif decode, and no decoder allocates more than known."""

from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from streamer.imaging.decode import decode
from streamer.imaging.heif_pixels import decode_heif, open_decoder, warm_up
from streamer.imaging.image_header import ImageError, ImageErrorCode, Limits, read_header
from streamer.imaging.tone_mapping import to_sdr
from streamer.imaging.turning import Turning
from streamer.protocol.wire import Codec
from tests.unit import hostile_heifs as hostile
from tests.unit.heif_files import (
    HeifFile,
    Picture,
    Pixels,
    av1,
    box,
    clap,
    hevc,
    imir,
    irot,
    libavif_file,
    libheif_file,
    nclx,
    picture_of,
    read_independently,
    single,
    tiled,
)
from tests.unit.hostile_builders import photograph
from tests.unit.images import scene

ROOT = Path(__file__).resolve().parents[2]
LIMITS = Limits()
PHOTOGRAPH = photograph(192, 128)
#: Encodes a picture of a width and height.
Encode = Callable[[int, int], Picture]


def decoded(data: bytes) -> Pixels:
    return decode(data, LIMITS.read_header(data)).pixels


def difference(data: bytes) -> int:
    """Return the largest difference from what the independent decoder makes of a file."""
    ours, theirs = decoded(data), read_independently(data)
    assert ours.shape == theirs.shape
    return int(np.abs(ours.astype(int) - theirs).max())


@pytest.mark.parametrize("image", [PHOTOGRAPH, PHOTOGRAPH[:53, :37], PHOTOGRAPH[:1, :1]])
def test_pixels_are_those_of_other_decoders(image: Pixels) -> None:
    assert difference(libheif_file(image)) <= 2
    assert difference(libavif_file(image)) <= 2


def test_reduced_chroma_and_grey_are_converted() -> None:
    # The other decoders enlarge chroma in other ways, so these images have no sharp borders between colours.
    smooth = scene(191, 127)
    for chroma in (420, 422):
        assert difference(libheif_file(smooth, chroma=chroma)) <= 4
        assert difference(libavif_file(smooth, subsampling=f"4:{chroma % 100 // 10}:{chroma % 10}")) <= 4
    assert difference(libavif_file(PHOTOGRAPH, subsampling="4:0:0")) <= 2


def test_strips_leave_no_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    data = libheif_file(PHOTOGRAPH, chroma=420)
    whole = decoded(data)
    monkeypatch.setattr("streamer.imaging.heif_pixels._STEP_PX", 192 * 2)
    assert np.array_equal(decoded(data), whole)


def test_ten_bits_become_eight() -> None:
    deep = (PHOTOGRAPH.astype(np.uint16) << 8) + 77
    image = pillow_heif.from_bytes("BGR;16", (192, 128), deep.tobytes())
    written = io.BytesIO()
    image.save(written, quality=95, chroma=444)
    data = written.getvalue()
    header = LIMITS.read_header(data)
    assert header.first_bytes > LIMITS.read_header(libheif_file(PHOTOGRAPH)).first_bytes
    assert np.abs(decoded(data).astype(int) - PHOTOGRAPH).mean() < 3
    assert difference(data) <= 3


@pytest.mark.parametrize("full_range", [True, False])
@pytest.mark.parametrize("matrix", [1, 6, 9])
def test_the_colours_of_the_file_count_and_not_those_of_the_data(matrix: int, full_range: bool) -> None:
    assert difference(single(hevc(), nclx(matrix, full_range=full_range)).build()) <= 3


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_is_mapped_to_the_range_of_ordinary_images(transfer: int) -> None:
    deep = pillow_heif.from_bytes("BGR;16", (192, 128), (PHOTOGRAPH.astype(np.uint16) << 8).tobytes())
    written = io.BytesIO()
    deep.info["nclx_profile"] = {
        "color_primaries": 9,
        "transfer_characteristics": transfer,
        "matrix_coefficients": 9,
        "full_range_flag": 1,
    }
    deep.save(written, quality=95, chroma=444, save_nclx_profile=True)
    picture = picture_of(written.getvalue())
    ordinary = decoded(single(picture, nclx(9, full_range=True)).build())
    mapped = to_sdr(ordinary, transfer, 9)
    assert np.abs(mapped.astype(int) - ordinary).mean() > 5
    stated = nclx(9, full_range=True, primaries=9, transfer=transfer)
    for data in (written.getvalue(), single(picture, stated).build(), single(picture).build()):
        assert np.array_equal(decoded(data), mapped)


def test_unknown_colour_coefficients_are_refused_by_number() -> None:
    with pytest.raises(ImageError, match="matrix coefficients 14") as refusal:
        decoded(single(hevc(), nclx(14, full_range=True)).build())
    assert refusal.value.code is ImageErrorCode.UNSUPPORTED


@pytest.mark.parametrize(
    "turns",
    [(irot(1),), (irot(2),), (irot(3),), (imir(0),), (imir(1),), (irot(1), imir(0)), (irot(3), imir(1))],
)
@pytest.mark.parametrize("encode", [hevc, av1], ids=["HEIC", "AVIF"])
def test_rotation_and_mirroring_are_those_of_the_file(encode: Encode, turns: Sequence[bytes]) -> None:
    data = single(encode(96, 64), nclx(6, full_range=True), *turns).build()
    assert difference(data) <= 2
    assert decoded(data).shape[1::-1] == LIMITS.read_header(data).upright_size


def test_an_image_that_is_mirrored_before_it_is_turned_is_upright() -> None:
    # libavif ignores this order, which AVIF does not allow; libheif follows it.
    assert difference(single(hevc(96, 64), imir(0), irot(1)).build()) <= 2
    assert difference(single(hevc(96, 64), imir(1), irot(3)).build()) <= 2


def tiles() -> list[Picture]:
    """Return six pictures of 64x64 pixels, three in a row, which are parts of the photograph."""
    return [
        picture_of(libheif_file(PHOTOGRAPH[top : top + 64, left : left + 64]))
        for top in (0, 64)
        for left in (0, 64, 128)
    ]


def test_tiles_are_put_together_and_turned_and_cropped() -> None:
    parts = tiles()
    for more in ((), (irot(1),), (irot(3), imir(0)), (clap(100, 1, 180, 2, -7, 1, 10, 2), irot(3))):
        assert difference(tiled(parts, 3, 180, 100, *more).build()) <= 2


@pytest.mark.parametrize("rotation", range(4))
@pytest.mark.parametrize("turns", [(), (irot(1),), (imir(1), irot(2))])
def test_rows_that_resizing_does_not_read_are_left_out(
    rotation: int, turns: Sequence[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("decode", "sampled_pixels"):
        monkeypatch.setattr(f"streamer.imaging.{module}.LEAST_BYTES", 1)
    data = single(av1(800, 640), *turns).build()
    header = LIMITS.read_header(data)
    whole = decode(data, header, rotation=rotation).pixels
    sampled = decode(data, header, rotation=rotation, resized=(60, 50)).pixels
    assert not np.array_equal(sampled, whole)
    resized = [cv2.resize(each, (60, 50), interpolation=cv2.INTER_LINEAR) for each in (sampled, whole)]
    assert np.array_equal(*resized)


def test_thumbnails_and_metadata_are_ignored_and_names_are_known() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    heic, avif = libheif_file(PHOTOGRAPH, exif=exif.tobytes(), thumbnails=[64]), libavif_file(PHOTOGRAPH)
    assert LIMITS.read_header(heic).codec is Codec.HEIC
    assert LIMITS.read_header(avif).codec is Codec.AVIF
    assert difference(heic) <= 2


def test_a_picture_larger_than_its_header_is_refused_before_the_decoder_is_opened() -> None:
    cropped = hostile.claiming(16_384, 16_384, hostile.FIRST_SLICE, right=8160, bottom=8160)
    with pytest.raises(ImageError, match="its header says 64x64 pixels"):
        read_header(single(cropped).build(), LIMITS)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (hostile.many_links, "more than 8192 properties"),
        (hostile.many_linked_items, "properties for more than 2048 items"),
        (lambda: hostile.in_pieces(2048, 64), "more than 4096 pieces"),
    ],
    ids=["properties", "items with properties", "pieces"],
)
def test_limits_of_loops_hold_for_all_boxes_of_a_file_together(
    make: Callable[[], HeifFile], reason: str
) -> None:
    with pytest.raises(ImageError, match=reason):
        read_header(make().build(), LIMITS)


def test_data_that_are_used_many_times_take_no_memory() -> None:
    data = hostile.in_pieces(1, 64).build() + box(b"free", bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="its items share their data"):
            read_header(data, LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encode", [hevc, av1], ids=["HEVC", "AV1"])
def test_ffmpeg_refuses_more_pixels_than_it_may_allocate(
    encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is a second barrier: the frame header of AV1, which is not read here, may state a larger size."""
    data = single(encode(640, 640)).build()
    opened = []

    def opening(name: str, config: bytes, most_px: int) -> object:
        opened.append(most_px)
        return open_decoder(name, config, 300 * 300)

    monkeypatch.setattr("streamer.imaging.heif_pixels.open_decoder", opening)
    pixels = np.zeros((640, 640, 3), np.uint8)
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_heif(data, Turning.of(1, 0), pixels)
    assert opened == [768 * 768]


def test_a_decoder_that_pyav_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(name: str, mode: str) -> None:
        raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(av.CodecContext, "create", create)
    warm_up()
    with pytest.raises(ImageError, match="HEIC needs the decoder hevc of FFmpeg") as refusal:
        decoded(single(hevc()).build())
    assert refusal.value.code is ImageErrorCode.UNSUPPORTED


SANDBOXED = """
import sys
from streamer.decoding import decoder
from streamer.decoding.sandbox import enter_sandbox
from streamer.imaging.decode import decode
from streamer.imaging.image_header import Limits

files = [open(path, "rb").read() for path in sys.argv[1:]]
decoder.warm_up()
enter_sandbox(512 << 20)
for data in files:
    decode(data, Limits().read_header(data), most_bytes=Limits().decode_bytes)
sys.stderr.write("decoded in the sandbox")
"""


def test_a_sandboxed_process_decodes_both(tmp_path: Path) -> None:
    files = {"a.heic": libheif_file(PHOTOGRAPH), "b.avif": libavif_file(PHOTOGRAPH)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    answer = subprocess.run(
        [sys.executable, "-c", SANDBOXED, *(str(tmp_path / name) for name in files)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        # As in the service, libraries start no threads before the sandbox.
        env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"},
    )
    assert answer.stderr == "decoded in the sandbox", answer.stderr
    assert answer.returncode == 0
