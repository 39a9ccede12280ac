"""Holds options of a connection and parameters of detection, and checks them before anything is sent."""

from __future__ import annotations

import ssl
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

from streamer.client.encoder import DEFAULT_QUALITY
from streamer.client.errors import BadInput


@dataclass(frozen=True, slots=True)
class Tls:
    """How to check the certificate of the server."""

    #: PEM file of the certificate authority to trust, instead of those of the system.
    ca_file: str | None = None
    #: Whether to accept any certificate.
    insecure: bool = False

    def context(self) -> ssl.SSLContext | bool:
        """Return the value of aiohttp's parameter ``ssl``. Raises BadInput when the file cannot be used."""
        if self.insecure:
            return False
        if self.ca_file is None:
            return True
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise BadInput(f"certificate file {self.ca_file}: {error}") from error


MODES = ("live", "all")
MAX_NAME_CHARS = 100


@dataclass(frozen=True, slots=True)
class Options:
    """How frames are sent, and how long to wait for the server."""

    #: JPEG quality for frames that are arrays, 1..100.
    quality: int = DEFAULT_QUALITY
    #: Longest side in pixels to which the client reduces larger frames. Boxes are in pixels of the original
    #: frame nevertheless.
    max_side: int | None = None
    #: Frame rate that the client announces to the server; None when it is unknown.
    fps: float | None = None
    connect_timeout_s: float = 10.0
    #: Seconds without a connection, from the start or from a loss, after which the stream ends with an error.
    #: None means no limit, and 0 a single attempt.
    give_up_after_s: float | None = 30.0
    #: Name under which the service stores samples of this stream; may be empty. Use the same name for a
    #: camera each time.
    stream: str = ""
    tls: Tls = field(default_factory=Tls)

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise BadInput(f"quality is {self.quality}; allowed are 1 to 100")
        if self.max_side is not None and self.max_side < 16:
            raise BadInput(f"max_side is {self.max_side}; allowed are 16 pixels and more")
        if len(self.stream) > MAX_NAME_CHARS:
            raise BadInput(f"stream is {len(self.stream)} characters; allowed are {MAX_NAME_CHARS}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise BadInput(f"fps is {self.fps}; allowed is more than 0, up to 1000")


@dataclass(frozen=True, slots=True)
class Params:
    """Detection parameters of a stream or request. None leaves a parameter at the server's value.

    Raises BadInput, which names the wrong value.
    """

    #: Lowest score of a box, 0..1.
    conf_threshold: float | None = None
    #: Overlap above which non-maximum suppression removes the weaker box, 0..1.
    iou_threshold: float | None = None
    #: Labels or class ids of the boxes to keep; an empty sequence keeps all boxes.
    classes: Sequence[str | int] | None = None
    #: Largest number of boxes per frame, 1..1000.
    max_detections: int | None = None
    #: Whether boxes get a ``track_id``; streams only.
    track: bool | None = None
    #: Whether boxes of different classes suppress each other, too.
    agnostic_nms: bool | None = None

    def __post_init__(self) -> None:
        for name in ("conf_threshold", "iou_threshold"):
            check_share(name, getattr(self, name))
        if self.max_detections is not None and not 1 <= self.max_detections <= 1000:
            raise BadInput(f"max_detections is {self.max_detections!r}; allowed are 1 to 1000")
        if self.classes is not None:
            _check_classes(self.classes)

    def merged(self, changes: Params) -> Params:
        """Return these parameters, replaced by those of ``changes`` that are not None."""
        stated = {f.name: getattr(changes, f.name) for f in fields(self)}
        return replace(self, **{name: value for name, value in stated.items() if value is not None})

    def to_wire(self) -> dict[str, Any]:
        """Return the map for ``hello.params`` and ``configure.params``."""
        wire: dict[str, Any] = {}
        for name in ("conf_threshold", "iou_threshold"):
            if (value := getattr(self, name)) is not None:
                wire[name] = float(value)
        if self.max_detections is not None:
            wire["max_detections"] = int(self.max_detections)
        if self.classes is not None:
            wire["classes"] = [item if isinstance(item, str) else int(item) for item in self.classes]
        if self.agnostic_nms is not None:
            wire["agnostic_nms"] = bool(self.agnostic_nms)
        if self.track is not None:
            wire["track"] = bool(self.track)
        return wire

    def to_query(self) -> list[tuple[str, str]]:
        """Return the query of a predict request, which has no ``track``."""
        wire = self.to_wire()
        classes = wire.pop("classes", ())
        wire.pop("track", None)
        return [
            *((name, str(int(v) if isinstance(v, bool) else v)) for name, v in wire.items()),
            *(("classes", str(c)) for c in classes),
        ]


def check_share(name: str, value: Any) -> None:
    """Raise BadInput, which names the parameter, unless ``value`` is None or a number from 0 to 1."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise BadInput(f"{name} is {value!r}; allowed is a number from 0 to 1")


def _check_classes(classes: Any) -> None:
    if isinstance(classes, str):
        raise BadInput(f"classes is the text {classes!r}; give a list of labels or class ids")
    # A generator could be read only once, but the client sends the parameters on each new connection.
    if not isinstance(classes, Collection):
        raise BadInput(f"classes is {classes!r}; give a list of labels or class ids")
    for item in classes:
        if isinstance(item, bool) or not isinstance(item, str | Integral) or item == "":
            raise BadInput(
                f"classes contains {item!r}; allowed are labels such as 'person' and whole numbers"
            )
        if isinstance(item, Integral) and item < 0:
            raise BadInput(f"classes contains {item!r}; class ids start at 0")


class Control:
    """Keeps the requested and the effective parameters of a stream across its connections."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.paused = False
        #: Parameters in effect, as the server states them; empty before the first welcome.
        self.effective: Mapping[str, Any] = {}
        #: Numbers of the newest ``configure`` requested, and of the newest that the server has confirmed.
        self._requested = 0
        self._confirmed = 0
        #: The server's message when it refused the newest ``configure``, else None.
        self.refusal: str | None = None

    def change(self, changes: Params) -> int:
        """Store ``changes``, which the caller sends next; return the number of the ``configure`` message."""
        self.params = self.params.merged(changes)
        self.refusal = None
        self._requested += 1
        return self._requested

    def configure_message(self) -> dict[str, Any]:
        """Return the ``configure`` message with the newest parameters."""
        return {"type": "configure", "cfg": self._requested, "params": self.params.to_wire()}

    def pause_message(self, *, paused: bool) -> dict[str, Any]:
        """Store whether the stream is paused, and return the message that tells the server."""
        self.paused = paused
        return {"type": "pause" if paused else "resume", "stream": 0}

    def replay(self) -> list[dict[str, Any]]:
        """Return the messages to send after the hello so that a new connection has the stream's state."""
        messages = [self.configure_message()] if self._requested else []
        return [*messages, self.pause_message(paused=True)] if self.paused else messages

    def decided(self, number: int) -> bool:
        """Whether the server has confirmed or refused the change ``number``."""
        return self._confirmed >= number or self.refusal is not None

    def in_effect(self, number: int) -> bool:
        """Whether the server has confirmed the change ``number``."""
        return self._confirmed >= number

    def welcomed(self, message: Mapping[str, Any]) -> None:
        """Store the parameters of a welcome."""
        self.effective = message.get("params", {})

    def received(self, message: Mapping[str, Any]) -> None:
        """Store what a ``configured`` or an error that refuses a change says; ignore other messages."""
        if message["type"] == "configured":
            self._confirmed = max(self._confirmed, int(message.get("cfg", 0)))
            self.effective = message.get("params", {})
        elif message["type"] == "error" and self._confirmed < self._requested:
            about_params = str(message.get("field", "")).startswith("params")
            if about_params or message.get("code") == "rate_limited":
                self.refusal = str(message.get("message", "refused"))
