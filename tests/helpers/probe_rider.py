"""Probes ``/livez`` ten times a second during a test, and in parallel a server that does nothing.

The second server shows how long this machine delays any process, and a third process how much longer
computations take than on an idle machine. All are separate processes, so that a busy test does not delay
them: ``python -m tests.helpers.probe_rider PORT`` probes until it is terminated and then prints its
measurements.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

PERIOD_S = 0.1
#: The promised longest answer time of ``/livez`` in seconds, unless the machine itself is slower.
LIVEZ_MAX_S = 0.3
#: Even an idle machine may pause a process for a moment, so one answer of twenty may take longer, up to this
#: time in seconds.
LATE_SHARE, LATE_MAX_S = 0.05, 1.0
#: If the machine slows computations down by more than this, other programs cost more than a test does.
SLOWEST = 3.0
#: Seconds after which a probe is abandoned.
_TIMEOUT_S = 30.0
#: The third process computes for this much processor time, and pauses, in seconds.
_COMPUTE_S, _PAUSE_S = 0.01, 0.2
_REQUEST = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class Ride:
    """What the prober measured; times in seconds."""

    probes: int
    #: Number of probes without an answer, and of answers other than 200.
    failed: int
    refused: int
    livez_max_s: float
    livez_p95_s: float
    control_max_s: float
    #: Elapsed time of computations on this machine meanwhile, in multiples of their processor time (90th
    #: percentile); 1 on an idle machine.
    slowdown: float

    @property
    def machine_s(self) -> float:
        """How long answers may take because the machine is slow by itself; 0 on an idle machine."""
        return 3 * self.control_max_s

    @property
    def factor(self) -> float:
        """By how much answers may take longer because other programs use the processor."""
        return 1.0 if self.is_quiet else self.slowdown

    @property
    def is_quiet(self) -> bool:
        """Whether the machine was idle enough to judge latencies of clients; correctness is always judged."""
        return self.slowdown <= SLOWEST

    def check(self, *, may_refuse: bool = False, at_least_s: float = 0.0) -> None:
        """Raise AssertionError if probes took too long, had no answer, or an answer other than 200.

        ``at_least_s`` is always acceptable, and more on a machine that slows computations down.
        """
        acceptable_s = max(self.machine_s, at_least_s * self.slowdown)
        usual_s = max(acceptable_s, LIVEZ_MAX_S * self.factor)
        allowed_s = max(acceptable_s, LATE_MAX_S * self.factor)
        assert self.probes > 0
        assert self.failed == 0, f"{self.failed} of {self.probes} probes of /livez were not answered"
        assert may_refuse or self.refused == 0, f"{self.refused} of {self.probes} probes were not 200"
        assert self.livez_max_s <= allowed_s, (
            f"/livez took {self.livez_max_s:.3f} s; allowed {allowed_s:.3f} s"
        )
        assert self.livez_p95_s <= usual_s, (
            f"/livez took {self.livez_p95_s:.3f} s in one of twenty probes; allowed {usual_s:.3f} s"
        )


class ProbeRider:
    """Probes during a block ``with ProbeRider(port) as rider: ...``; ``rider.ride`` then has the results."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ride: Ride | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.helpers.probe_rider", str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "probing\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        said, _ = self._process.communicate(timeout=2 * _TIMEOUT_S)
        if error is None:
            self._ride = Ride(**json.loads(said))

    @property
    def ride(self) -> Ride:
        """The measurements, available once the ``with`` block has ended."""
        assert self._ride is not None
        return self._ride


async def _ask(port: int) -> tuple[float, bytes]:
    """Return the time of one answer and its status; the status is empty without an answer."""
    begun = time.monotonic()
    status = b""
    writer = None
    with contextlib.suppress(OSError, TimeoutError, IndexError):
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_REQUEST)
            status = (await reader.readline()).split(b" ")[1]
    if writer is not None:
        writer.transport.abort()
    return time.monotonic() - begun, status


async def _serve_control() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_ANSWER)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def _compute() -> None:
    """Compute and pause in turn until SIGTERM; print how much longer computations took than they needed."""
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ending.append(number))
    sys.stdout.write("computing\n")
    sys.stdout.flush()
    ratios: list[float] = []
    while not ratios or not ending:
        begun, used_s = time.monotonic(), time.thread_time()
        while time.thread_time() - used_s < _COMPUTE_S:
            pass
        ratios.append((time.monotonic() - begun) / (time.thread_time() - used_s))
        time.sleep(_PAUSE_S)
    ratios.sort()
    sys.stdout.write(f"{ratios[int(0.9 * (len(ratios) - 1))]:.3f}\n")


async def _start(role: str) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader]:
    """Run this module in another role; return the process and its output."""
    command = [sys.executable, "-m", "tests.helpers.probe_rider", role]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    return process, process.stdout


async def _probe(port: int) -> None:
    control, control_output = await _start("control")
    computing, computing_output = await _start("compute")
    control_port = int(await control_output.readline())
    await computing_output.readline()  # it has set its signal handler
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    sys.stdout.write("probing\n")
    sys.stdout.flush()
    livez: list[float] = []
    idle: list[float] = []
    statuses: list[bytes] = []

    async def note(target: int, times: list[float]) -> None:
        took, status = await _ask(target)
        times.append(took)
        statuses.append(status)

    # Each probe starts on time, whether or not the previous one was answered, so that a stall shows at full
    # length.
    running: set[asyncio.Task[None]] = set()
    while not ending.is_set():
        running |= {asyncio.create_task(note(port, livez)), asyncio.create_task(note(control_port, idle))}
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), PERIOD_S)
        running = {task for task in running if not task.done()}
    await asyncio.gather(*running)
    control.terminate()
    await control.wait()
    computing.terminate()
    slowdown = max(1.0, float(await computing_output.read()))
    await computing.wait()
    livez.sort()
    ride = {
        "probes": len(livez),
        "failed": statuses.count(b""),
        "refused": sum(status not in (b"", b"200") for status in statuses),
        "livez_max_s": round(livez[-1], 4),
        "livez_p95_s": round(livez[int((1 - LATE_SHARE) * (len(livez) - 1))], 4),
        "control_max_s": round(max(idle), 4),
        "slowdown": slowdown,
    }
    sys.stdout.write(json.dumps(ride) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "compute":
        _compute()
    else:
        asyncio.run(_serve_control() if sys.argv[1] == "control" else _probe(int(sys.argv[1])))
