"""Holds detect.v1 sessions, whose parameters, streams and trackers outlive the connection. Pure."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, NamedTuple

from inference.core.detection_params import DetectionParams
from inference.models.model import ModelInfo
from streamer.protocol.client_messages import Hello, Params, codec_of, resolve_params
from streamer.protocol.server_messages import EffectiveParams, ModelDescription, SessionDescription
from streamer.protocol.wire import IMAGE_CODECS, ProtocolError
from streamer.streams.flow_control import FlowControl
from streamer.streams.tracker import Tracker

#: Maximum number of sessions that are kept after their sockets were lost. When there are more, the oldest
#: session of an owner with the most sessions is removed.
MAX_KEPT_SESSIONS = 1000


class UnsupportedCodec(ProtocolError):
    """The codec exists in ``detect.v1`` but not on this server; the connection is closed with 4406."""


class StreamPosition(NamedTuple):
    """Holds the last sequence number of a stream, and the number up to which its frames have outcomes."""

    last_seq: int
    ack: int


@dataclass(slots=True)
class Session:
    """Holds the state of one session. It outlives its connection, so that a client can resume it."""

    version: str
    labels: tuple[str, ...]
    params: DetectionParams
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    #: `Identity.owner` of the client that created it; no other client may resume it.
    owner: str = ""
    #: Number that the client gave its last configuration.
    cfg: int = 0
    track: bool = False
    streams: dict[int, FlowControl] = field(default_factory=dict)
    trackers: dict[int, Tracker] = field(default_factory=dict)
    #: Positions of the streams in the process that held the session before, by stream id.
    marks: dict[int, StreamPosition] = field(default_factory=dict)
    #: Default parameters and digest of its model; None and empty if they are not known.
    defaults: DetectionParams | None = None
    model_sha256: str = ""
    #: When its client was last asked to move to another replica, as Unix time; 0 if it never was.
    moved_at: float = 0.0

    @classmethod
    def of(cls, version: str, model: ModelInfo, **rest: Any) -> Session:
        """Create a session with the default parameters of the model; ``rest`` sets other fields."""
        defaults = model.default_params
        return cls(version, model.labels, defaults, defaults=defaults, model_sha256=model.sha256, **rest)

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], version: str, labels: tuple[str, ...], new_id: str
    ) -> Session:
        """Continue a session of another process, from the state that :meth:`to_state` made, under a new id.

        Raises ValueError if its classes are not ``labels``. Raises KeyError, TypeError or ValueError if the
        state has another form.
        """
        if tuple(state["labels"]) != labels:
            raise ValueError("its model has other classes")
        params = DetectionParams(**{**state["params"], "class_ids": tuple(state["params"]["class_ids"])})
        return cls(
            version,
            labels,
            params,
            id=new_id,
            cfg=int(state["cfg"]),
            track=bool(state["track"]),
            trackers={int(number): Tracker.from_state(each) for number, each in state["trackers"].items()},
            marks={int(number): StreamPosition(*map(int, each)) for number, each in state["marks"].items()},
            moved_at=float(state.get("moved_at", 0.0)),  # replicas of an earlier release omit it
        )

    def to_state(self) -> dict[str, Any]:
        """Return, in a form for JSON, what another process needs to continue the session."""
        standing = self.marks | {
            number: StreamPosition(stream.last_seq, stream.ack) for number, stream in self.streams.items()
        }
        return {
            "labels": list(self.labels),
            "params": asdict(self.params),
            "cfg": self.cfg,
            "track": self.track,
            "trackers": {number: tracker.to_state() for number, tracker in self.trackers.items()},
            "marks": standing,
            "moved_at": self.moved_at,
        }

    def check(self, hello: Hello) -> None:
        """Check a ``hello`` before an older connection of the session is closed in its favour.

        Raises ProtocolError for a duplicate id, or an unknown codec or class. Raises UnsupportedCodec for
        video.
        """
        resolve_params(hello.params, self.params, self.labels)
        numbers: set[int] = set()
        for index, offer in enumerate(hello.streams):
            if offer.id in numbers:
                raise ProtocolError(
                    f"field `streams[{index}].id` is {offer.id}, which another stream has already",
                    code="invalid",
                    field=f"streams[{index}].id",
                )
            codec = codec_of(offer.codec, f"streams[{index}].codec")
            if codec not in IMAGE_CODECS:
                raise UnsupportedCodec(
                    f"field `streams[{index}].codec` is {offer.codec!r}; "
                    f"this server takes {', '.join(codec.name.lower() for codec in IMAGE_CODECS)}",
                    code="unsupported_codec",
                    field=f"streams[{index}].codec",
                )
            numbers.add(offer.id)

    def open_streams(self, hello: Hello) -> None:
        """Create the streams of a checked ``hello``, continuing those of an earlier connection."""
        streams: dict[int, FlowControl] = {}
        acks = (hello.resume and hello.resume.acks) or {}
        for offer in hello.streams:
            stream = FlowControl(offer.id, mode=offer.mode, fps=offer.fps)
            before = self.streams.get(offer.id) or self.marks.get(offer.id)
            if before is not None:
                # In mode `all` the client sends every frame again whose outcome it has not received.
                seen = before.last_seq if offer.mode == "live" else acks.get(offer.id, before.ack)
                stream.last_seq = min(seen, before.last_seq)
            streams[offer.id] = stream
        self.streams = streams

    def configure(self, params: Params) -> None:
        """Change parameters. Raises ProtocolError if the model does not have one of the classes."""
        self.params = resolve_params(params, self.params, self.labels)
        if params.track is not None:
            self.track = params.track
            if not self.track:
                self.trackers.clear()

    def adopt(self, model: ModelInfo) -> tuple[str, ...]:
        """Continue with another model, and return the labels that its client asked for and that it lacks.

        Parameters that had the default of the model before get that of ``model``. Tracks end, because the two
        models place boxes differently; ids continue.
        """
        params, lost = self.params.for_labels(self.labels, model.labels)
        before, now = self.defaults, model.default_params
        if before is not None:
            untouched = [
                each.name
                for each in fields(params)
                if each.name != "class_ids" and getattr(params, each.name) == getattr(before, each.name)
            ]
            params = replace(params, **{name: getattr(now, name) for name in untouched})
        self.params, self.labels = params, model.labels
        self.defaults, self.model_sha256 = now, model.sha256
        for tracker in self.trackers.values():
            tracker.reset()
        return lost

    def describe_params(self) -> EffectiveParams:
        """Return the parameters in effect, as ``welcome`` and ``configured`` state them."""
        return {
            "conf_threshold": self.params.conf_threshold,
            "iou_threshold": self.params.iou_threshold,
            "max_detections": self.params.max_detections,
            "classes": [self.labels[number] for number in self.params.class_ids],
            "agnostic_nms": self.params.agnostic_nms,
            "track": self.track,
        }

    def tracker(self, stream: int) -> Tracker:
        """Return the stream's tracker, which is created on first use."""
        return self.trackers.setdefault(stream, Tracker())


