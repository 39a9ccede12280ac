"""Fuzz targets that read messages from other processes of the service, none of which is trusted."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from inference.core.detection_params import DetectionParams
from inference.core.errors import WireError
from inference.ipc.handshake import read_handshake
from inference.ipc.wire import (
    Kind,
    Result,
    Status,
    Submit,
    TextAssembler,
    pack_cancel,
    pack_result,
    pack_submit,
    pack_text,
    unpack_cancel,
    unpack_result,
    unpack_submit,
)
from inference.models.model import Placement
from streamer.decoding.decode_job import outcome_of
from streamer.decoding.messages import (
    Answer,
    Job,
    MalformedMessage,
    Task,
    Verdict,
    pack_answer,
    pack_job,
    unpack_answer,
    unpack_job,
)
from streamer.imaging.code_text import MAX_TEXT_CHARS, MalformedReading, unpack_reading
from streamer.sampling.candidate import MalformedCandidate, pack_candidate, unpack_candidate
from tests.fuzz.target import Target
from tests.helpers.candidates import candidate
from tests.helpers.hostile_child import HANDSHAKE

_BOXES = np.asarray([[1, 2, 30, 40, 0.9, 1], [5, 5, 9, 9, 0.5, 0]], np.float32)


def _submits() -> Iterator[bytes]:
    yield pack_submit(Submit(1, 0, 0, True, 0, 1.0, DetectionParams()))
    yield pack_submit(Submit(2, 3, 1, False, 7, 2.0, DetectionParams(0.1, 0.2, 9, (1, 2, 3))))
    yield pack_cancel(9)


def _read_submit(data: bytes) -> None:
    for read in (unpack_submit, unpack_cancel):
        try:
            read(data)
        except WireError:
            continue


def _results() -> Iterator[bytes]:
    yield pack_result(Result(1, Status.OK, _BOXES, 1.0, 2.0, 3.0, 2))
    yield pack_result(Result(2, Status.OK, _BOXES[:0]))
    yield pack_result(Result(3, Status.FAILED, _BOXES[:0], detail="the model failed"))


def _read_result(data: bytes) -> None:
    result = unpack_result(data)
    json.dumps([result.boxes.tolist(), result.queue_ms, result.detail], allow_nan=False)
    assert len(result.boxes) <= 1000
    assert all(0 <= int(number) <= 65_535 for number in result.boxes[:, 5])


def _handshakes() -> Iterator[bytes]:
    yield json.dumps(HANDSHAKE).encode()
    large: dict[str, Any] = HANDSHAKE | {"inference_threads": 64, "prefetch_depth": 4096}
    yield json.dumps(large).encode()


def _read_handshake(data: bytes) -> None:
    message = None
    for part in (bytes([Kind.HELLO, 1]) + data[:7], bytes([Kind.HELLO, 0]) + data[7:]):
        message = TextAssembler().feed(part) if len(data) < 8 else message
    assembler = TextAssembler()
    assembler.feed(bytes([Kind.HELLO, 1]) + data[:7])
    message = assembler.feed(bytes([Kind.HELLO, 0]) + data[7:])
    assert message is not None
    told = read_handshake(message)
    assert pack_text(Kind.HELLO, {"prefetch_depth": told.prefetch_depth})
    assert all(entry.info.input_width <= 16_384 for entry in told.versions)


def _found() -> Iterator[bytes]:
    yield pack_candidate(candidate(0.5))
    whole = candidate(0.5, reported=True, note="wrong", width=640, height=480)
    yield pack_candidate(dataclasses.replace(whole, before=_BOXES, after=_BOXES))


def _answers() -> Iterator[bytes]:
    yield pack_answer(Answer(Verdict.DONE, 7, 640, 480, False, 1.5))
    yield pack_answer(Answer(Verdict.REFUSED, 8, code=2, text="the image is damaged"))
    yield pack_answer(Answer(Verdict.READY, 0, text="{}"))
    yield pack_job(
        Job(Task.LETTERBOX, 9, 4096, 100, 1, 2, Placement.CENTRED, 114, 64, 64, 10**6, 8192, 10**7, 10**8)
    )


def _read_answer(data: bytes) -> None:
    for read in (unpack_answer, unpack_job):
        with contextlib.suppress(MalformedMessage):
            found = read(data)
            if isinstance(found, Answer):
                outcome_of(found)


def _readings() -> Iterator[bytes]:
    yield b'[["4006381333931", "EAN-13"], null, null]'
    yield b'[null, ["\\ud800\\u0000\\u202e\\r\\n", "QR Code"], ["\xc3\xa4", "PDF417"]]'


def _read_codes(data: bytes) -> None:
    for code in unpack_reading(data, 3):
        assert code is None or (0 < len(code.text.encode()) <= 4 * MAX_TEXT_CHARS and code.format.isascii())


TARGETS = (
    Target("code_reading", _read_codes, (MalformedReading,), _readings),
    Target("decoder_answer", _read_answer, (), _answers, 2048),
    Target("ipc_submit", _read_submit, (WireError,), _submits),
    Target("ipc_result", _read_result, (WireError,), _results),
    Target("ipc_handshake", _read_handshake, (WireError,), _handshakes),
    Target("ipc_candidate", unpack_candidate, (MalformedCandidate,), _found),
)
