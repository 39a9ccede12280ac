"""Keeps each group at its number of decoder processes; the pool decides what the end of a decoder means."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import signal
from collections.abc import Callable

from streamer.core.backoff import Backoff
from streamer.decoding.decoder_group import DecoderGroup, DecoderProcess
from streamer.decoding.fork_client import ForkClient
from streamer.decoding.messages import Answer

log = logging.getLogger("streamer.decoding")

#: Address space of a decoder beyond its libraries. An image of 33 megapixels needs up to 400 MB as libjpeg
#: coefficients, as 16-bit PNG or as animated WebP.
MEMORY_BYTES = 512 << 20
#: Seconds within which the fork server must report how a decoder ended, after its pidfd has shown the end.
_END_REPORT_S = 0.2
#: Seconds within which the fork server must answer a request. A server younger than the second value may take
#: that long, because it is still loading its libraries.
FORK_LIMIT_S = 2.0
SERVER_START_S = 20.0
#: Decoders that die before they are ready are restarted after pauses that grow from the first to the second
#: value.
_FIRST_PAUSE_S = 0.2
_MAX_PAUSE_S = 5.0


def decoder_count(workers: int) -> int:
    """Return the number of decoders of each worker, for this number of ``workers``.

    All workers together have at least one decoder per core, and each worker has at least two, so that an
    image that takes long does not delay the other images of its worker.
    """
    cores = len(os.sched_getaffinity(0))
    return max(2, -(-cores // workers))


class DecoderSupervisor:
    """Keeps the decoders of all groups running. Implements `fork_client.Events`.

    ``on_end`` is called for each decoder that has ended, while it still belongs to its group. It gets the
    exit code: negative for a signal, None if unknown. ``count_end`` gets the reason. ``note_missing`` gets
    the name of a protection that a decoder lacks.
    """

    def __init__(
        self,
        size: int,
        memory_bytes: int,
        module: str,
        on_end: Callable[[DecoderGroup, DecoderProcess, int | None], None],
        count_end: Callable[[str], None],
        note_missing: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._size = size
        self._memory_bytes = memory_bytes
        self._on_end = on_end
        self._count_end = count_end
        self._note_missing = note_missing
        self._client = ForkClient(self, module)
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Groups that are kept at full size.
        self._groups: list[DecoderGroup] = []
        #: Every decoder that was requested and has not ended, by its key.
        self._processes: dict[int, tuple[DecoderGroup, DecoderProcess]] = {}
        self._keys = itertools.count(1)
        #: Back-off for decoders that die before they are ready.
        self._backoff = Backoff(first_s=_FIRST_PAUSE_S, max_s=_MAX_PAUSE_S, least_s=None)
        #: Missing protections that were already logged.
        self._reported: set[str] = set()

    @property
    def protections(self) -> tuple[str, ...]:
        """Protections that every running decoder has; empty if none runs."""
        ready = [set(process.protections) for _, process in self._processes.values() if process.ready]
        return tuple(sorted(set.intersection(*ready))) if ready else ()

    def start(self) -> None:
        """Start the fork server. Raises OSError if no process can be started."""
        self._loop = asyncio.get_running_loop()
        self._client.start()

    def fill(self, group: DecoderGroup) -> None:
        """Fill this group and keep it at full size from now on."""
        self._groups.append(group)
        self._request_all(group)

    def release(self, group: DecoderGroup) -> None:
        """Stop managing a group, which its owner closes."""
        self._groups.remove(group)
        for process in group.processes.values():
            self._processes.pop(process.key, None)
            if process.watch >= 0 and self._loop is not None:
                self._loop.remove_reader(process.watch)

    def close(self) -> None:
        """Kill the fork server; the kernel then ends its decoders."""
        self._client.close()

    def ready(self, group: DecoderGroup, answer: Answer) -> None:
        """Handle the report of a decoder that has entered its sandbox and takes jobs."""
        found = self._processes.get(answer.number)
        if found is None or found[0] is not group:
            return
        process, news = found[1], json.loads(answer.text)
        process.ready, process.protections = True, tuple(news["protections"])
        self._backoff.reset()
        for lack in news["missing"]:
            if lack not in self._reported:
                self._reported.add(lack)
                self._note_missing(lack.partition(":")[0])
                log.warning("decoders are less protected than they could be: %s", lack)

    # -- events of the fork server ---------------------------------------------------------------------

    def forked(self, key: int, pid: int, watch: int) -> None:
        """Handle the start of a decoder."""
        found = self._processes.get(key)
        if found is None or self._loop is None:
            signal.pidfd_send_signal(watch, signal.SIGKILL)
            os.close(watch)
            return
        process = found[1]
        process.forked(pid, watch)
        # The fork server reports how a decoder ended; the pidfd shows that it ended, even if no report comes.
        self._loop.add_reader(watch, self._process_ended, process)

    def ended(self, key: int, code: int | None) -> None:
        """Handle the end of a decoder."""
        found = self._processes.pop(key, None)
        if found is None or self._loop is None:
            return
        group, process = found
        if process.watch >= 0:  # otherwise the fork server died before it had forked this one
            self._loop.remove_reader(process.watch)
        reason = process.killed_because or _reason(code)
        self._count_end(reason)
        if reason != "retired":
            log.error("decoder %d ended (%s, code %s); a new one is started", process.pid, reason, code)
        self._on_end(group, process, code)
        if group.stuck:
            return  # a stuck group is replaced as a whole
        if process.ready:
            self._request(group)
            return
        self._loop.call_later(self._backoff.next_s(), self._request, group)

    def server_lost(self) -> None:
        """Report every decoder as ended with an unknown code, so that no image is blamed."""
        for key in list(self._processes):
            self.ended(key, None)

    def server_started(self) -> None:
        """Request all decoders again."""
        for group in self._groups:
            self._request_all(group)

    def _request_all(self, group: DecoderGroup) -> None:
        for _ in range(self._size - len(group.processes)):
            self._request(group)

    def _request(self, group: DecoderGroup) -> None:
        """Request one more decoder; without a fork server, ``server_started`` will request it later."""
        if group not in self._groups or len(group.processes) >= self._size or not self._client.running:
            return
        process = group.add(next(self._keys))
        self._processes[process.key] = (group, process)
        request = {"key": process.key, "index": process.index, "memory_bytes": self._memory_bytes}
        self._client.fork(request | group.layout, group.descriptors)
        if self._loop is not None:
            limit_s = FORK_LIMIT_S if self._client.age_s > SERVER_START_S else SERVER_START_S
            self._loop.call_later(limit_s, self._expect_fork, process, 1)

    def _expect_fork(self, process: DecoderProcess, more_looks: int) -> None:
        """Kill a fork server that has not answered because it hangs or was stopped; a new one is started.

        The answer is checked twice, because this process may have been suspended together with the server.
        """
        if (
            self._processes.get(process.key, (None, None))[1] is not process
            or process.pid
            or self._loop is None
        ):
            return
        if more_looks:
            self._loop.call_later(1.0, self._expect_fork, process, more_looks - 1)
            return
        log.error("the fork server of the decoders does not answer; it is replaced")
        self._client.kill()

    def _process_ended(self, process: DecoderProcess) -> None:
        if self._loop is not None and process.watch >= 0:
            self._loop.remove_reader(process.watch)
            self._loop.call_later(_END_REPORT_S, self.ended, process.key, None)


def _reason(code: int | None) -> str:
    if code == 0:
        return "retired"
    if code is None or code == -signal.SIGKILL:
        return "killed"
    return "crash"
