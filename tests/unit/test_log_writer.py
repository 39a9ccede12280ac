"""Tests that the supervisor's log never waits for its reader, reports lost lines, and closes in time."""

from __future__ import annotations

import json
import os
import threading

from streamer.supervisor.log_writer import MAX_WAITING_BYTES, LogWriter


def read_until(fd: int, end: str) -> list[str]:
    data = b""
    while end.encode() not in data:
        data += os.read(fd, 1 << 16)
    return data.decode().splitlines()


def test_lines_arrive_in_order() -> None:
    reader, writer = os.pipe()
    log = LogWriter(writer, json_lines=True)
    for number in range(1000):
        log.write(json.dumps(number))
    assert log.close(60.0)
    assert read_until(reader, "\n999\n") == [str(number) for number in range(1000)]


def test_a_stalled_reader_stops_nobody_and_is_told_what_it_missed() -> None:
    reader, writer = os.pipe()
    log = LogWriter(writer, json_lines=True)
    line = json.dumps("x" * 1000)
    count = 3 * MAX_WAITING_BYTES // len(line)
    for _ in range(count):
        log.write(line)
    assert not log.close(0.1)
    received: list[str] = []
    thread = threading.Thread(target=lambda: received.extend(read_until(reader, "at last")))
    thread.start()
    assert log.close(60.0)
    log.write(json.dumps("at last"))
    thread.join(60.0)
    lines = [json.loads(text) for text in received[:-1]]
    told = [line["message"] for line in lines if isinstance(line, dict)]
    dropped = [int(text.partition(" ")[0]) for text in told]
    # The pipe may have had room several times; each time, the writer reported the lines dropped until then.
    assert sum(dropped) + len(lines) - len(told) == count
    assert all("log lines were dropped: standard error was not read" in text for text in told)
    assert told


def test_a_descriptor_that_another_process_made_non_blocking_loses_nothing() -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    os.set_blocking(reader, True)
    log = LogWriter(writer, json_lines=True)
    for number in range(500):
        log.write(json.dumps("x" * 1000 + str(number)))
    assert len(read_until(reader, "x499")) == 500
    assert log.close(60.0)


def test_a_reader_that_is_gone_or_a_full_disk_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for fd in (writer, os.open("/dev/full", os.O_WRONLY)):
        log = LogWriter(fd, json_lines=True)
        for _ in range(100):
            log.write("line")
        assert log.close(60.0)
