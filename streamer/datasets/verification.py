"""Checks a collection: every description has its picture, and both are whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from streamer.datasets.errors import DamagedSample
from streamer.datasets.sample import Sample, parse_sample
from streamer.datasets.source import IMAGES, SIDECARS, Source
from streamer.imaging.image_header import ImageError, read_header


class _AnySize:
    """The service has judged sizes before."""

    image_px = 1 << 40
    image_side_px = 65_535


@dataclass(slots=True)
class Verification:
    """What was found; a collection is sound when ``problems`` is empty."""

    samples: int = 0
    #: One sentence each, naming the object.
    problems: list[str] = field(default_factory=list)
    #: Pictures without a description: those that are being delivered, or were left by a crash. No loss.
    incomplete: list[str] = field(default_factory=list)


def verify(source: Source) -> Verification:
    """Read everything and compare. Raises CannotRead when the collection itself cannot be read."""
    result = Verification()
    described: set[str] = set()
    for key in source.keys(SIDECARS):
        result.samples += 1
        try:
            sample = parse_sample(source.read(key), key)
            described.add(sample.key)
            _check(sample, source.read(sample.key))
        except FileNotFoundError:
            result.problems.append(f"{key}: its picture {sample.key} is missing")
        except DamagedSample as error:
            result.problems.append(str(error))
    result.incomplete = [key for key in source.keys(IMAGES) if key not in described]
    return result


def _check(sample: Sample, data: bytes) -> None:
    if len(data) != sample.size_bytes:
        raise DamagedSample(f"{sample.key}: {len(data)} bytes; its description says {sample.size_bytes}")
    digest = hashlib.sha256(data).hexdigest()
    if digest != sample.sha256:
        raise DamagedSample(f"{sample.key}: its sha256 is {digest}; its description says {sample.sha256}")
    try:
        header = read_header(data, _AnySize())
    except ImageError as error:
        raise DamagedSample(f"{sample.key}: {error}") from error
    if header.sound_bytes:
        raise DamagedSample(f"{sample.key}: its picture is cut off after {header.sound_bytes} bytes")
    size = header.upright_size if sample.rotation % 2 == 0 else header.upright_size[::-1]
    if size != (sample.width, sample.height):
        raise DamagedSample(
            f"{sample.key}: upright it has {size[0]}x{size[1]} pixels; "
            f"its description says {sample.width}x{sample.height}"
        )
