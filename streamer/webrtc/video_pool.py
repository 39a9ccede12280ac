"""A worker's video decoder processes: assigns streams to them, watches them, replaces those that end.

No process starts before the first stream, and a process without streams ends after a while.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from streamer.decoding.decoder_group import DecoderGroup, DecoderProcess
from streamer.decoding.decoder_supervisor import DecoderSupervisor
from streamer.decoding.decoder_watchdog import find_faults
from streamer.decoding.messages import MalformedMessage
from streamer.decoding.messages import unpack_answer as unpack_ready
from streamer.decoding.refused_digests import REMEMBER_CRASH_S, REMEMBER_SLOW_S, RefusedDigests
from streamer.protocol.wire import Codec, DropReason
from streamer.webrtc.jitter_buffer import EncodedFrame
from streamer.webrtc.video_host import SharedFrame, Stream, VideoHost
from streamer.webrtc.video_messages import Answer, VideoAnswer

log = logging.getLogger("streamer.webrtc.video")

#: Most processor time in seconds that one frame may take. It is less than for images, because a video
#: decoder yields to other processes (`video_process.NICENESS`): beside two busy threads on each core it
#: gets some 0.24 s of processor time in 1.7 s, and other videos wait meanwhile.
FRAME_CPU_LIMIT_S = 1.0
#: Module that is run as the fork server of video decoders.
FORK_SERVER = "streamer.webrtc.video_process"
_WATCH_S = 0.25
#: How long a process without streams is kept for the next stream.
_IDLE_S = 10.0
#: Address space of a video decoder beyond its libraries: reference frames of some streams at 4096x2304.
_MEMORY_BYTES = 1 << 30
#: A stream that has crashed or hung this many decoders is not decoded any more.
MAX_DEATHS = 3
#: Most frames that may wait for the decoder: a second of video. If more wait, the machine is too slow.
MAX_WAITING = 30


class VideoPool:
    """Keeps the video decoder processes of one worker; each decodes the streams assigned to it."""

    def __init__(
        self,
        size: int,
        *,
        digests: RefusedDigests,
        count_end: Callable[[str], None] = lambda _reason: None,
        module: str = FORK_SERVER,
    ) -> None:
        self._size = size
        self._digests = digests
        self._supervisor = DecoderSupervisor(1, _MEMORY_BYTES, module, self._ended, count_end)
        self._started = False
        self._hosts: list[VideoHost] = []
        #: The process that decodes each stream.
        self._host_of: dict[int, VideoHost] = {}
        self._deaths: dict[int, int] = {}
        self._stream_ids = itertools.count(1)
        self._numbers = itertools.count(1)
        self._watching: asyncio.TimerHandle | None = None
        #: Since when each process has had no stream, in monotonic seconds.
        self._idle_since: dict[int, float] = {}
        self._closed = False

    def prepare(self) -> None:
        """Start the fork server unless it runs, because a video is expected."""
        if not self._started and not self._closed:
            self._started = True
            self._supervisor.start()

    def open(self, stream: Stream) -> int:
        """Assign a stream to a process; returns the stream's number for the other methods."""
        self.prepare()
        number = next(self._stream_ids)
        self._settle(number, stream)
        return number

    def send(self, stream: int, frame: EncodedFrame, *, fresh: bool) -> bool:
        """Decode a frame; the stream gets the outcome. False when its process has too many frames already."""
        host = self._host_of[stream]
        taker = host.streams[stream]
        if self._deaths.get(stream, 0) >= MAX_DEATHS or self._digests.contains(frame.data):
            taker.was_read(0.0)
            taker.answered(frame, _refusal(stream, "the video is damaged: it has ended its decoder"), None)
            return True
        if self._watching is None:
            self._watching = asyncio.get_running_loop().call_later(_WATCH_S, self._watch)
        return host.send(next(self._numbers), stream, frame, fresh=fresh)

    def close_stream(self, stream: int) -> None:
        """Close a stream."""
        host = self._host_of.pop(stream, None)
        self._deaths.pop(stream, None)
        if host is not None:
            host.close_stream(stream)

    def close(self) -> None:
        """End all processes."""
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
        if self._started:
            self._supervisor.close()
        for host in list(self._hosts):
            self._drop(host)

    # -- processes -----------------------------------------------------------------------------------

    def _settle(self, number: int, stream: Stream) -> None:
        """Assign a stream to the process with the fewest streams, or to a new one.

        A new one starts only if all others have streams and fewer than ``size`` run.
        """
        host = min(self._hosts, key=lambda each: len(each.streams), default=None)
        if host is None or (host.streams and len(self._hosts) < self._size):
            host = VideoHost()
            self._hosts.append(host)
            asyncio.get_running_loop().add_reader(host.group.channel.fileno(), self._read, host)
            self._supervisor.fill(host.group)
        host.streams[number] = stream
        self._host_of[number] = host
        self._idle_since.pop(id(host), None)

    def _read(self, host: VideoHost) -> None:
        try:
            host.read(self._ready)
        except MalformedMessage as error:
            log.error("replacing a video decoder: it sent %s", error)  # noqa: TRY400 - a traceback adds nothing
            host.group.kill_all("crash")

    def _ready(self, host: VideoHost, data: bytes) -> None:
        self._supervisor.ready(host.group, unpack_ready(data))

    def _ended(self, group: DecoderGroup, process: DecoderProcess, code: int | None) -> None:
        """Move the streams of an ended process to another; they continue with their next key frame."""
        host = next((host for host in self._hosts if host.group is group), None)
        if host is None:
            return
        self._read(host)
        blamed = host.frame(group.line(process).job)
        killed = bool(process.killed_for)
        was_computing = process.was_computing if killed else code not in (None, 0, -signal.SIGKILL)
        if blamed is not None and was_computing:
            stream, frame = blamed
            self._deaths[stream] = self._deaths.get(stream, 0) + 1
            self._digests.add(frame.data, REMEMBER_SLOW_S if killed else REMEMBER_CRASH_S)
        group.remove(process)
        group.stuck = (
            True  # the group is not refilled, because a new process needs sockets without old messages
        )
        streams, left = dict(host.streams), host.abandon()
        self._drop(host)
        for number, taker in streams.items():
            taker.restarted()
            self._settle(number, taker)
            for frame in left.get(number, ()):
                taker.answered(frame, _refusal(number, "the video decoder was restarted"), None)

    def _drop(self, host: VideoHost) -> None:
        self._hosts.remove(host)
        self._idle_since.pop(id(host), None)
        asyncio.get_running_loop().remove_reader(host.group.channel.fileno())
        self._supervisor.release(host.group)
        host.close()

    def _watch(self) -> None:
        """Find processes that hang, release decoded frames, and end processes that have been idle."""
        self._watching = None
        if self._closed:
            return
        now = time.monotonic()
        for host in list(self._hosts):
            find_faults(host.group, host.held, now, cpu_limit_s=FRAME_CPU_LIMIT_S)
            host.release_dropped()
            if host.streams:
                continue
            if now - self._idle_since.setdefault(id(host), now) > _IDLE_S:
                self._drop(host)
        if self._hosts:
            self._watching = asyncio.get_running_loop().call_later(_WATCH_S, self._watch)


