"""Holds the model of one session, and replaces it between two frames when its version gets another one.

Frames that have started still run on the model before, so no further one starts until these have their
outcomes. Then the client gets ``configured``: every result before it is of the model before, and every result
after it is of the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from inference.models.model import ModelInfo
from streamer.decoding.code_reader import CodeReader
from streamer.protocol import server_messages
from streamer.protocol.server_messages import ServerMessage
from streamer.sampling.sampler import Sampler, SamplerFactory
from streamer.scheduling.clients import NOBODY, Client
from streamer.streams.session import Session, describe_model
from streamer.streams.stream_codes import StreamCodes
from streamer.streams.stream_handle import StreamHandle


class Dispatcher(Protocol):
    """The dispatcher, as far as it is used here."""

    codes: CodeReader | None

    def model(self, version: str) -> ModelInfo:
        """Return the present model of a version."""

    def charge(self, version: str, client: Client, cpu_s: float) -> None:
        """Charge a client for processor time."""


class SessionModel:
    """Knows the model that the frames of a session run on, and makes what observes its streams."""

    __slots__ = ("_dispatcher", "_names", "_samplers", "_transport", "_version", "changing", "info")

    def __init__(
        self, dispatcher: Dispatcher, samplers: SamplerFactory, transport: str, version: str
    ) -> None:
        self.info = dispatcher.model(version)
        #: Whether the streams are held for another model.
        self.changing = False
        self._dispatcher = dispatcher
        self._samplers = samplers
        self._transport = transport
        self._version = version
        #: Name of each stream by its number; None if its frames must not be kept.
        self._names: dict[int, str | None] = {}

    @property
    def is_current(self) -> bool:
        """Whether the version still has this model."""
        return self._dispatcher.model(self._version).sha256 == self.info.sha256

    def observers(
        self, number: int, name: str | None, client: Client | None
    ) -> tuple[Sampler | None, StreamCodes | None]:
        """Return the sampler and the reader of codes of a stream. ``name`` is None if it must not be kept."""
        self._names[number] = name
        sampler = (
            None if name is None else self._samplers.create(name, self._transport, self._version, self.info)
        )
        return sampler, StreamCodes.of(self._dispatcher, self._version, self.info, client or NOBODY)

    def hold(self, handles: Collection[StreamHandle]) -> None:
        """Start no further frame, because the version has another model now."""
        self.changing = True
        for handle in handles:
            handle.flow.held = True

    def resume(self, session: Session) -> None:
        """Prepare a session, whose streams open next, for the present model."""
        self.changing = False
        self.info = self._dispatcher.model(self._version)
        if session.model_sha256 not in ("", self.info.sha256):
            session.adopt(self.info)

    def change(
        self,
        session: Session,
        handles: Collection[StreamHandle],
        send_all: Callable[[list[ServerMessage]], None],
    ) -> None:
        """Change to the present model and tell the client, if streams are held and no frame is in progress.

        Call this again after each outcome, while `changing` is set. Before the streams are open, `resume`
        changes the model.
        """
        if not self.changing or not handles or not all(handle.flow.idle for handle in handles):
            return
        self.changing = False  # sending messages calls this method again
        self.info = self._dispatcher.model(self._version)
        wanted = len(session.params.class_ids)
        lost = session.adopt(self.info)
        for handle in handles:
            number = handle.flow.number
            handle.renew(*self.observers(number, self._names.get(number), handle.client))
            handle.flow.held = False
        description = describe_model(session.version, self.info)
        messages: list[ServerMessage] = [
            server_messages.configured(session.cfg, session.describe_params(), description)
        ]
        if lost:
            messages.append(server_messages.classes_lost(lost, wanted))
        send_all(messages)
