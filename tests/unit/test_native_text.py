"""Tests that text which libraries print becomes log messages: limited by kind, with crashes whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from unittest import mock

import pytest

from streamer.supervisor.log_relay import MAX_BLOCK_LINES, LogRelay, NativeText


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


class SimulatedLoop:
    """Stands for the event loop of a relay: calls its readers and timers at simulated times."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, Callable[[], object]]] = []
        self._readers: dict[int, Callable[[], object]] = {}

    def time(self) -> float:
        return self.now

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        self._readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        del self._readers[fd]

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> mock.Mock:
        return self.call_at(self.now + delay_s, callback)

    def call_at(self, when: float, callback: Callable[[], object]) -> mock.Mock:
        self._timers.append((when, callback))
        return mock.Mock()

    def run_until(self, end: float) -> None:
        """Read what has been written, and run the timers up to a time."""
        for callback in list(self._readers.values()):
            callback()
        while due := sorted((when, callback) for when, callback in self._timers if when <= end)[:1]:
            self._timers.remove(due[0])
            self.now = max(self.now, due[0][0])
            due[0][1]()
        self.now = end


@pytest.fixture
def relayed(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[tuple[float, str]]], list[str]]:
    """Return a function that writes lines at their times to a relay and returns the messages in the log."""

    def run(lines: list[tuple[float, str]]) -> list[str]:
        loop, writer = SimulatedLoop(), mock.Mock(json_lines=False)
        writer.formatted.side_effect = lambda _level, _logger, message, process: message
        monkeypatch.setattr("asyncio.get_running_loop", lambda: loop)
        relay = LogRelay(writer)
        with relay.output_of("worker-0") as output:
            for time_s, line in lines:
                loop.run_until(time_s)
                os.write(output, line.encode() + b"\n")
                loop.run_until(time_s)
            loop.run_until(100.0)
            messages = [call.args[0] for call in writer.write.call_args_list]
        relay.close()
        return messages

    return run


def test_a_line_before_a_traceback_does_not_cut_it(
    relayed: Callable[[list[tuple[float, str]]], list[str]],
) -> None:
    traceback = ["Traceback (most recent call last):", '  File "a.py", line 1, in <module>', "ValueError: x"]
    lines = [(1.0, "libpng warning: x"), *zip((1.09, 1.5, 1.9), traceback, strict=True)]
    assert relayed(lines) == ["libpng warning: x", "\n".join(traceback)]


def test_a_slow_traceback_is_one_message_and_an_endless_one_ends(
    relayed: Callable[[list[tuple[float, str]]], list[str]],
) -> None:
    slow = [(0.9 * number, f"  line {number}") for number in range(1, 9)]
    (message,) = relayed([(0.0, "Fatal Python error: x"), *slow])
    assert len(message.splitlines()) == 9
    endless = [(0.9 * number, f"  line {number}") for number in range(1, 20)]
    messages = relayed([(0.0, "Fatal Python error: x"), *endless])
    assert len(messages) > 1
