"""HDR images are mapped to ordinary ones as FFmpeg's filters do, and greys as the standards say."""

from __future__ import annotations

import shutil
import subprocess

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from streamer.imaging.tone_mapping import HLG, PQ, is_hdr, to_sdr
from tests.unit.images import scene

Pixels = npt.NDArray[np.uint8]

NAMES = {PQ: "smpte2084", HLG: "arib-std-b67"}
WIDTH, HEIGHT = 128, 96
SRGB = "iec61966-2-1"


def filtered(pixels: npt.NDArray[np.uint8 | np.uint16], filters: str, out: str) -> bytes:
    """Return RGB pixels (8 or 16 bits) as the filters of the `ffmpeg` program change them."""
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("needs the program ffmpeg (Debian package ffmpeg)")
    kind = "rgb24" if pixels.dtype == np.uint8 else "rgb48le"
    command = [program, "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", kind]
    command += ["-s", f"{WIDTH}x{HEIGHT}", "-i", "-", "-vf", f"{filters},format={out}", "-f", "rawvideo", "-"]
    return subprocess.run(command, input=pixels.tobytes(), capture_output=True, check=True).stdout


def linear(transfer: str, primaries: str) -> str:
    """Return the filters that convert pixels to linear light in which white paper is 1."""
    return (
        f"setparams=color_primaries={primaries}:color_trc={transfer}:colorspace=gbr:range=pc,format=gbrp16le,"
        f"zscale=min=gbr:tin={transfer}:pin={primaries}:rin=full:t=linear:npl=203,format=gbrpf32le"
    )


def as_hdr(image: Pixels, transfer: int) -> npt.NDArray[np.uint16]:
    """Return an ordinary BGR image as RGB samples of 16 bits of an HDR image with the colours of BT.2020."""
    filters = f"{linear(SRGB, 'bt709')},zscale=p=bt2020,zscale=t={NAMES[transfer]}:npl=203:r=full"
    data = filtered(np.ascontiguousarray(image[:, :, ::-1]), filters, "rgb48le")
    return np.frombuffer(data, np.uint16).reshape(HEIGHT, WIDTH, 3)


def reference(samples: npt.NDArray[np.uint16], transfer: int) -> Pixels:
    """Return what FFmpeg's conversion in linear light makes of HDR samples, as BGR."""
    filters = (
        f"{linear(NAMES[transfer], 'bt2020')},zscale=p=bt709,"
        f"tonemap=mobius:param=0.3:desat=0:peak={1000 / 203},zscale=t={SRGB}:r=full"
    )
    data = filtered(samples, filters, "rgb24")
    return np.frombuffer(data, np.uint8).reshape(HEIGHT, WIDTH, 3)[:, :, ::-1]


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_greys_are_those_of_ffmpeg(transfer: int) -> None:
    ramp = np.linspace(0, 255, WIDTH)[None, :, None].repeat(HEIGHT, 0).repeat(3, 2)
    samples = np.rint(ramp).astype(np.uint8)
    expected = reference(samples.astype(np.uint16) * 257, transfer)
    assert np.abs(to_sdr(samples, transfer, 9).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_colours_are_close_to_those_of_ffmpeg_and_to_the_image(transfer: int) -> None:
    gaudy = cv2.resize(scene(640, 480), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    image = np.asarray(gaudy // 2 + 60, np.uint8)  # about as saturated as photographs are
    samples = as_hdr(image, transfer)
    coded = np.ascontiguousarray((samples >> 8).astype(np.uint8)[:, :, ::-1])
    expected = reference(samples, transfer).astype(int)
    mapped = to_sdr(coded, transfer, 9)
    assert np.abs(mapped - expected).mean() < 4
    assert np.abs(mapped - expected).mean() < np.abs(coded - expected).mean() / 3
    assert mapped.std() == pytest.approx(expected.std(), rel=0.1)


def test_the_reference_levels_of_the_standards_are_white_paper_in_both() -> None:
    """Check that 58 % of PQ and 75 % of HLG, which are 203 cd/m² (BT.2408, table 1), become the same grey."""
    levels = []
    for transfer, share in ((PQ, 0.58), (HLG, 0.75)):
        grey = np.full((1, 1, 3), round(share * 255), np.uint8)
        levels.append(int(to_sdr(grey, transfer, 9)[0, 0, 0]))
        assert np.ptp(to_sdr(grey, transfer, 9)) == 0
        assert (to_sdr(grey, transfer, 9) == to_sdr(grey, transfer, 1)).all()
    assert abs(levels[0] - levels[1]) <= 2
    assert 200 < levels[0] < 235


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_shades_keep_their_order(transfer: int) -> None:
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    mapped = to_sdr(np.ascontiguousarray(ramp), transfer, 9)[0, :, 0].astype(int)
    assert (np.diff(mapped) >= 0).all()
    assert (mapped[0], mapped[-1]) == (0, 255)


def test_ordinary_transfer_characteristics_are_no_hdr() -> None:
    assert [number for number in range(20) if is_hdr(number)] == [PQ, HLG]
