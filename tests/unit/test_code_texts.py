"""Texts of codes follow their boxes, are validated, and are read as seldom as the limits say."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest

from streamer.imaging.code_text import (
    MAX_TEXT_CHARS,
    CodeText,
    MalformedReading,
    clean_text,
    unpack_reading,
)
from streamer.streams.code_texts import (
    CONFIRM_S,
    CPU_SHARE,
    FIRST_PAUSE_S,
    FORGET_S,
    MAX_AT_ONCE,
    MAX_RESULT_CHARS,
    MAX_UNCONFIRMED,
    CodeTexts,
)

URL = CodeText("https://example.org", "QR Code")
EAN = CodeText("4006381333931", "EAN-13")


def boxes(*places: tuple[float, float], score: float = 0.9) -> npt.NDArray[np.float32]:
    """Return boxes of 100 x 100 pixels of class 1 at these left upper corners."""
    rows = [[x, y, x + 100, y + 100, score, 1] for x, y in places]
    return np.array(rows, np.float32).reshape(-1, 6)


def read(texts: CodeTexts, now: float, *found: CodeText | None, cpu_s: float = 0.0) -> list[int]:
    """Read what is due, with these texts; return the rows that were due."""
    rows, ids = texts.due(now)
    texts.record(ids, found[: len(ids)], cpu_s, now)
    return rows


def test_a_text_stays_with_its_box_while_it_moves_and_others_come() -> None:
    texts = CodeTexts()
    assert texts.update(boxes((0, 0)), 0, 0.0) == [None]
    assert read(texts, 0.0, URL) == [0]
    assert texts.update(boxes((10, 0)), 100_000, 0.1) == [URL]
    assert texts.update(boxes((400, 0), (20, 0)), 200_000, 0.2) == [None, URL]
    assert texts.update(boxes((400, 300)), 300_000, 0.3) == [None]


def test_a_code_with_a_low_score_is_read_too() -> None:
    texts = CodeTexts()
    texts.update(boxes((0, 0), score=0.05), 0, 0.0)
    assert read(texts, 0.0, URL) == [0]
    assert texts.update(boxes((0, 0), score=0.05), 50_000, 0.05) == [URL]


def test_the_outcome_of_a_reading_belongs_to_the_codes_of_its_frame() -> None:
    texts = CodeTexts()
    texts.update(boxes((0, 0), (300, 0)), 0, 0.0)
    _, ids = texts.due(0.0)
    texts.update(boxes((300, 0), (0, 0)), 100_000, 0.1)  # the boxes have changed places in the meantime
    texts.record(ids, [URL, EAN], 0.0, 0.2)
    assert texts.update(boxes((300, 0), (0, 0)), 200_000, 0.3) == [EAN, URL]


def test_a_discontinuity_forgets_all_texts_and_readings_under_way() -> None:
    texts = CodeTexts()
    texts.update(boxes((0, 0)), 0, 0.0)
    read(texts, 0.0, URL)
    _, ids = texts.due(0.0 + CONFIRM_S)
    texts.reset()
    texts.record(ids, [URL], 0.0, CONFIRM_S)
    assert texts.update(boxes((0, 0)), 100_000, 0.1) == [None]


def test_a_code_that_cannot_be_read_is_tried_ever_less_often() -> None:
    texts = CodeTexts()
    tried = []
    for step in range(600):
        now = step / 20
        texts.update(boxes((0, 0)), step * 50_000, now)
        if read(texts, now, None):
            tried.append(now)
    gaps = np.diff(tried)
    assert gaps[0] == pytest.approx(FIRST_PAUSE_S)
    assert all(gaps[1:] >= gaps[:-1])
    assert len(tried) < 20


def test_a_text_is_confirmed_replaced_and_after_several_misses_forgotten() -> None:
    texts = CodeTexts()
    texts.update(boxes((0, 0)), 0, 0.0)
    read(texts, 0.0, URL)
    assert read(texts, CONFIRM_S - 0.01, EAN) == []
    assert read(texts, CONFIRM_S, EAN) == [0]
    assert texts.update(boxes((0, 0)), 0, CONFIRM_S) == [EAN]
    now = 2 * CONFIRM_S
    for miss in range(MAX_UNCONFIRMED):
        assert texts.update(boxes((0, 0)), 0, now) == [EAN], miss
        assert read(texts, now, None) == [0]
        now += CONFIRM_S
    assert texts.update(boxes((0, 0)), 0, now) == [None]


def test_readings_use_a_bounded_share_of_a_core() -> None:
    texts = CodeTexts()
    texts.update(boxes((0, 0)), 0, 0.0)
    read(texts, 0.0, None, cpu_s=0.5)
    rest_s = 0.5 / CPU_SHARE - 0.5
    texts.update(boxes((0, 0)), 0, rest_s - 0.01)
    assert read(texts, rest_s - 0.01, None) == []
    assert read(texts, rest_s, None) == [0]


def test_of_many_codes_each_gets_its_turn() -> None:
    texts = CodeTexts()
    places = [(x * 200.0, y * 200.0) for x in range(5) for y in range(4)]
    unread = [None] * len(places)
    turns: list[int] = []
    for step in range(3):
        texts.update(boxes(*places), 0, step / 10)
        rows = read(texts, step / 10, *unread)
        assert len(rows) <= MAX_AT_ONCE
        turns += rows
    assert sorted(turns) == list(range(len(places)))


def test_codes_without_a_text_come_first() -> None:
    texts = CodeTexts()
    texts.update(boxes((0, 0), (300, 0), (600, 0)), 0, 0.0)
    read(texts, 0.0, URL, None, EAN)
    texts.update(boxes((0, 0), (300, 0), (600, 0)), 0, CONFIRM_S)
    assert texts.due(CONFIRM_S)[0] == [1, 0, 2]


def test_a_code_that_is_gone_is_forgotten() -> None:
    texts = CodeTexts()
    texts.update(boxes((0, 0)), 0, 0.0)
    texts.update(boxes(), 0, FORGET_S + 1)
    assert texts._codes == {}


def test_the_texts_of_one_result_are_bounded() -> None:
    texts = CodeTexts()
    places = [(x * 200.0, y * 200.0) for x in range(4) for y in range(4)]
    texts.update(boxes(*places), 0, 0.0)
    long = CodeText("x" * MAX_TEXT_CHARS, "QR Code")
    while read(texts, 0.0, *[long] * len(places)):
        texts.update(boxes(*places), 0, 0.0)
    shown = [text for text in texts.update(boxes(*places), 0, 0.0) if text]
    assert sum(len(text.text) for text in shown) == MAX_RESULT_CHARS


def test_characters_that_are_not_shown_as_themselves_are_replaced() -> None:
    assert clean_text("BEGIN:VCARD\r\nN:Ä\tß 漢 😀\n") == "BEGIN:VCARD\nN:Ä\tß 漢 😀\n"
    assert clean_text("a\x1b[2Jb\x00\x7f\x9b") == "a\ufffd[2Jb\ufffd\ufffd\ufffd"
    assert clean_text("exe.\u202egpj\u2066\u200f\ud800") == "exe.\ufffdgpj\ufffd\ufffd\ufffd"


def test_a_reading_is_unpacked_with_its_characters_replaced() -> None:
    data = json.dumps([["a\x07", "QR Code"], None]).encode()
    assert unpack_reading(data, 2) == [CodeText("a\ufffd", "QR Code"), None]


@pytest.mark.parametrize(
    "entries",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"{}",
        b"[null]",
        b"[null, 1]",
        b'[null, ["secret"]]',
        b'[null, ["secret", 1]]',
        b'[null, ["", "QR Code"]]',
        b'[null, ["secret", ""]]',
        b'[null, ["secret", "<b>"]]',
        b'[null, ["secret", "QR\\nCode"]]',
        json.dumps([None, ["s" * (MAX_TEXT_CHARS + 1), "QR Code"]]).encode(),
    ],
)
def test_a_reading_that_no_decoder_of_ours_sends_is_refused_without_quoting_it(entries: bytes) -> None:
    with pytest.raises(MalformedReading) as caught:
        unpack_reading(entries, 2)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
