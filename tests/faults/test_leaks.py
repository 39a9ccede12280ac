"""R10, R13: nothing grows with the number of frames, and killed processes leave nothing behind."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.faults.conftest import QUIET, Stubbed, Tier
from tests.faults.nonce import nonce_model
from tests.faults.nonce_clients import Account, Crowd, together
from tests.faults.process_watch import ProcessWatch, Sample, counts, look, settled, slope
from tests.faults.results import Result
from tests.helpers.load import End, http_session
from tests.helpers.service import Service
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.alone

Start = Callable[..., Stubbed]

ROLES = ("inference.engine.process", "streamer.server.worker")
LEAK_BYTES = 1024
#: The limit lies between the noise and the leak of the negative control. The long form detects much smaller
#: leaks.
GATE_BYTES_PER_FRAME = 512.0
SOAK_GATE_BYTES_PER_MIN = 0.3e6

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x00020000, 0x4000, 0x40000


async def _load(stub: Stubbed, crowd: Crowd, seconds: float) -> tuple[Account, list[Sample]]:
    """Run a load; return its account, and the measurements taken in its second half."""
    until = End.after(seconds)
    with ProcessWatch(stub.service) as watch:
        async with http_session() as session:
            running = crowd.start(session, stub.service.http_url, until)
            whole = together(list(await asyncio.gather(*(task for _, task in running))))
    middle = until.at - seconds / 2
    return whole, [sample for sample in watch.samples if middle <= sample.at <= until.at]


def _growth(samples: list[Sample], role: str) -> float:
    """Return the growth of a role's resident memory in bytes per second."""
    return slope([(sample.at, float(sample.rss.get(role, 0))) for sample in samples])


@pytest.mark.timeout(1200)
def test_memory_does_not_grow_with_frames_and_a_leak_would_show(
    stubbed: Start, tier: Tier, figures: Result
) -> None:
    stub = stubbed(model_s=0.0)
    crowd = Crowd(streams=16, posters=4, fps=20)
    seconds, control_seconds = tier.pick((12.0, 12.0), (600.0, 60.0))
    asyncio.run(_load(stub, crowd, tier.pick(4.0, 180.0)))
    with concurrent.futures.ThreadPoolExecutor(16) as pool:  # start every thread that reads metric files
        list(pool.map(stub.service.get, ["/metrics"] * 64))
    before, tasks = settled(stub.service), stub.service.metric("object_detection_event_loop_tasks")
    # Memory that is used for the first time grows once; a leak grows in every round.
    for _ in range(4):
        whole, samples = asyncio.run(_load(stub, crowd, seconds))
        fps = whole.results / seconds
        clean = {role: _growth(samples, role) for role in ROLES}
        if max(clean.values()) <= GATE_BYTES_PER_FRAME * fps:
            break
    after = _wait_for(
        stub.service,
        lambda now: all(is_now <= was for is_now, was in zip(counts(now), counts(before), strict=True)),
        "descriptors, threads and processes are given back",
    )
    # Negative control: the same check must detect a leak of a kilobyte per frame.
    stub.engine.leak(LEAK_BYTES)
    leaking_whole, samples = asyncio.run(_load(stub, crowd, control_seconds))
    leaking_fps = leaking_whole.results / control_seconds
    leaking = {role: _growth(samples, role) / leaking_fps for role in ROLES}
    figures.note(
        frames=whole.results,
        **{f"{role}_bytes_a_frame": clean[role] / fps for role in ROLES},
        **{f"{role}_bytes_a_frame_with_the_leak": leaking[role] for role in ROLES},
        descriptors_more=after.fds - before.fds,
        threads_more=after.threads - before.threads,
        processes_more=after.processes - before.processes,
    )
    for role in ROLES:
        assert leaking[role] > GATE_BYTES_PER_FRAME, f"the leak of {role} must not pass the gate"
        assert clean[role] / fps <= GATE_BYTES_PER_FRAME, role
        assert not tier.full or clean[role] * 60 <= SOAK_GATE_BYTES_PER_MIN, role
    wait_for(lambda: stub.service.metric("object_detection_event_loop_tasks") <= tasks, "tasks end")


def _wait_for(service: Service, expected: Callable[[Sample], bool], what: str) -> Sample:
    """Wait until what a service holds is as expected, and return it.

    A single look does not suffice: processes open files for a moment, and new processes start and end.
    """
    after = look(service)

    def is_expected() -> bool:
        nonlocal after
        after = look(service)
        return expected(after)

    wait_for(is_expected, what)
    return after


def _shared_files(service: Service) -> set[Path]:
    """Return the files in /dev/shm that the processes of a service have open or mapped."""
    found: set[str] = set()
    for process in [service.supervisor, *service.supervisor.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {each.path for each in process.memory_maps(grouped=True)}
            found |= {each.path for each in process.open_files()}
    return {Path(path) for path in found if path.startswith("/dev/shm/")}  # noqa: S108 - looked at only


@pytest.mark.parametrize("victim", ["inference", "worker", "supervisor"])
def test_killed_processes_leave_no_shared_memory_and_no_children(
    stubbed: Start, figures: Result, victim: str
) -> None:
    stub = stubbed(model_s=0.001)
    asyncio.run(_load(stub, Crowd(streams=4, posters=1, fps=10), 1.0))
    held = settled(stub.service)
    family, files = stub.service.supervisor.children(recursive=True), _shared_files(stub.service)
    if victim == "supervisor":
        stub.service.signal(signal.SIGKILL)
        begun = time.monotonic()
        _, alive = psutil.wait_procs(family, timeout=60)
        figures.note(children_left=len(alive), children_gone_after_s=time.monotonic() - begun)
        assert alive == []
    else:
        killed = stub.service.inference if victim == "inference" else stub.service.workers[0]
        killed.kill()
        wait_for(lambda: not killed.is_running(), "it ends")
        wait_for(lambda: stub.service.get("/health")[0] == 200, "ready again")
        asyncio.run(_load(stub, Crowd(streams=4, posters=1, fps=10), 1.0))
        after = _wait_for(
            stub.service,
            lambda now: now.memfd <= held.memfd + (1 << 20) and now.processes <= held.processes,
            "shared memory and processes are given back",
        )
        figures.note(
            memfd_bytes_more=after.memfd - held.memfd, processes_more=after.processes - held.processes
        )
        stub.service.stop()
    assert [path for path in files if path.exists()] == []


def _in_small_shared_memory(act: Callable[[], None]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        pytest.skip(f"cannot make a mount namespace: {os.strerror(ctypes.get_errno())}")
    if libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=64k"):
        pytest.skip(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    act()


def test_a_small_dev_shm_is_enough(tmp_path: Path, figures: Result) -> None:
    model = nonce_model(tmp_path / "nonce.onnx")

    def serve() -> None:
        with Service(QUIET | {"MODEL_V1_PATH": str(model)}) as service:
            stub = Stubbed(service, None)  # type: ignore[arg-type]
            whole, _ = asyncio.run(_load(stub, Crowd(streams=6, posters=2, fps=10), 2.0))
            figures.note(results=whole.results, dev_shm_bytes=64 << 10)
            assert (whole.wrong, whole.lost, whole.closed) == (0, 0, 0)
            assert whole.results > 0

    # Only this thread enters the mount namespace; the mounts of other tests stay as they are.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(_in_small_shared_memory, serve).result()
