"""Tests that text which libraries print becomes log messages: limited by kind, with crashes whole."""

from __future__ import annotations

from streamer.supervisor.log_relay import MAX_BLOCK_LINES, NativeText


def fed(text: NativeText, lines: list[str], now: float = 0.0) -> list[str]:
    return [message for line in lines for message in text.feed(line, now)] + text.flush(now)


def test_warnings_of_one_kind_pass_once_a_second() -> None:
    text = NativeText()
    lines = [f"libpng warning: chunk {number} is wrong" for number in range(100)]
    assert fed(text, lines) == ["libpng warning: chunk 0 is wrong"]
    assert text.take_held() == 99
    assert fed(text, ["libpng warning: once more"], now=1.5) == [
        "libpng warning: once more (and 99 more like it)"
    ]


def test_figures_and_addresses_make_no_kind() -> None:
    text = NativeText()
    lines = [f"[h264 @ 0x55d{number:x}] error while decoding MB {number}: x" for number in range(50)]
    assert len(fed(text, lines)) == 1


def test_whoever_varies_every_line_is_bounded_too() -> None:
    text = NativeText()
    lines = [f"{chr(97 + number % 26) * (1 + number // 26)} broken" for number in range(1000)]
    assert len(fed(text, lines)) <= 10


def test_a_traceback_is_one_message_with_its_causes() -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "a.py", line 1, in <module>',
        "ValueError: first",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        "Traceback (most recent call last):",
        "KeyError: second",
    ]
    assert fed(NativeText(), lines) == ["\n".join(lines)]


def test_an_endless_crash_is_cut_and_keeps_its_last_line() -> None:
    lines = [
        "Fatal Python error: Segmentation fault",
        *(f"line {number}" for number in range(5000)),
        "the end",
    ]
    (message,) = fed(NativeText(), lines)
    assert len(message.splitlines()) == MAX_BLOCK_LINES
    assert message.endswith("the end")


def test_blank_lines_say_nothing() -> None:
    assert fed(NativeText(), ["", "  ", ""]) == []