def describe_session(session: Session, model: ModelInfo, *, resumed: bool) -> SessionDescription:
    """Return the description of a session that the server sends to its client."""
    return {
        "session": session.id,
        "resumed": resumed,
        "model": describe_model(session.version, model),
        "params": session.describe_params(),
    }


def describe_model(version: str, model: ModelInfo) -> ModelDescription:
    """Return the description of the model that serves ``version``, for clients."""
    return {
        "version": version,
        "name": model.name,
        "labels": list(model.labels),
        "input": [model.input_width, model.input_height],
    }


class SessionStore:
    """Keeps sessions for a while after their sockets were lost, so that clients can resume them."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        #: The session and its expiry in monotonic seconds, by session id; oldest first.
        self._kept: OrderedDict[str, tuple[Session, float]] = OrderedDict()
        #: Ids of the sessions of each owner; oldest first.
        self._by_owner: dict[str, OrderedDict[str, None]] = {}
        #: Owners by their number of sessions, so that an owner with the most is found without a search.
        self._by_count: dict[int, dict[str, None]] = {}
        self._most = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, session: Session, now: float) -> None:
        """Keep a session whose socket is gone."""
        self._forget(session.id)
        self._kept[session.id] = (session, now + self._keep_s)
        ids = self._by_owner.setdefault(session.owner, OrderedDict())
        ids[session.id] = None
        self._counted(session.owner, len(ids) - 1, len(ids))
        if len(self._kept) > MAX_KEPT_SESSIONS:
            # Forget the oldest session of an owner with the most sessions, so that no owner can displace the
            # sessions of others by opening many.
            owner = next(iter(self._by_count[self._most]))
            self._forget(next(iter(self._by_owner[owner])))

    def _forget(self, session_id: str) -> None:
        kept = self._kept.pop(session_id, None)
        if kept is None:
            return
        owner = kept[0].owner
        ids = self._by_owner[owner]
        del ids[session_id]
        self._counted(owner, len(ids) + 1, len(ids))
        if not ids:
            del self._by_owner[owner]

    def _counted(self, owner: str, before: int, count: int) -> None:
        """Record that an owner has ``count`` sessions, one more or one less than ``before``."""
        if before:
            del self._by_count[before][owner]
            if not self._by_count[before]:
                del self._by_count[before]
        if count:
            self._by_count.setdefault(count, {})[owner] = None
        # A count changes by one. If it was the only one at the maximum, the new count is the maximum.
        if count > self._most or (before == self._most and before not in self._by_count):
            self._most = count

    def take(self, session_id: str, version: str, owner: str, now: float) -> Session | None:
        """Remove and return a session; None if it is unknown, expired, or of another version or owner."""
        kept = self._kept.get(session_id)
        if kept is None or kept[1] < now or (kept[0].version, kept[0].owner) != (version, owner):
            return None
        self._forget(session_id)
        return kept[0]

    def expire(self, now: float) -> None:
        """Remove expired sessions."""
        while self._kept:
            session_id, (_, until) = next(iter(self._kept.items()))
            if until >= now:
                return
            self._forget(session_id)
