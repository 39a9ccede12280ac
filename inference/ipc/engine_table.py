"""Defines the engine table, in which the supervisor tells workers which engines serve which models.

The supervisor publishes it as JSON in a `SharedDocument`. A *generation* is the set of engines that serves
one assignment of model files to versions.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from inference.ipc.shared_document import SharedDocument

log = logging.getLogger("inference.client")

#: Size of the document; a table of 32 engines has some 5 KiB.
TABLE_BYTES = 64 << 10
#: Message on a worker's channel that tells it to read the table again.
TABLE_CHANGED = b"e"


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """Names one engine: an inference process with its device."""

    #: Its slot in the shared status.
    slot: int
    #: Its number among the engines of its generation, which metrics have as their label.
    index: int
    device: str
    #: Address to which workers connect; it survives restarts of the process.
    address: str


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """Names the model file of a version."""

    file: str
    #: None until an engine has loaded the file.
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class EngineTable:
    """Holds one generation: its number, its engines and its models."""

    generation: int
    engines: tuple[EngineEntry, ...]
    versions: Mapping[str, VersionEntry] = field(default_factory=dict)
    #: When the supervisor published it, in Unix seconds.
    changed_at: float = 0.0
    #: Random text that all workers of the replica share, and nobody else.
    secret: str = ""

    @classmethod
    def of_one(cls, address: str, *, device: str = "auto") -> EngineTable:
        """Return the table of a single engine, for programs that run without a supervisor."""
        return cls(1, (EngineEntry(0, 0, device, address),), secret=address)

    def to_json(self) -> bytes:
        """Return the text that :meth:`from_json` parses."""
        return json.dumps(
            {
                "generation": self.generation,
                "engines": [asdict(engine) for engine in self.engines],
                "versions": {version: asdict(entry) for version, entry in self.versions.items()},
                "changed_at": self.changed_at,
                "secret": self.secret,
            }
        ).encode()

    @classmethod
    def from_json(cls, text: bytes) -> EngineTable:
        """Parse a table. Raises KeyError, TypeError or ValueError for any other text."""
        found: dict[str, Any] = json.loads(text)
        return cls(
            found["generation"],
            tuple(EngineEntry(**engine) for engine in found["engines"]),
            {version: VersionEntry(**entry) for version, entry in found["versions"].items()},
            found["changed_at"],
            found["secret"],
        )


class TableReader:
    """Reads the engine table from a document, for a worker."""

    def __init__(self, document: SharedDocument) -> None:
        self._document = document
        #: Text that was read last.
        self._text = b""

    def read_changed(self) -> EngineTable | None:
        """Return the table; None if it has not changed since the last call, or does not parse."""
        text = self._document.read()
        if text is self._text or not text:
            return None
        self._text = text
        try:
            return EngineTable.from_json(text)
        except (KeyError, TypeError, ValueError):
            log.exception("the engine table does not parse")
            return None
