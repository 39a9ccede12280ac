"""Checks a collection of samples: every sidecar has its image, and both are complete."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from streamer.datasets.errors import DamagedSample
from streamer.datasets.sample import Sample, parse_sample
from streamer.datasets.source import IMAGES, SIDECARS, Source
from streamer.imaging.header import AnySize
from streamer.imaging.image_header import ImageError, read_header


@dataclass(slots=True)
class Verification:
    """Result of a verification; a collection is sound when ``problems`` is empty."""

    samples: int = 0
    #: One sentence each, which names the key.
    problems: list[str] = field(default_factory=list)
    #: Images without a sidecar. They are no problem: a delivery is under way, or a crash interrupted it.
    incomplete: list[str] = field(default_factory=list)


def verify(source: Source) -> Verification:
    """Read all images and sidecars and compare them. Raises CannotRead when the source cannot be read."""
    result = Verification()
    described: set[str] = set()
    for key in source.keys(SIDECARS):
        result.samples += 1
        try:
            sample = parse_sample(source.read(key), key)
            described.add(sample.key)
            _check(sample, source.read(sample.key))
        except FileNotFoundError:
            result.problems.append(f"{key}: its image {sample.key} is missing")
        except DamagedSample as error:
            result.problems.append(str(error))
    result.incomplete = [key for key in source.keys(IMAGES) if key not in described]
    return result


def _check(sample: Sample, data: bytes) -> None:
    if len(data) != sample.size_bytes:
        raise DamagedSample(f"{sample.key}: it has {len(data)} bytes; its sidecar says {sample.size_bytes}")
    digest = hashlib.sha256(data).hexdigest()
    if digest != sample.sha256:
        raise DamagedSample(f"{sample.key}: its sha256 is {digest}; its sidecar says {sample.sha256}")
    try:
        header = read_header(data, AnySize())
    except ImageError as error:
        raise DamagedSample(f"{sample.key}: {error}") from error
    if header.sound_bytes:
        raise DamagedSample(f"{sample.key}: the image is cut off after {header.sound_bytes} bytes")
    size = header.upright_size if sample.rotation % 2 == 0 else header.upright_size[::-1]
    if size != (sample.width, sample.height):
        raise DamagedSample(
            f"{sample.key}: the upright image has {size[0]}x{size[1]} pixels; "
            f"its sidecar says {sample.width}x{sample.height}"
        )
