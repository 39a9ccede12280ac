"""Downloads models in tests: with the code of `streamer models pull`, or with the command as a process."""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from inference.models.model import Family
from streamer.core.backoff import Backoff
from streamer.model_zoo.download import UriOptions, of_uri
from streamer.model_zoo.pull import PullOptions, PullResult, pull
from streamer.model_zoo.registry import RegistryEntry
from tests.helpers.release_server import Server

BODY = random.Random(1).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
#: Few attempts, but a long stall time-out: on a busy machine even a local socket may be slow.
QUICK = PullOptions(stall_s=60.0, tries=3)


@dataclass
class Report:
    """Collects the lines that ``pull`` would show on a terminal."""

    lines: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def status(self, text: str) -> None:
        self.statuses.append(text)

    def transfer(self, name: str, done: int, total: int | None) -> None:
        self.statuses.append(f"{name}: {done} of {total}")


def entry_of(server: Server, *, sha256: str | None = "", size: int | None = len(BODY)) -> RegistryEntry:
    """Return a registry entry for the served file; an empty ``sha256`` means the file's true checksum."""
    return RegistryEntry(
        name="tiny",
        title="Tiny",
        family=Family.YOLO,
        input=(64, 64),
        classes=1,
        licence="Apache-2.0",
        url=server.url,
        source="https://host/page",
        sha256=server.sha256 if sha256 == "" else sha256,
        size=size,
        manifest={"batch_max": 1},
    )


async def get(
    entry: RegistryEntry, folder: Path, options: PullOptions = QUICK, report: Report | None = None
) -> PullResult:
    no_wait = Backoff(uniform=lambda low, high: 0.0)
    return await pull(entry, folder, report or Report(), options, no_wait)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "streamer",
        "models",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finish(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    out, error = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    return process.returncode, out.decode(), error.decode()


async def get_uri(
    uri: str,
    folder: Path,
    options: UriOptions | None = None,
    *,
    trust: bool = False,
    force: bool = False,
    report: Report | None = None,
) -> PullResult:
    """Pull an address, as the command does, but with two attempts and without pauses."""
    no_wait = Backoff(uniform=lambda low, high: 0.0)
    options = replace(options or UriOptions(), stall_s=60.0, tries=2)
    download = await of_uri(uri, folder, options, no_wait)
    wanted = replace(QUICK, trust=trust, force=force, sha256=options.sha256, tls=options.tls)
    return await pull(download, folder, report or Report(), wanted, no_wait)
