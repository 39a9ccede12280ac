"""Prepares the environment of child processes: variables, sealed settings, and a limit for core dumps.

Every process of the same user can read `/proc/PID/environ`, including a compromised decoder. Therefore no
secret is passed in the environment. Workers and the sampling process read their settings from a sealed memory
file whose descriptor they inherit; the inference process gets no settings and no descriptor.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import resource
from collections.abc import Mapping
from pathlib import Path

from streamer.config.settings import Settings

#: Variable with the number of the descriptor from which the child reads its settings.
_DESCRIPTOR = "STREAMER_SETTINGS_FD"
#: Names of variables that contain secrets; settings are excluded by their own names. The pattern does not
#: match `PWD` itself, which is the working directory.
_SECRET_NAME = re.compile(
    r"KEY|SECRET|TOKEN|PASS|CREDENTIAL|AUTH|SIGNATURE|WEBHOOK|CONN(?:ECTION)?_?STR"
    r"|_(?:PWD|PAT|SAS|DSN|JWT|COOKIE)(?:_|$)|^(?:DSN|JWT)$|OTLP_(?:\w+_)?HEADERS$",
    re.IGNORECASE,
)
#: Names that match the pattern although their values are only paths of key files, with which a process
#: authenticates to a collector.
_PATH_NAMES = frozenset(("OTEL_EXPORTER_OTLP_CLIENT_KEY", "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY"))
#: A user name or password in an address, such as a proxy address; a password may contain a slash.
_SECRET_VALUE = re.compile(r"://[^\s@]+@")

#: Variables of every child, set before it starts: glibc (the first three) and OpenCV read theirs only once.
_TUNING = {
    # Otherwise glibc returns freed frame buffers to the kernel and must get fresh pages for every frame. With
    # a model that does nothing, a frame then costs 2.6 times as much (bench/throughput.py).
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    # With an arena for each thread, glibc would keep memory that no other thread can reuse.
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    # Frames are decoded in parallel, so splitting one resize over threads would only add overhead.
    "OPENCV_FOR_THREADS_NUM": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_OPENCL_RUNTIME": "disabled",
}


class ChildEnvironment:
    """Holds variables and descriptors for the children of one role."""

    def __init__(self, limits: Settings, settings: Settings | None, *, credentials: bool = False) -> None:
        """Take OpenCV's limits on images from ``limits``, and pass ``settings`` to the children.

        If ``settings`` is None, they inherit no descriptor. With ``credentials`` they get the variables that
        are needed to reach the store.
        """
        self._limits = limits
        self._credentials = credentials
        self._fd = None if settings is None else _sealed(settings.model_dump_json().encode())

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Descriptors that the child must inherit."""
        return () if self._fd is None else (self._fd,)

    @property
    def variables(self) -> dict[str, str]:
        """The complete environment of the child."""
        side_px = self._limits.image_max_side
        pixels = max(self._limits.image_max_pixels, self._limits.stream_max_pixels)
        found = without_secrets(os.environ, credentials=self._credentials) | _TUNING
        found |= {
            # A second limit, in addition to our own check of headers: OpenCV's defaults allow gigabytes.
            "OPENCV_IO_MAX_IMAGE_WIDTH": str(side_px),
            "OPENCV_IO_MAX_IMAGE_HEIGHT": str(side_px),
            "OPENCV_IO_MAX_IMAGE_PIXELS": str(pixels),
        }
        if self._fd is not None:
            found[_DESCRIPTOR] = str(self._fd)
        return found

    def close(self) -> None:
        """Close the memory file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def without_secrets(environment: Mapping[str, str], *, credentials: bool = False) -> dict[str, str]:
    """Return the variables that may be passed to children: neither settings of the service nor secrets.

    With ``credentials``, keep the variables of AWS and the addresses of proxies, which the store needs.
    """
    found = {}
    for name, value in environment.items():
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            if credentials:
                found[name] = value
        elif name.lower() not in Settings.model_fields and not _is_secret(name, value):
            found[name] = value
    return found


def inherited_settings() -> Settings:
    """Return the settings that the supervisor passes to this child; the environment is ignored."""
    fd = int(os.environ.pop(_DESCRIPTOR))
    document = os.pread(fd, os.fstat(fd).st_size, 0)
    os.close(fd)
    kept = dict(os.environ)
    os.environ.clear()
    try:
        return Settings.model_validate_json(document)
    finally:
        os.environ.update(kept)


def wipe_own_secrets() -> None:
    """Overwrite the secrets in the memory that `/proc/self/environ` shows; `os.environ` keeps its copies.

    The supervisor calls this. It does nothing if the kernel does not reveal the address of that memory.
    """
    try:
        # Read fields 50 and 51. Split after the second field, the program name, which may contain spaces.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[47]), int(fields[48])
    except (OSError, ValueError, IndexError):
        return
    if not 0 < start < end:
        return
    place = start
    for entry in ctypes.string_at(start, end - start).split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals and _is_secret(name.decode(errors="replace"), value.decode(errors="replace")):
            ctypes.memset(place + len(name) + 1, ord("*"), len(value))
        place += len(entry) + 1


def forbid_core_dumps() -> None:
    """Prevent core dumps of this process and its children, which would contain keys and frames.

    A limit of one byte is too small for any dump to a file. If dumps are piped into a program, the kernel
    ignores a limit of 0, and a limit of 1 makes it refuse the dump.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def _is_secret(name: str, value: str) -> bool:
    return bool((name not in _PATH_NAMES and _SECRET_NAME.search(name)) or _SECRET_VALUE.search(value))


def _sealed(document: bytes) -> int:
    """Return a descriptor of a memory file that cannot be changed."""
    fd = os.memfd_create("settings", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, document)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd
