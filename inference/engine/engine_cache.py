"""Keeps TensorRT's engines in a folder that replicas may share.

An engine fits one model on one kind of GPU, built by one version of the libraries. onnxruntime names its
files by the graph and not by the weights, and writes them in place. So each combination has a folder of its
own here, onnxruntime works in a private copy of it, and each new file is published by renaming it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

log = logging.getLogger("inference.engine")

#: Folder of private copies below the cache.
_IN_USE = ".in-use"
#: Name of the file that states what the engines of a folder fit.
_KEY_FILE = "key.json"
#: Age in seconds from which an unlocked private copy of another machine is removed: longer than any build,
#: because on some network file systems locks do not hold between machines.
_STALE_S = 86_400.0
#: Attributes of CUDA's driver interface.
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76
_NAME_BYTES = 256


@dataclass(frozen=True, slots=True)
class Platform:
    """States what determines whether an engine fits, apart from the model."""

    gpu: str
    #: Compute capability, such as ``8.9``.
    compute_capability: str
    #: Number of multiprocessors: parts of one GPU (MIG) differ in it.
    multiprocessors: int
    tensorrt: str
    onnxruntime: str


def read_platform(onnxruntime: str) -> Platform | None:
    """Return the platform of this process, with this version of ONNX Runtime.

    Returns None if the driver or TensorRT does not tell the rest.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        tensorrt = ctypes.CDLL("libnvinfer.so.10").getInferLibVersion()
        device, name = ctypes.c_int(0), ctypes.create_string_buffer(_NAME_BYTES)
        found = [ctypes.c_int(0) for _ in range(3)]
        status = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0)
        status = status or driver.cuDeviceGetName(name, _NAME_BYTES, device)
        for value, attribute in zip(found, (_MULTIPROCESSORS, _MAJOR, _MINOR), strict=True):
            status = status or driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    except (OSError, AttributeError):
        return None
    if status:
        return None
    multiprocessors, major, minor = (value.value for value in found)
    return Platform(
        name.value.decode(errors="replace"),
        f"{major}.{minor}",
        multiprocessors,
        str(tensorrt),
        onnxruntime,
    )


@dataclass(frozen=True, slots=True)
class EngineKey:
    """States what an engine fits."""

    platform: Platform
    #: Hex digest of the model file, which includes its weights and their precision.
    model_sha256: str
    #: Smallest and largest shapes of the inputs; None for a model of fixed shapes.
    profile: tuple[str, str] | None
    #: Precision in which TensorRT may compute beyond that of the file.
    precision: str = "as the model"

    @property
    def folder_name(self) -> str:
        """Name of the folder: readable parts, and a digest of everything."""
        gpu = re.sub(r"[^a-z0-9]+", "-", self.platform.gpu.lower()).strip("-")[:40]
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:16]
        return f"{gpu}-sm{self.platform.compute_capability}-{self.model_sha256[:12]}-{digest}"

    @property
    def text(self) -> str:
        """The key as JSON."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)


@dataclass(frozen=True, slots=True)
class EngineSource:
    """Says which engines a model needs, and where they are kept."""

    #: Folder that keeps engines; None keeps none.
    cache: Path | None
    model_sha256: str
    profile: tuple[str, str] | None

    def open(self, onnxruntime: str) -> EngineFolder | None:
        """Return the engines that fit, for this version of ONNX Runtime; None if none are kept."""
        if self.cache is None:
            return None
        platform = read_platform(onnxruntime)
        if platform is None:
            log.warning("engines are not kept: the driver or TensorRT does not tell which ones would fit")
            return None
        return EngineFolder.open(self.cache, EngineKey(platform, self.model_sha256, self.profile))


class EngineFolder:
    """Gives onnxruntime a private folder (`path`) with the engines of a key, until this process ends."""

    def __init__(self, published: Path, path: Path, lock: int) -> None:
        self._published = published
        self.path = path
        #: Descriptor that shows other processes that the folder is in use, until this process ends.
        self._lock = lock
        #: Size and time of the files that were published when the folder was made.
        self._known: dict[str, tuple[int, int]] = {}

    @classmethod
    def open(cls, cache: Path, key: EngineKey) -> Self | None:
        """Return a private folder with the published engines; None, with a warning, if it cannot be made."""
        published = cache / key.folder_name
        path = cache / _IN_USE / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            _remove_stale(cache / _IN_USE)
            path.mkdir(parents=True)
            lock = _lock(path)
            folder = cls(published, path, lock)
            published.mkdir(exist_ok=True)
            _write(published / _KEY_FILE, key.text.encode())
            for file in _files(published):
                shutil.copyfile(file, path / file.name)
                folder._known[file.name] = _state(path / file.name)
        except OSError as error:
            log.warning("ENGINE_CACHE_DIR=%s cannot be used (%s), so engines are not kept", cache, error)
            return None
        _opened.append(folder)
        log.info(
            "TensorRT's engines are in %s: %s",
            published,
            f"{len(folder._known)} files of an earlier build" if folder._known else "none yet",
        )
        return folder

    @property
    def has_engines(self) -> bool:
        """Whether there were published files."""
        return bool(self._known)

    def publish(self) -> None:
        """Publish files that were written since, each at once complete; another replica may do the same."""
        try:
            for file in _files(self.path):
                if self._known.get(file.name) != _state(file):
                    _write(self._published / file.name, file)
                    self._known[file.name] = _state(file)
        except OSError as error:
            log.warning("TensorRT's engines cannot be kept in %s: %s", self._published, error)

    def reject(self) -> None:
        """Remove the copies, which TensorRT cannot load. What it builds in their place is published."""
        for name in self._known:
            (self.path / name).unlink(missing_ok=True)
        self._known.clear()


#: The folders of this process, one for each model.
_opened: list[EngineFolder] = []


def publish_engines() -> None:
    """Publish all engines that this process has built and not published yet."""
    for folder in _opened:
        folder.publish()


def _files(folder: Path) -> list[Path]:
    """Return the engines and timing caches in a folder, without temporary files."""
    return sorted(
        each
        for each in folder.iterdir()
        if each.is_file() and not each.name.startswith(".") and each.name != _KEY_FILE
    )


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _write(target: Path, content: bytes | Path) -> None:
    """Write a file so that it is complete or absent, also for other processes and after a crash."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
    try:
        with temporary.open("xb") as stream:
            if isinstance(content, Path):
                with content.open("rb") as source:
                    shutil.copyfileobj(source, stream, 1 << 20)
            else:
                stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _lock(path: Path) -> int:
    """Create and lock the file that shows that a private folder is in use; return its descriptor."""
    descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _remove_stale(folder: Path) -> None:
    """Remove private folders that no process uses any more."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        own = path.name.startswith(f"{socket.gethostname()}-")
        with contextlib.suppress(OSError):
            if not own and time.time() - path.stat().st_mtime < _STALE_S:
                continue
            descriptor = os.open(path / ".lock", os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)
