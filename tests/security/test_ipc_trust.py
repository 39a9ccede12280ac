"""S13: workers and the inference process check everything that comes from each other."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import math
import os
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.core.detection_params import DetectionParams
from inference.core.errors import InferenceLost, WireError
from inference.ipc.handshake import read_handshake
from inference.ipc.shared_status import SharedStatus, State
from inference.ipc.wire import (
    Kind,
    Result,
    Status,
    Submit,
    TextAssembler,
    pack_result,
    pack_submit,
    pack_text,
    unpack_result,
)
from tests.helpers.hostile_child import HANDSHAKE, HostileChild, forged, texts
from tests.helpers.service import Service, is_dead
from tests.helpers.waiting import wait_for

NAN, INF = math.nan, math.inf
_RESULT = struct.Struct("<BBHIQfff")


def result(request_id: int, rows: list[list[float]], count: int | None = None, **times: float) -> bytes:
    """Return a RESULT message; ``count`` replaces the true number of rows."""
    body = np.asarray(rows, dtype="<f4").tobytes()
    head = _RESULT.pack(
        Kind.RESULT,
        Status.OK,
        1,
        len(rows) if count is None else count,
        request_id,
        times.get("queue", 0.0),
        times.get("inference", 0.0),
        times.get("postprocess", 0.0),
    )
    return head + body


SOUND = [1.0, 2.0, 30.0, 40.0, 0.9, 1.0]
#: Forged answers to the frame in flight, which no honest inference process sends. Each takes the request id.
FORGED: dict[str, Callable[[int], bytes]] = {
    "one box, counted as none": lambda n: result(n, [SOUND], 0),
    "one box, counted as two": lambda n: result(n, [SOUND], 2),
    "a billion boxes": lambda n: result(n, [SOUND], 1_000_000_000),
    "1001 boxes": lambda n: result(n, [SOUND] * 1001),
    "NaN in a box": lambda n: result(n, [[NAN, *SOUND[1:]]]),
    "infinity in a box": lambda n: result(n, [[*SOUND[:3], INF, *SOUND[4:]]]),
    "NaN for a score": lambda n: result(n, [[*SOUND[:4], NAN, 1.0]]),
    "a class below 0": lambda n: result(n, [[*SOUND[:5], -1.0]]),
    "a class of 1e30": lambda n: result(n, [[*SOUND[:5], 1e30]]),
    "NaN for a time": lambda n: result(n, [SOUND], inference=NAN),
    "a time below 0": lambda n: result(n, [SOUND], queue=-1.0),
    "infinity for a time": lambda n: result(n, [SOUND], postprocess=INF),
    "an unknown status": lambda n: forged(n, bytes([Kind.RESULT, 9]) + bytes(30)),
    "half a head": lambda n: result(n, [])[:20],
    "no bytes but the kind": lambda _: bytes([Kind.RESULT]),
    "another's request": lambda n: result(n + 1, [SOUND]),
    "the largest request id": lambda _: result(2**64 - 1, [SOUND]),
    "an unknown kind": lambda _: b"\xff" * 40,
    "a submit, which only workers send": lambda n: pack_submit(
        Submit(n, 0, 0, True, 0, 1.0, DetectionParams())
    ),
    "a second handshake": lambda _: pack_text(Kind.HELLO, HANDSHAKE)[0],
    "a handshake of two bytes": lambda _: bytes([Kind.HELLO, 1]),
    "a nested handshake": lambda _: bytes([Kind.HELLO, 0]) + b"[" * 60_000,
}


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_message_ends_the_link_and_nothing_else(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    answers: list[Result | InferenceLost] = []
    async with HostileChild() as child:
        await child.greet()
        ring = child.client.rings.current
        assert ring is not None
        slots = ring.free
        number = await child.take_frame(answers)
        child.send(FORGED[name](number))
        await child.until_refused()
        await child.accept()  # the client reconnects by itself
        assert [type(answer) for answer in answers] == [InferenceLost]
        assert ring.free == slots
        await child.greet()
        number = await child.take_frame(answers)
        child.send(result(number, [SOUND]))
        while len(answers) < 2:
            await asyncio.sleep(0.005)
    # A record of asyncio would mean an exception that nothing handled.
    assert [record.name for record in caplog.records if record.name != "inference.client"] == []


async def test_an_answer_given_twice_is_given_once() -> None:
    answers: list[Result | InferenceLost] = []
    async with HostileChild() as child:
        await child.greet()
        number = await child.take_frame(answers)
        child.send(result(number, [SOUND]), result(number, [SOUND]))
        await child.until_refused()
        assert len(answers) == 1


def changed(path: tuple[Any, ...], value: object) -> dict[str, Any]:
    """Return the honest handshake with one value replaced."""
    handshake = copy.deepcopy(HANDSHAKE)
    place: Any = handshake
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return handshake


_MODEL = ("versions", 0, "model")
_NUMBERS: list[Any] = [0, -1, 10**9, True, "1", None]
_VERSIONS: list[Any] = [[], {}, None, [1], [None], [HANDSHAKE["versions"][0]] * 100]
_COSTS: list[Any] = [{}, [], None, {"0": 1}, {"1": 0}, {"1": NAN}, {"1": -1}, {"x": 1}, {str(10**9): 1}]
_NAMES: list[Any] = ["", 1, None, []]
_SIZES: list[Any] = [0, -64, 10**7, 1.5, "64"]
_LABELS: list[Any] = [None, 5, [1], [None], ["x"] * 70_000]
_FAMILIES: list[Any] = ["none", 3, None, []]
_GREYS: list[Any] = [256, -1, 1.5, "114"]
_THRESHOLDS: list[Any] = [NAN, -1, 2, "x"]
_BUCKETS: list[Any] = [None, [0], ["1"]]
HANDSHAKES: list[tuple[tuple[Any, ...], Any]] = [
    *[((name,), value) for name in ("parallel", "inference_threads", "prefetch_depth") for value in _NUMBERS],
    *[(("versions",), value) for value in _VERSIONS],
    *[(("versions", 0, "cost_ms"), value) for value in _COSTS],
    *[(("versions", 0, "version"), value) for value in _NAMES],
    *[((*_MODEL, name), value) for name in ("input_width", "input_height") for value in _SIZES],
    *[((*_MODEL, "labels"), value) for value in _LABELS],
    *[((*_MODEL, "family"), value) for value in _FAMILIES],
    *[((*_MODEL, "pad_value"), value) for value in _GREYS],
    *[((*_MODEL, "conf_threshold"), value) for value in _THRESHOLDS],
    *[((*_MODEL, "buckets"), value) for value in _BUCKETS],
    ((*_MODEL, "name"), 5),
    ((*_MODEL, "sha256"), None),
    ((*_MODEL, "surplus"), 1),
    (_MODEL, None),
]


@pytest.mark.parametrize(("path", "value"), HANDSHAKES, ids=texts(HANDSHAKES))
def test_a_handshake_that_promises_nonsense_is_refused(path: tuple[Any, ...], value: object) -> None:
    assert read_handshake(HANDSHAKE).versions[0].info.labels == ("qr_code", "barcode")
    # Encode and decode it as the link does; Python's JSON can hold NaN too.
    with pytest.raises(WireError):
        read_handshake(json.loads(json.dumps(changed(path, value))))


async def test_a_handshake_that_asks_for_terabytes_is_refused() -> None:
    large = changed((*_MODEL, "input_width"), 16_000)
    large["versions"][0]["model"]["input_height"] = 16_000
    large["prefetch_depth"] = 4000
    async with HostileChild() as child:
        child.send(*pack_text(Kind.HELLO, large))
        await child.until_refused()
        assert child.client.models == {}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_many_rings_of_other_sizes_do_not_use_up_descriptors() -> None:
    async with HostileChild() as child:
        await child.greet()
        before = descriptors()
        for size_px in range(65, 69):
            child.send(b"\xff")
            await child.until_refused(size_px - 64)
            await child.accept()
            await child.greet(changed((*_MODEL, "input_width"), size_px))
        assert descriptors() <= before + 1


async def test_an_endless_handshake_is_cut_off() -> None:
    async with HostileChild() as child:
        for _ in range(400):
            child.send(bytes([Kind.HELLO, 1]) + b"x" * 60_000)
            await asyncio.sleep(0)
            if child.refused:
                break
        await child.until_refused()


@settings(max_examples=2000, deadline=None)
@given(st.binary(max_size=120), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6))
def test_random_results_are_refused_or_harmless(noise: bytes, changes: list[tuple[int, int]]) -> None:
    message = bytearray(pack_result(Result(7, Status.OK, np.asarray([SOUND, SOUND], np.float32))) + noise[:1])
    for place, value in changes:
        message[place % len(message)] = value
    for data in (bytes(message), bytes([Kind.RESULT]) + noise):
        try:
            found = unpack_result(data)
        except WireError:
            continue
        assert np.isfinite(found.boxes).all()
        assert len(found.boxes) <= 1000
        assert all(0 <= int(number) <= 65_535 for number in found.boxes[:, 5])
        assert math.isfinite(found.queue_ms + found.inference_ms + found.postprocess_ms)
        assert len(found.detail) <= 1000


# -- shared status ----------------------------------------------------------------------------------------


@given(st.floats())
def test_nobody_stumbles_over_what_stands_on_the_board(value: float) -> None:
    shared_status = SharedStatus()
    for field in shared_status._FIELDS:
        shared_status.post(field, value)
    assert isinstance(shared_status.state, State)
    assert all(int(shared_status.read(field)) is not None for field in shared_status._FIELDS)
    engine = shared_status.engine(0)
    for field in engine.FIELDS:
        engine.post(field, value)
    assert isinstance(shared_status.state, State)
    assert all(int(engine.read(field)) is not None for field in engine.FIELDS)
    engine.alive(time.monotonic())
    shared_status.close()


def test_assembling_costs_no_more_than_what_is_sent() -> None:
    assembler = TextAssembler()
    begun = time.thread_time()
    with pytest.raises(WireError, match="3 bytes"):
        assembler.feed(bytes([Kind.HELLO, 1]))
    for _ in range(20_000):
        assembler.feed(bytes([Kind.HELLO, 1, 32]))
    assert time.thread_time() - begun < 2


def test_the_supervisor_replaces_a_process_that_a_worker_cannot_believe() -> None:
    with Service({}) as service:
        before = service.inference
        # A process that stands still opens and closes no files meanwhile.
        before.send_signal(signal.SIGSTOP)
        wait_for(lambda: before.status() == psutil.STATUS_STOPPED)
        links = Path(f"/proc/{before.pid}/fd").iterdir()
        descriptor = next(link for link in links if "memfd:shared_status" in str(link.readlink()))
        # Write to the shared status as a worker would: it has no other way to reach the supervisor.
        fd = os.open(descriptor, os.O_RDWR)
        shared_status = SharedStatus(fd)
        shared_status.post_engine(0, "refused", time.monotonic())
        wait_for(lambda: is_dead(before))
        shared_status.close()
        service.wait_ready()
        assert service.inference.pid != before.pid
        wait_for(lambda: "does not parse" in service.log)
