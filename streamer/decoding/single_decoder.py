"""Runs one sandboxed decoder for the sampling process, which decodes seldom and waits for each result."""

from __future__ import annotations

import array
import itertools
import json
import logging
import mmap
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.models.model import Placement
from streamer.decoding.decode_job import decode_timeout_error, decoder_crash_error, outcome_of
from streamer.decoding.decoder_group import DecoderGroup, DecoderProcess
from streamer.decoding.decoder_watchdog import DECODE_CPU_LIMIT_S
from streamer.decoding.fork_client import FORK_SERVER, start_fork_server
from streamer.decoding.messages import (
    MAX_MESSAGE_BYTES,
    Answer,
    Job,
    MalformedMessage,
    Task,
    Verdict,
    pack_job,
    unpack_answer,
)
from streamer.imaging.image_header import ImageError, PixelLimits, read_header

log = logging.getLogger("streamer.decoding")

_INPUT_BYTES = 64 << 20
_MEMORY_BYTES = 512 << 20
#: Seconds within which the libraries must load; at low priority on a busy machine that takes long.
_START_LIMIT_S = 120.0
#: A decoder that uses no processor time for this many seconds was stopped or waits for something.
_STOPPED_S = 5.0
_POLL_S = 0.25

Image = npt.NDArray[np.uint8]


class DecoderUnavailable(OSError):
    """No decoder can be started now."""


@dataclass(slots=True)
class _Decoder:
    """Holds a running decoder and its fork server."""

    server: subprocess.Popen[bytes]
    control: socket.socket
    group: DecoderGroup
    process: DecoderProcess

    def close(self) -> None:
        self.server.kill()
        self.server.wait()
        self.control.close()
        self.group.close()


