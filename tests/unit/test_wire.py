"""Messages between worker and inference process arrive unchanged, and forged ones are refused."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference.core.detection_params import DetectionParams
from inference.core.errors import WireError
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

thresholds = st.floats(0, 1, width=32)


@given(
    st.builds(
        Submit,
        request_id=st.integers(0, 2**64 - 1),
        slot=st.integers(0, 2**32 - 1),
        version=st.integers(0, 255),
        interactive=st.booleans(),
        stream=st.integers(0, 2**32 - 1),
        deadline=st.floats(allow_nan=False),
        params=st.builds(
            DetectionParams,
            thresholds,
            thresholds,
            st.integers(1, 1000),
            st.lists(st.integers(0, 65535), max_size=90).map(tuple),
            st.booleans(),
        ),
        client=st.integers(0, 2**32 - 1),
        weight=st.floats(0.125, 1000, width=32),
        alone=st.booleans(),
    )
)
@example(Submit(1, 0, 0, False, 7, 1.0, DetectionParams(0.5, 0.5), shadow=True))
def test_a_submit_message_comes_back_as_it_was(submit: Submit) -> None:
    assert unpack_submit(pack_submit(submit)) == submit


def test_a_submit_message_that_asks_to_run_alone_and_as_a_shadow_is_refused() -> None:
    contradictory = Submit(1, 0, 0, False, 7, 1.0, DetectionParams(), alone=True, shadow=True)
    with pytest.raises(WireError, match="flags 5"):
        unpack_submit(pack_submit(contradictory))


def test_a_result_comes_back_with_its_boxes() -> None:
    boxes = np.arange(12, dtype=np.float32).reshape(2, 6)
    result = unpack_result(pack_result(Result(9, Status.OK, boxes, 1.0, 2.0, 3.0, 4)))
    assert (result.request_id, result.status, result.batch_size) == (9, Status.OK, 4)
    assert (result.queue_ms, result.inference_ms, result.postprocess_ms) == (1.0, 2.0, 3.0)
    np.testing.assert_array_equal(result.boxes, boxes)


def test_a_failure_carries_its_text_and_no_boxes() -> None:
    result = unpack_result(pack_result(Result(1, Status.FAILED, np.empty((0, 6), np.float32), detail="boom")))
    assert (result.status, result.detail, len(result.boxes)) == (Status.FAILED, "boom", 0)


def test_cancel_carries_the_request_id() -> None:
    assert unpack_cancel(pack_cancel(77)) == 77


@given(st.binary(max_size=200))
def test_random_bytes_never_do_worse_than_a_wire_error(data: bytes) -> None:
    for unpack in (unpack_submit, unpack_result, unpack_cancel):
        with contextlib.suppress(WireError):
            unpack(data)


def test_values_that_are_not_finite_are_refused() -> None:
    boxes = np.full((1, 6), np.nan, dtype=np.float32)
    with pytest.raises(WireError, match="finite"):
        unpack_result(pack_result(Result(1, Status.OK, boxes)))


def test_a_count_that_the_length_does_not_bear_out_is_refused() -> None:
    message = bytearray(pack_result(Result(1, Status.OK, np.zeros((2, 6), np.float32))))
    with pytest.raises(WireError, match="length"):
        unpack_result(bytes(message[:-4]))


def test_thresholds_out_of_range_are_refused() -> None:
    bad = Submit(1, 0, 0, True, 0, 1.0, DetectionParams(conf_threshold=1.5))
    with pytest.raises(WireError, match="thresholds"):
        unpack_submit(pack_submit(bad))


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(WireError, match="weight"):
        unpack_submit(pack_submit(Submit(1, 0, 0, True, 0, 1.0, DetectionParams(), 1, weight)))


def test_a_large_handshake_travels_in_parts() -> None:
    message = {"labels": [f"label number {index}" for index in range(20_000)]}
    parts = pack_text(Kind.HELLO, message)
    assert len(parts) > 1
    assembler = TextAssembler()
    assert [assembler.feed(part) for part in parts[:-1]] == [None] * (len(parts) - 1)
    assert assembler.feed(parts[-1]) == message


def test_an_endless_handshake_is_cut_off() -> None:
    assembler = TextAssembler(limit_bytes=10)
    with pytest.raises(WireError, match="larger"):
        assembler.feed(b"\x01\x01" + b"x" * 11)


@pytest.mark.parametrize("text", [b"nonsense", b"[1]"])
def test_a_handshake_that_is_no_map_is_refused(text: bytes) -> None:
    with pytest.raises(WireError, match="handshake"):
        TextAssembler().feed(b"\x01\x00" + text)
