"""Reads samples from a folder or bucket, and verifies them."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from streamer.config.settings import SettingsError, load_settings
from streamer.datasets.sample import BadRequest, CannotRead, DamagedSample, Sample, parse_sample
from streamer.imaging.image_header import ImageError, read_header
from streamer.imaging.pixel_limits import NoPixelLimits
from streamer.sampling.s3 import Bucket, meaning_of, open_client
from streamer.sampling.store import bucket_of

SIDECARS, IMAGES = "v1/samples/", "v1/images/"
SCHEME = "s3://"


class Source(Protocol):
    """Lists and reads objects by key."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Return the keys that begin with ``prefix``, in order. Raises CannotRead."""

    def read(self, key: str) -> bytes:
        """Return one object. Raises CannotRead, or FileNotFoundError when there is none."""

    def read_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return a few objects, read at the same time; None for one that is absent. Raises CannotRead."""


def read_samples(source: Source) -> Iterator[Sample]:
    """Return all samples in the order of their keys. Raises DamagedSample or CannotRead."""
    for key in source.keys(SIDECARS):
        yield parse_sample(source.read(key), key)


@contextmanager
def open_source(address: str | None) -> Iterator[Source]:
    """Open the samples at ``address``: a folder, ``s3://BUCKET/PREFIX``, or None for the configured store.

    Raises BadRequest when there are no samples, and CannotRead when they cannot be reached.
    """
    if address and not address.startswith(SCHEME):
        yield FolderSource(Path(address))
        return
    try:
        settings = load_settings()
    except SettingsError as error:
        raise BadRequest(str(error)) from error
    if not address and not settings.uses_s3:
        yield FolderSource(settings.samples_dir)
        return
    bucket = bucket_of(settings)
    with BucketSource(parse_bucket(address, bucket) if address else bucket) as source:
        yield source


class FolderSource:
    """Reads a folder with the same layout as a bucket."""

    def __init__(self, folder: Path) -> None:
        """Check the folder. Raises BadRequest when it is not a folder of samples."""
        if not (folder / "v1").is_dir():
            raise BadRequest(f"{folder} holds no samples: it has no folder `v1` (see SAMPLES_DIR)")
        self.folder = folder

    def keys(self, prefix: str) -> Iterator[str]:
        """Return the keys that begin with ``prefix``, in order. Raises CannotRead."""
        try:
            paths = sorted(path for path in (self.folder / prefix).rglob("*") if path.is_file())
        except OSError as error:
            raise CannotRead(f"{self.folder / prefix}: {error.strerror or error}") from error
        for path in paths:
            if not path.name.startswith("."):  # such a file is still being written
                yield path.relative_to(self.folder).as_posix()

    def read(self, key: str) -> bytes:
        """Return one object. Raises CannotRead, or FileNotFoundError when there is none."""
        path = self.folder / key
        if self.folder.resolve() not in path.resolve().parents:
            raise CannotRead(f"key {key!r} leads out of {self.folder}")
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise CannotRead(f"{path}: {error.strerror or error}") from error

    def read_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return a few objects; None for one that is absent. Raises CannotRead."""
        found: list[bytes | None] = []
        for key in keys:
            try:
                found.append(self.read(key))
            except FileNotFoundError:
                found.append(None)
        return found


def parse_bucket(address: str, defaults: Bucket) -> Bucket:
    """Return the bucket of ``s3://NAME/PREFIX``, with other fields from ``defaults``. Raises BadRequest."""
    name, _, prefix = address.removeprefix(SCHEME).partition("/")
    if not name:
        raise BadRequest(f"--in is {address!r}; expected a folder, or s3://BUCKET/PREFIX")
    return dataclasses.replace(defaults, name=name, prefix=prefix.strip("/"))


class BucketSource:
    """Reads a bucket on its own event loop. A context manager.

    The access key must have permission to list and to get objects; the service itself needs neither.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        #: None until entered.
        self._client: Any = None

    def __enter__(self) -> BucketSource:
        self._client = self._run(self._stack.enter_async_context(open_client(self._bucket)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def keys(self, prefix: str) -> Iterator[str]:
        """Return the keys that begin with ``prefix``, in order. Raises CannotRead."""
        full_prefix, own_prefix_chars = self._bucket.key(prefix), len(self._bucket.key(""))
        token: dict[str, str] = {}
        while True:
            page = self._run(
                self._client.list_objects_v2(Bucket=self._bucket.name, Prefix=full_prefix, **token)
            )
            for entry in page.get("Contents", ()):
                yield entry["Key"][own_prefix_chars:]
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, key: str) -> bytes:
        """Return one object. Raises CannotRead, or FileNotFoundError when there is none."""
        result: bytes = self._run(self._get(key))
        return result

    def read_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return a few objects, read at the same time; None for one that is absent. Raises CannotRead."""

        async def get_all() -> list[bytes | BaseException]:
            return await asyncio.gather(*map(self._get, keys), return_exceptions=True)

        found: list[bytes | None] = []
        for result in self._run(get_all()):
            if isinstance(result, BaseException):
                error = self._meaning(result)
                if not isinstance(error, FileNotFoundError):
                    raise error from result
                result = None
            found.append(result)
        return found

    async def _get(self, key: str) -> bytes:
        response = await self._client.get_object(Bucket=self._bucket.name, Key=self._bucket.key(key))
        async with response["Body"] as body:
            data: bytes = await body.read()
        return data

    def _run(self, request: Any) -> Any:
        """Wait for one request, up to the bucket's time-out. Raises CannotRead or FileNotFoundError."""

        async def bounded() -> Any:
            async with asyncio.timeout(self._bucket.timeout_s):
                return await request

        try:
            return self._runner.run(bounded())
        except Exception as error:
            raise self._meaning(error) from error

    def _meaning(self, error: BaseException) -> CannotRead | FileNotFoundError:
        response = getattr(error, "response", None) or {}
        if response.get("Error", {}).get("Code") == "NoSuchKey":
            return FileNotFoundError(str(error))
        return CannotRead(f"{SCHEME}{self._bucket.name}: {meaning_of(error, self._bucket)}")


@dataclass(slots=True)
class Verification:
    """Holds the result of a verification; the samples are sound when ``problems`` is empty."""

    samples: int = 0
    #: One sentence for each problem, which names the key.
    problems: list[str] = field(default_factory=list)
    #: Images without a sidecar. They are not errors: a delivery is under way, or a crash interrupted it.
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
        header = read_header(data, NoPixelLimits())
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