class SingleDecoder:
    """Decodes one image at a time in one sandboxed decoder, and starts another one after a fault.

    Call ``prepare`` before each image, then ``decode``; call ``close`` at the end. `decode` calls ``waiting``
    several times a second while it waits, so that the caller can show that it does not hang.
    """

    def __init__(
        self,
        limits: PixelLimits,
        module: str = FORK_SERVER,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self._limits = limits
        self._waiting = waiting
        self._module = module
        self._numbers = itertools.count(1)
        #: None before the first image, and after a fault.
        self._decoder: _Decoder | None = None

    @property
    def ready(self) -> bool:
        """Whether a decoder runs; after a fault none does."""
        return self._decoder is not None

    def prepare(self) -> None:
        """Start a decoder if none runs. This takes a while, so do not call it on an event loop.

        Raises DecoderUnavailable.
        """
        if self._decoder is None:
            self._decoder = _start(self._module)

    def decode(self, data: bytes, *, rotation: int, target: tuple[int, int] | None) -> Image:
        """Return the image upright as uint8 BGR (height, width, 3), at least as large as ``target``.

        ``target`` is width and height in pixels; None means full size. Waits for some seconds at most. Raises
        ImageError, or DecoderUnavailable.
        """
        header = read_header(data, self._limits)
        decoder = self._decoder
        if decoder is None:
            raise DecoderUnavailable("no decoder runs")
        room = header.width * header.height * 3
        memory_fd = os.memfd_create("decoded-image", os.MFD_CLOEXEC)
        try:
            os.ftruncate(memory_fd, room)
            offset = decoder.group.arena.put(data)
            width, height = target or (header.width, header.height)
            job = Job(
                Task.PIXELS,
                next(self._numbers),
                offset,
                len(data),
                rotation,
                0,
                Placement.STRETCH,
                0,
                min(width, 0xFFFF),
                min(height, 0xFFFF),
                self._limits.image_px,
                self._limits.image_side_px,
                self._limits.reducible_px,
                self._limits.decode_bytes,
            )
            socket.send_fds(decoder.group.channel, [pack_job(job)], [memory_fd])
            try:
                answer = self._wait(decoder, job.number)
            finally:
                if self._decoder is decoder:  # otherwise the decoder was closed, and its memory is freed
                    decoder.group.arena.free(offset, len(data))
            return _pixels(memory_fd, answer, room)
        finally:
            os.close(memory_fd)

    def close(self) -> None:
        """End the decoder and its fork server."""
        decoder, self._decoder = self._decoder, None
        if decoder is not None:
            decoder.close()

    def _wait(self, decoder: _Decoder, number: int) -> Answer:
        """Return the answer to a job.

        Raises ImageError if the image is refused. If no valid answer comes in time, closes the decoder and
        raises ImageError. Raises DecoderUnavailable if the decoder reports a fault of its own.
        """
        channel = decoder.group.channel.fileno()
        ready = self._await_answer(decoder, channel)
        try:
            if channel in ready:
                answer = unpack_answer(decoder.group.channel.recv(MAX_MESSAGE_BYTES))
                if answer.number == number:
                    return _good(answer)
        except MalformedMessage as error:
            log.error("replacing the decoder: it sent %s", error)  # noqa: TRY400 - says it all
        self.close()
        raise decoder_crash_error() if ready else decode_timeout_error()

    def _await_answer(self, decoder: _Decoder, channel: int) -> list[int]:
        """Return which of the channel and the decoder's pidfd are readable, none at the time limit."""
        process = decoder.process
        begun_s = last_s = process.cpu_s()
        moved_at = time.monotonic()
        while True:
            ready, _, _ = select.select([channel, process.watch], [], [], _POLL_S)
            self._waiting()
            now, used_s = time.monotonic(), process.cpu_s()
            if used_s != last_s:
                last_s, moved_at = used_s, now
            if ready or used_s - begun_s > DECODE_CPU_LIMIT_S or now - moved_at > _STOPPED_S:
                return ready


def _good(answer: Answer) -> Answer:
    outcome = outcome_of(answer)
    if isinstance(outcome, ImageError):
        raise outcome
    if isinstance(outcome, Exception):
        raise DecoderUnavailable(str(outcome))
    return outcome


def _pixels(memory_fd: int, answer: Answer, room: int) -> Image:
    size = answer.width * answer.height * 3
    if size > room:
        raise decoder_crash_error()
    # The array keeps the mapping alive; a copy would take as much memory again.
    memory = mmap.mmap(memory_fd, room, prot=mmap.PROT_READ)
    return np.frombuffer(memory, np.uint8, size).reshape(answer.height, answer.width, 3)


def _start(module: str) -> _Decoder:
    """Start a fork server and one decoder, and wait until it is ready. Raises DecoderUnavailable."""
    try:
        server, ours = start_fork_server(module)
    except OSError as error:
        raise DecoderUnavailable(f"no decoder could be started: {error}") from error
    group = DecoderGroup(_INPUT_BYTES)
    process = group.add(1)
    decoder = _Decoder(server, ours, group, process)
    try:
        ours.settimeout(_START_LIMIT_S)
        group.channel.settimeout(_START_LIMIT_S)
        request = {"key": 1, "index": 0, "memory_bytes": _MEMORY_BYTES}
        socket.send_fds(ours, [json.dumps(request).encode()], group.descriptors)
        news, ancillary, _, _ = ours.recvmsg(MAX_MESSAGE_BYTES, socket.CMSG_SPACE(4))
        descriptors = array.array("i")
        for _, _, payload in ancillary:
            descriptors.frombytes(payload[:4])
        process.pid, process.watch = json.loads(news)["pid"], descriptors[0]
        answer = unpack_answer(group.channel.recv(MAX_MESSAGE_BYTES))
        if answer.verdict is not Verdict.READY:
            raise MalformedMessage("an answer before it was ready")  # noqa: TRY301 - one place cleans up
    except (OSError, MalformedMessage, IndexError) as error:
        decoder.close()
        raise DecoderUnavailable(f"no decoder could be started: {error}") from error
    return decoder
