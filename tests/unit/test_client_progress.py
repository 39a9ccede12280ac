"""The status line and the closing table are right, and the terminal shows no secret and stays tidy."""

from __future__ import annotations

import io

import pytest

from streamer.cli.push_report import Rate, Tally, clock, percentile, progress_line, summary, unexplained
from streamer.client.frame_stream import Phase, State
from streamer.client.results import Ledger
from streamer.core.terminal import PLAIN_INTERVAL_S, Terminal

CONNECTED = State(Phase.CONNECTED, "ws://host")


class FakeTerminal(io.StringIO):
    """Simulates a terminal: a text stream that reports to be one."""

    def isatty(self) -> bool:
        return True


class GoneStream(io.StringIO):
    """Simulates a pipe whose reader has closed it."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


def tally() -> Tally:
    made = Tally(captured=50, total=100, time_s=75.0)
    for index in range(20):
        made.captures.mark(index * 0.1)
        made.result(3, 0.020 + index * 0.001, index * 0.1)
    return made


def test_the_line_says_rates_round_trip_reasons_and_share() -> None:
    ledger = Ledger()
    ledger.skipped.update(window=3, late=1)
    ledger.dropped.update(stale=2)
    line = progress_line(tally(), ledger, CONNECTED, 2.0)
    assert line == (
        "connected | 1:15 50% | in 10.0 fps, out 10.0 fps | round trip 30 ms | boxes 3 | "
        "skipped 4 (3 window, 1 late) | dropped 2 stale"
    )
    ledger.errors.update(window=1)
    waiting = progress_line(Tally(), ledger, State(Phase.WAITING, "no server", retry_s=1.25), 2.0)
    assert waiting.startswith("no server, next try in 1.2 s | 0:00 |")
    assert waiting.endswith("errors 1 window")


def test_the_summary_says_whether_the_ledger_balances() -> None:
    ledger = Ledger(offered=50, sent=45, results=43)
    ledger.skipped.update(window=5)
    ledger.dropped.update(stale=2)
    assert unexplained(50, ledger) == 0
    text = summary(tally(), ledger, "x.mp4")
    assert "ledger     balances" in text
    assert "x.mp4" in text
    ledger.results -= 1
    assert unexplained(50, ledger) == 1
    assert "OFF BY 1" in summary(tally(), ledger)
    assert unexplained(52, ledger) == 3


def test_rates_forget_what_is_long_past() -> None:
    rate = Rate()
    assert rate.per_s(0.0) == 0
    for index in range(100):
        rate.mark(index * 0.1)
    assert round(rate.per_s(9.9), 1) == 10.3
    assert rate.per_s(100.0) == 0


def test_small_helpers() -> None:
    assert [clock(s) for s in (0, 59.9, 139.4, 3600)] == ["0:00", "0:59", "2:19", "1:00:00"]
    assert percentile([], 0.5) == 0
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([1], 0.95) == 1


def test_a_terminal_gets_one_line_rewritten_that_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    stream = FakeTerminal()
    terminal = Terminal(stream=stream)
    terminal.status("x" * 500)
    terminal.line("done")
    terminal.close()
    status, _, rest = stream.getvalue().partition("\n")
    assert 70 < status.count("x") % 80 < 80
    # Rich erases the status line, so that nothing of it remains above the final line.
    assert rest.endswith("\x1b[1A\x1b[2Kdone\n")


def test_a_terminal_gets_a_bar_for_work_of_known_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = FakeTerminal()
    terminal = Terminal(stream=stream)
    terminal.status("batch 4 of 8", 0.5)
    assert "━" in stream.getvalue()
    assert "50%" in stream.getvalue()
    terminal.close()


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("TERM", "unknown")])
def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    stream = FakeTerminal()
    terminal = Terminal(stream=stream)
    terminal.status("half", 0.5)
    terminal.error("failed")
    assert stream.getvalue() == "50% half\nfailed\n"


def test_without_a_terminal_the_status_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a CI system sets this; its log must get no status drawing
    stream, now = io.StringIO(), [100.0]
    terminal = Terminal(stream=stream, clock=lambda: now[0])
    for _ in range(100):
        terminal.status("status")
        now[0] += PLAIN_INTERVAL_S / 50
    terminal.error("failed")
    assert stream.getvalue() == "status\nstatus\nfailed\n"


def test_errors_are_red_on_a_terminal_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for expected in ("\x1b[31mfailed\x1b[0m\n", "failed\n"):
        stream = FakeTerminal()
        Terminal(stream=stream).error("failed")
        assert stream.getvalue() == expected
        monkeypatch.setenv("NO_COLOR", "1")


def test_quiet_shows_errors_only() -> None:
    stream = io.StringIO()
    terminal = Terminal(quiet=True, stream=stream)
    terminal.line("hello")
    terminal.status("status")
    terminal.line("failed", always=True)
    assert stream.getvalue() == "failed\n"


def test_no_text_shows_a_secret() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream=stream, secrets=["dummy-token-1"])
    terminal.line("opening rtsp://admin:dummy-pass@camera/x with dummy-token-1")
    terminal.status("ws://host/?token=dummy-token-2 dummy-token-1")
    shown = stream.getvalue()
    assert "dummy-" not in shown
    assert "rtsp://***@camera/x" in shown


def test_a_reader_that_has_left_does_not_stop_the_work() -> None:
    Terminal(stream=GoneStream()).line("hello")
