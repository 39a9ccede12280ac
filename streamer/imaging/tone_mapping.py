"""Maps the samples of HDR images (PQ, HLG) to the range and the colours of ordinary images. Pure.

Detectors are trained on ordinary images, and without this an HDR image looks flat to them. Each channel is
mapped by a table of 256 values, which costs next to nothing. The exact way, in linear light for each pixel,
gives the same greys (decision 0082).
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]

#: Numbers of the transfer characteristics, and of the colour primaries of BT.2020 (ISO/IEC 23091-2).
PQ, HLG = 16, 18
_BT_2020 = 9
#: Luminance of white paper, and the highest that is told apart, in cd/m² (BT.2408, section 2.2).
_WHITE, _PEAK = 203.0, 1000.0
#: Shades up to this share of white are kept as they are; brighter ones are compressed.
_KNEE = 0.3
#: Converts red, green and blue of BT.2020 to those of BT.709 (BT.2087, table 2). It is meant for linear
#: light; on mapped samples it restores most of the saturation, and keeps greys.
_TO_BT_709 = np.array(
    [[1.6605, -0.5876, -0.0729], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1188]], np.float32
)


def is_hdr(transfer: int) -> bool:
    """Return whether samples with these transfer characteristics are those of an HDR image."""
    return transfer in (PQ, HLG)


def to_sdr(image: Image, transfer: int, primaries: int) -> Image:
    """Return an HDR image (uint8, BGR) as an ordinary one (sRGB)."""
    mapped = cv2.LUT(image, _table(transfer))
    if primaries == _BT_2020:
        mapped = cv2.transform(mapped, _TO_BT_709[::-1, ::-1])
    return np.asarray(mapped, np.uint8)


@functools.cache
def _table(transfer: int) -> Image:
    samples = np.arange(256) / 255
    light = (_pq_to_light(samples) if transfer == PQ else _hlg_to_light(samples)) / _WHITE
    return np.rint(_to_srgb(_compress(light)) * 255).astype(np.uint8)


def _pq_to_light(samples: Values) -> Values:
    """Return the luminance in cd/m² (SMPTE ST 2084, equation 4.1)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = samples ** (1 / m2)
    return np.asarray(10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1))


def _hlg_to_light(samples: Values) -> Values:
    """Return the luminance of greys on a display with a peak of 1,000 cd/m² (BT.2100, table 5)."""
    a, b, c, gamma = 0.17883277, 0.28466892, 0.55991073, 1.2
    scene = np.where(samples <= 0.5, samples**2 / 3, (np.exp((samples - c) / a) + b) / 12)
    return np.asarray(_PEAK * scene**gamma)


def _compress(light: Values) -> Values:
    """Compress light above the knee, so that the peak becomes 1; white paper is 1 before.

    The curve is a hyperbola that continues the straight part with its slope, which FFmpeg calls mobius.
    """
    knee, peak = _KNEE, _PEAK / _WHITE
    a = -(knee**2) * (peak - 1) / (knee**2 - 2 * knee + peak)
    b = (knee**2 - 2 * knee * peak + peak) / (peak - 1)
    curve = (b**2 + 2 * b * knee + knee**2) / (b - a) * (light + a) / (light + b)
    return np.clip(np.where(light <= knee, light, curve), 0, 1)


def _to_srgb(light: Values) -> Values:
    """Return sRGB samples (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)
