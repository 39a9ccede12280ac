"""Tests what the decoder pool does without a running decoder: memory, messages, digests, filter, watchdog."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.models.model import Placement
from streamer.decoding.decode_job import (
    HARMLESS_CPU_MS,
    MAX_HARMLESS,
    DecoderLost,
    DuplicateFinder,
    Outcome,
    Work,
    decoder_crash_error,
)
from streamer.decoding.decoder_group import Arena, ArenaFull, DecoderGroup, DecoderProcess
from streamer.decoding.decoder_watchdog import (
    DECODE_CPU_LIMIT_S,
    ELAPSED_LIMIT_S,
    PICKUP_LIMIT_S,
    STOPPED_S,
    find_faults,
)
from streamer.decoding.fork_client import decoder_environment
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
from streamer.decoding.refused_digests import RefusedDigests
from streamer.decoding.sandbox import SeccompUnavailable, build_filter
from streamer.imaging.image_header import Limits
from tests.helpers.waiting import wait_for

JOB = Job(
    Task.LETTERBOX,
    7,
    4096,
    999,
    1,
    3,
    Placement.TOP_LEFT,
    114,
    640,
    384,
    33_554_432,
    8192,
    134_217_728,
    58_720_256,
)


def test_blocks_of_the_input_memory_never_overlap_and_all_come_back() -> None:
    arena, chance = Arena(64 * 4096), random.Random(3)
    held: dict[int, bytes] = {}
    for number in range(3000):
        if held and chance.random() < 0.5:
            offset = chance.choice(list(held))
            data = held.pop(offset)
            assert arena._memory[offset : offset + len(data)] == data
            arena.free(offset, len(data))
            continue
        data = number.to_bytes(4, "little") * chance.randint(1, 5000)
        try:
            held[arena.put(data)] = data
        except ArenaFull:
            assert sum(-(-len(d) // 4096) for d in held.values()) > 0
    for offset, data in held.items():
        arena.free(offset, len(data))
    assert arena._pages.free_runs == [(0, 64 * 4096)]
    arena.close()


def work(data: bytes | memoryview) -> Work:
    target = SimpleNamespace(input_width=64, input_height=64, placement=Placement.CENTRED, pad_value=114)
    return Work(data, Task.LETTERBOX, 0, 0, target, Limits(), lambda _outcome: None)


@pytest.mark.parametrize(
    ("outcome", "waits_again"),
    [
        (Answer(Verdict.DONE, 1, cpu_ms=5.0), False),
        (Answer(Verdict.DONE, 1, cpu_ms=HARMLESS_CPU_MS), True),
        (decoder_crash_error(), True),
        (DecoderLost("gone"), True),
    ],
)
def test_bytes_wait_for_their_twin_until_a_decoder_was_quickly_done_with_them(
    outcome: Outcome, waits_again: bool
) -> None:
    duplicates, first = DuplicateFinder(), work(b"same")
    duplicates.add(first)
    assert duplicates.find(b"diff") is None
    assert duplicates.find(b"longer") is None
    assert duplicates.find(memoryview(b"same")) is first
    first.followers.append((None, work(b"same")))
    duplicates.remove(first, outcome)
    assert duplicates.find(b"same") is None
    again = work(b"same")
    duplicates.add(again)
    assert (duplicates.find(b"same") is again) is waits_again


def test_only_so_many_harmless_bytes_are_remembered() -> None:
    duplicates = DuplicateFinder()
    for number in range(2 * MAX_HARMLESS):
        first = work(b"%d" % number)
        duplicates.add(first)
        first.followers.append((None, work(first.data)))
        duplicates.remove(first, Answer(Verdict.DONE, 1))
    assert len(duplicates._harmless) == MAX_HARMLESS


def test_large_blocks_are_given_back_to_the_system() -> None:
    arena = Arena(8 << 20)
    offset = arena.put(b"x" * (4 << 20))
    arena.free(offset, 4 << 20)
    assert arena._memory[offset : offset + 16] == bytes(16)
    arena.close()


def test_a_job_comes_out_as_it_went_in() -> None:
    assert unpack_job(pack_job(JOB)) == JOB


@given(st.binary(max_size=80))
def test_what_is_no_message_is_refused(data: bytes) -> None:
    for unpack in (unpack_job, unpack_answer):
        try:
            unpack(data)
        except MalformedMessage:
            continue


@pytest.mark.parametrize(
    "changes",
    [{"width": 0}, {"height": 70_000}, {"decode_ms": float("nan")}, {"decode_ms": -1.0}],
)
def test_an_answer_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    answer = Answer(Verdict.DONE, 7, 640, 480, decode_ms=1.0)
    assert unpack_answer(pack_answer(answer)) == answer
    with pytest.raises(MalformedMessage):
        unpack_answer(pack_answer(dataclasses.replace(answer, **changes)))


def test_the_text_of_an_answer_is_cut() -> None:
    assert len(pack_answer(Answer(Verdict.REFUSED, 1, text="x" * 9999))) < 1000


def test_digests_are_remembered_up_to_a_thousand(tmp_path: Path) -> None:
    memory, other = RefusedDigests(tmp_path / "digests"), RefusedDigests(tmp_path / "digests")
    for number in range(1001):
        memory.add(number.to_bytes(4, "little"))
    assert other.contains((1000).to_bytes(4, "little"))
    assert other.contains((1).to_bytes(4, "little"))
    assert not other.contains((0).to_bytes(4, "little"))
    assert not other.contains(b"another length")


def test_digests_are_remembered_without_a_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory = RefusedDigests(tmp_path / "no" / "such" / "folder")
    memory.add(b"harm")
    assert memory.contains(b"harm")
    assert "only this worker" in caplog.text


def test_the_filter_is_built_for_known_machines_only() -> None:
    for machine in ("x86_64", "aarch64"):
        assert len(build_filter(machine)) % 8 == 0
    with pytest.raises(SeccompUnavailable):
        build_filter("sparc64")


def test_no_secret_reaches_a_decoder() -> None:
    environment = {
        "PATH": "/bin",
        "API_KEYS": "test-key",
        "AWS_SECRET_ACCESS_KEY": "x",
        "MALLOC_ARENA_MAX": "2",
    }
    assert decoder_environment(environment) == {"PATH": "/bin", "MALLOC_ARENA_MAX": "2"}


class TestWatchdog:
    """Tests `find_faults` on status pages that the tests write."""

    @pytest.fixture
    def group(self) -> Any:
        group = DecoderGroup(4096)
        for key in (1, 2):
            member = group.add(key)
            member.ready = True
        yield group
        group.close()

    def test_a_decoder_that_computes_for_too_long_is_killed_for_its_job(
        self, group: DecoderGroup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        used_s = 5.0 + DECODE_CPU_LIMIT_S - 0.01
        monkeypatch.setattr(DecoderProcess, "cpu_s", lambda _member: used_s)
        group.page.write(0, 9, 100.0, 5.0)
        held = {9: SimpleNamespace(sent_at=100.0)}
        find_faults(group, held, 101.9)
        assert [member.killed_because for member in group.processes.values()] == ["", ""]
        used_s += 0.02
        find_faults(group, held, 101.95)
        assert [member.killed_because for member in group.processes.values()] == ["timeout", ""]
        assert group.processes[1].killed_for == 9
        assert group.processes[1].was_computing

    def test_frames_of_videos_have_a_limit_of_their_own(
        self, group: DecoderGroup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(DecoderProcess, "cpu_s", lambda _member: 1.1)
        group.page.write(0, 9, 100.0, 0.0)
        find_faults(group, {9: SimpleNamespace(sent_at=100.0)}, 102.0, cpu_limit_s=1.0)
        assert group.processes[1].was_computing

    def test_on_a_busy_machine_an_image_may_take_longer(
        self, group: DecoderGroup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        used_s = 0.0
        monkeypatch.setattr(DecoderProcess, "cpu_s", lambda _member: used_s)
        group.page.write(0, 9, 100.0, 0.0)
        held = {9: SimpleNamespace(sent_at=100.0)}
        now = 100.0
        # The decoder gets a twentieth of a core, and in some checks it seems to have got nothing.
        while now < 100.0 + ELAPSED_LIMIT_S:
            used_s = int((now - 100.0) / 1.5) * 0.075
            find_faults(group, held, now)
            assert group.processes[1].killed_because == ""
            now += 0.25
        find_faults(group, held, now + 0.25)
        assert group.processes[1].killed_because == "timeout"
        assert not group.processes[1].was_computing

    @pytest.mark.parametrize("runnable", [False, True])
    def test_a_decoder_that_uses_no_processor_time_is_stopped_unless_it_waits_for_a_processor(
        self, group: DecoderGroup, monkeypatch: pytest.MonkeyPatch, *, runnable: bool
    ) -> None:
        monkeypatch.setattr(DecoderProcess, "cpu_s", lambda _member: 3.0)
        monkeypatch.setattr(DecoderProcess, "is_runnable", lambda _member: runnable)
        group.page.write(0, 9, 100.0, 3.0)
        held = {9: SimpleNamespace(sent_at=100.0)}
        for now in (100.1, 100.0 + STOPPED_S):
            find_faults(group, held, now)
            assert group.processes[1].killed_because == ""
        find_faults(group, held, 100.2 + STOPPED_S)
        assert group.processes[1].killed_because == ("" if runnable else "timeout")
        assert not group.processes[1].was_computing

    @pytest.mark.parametrize("runnable", [False, True])
    def test_decoders_that_leave_a_job_waiting_are_stuck_unless_they_wait_for_a_processor(
        self, group: DecoderGroup, monkeypatch: pytest.MonkeyPatch, *, runnable: bool
    ) -> None:
        monkeypatch.setattr(DecoderProcess, "is_runnable", lambda _member: runnable)
        held = {9: SimpleNamespace(sent_at=100.0)}
        for now in (100.75 + PICKUP_LIMIT_S, 101.0 + PICKUP_LIMIT_S):
            assert not group.stuck
            find_faults(group, held, now)
        assert group.stuck != runnable
        find_faults(group, held, 100.1 + ELAPSED_LIMIT_S)
        assert group.stuck

    def test_decoders_that_sleep_are_not_stuck_while_the_one_that_the_job_woke_waits_for_a_processor(
        self, group: DecoderGroup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        woken = 1
        monkeypatch.setattr(DecoderProcess, "is_runnable", lambda member: member.key == woken)
        held = {9: SimpleNamespace(sent_at=100.0)}
        for now in (100.75 + PICKUP_LIMIT_S, 101.0 + PICKUP_LIMIT_S):
            find_faults(group, held, now)
        assert not group.stuck
        woken = 0
        find_faults(group, held, 101.25 + PICKUP_LIMIT_S)
        assert group.stuck

    def test_a_decoder_that_is_killed_before_its_id_is_known_ends_as_soon_as_it_is(
        self, group: DecoderGroup
    ) -> None:
        """On a busy machine a decoder may take a job before the fork server has reported it."""
        group.page.write(0, 9, 100.0, 0.0)
        held = {9: SimpleNamespace(sent_at=100.0)}
        for now in (100.0, 100.1 + STOPPED_S, 100.1 + ELAPSED_LIMIT_S):
            assert group.processes[1].killed_because == ""
            find_faults(group, held, now)
        assert group.processes[1].killed_because == "timeout"
        assert not group.processes[1].was_computing
        with subprocess.Popen(["/bin/sleep", "60"]) as child:
            group.processes[1].forked(child.pid, os.pidfd_open(child.pid))
            assert child.wait() == -signal.SIGKILL

    def test_the_next_job_of_a_decoder_begins_anew(
        self, group: DecoderGroup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(DecoderProcess, "cpu_s", lambda _member: 3.0)
        monkeypatch.setattr(DecoderProcess, "is_runnable", lambda _member: False)
        group.page.write(0, 8, 100.0, 3.0)
        find_faults(group, {8: SimpleNamespace(sent_at=100.0)}, 100.1)
        group.page.write(0, 9, 100.0 + STOPPED_S, 3.0)
        find_faults(group, {9: SimpleNamespace(sent_at=100.0 + STOPPED_S)}, 100.2 + STOPPED_S)
        assert group.processes[1].killed_because == ""

    def test_the_state_of_a_process_tells_whether_it_waits_for_a_processor(self) -> None:
        this_one, none = DecoderProcess(1, 0, pid=os.getpid()), DecoderProcess(2, 1, pid=2**22 + 1)
        assert this_one.is_runnable()
        assert not none.is_runnable()
        child = subprocess.Popen(["/bin/sleep", "60"])
        try:
            asleep = DecoderProcess(3, 2, pid=child.pid)
            wait_for(lambda: not asleep.is_runnable())
            child.send_signal(signal.SIGSTOP)
            wait_for(lambda: not asleep.is_runnable())
        finally:
            child.kill()
            child.wait()

    def test_decoders_that_let_work_wait_are_replaced_when_they_seemed_free_twice(
        self, group: DecoderGroup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(DecoderProcess, "is_runnable", lambda _member: False)
        held = {9: SimpleNamespace(sent_at=100.0)}
        find_faults(group, held, 100.5)
        assert not group.stuck
        find_faults(group, held, 100.0 + PICKUP_LIMIT_S + 0.1)
        assert [member.killed_because for member in group.processes.values()] == ["stuck", "stuck"]
        assert group.stuck

    def test_a_busy_decoder_lets_work_wait_rightly(
        self, group: DecoderGroup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(DecoderProcess, "cpu_s", lambda _member: 0.0)
        group.page.write(0, 8, 100.0, 0.0)
        group.page.write(1, 7, 100.0, 0.0)
        held = {n: SimpleNamespace(sent_at=100.0) for n in (7, 8, 9)}
        for step in range(6):
            find_faults(group, held, 100.0 + step * 0.25)
        assert [member.killed_because for member in group.processes.values()] == ["", ""]
