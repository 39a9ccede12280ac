"""Runs a worker's decoder processes: gives them jobs, watches them, and replaces those that die or hang.

Everything here runs on the worker's event loop. The pool answers each job exactly once, whatever happens to a
decoder: with an Answer when the result is in its memory, with an ImageError if the image cannot be decoded,
or with DecoderLost if the decoder failed for another reason.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import socket
import time
from collections import deque
from collections.abc import Callable

from inference.ipc.ring import FrameRing
from streamer.decoding.decode_job import (
    DecoderLost,
    DuplicateFinder,
    Outcome,
    Work,
    decode_timeout_error,
    decoder_crash_error,
    outcome_of,
)
from streamer.decoding.decoder_group import ArenaFull, DecoderGroup, DecoderProcess
from streamer.decoding.decoder_supervisor import MEMORY_BYTES, DecoderSupervisor
from streamer.decoding.decoder_watchdog import find_faults
from streamer.decoding.fork_client import FORK_SERVER
from streamer.decoding.messages import (
    MAX_MESSAGE_BYTES,
    Answer,
    Job,
    MalformedMessage,
    Verdict,
    pack_job,
    unpack_answer,
)
from streamer.decoding.refused_digests import REMEMBER_CRASH_S, REMEMBER_SLOW_S, RefusedDigests

log = logging.getLogger("streamer.decoding")

#: Seconds between two checks of the decoders while there is work.
WATCH_S = 0.25


class DecoderPool:
    """Keeps ``size`` decoders and gives them work.

    Call ``start()``, ``attach`` a ring, ``submit`` work, and finally ``close()``.

    ``count_end`` is called for each decoder that ends, with the reason: ``crash``, ``timeout``, ``stuck``,
    ``killed`` or ``retired``.
    """

    def __init__(
        self,
        size: int,
        *,
        input_bytes: int,
        digests: RefusedDigests,
        count_end: Callable[[str], None] = lambda _reason: None,
        note_missing: Callable[[str], None] = lambda _name: None,
        memory_bytes: int = MEMORY_BYTES,
        module: str = FORK_SERVER,
    ) -> None:
        self.size = size
        self._input_bytes = input_bytes
        self._digests = digests
        self._supervisor = DecoderSupervisor(size, memory_bytes, module, self._ended, count_end, note_missing)
        self._loop: asyncio.AbstractEventLoop | None = None
        #: The newest group is last; older groups finish the work that they hold.
        self._groups: list[DecoderGroup] = []
        self._numbers = itertools.count(1)
        self._pending: dict[int, tuple[DecoderGroup, Work]] = {}
        self._duplicates = DuplicateFinder()
        #: Work for which the input memory or the socket has no room, in order.
        self._waiting: deque[tuple[DecoderGroup, Work]] = deque()
        self._watching: asyncio.TimerHandle | None = None
        self._closed = False
        #: Called whenever a decoder has finished its work.
        self.on_finished: Callable[[], None] | None = None

    def start(self) -> None:
        """Start the fork server. Raises OSError if no process can be started."""
        self._loop = asyncio.get_running_loop()
        self._supervisor.start()

    def attach(self, ring: FrameRing | None) -> None:
        """Fork decoders for a ring.

        The decoders of an earlier ring end when they have answered the work that they hold.
        """
        if self._loop is None:
            raise RuntimeError("the pool was not started")
        group = DecoderGroup.of_ring(ring, self._input_bytes)
        self._groups.append(group)
        self._loop.add_reader(group.channel.fileno(), self._read, group)
        self._supervisor.fill(group)
        self._retire_groups()

    def submit(self, ring: FrameRing | None, work: Work) -> None:
        """Let a decoder of this ring do the work."""
        if self._loop is None:
            raise RuntimeError("the pool was not started")
        for group in reversed(self._groups):
            if group.ring is ring:
                break
        else:
            self._loop.call_soon(work.done, DecoderLost("there are no decoders for this frame ring"))
            return
        if self._digests.contains(work.data):
            self._loop.call_soon(work.done, decoder_crash_error())
            return
        duplicate = self._duplicates.find(work.data)
        if duplicate is not None:
            # The work waits until these bytes are known to be harmless; otherwise they could crash a second
            # decoder.
            duplicate.followers.append((ring, work))
            return
        self._duplicates.add(work)
        work.number = next(self._numbers)
        if self._waiting or not self._send(group, work):
            self._waiting.append((group, work))
        if self._watching is None:
            self._watching = self._loop.call_later(WATCH_S, self._watch)

    def submit_optional(self, work: Work) -> bool:
        """Let a decoder do work that nobody needs, on bytes decoded before; False means there is no room."""
        if self._loop is None or not self._groups:
            return False
        work.optional = True
        work.number = next(self._numbers)
        if not self._send(self._groups[-1], work):
            return False
        if self._watching is None:
            self._watching = self._loop.call_later(WATCH_S, self._watch)
        return True

    def close(self) -> None:
        """End all decoders, and answer all unfinished work with DecoderLost."""
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
        self._supervisor.close()
        for group in list(self._groups):
            self._close_group(group)
        unanswered = [work for _, work in (*self._pending.values(), *self._waiting)]
        unanswered += [follower for work in unanswered for _, follower in work.followers]
        self._pending.clear()
        self._waiting.clear()
        for work in unanswered:
            work.done(DecoderLost("the service is shutting down"))

    @property
    def protections(self) -> tuple[str, ...]:
        """Protections that every running decoder has; empty if none runs."""
        return self._supervisor.protections

    @property
    def any_ring(self) -> FrameRing | None:
        """Ring of the newest decoders, for work that needs no ring."""
        return self._groups[-1].ring if self._groups else None

    @property
    def alive(self) -> int:
        """Number of decoders that take jobs."""
        return sum(m.ready for group in self._groups[-1:] for m in group.processes.values())

    @property
    def idle(self) -> int:
        """Number of decoders that have no work."""
        return 0 if self._waiting else max(0, self.alive - len(self._pending))

    # -- jobs ----------------------------------------------------------------------------------------

    def _send(self, group: DecoderGroup, work: Work) -> bool:
        """Copy the bytes into the input memory and send the job; return False if there is no room now."""
        try:
            offset = group.arena.put(work.data)
        except ArenaFull:
            return False
        target, limits = work.target, work.limits
        job = Job(
            work.task,
            work.number,
            offset,
            len(work.data),
            work.rotation,
            work.slot,
            target.placement,
            target.pad_value,
            target.input_width,
            target.input_height,
            limits.image_px,
            limits.image_side_px,
            limits.reducible_px,
            limits.decode_bytes,
        )
        try:
            if work.descriptor >= 0:
                socket.send_fds(group.channel, [pack_job(job)], [work.descriptor])
            else:
                group.channel.send(pack_job(job))
        except BlockingIOError:
            group.arena.free(offset, len(work.data))
            return False
        work.offset, work.sent_at = offset, time.monotonic()
        self._pending[work.number] = (group, work)
        return True

    def _read(self, group: DecoderGroup) -> bool:
        """Receive one answer; return whether there was one.

        The event loop calls this again if there are more. A loop here would try once more after each answer,
        usually in vain because most answers come alone, and a failed attempt costs as much as an answer.
        """
        data = b""
        try:
            if not group.closed:
                data = group.channel.recv(MAX_MESSAGE_BYTES)
            if data:
                self._answered(group, unpack_answer(data))
        except BlockingIOError:
            pass
        except MalformedMessage as error:
            # One of the decoders no longer runs our code, and there is no way to know which one.
            log.error("replacing all decoders: one sent %s", error)  # noqa: TRY400 - says it all
            group.kill_all("crash")
        if self._waiting:
            self._send_waiting()
        if len(self._groups) > 1:
            self._retire_groups()
        return bool(data)

    def _send_waiting(self) -> None:
        while self._waiting and self._send(*self._waiting[0]):
            self._waiting.popleft()

    def _answered(self, group: DecoderGroup, answer: Answer) -> None:
        if answer.verdict is Verdict.READY:
            self._supervisor.ready(group, answer)
            return
        found = self._pending.get(answer.number)
        if found is None or found[0] is not group:
            return  # the pool has answered the job in the meantime
        self._finish(answer.number, outcome_of(answer))

    def _finish(self, number: int, outcome: Outcome) -> None:
        group, work = self._pending.pop(number)
        if work.offset is not None:
            group.arena.free(work.offset, len(work.data))
        self._settle(work, outcome)

    def _settle(self, work: Work, outcome: Outcome) -> None:
        """Deliver the outcome of an image, and resubmit the work with the same bytes that waited for it."""
        if not work.optional:
            self._duplicates.remove(work, outcome)
        followers, work.followers = work.followers, []
        for ring, follower in followers:
            self.submit(ring, follower)
        work.done(outcome)
        if self.on_finished is not None:
            self.on_finished()

    # -- decoders ------------------------------------------------------------------------------------

    def _ended(self, group: DecoderGroup, process: DecoderProcess, code: int | None) -> None:
        """Deliver the outcome of the image that an ended decoder held.

        Answers that it sent before its end are received first, and they count.
        """
        while self._read(group):
            pass
        number = 0 if group.closed or group.stuck else group.line(process).job
        if number in self._pending and self._pending[number][0] is group:
            self._attribute_death(number, process, code)
        group.remove(process)
        if group.stuck and not group.processes:
            self._replace(group)

    def _attribute_death(self, number: int, process: DecoderProcess, code: int | None) -> None:
        """Deliver the outcome of the image that a dead decoder held.

        If the image is the cause, remember it, so that it is refused from now on.
        """
        work, killed = self._pending[number][1], process.killed_for == number
        harmless = not process.was_computing if killed else code in (None, 0, -signal.SIGKILL)
        if harmless:
            self._finish(number, DecoderLost("the decoder ended while it held the image"))
            return
        if not work.optional:
            self._digests.add(work.data, REMEMBER_SLOW_S if killed else REMEMBER_CRASH_S)
        self._finish(number, decode_timeout_error() if killed else decoder_crash_error())

    def _replace(self, group: DecoderGroup) -> None:
        """Send the work of a stuck group to fresh decoders.

        All of the old decoders are dead, so none can still write to shared memory. Work that was sent to
        fresh decoders before is answered with DecoderLost.
        """
        works = [work for owner, work in self._pending.values() if owner is group]
        works += [work for owner, work in self._waiting if owner is group]
        self._waiting = deque(entry for entry in self._waiting if entry[0] is not group)
        for work in works:
            self._pending.pop(work.number, None)
        self._close_group(group)
        self.attach(group.ring)
        fresh = self._groups[-1]
        for work in works:
            if work.sent_again or work.optional:
                self._settle(work, DecoderLost("no decoder has taken the image"))
            else:
                work.sent_again, work.offset = True, None
                self._waiting.append((fresh, work))
        self._send_waiting()

    def _retire_groups(self) -> None:
        """Close the groups of former rings that hold no work any more."""
        if len(self._groups) > 1:
            busy = {id(group) for group, _ in (*self._pending.values(), *self._waiting)}
            for group in self._groups[:-1]:
                if id(group) not in busy:
                    self._close_group(group)

    def _close_group(self, group: DecoderGroup) -> None:
        self._groups.remove(group)
        if self._loop is not None:
            self._loop.remove_reader(group.channel.fileno())
        self._supervisor.release(group)
        group.close()

    # -- watch ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Find decoders that hang or are stuck; called every `WATCH_S` while there is work."""
        self._watching = None
        if self._closed or self._loop is None:
            return
        now = time.monotonic()
        for group in list(self._groups):
            held = {number: work for number, (owner, work) in self._pending.items() if owner is group}
            find_faults(group, held, now)
        if self._pending or self._waiting:
            self._watching = self._loop.call_later(WATCH_S, self._watch)