def video_decoder_count(workers: int) -> int:
    """Return how many video decoder processes each of ``workers`` may have: its share of the cores."""
    return max(1, -(-len(os.sched_getaffinity(0)) // workers))


def _refusal(stream: int, text: str) -> VideoAnswer:
    return VideoAnswer(Answer.NOT_DECODED, stream, 0, reason=DropReason.DECODE_ERROR, text=text)


@dataclass(frozen=True, slots=True)
class DecodeOutcome:
    """The outcome of one frame: a decoded frame, or the reason why there is none."""

    frame: EncodedFrame
    decoded: SharedFrame | None
    reason: DropReason | None = None
    #: What is wrong with the video, for people; empty if the reason is enough.
    text: str = ""


class VideoDecoder:
    """Decodes the frames of one stream in order. ``deliver`` is called on the event loop with each outcome.

    It decodes every frame, because later ones refer to it. Later steps decide which of them a model sees.
    ``charge`` is called with the processor time, in seconds, that each frame took.
    """

    def __init__(
        self,
        codec: Codec,
        deliver: Callable[[DecodeOutcome], None],
        pool: VideoPool,
        charge: Callable[[float], None] = lambda _cpu_s: None,
    ) -> None:
        self.codec = codec
        self._deliver = deliver
        self._charge = charge
        self._pool = pool
        self._stream = pool.open(self)
        self._waiting = 0
        self._closed = False

    def put(self, frame: EncodedFrame, *, after_gap: bool) -> bool:
        """Queue a frame; False when it was refused because too many wait."""
        if self._closed or self._waiting >= MAX_WAITING:
            return False
        self._waiting += 1
        if not self._pool.send(self._stream, frame, fresh=after_gap):
            self._waiting -= 1
            return False
        return True

    def close(self) -> None:
        """Release the decoder. Frames that it still has get no outcome."""
        if not self._closed:
            self._closed = True
            self._pool.close_stream(self._stream)

    def was_read(self, cpu_s: float) -> None:
        """Count a frame that the decoder has read; called by the pool."""
        self._waiting -= 1
        if cpu_s > 0:
            self._charge(cpu_s)

    def restarted(self) -> None:
        """Note that a new decoder without frames took over; called by the pool."""
        self._waiting = 0

    def answered(self, frame: EncodedFrame, answer: VideoAnswer, decoded: SharedFrame | None) -> None:
        """Deliver the outcome of a frame; called by the pool."""
        if self._closed:
            return
        if decoded is not None:
            self._deliver(DecodeOutcome(frame, decoded))
            return
        self._deliver(DecodeOutcome(frame, None, answer.reason, answer.text))
