"""``streamer models pull`` from a server that cuts connections, stalls and changes files meanwhile."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from inference.models.manifest import Manifest, read_manifest
from streamer.model_zoo.download_url import PullFailed, WrongFile
from streamer.model_zoo.pull import PullResult
from tests.helpers.model_factory import null_model
from tests.helpers.model_pulls import BODY, QUICK, Report, entry_of, get, names
from tests.helpers.release_server import Fault, Server


async def test_a_complete_file_is_installed_with_its_manifest(server: Server, tmp_path: Path) -> None:
    report = Report()
    pulled = await get(entry_of(server), tmp_path / "models", report=report)
    assert pulled == PullResult(tmp_path / "models" / "tiny.onnx", server.sha256)
    assert pulled.path.read_bytes() == BODY
    assert names(tmp_path / "models") == ["tiny.json", "tiny.onnx"]
    assert read_manifest(pulled.path) == Manifest(
        licence="Apache-2.0", source="https://host/page", sha256=server.sha256, batch_max=1
    )
    assert [seen.headers["accept-encoding"] for seen in server.seen] == ["identity"]
    assert "tiny: sha256 is as expected" in report.lines
    assert any(text.startswith("tiny: ") for text in report.statuses)


async def test_an_interrupted_download_is_resumed(server: Server, tmp_path: Path) -> None:
    server.faults = [Fault(cut_after=100_000), Fault(cut_after=50_000), Fault(cut_after=0)]
    report = Report()
    pulled = await get(entry_of(server), tmp_path, report=report)
    assert pulled.path.read_bytes() == BODY
    ranges = [seen.headers.get("range") for seen in server.seen]
    assert ranges == [None, "bytes=100000-", "bytes=150000-", "bytes=150000-"]
    assert [seen.headers.get("if-range") for seen in server.seen[1:]] == ['"one"'] * 3
    assert server.bytes_sent == len(BODY)
    assert sum("cut after" in line for line in report.lines) == 3


async def test_after_too_many_cut_connections_pull_gives_up_and_keeps_the_part(
    server: Server, tmp_path: Path
) -> None:
    server.faults = [Fault(cut_after=100_000), *[Fault(cut_after=0)] * 5]
    with pytest.raises(
        PullFailed, match=r"tiny: the connection was cut.*3 attempts without.*; 100 kB are kept"
    ):
        await get(entry_of(server), tmp_path)
    assert len(server.seen) == 3
    assert names(tmp_path) == ["tiny.onnx.part", "tiny.onnx.part.json"]
    server.faults = []
    pulled = await get(entry_of(server), tmp_path)
    assert server.seen[-1].headers["range"] == "bytes=100000-"
    assert pulled.path.read_bytes() == BODY
    assert names(tmp_path) == ["tiny.json", "tiny.onnx"]


async def test_a_server_may_send_less_than_the_requested_range(server: Server, tmp_path: Path) -> None:
    server.faults = [Fault(cut_after=100_000), Fault(window=50_000), Fault(window=50_000)]
    assert (await get(entry_of(server), tmp_path)).path.read_bytes() == BODY
    ranges = [seen.headers.get("range") for seen in server.seen]
    assert ranges == [None, "bytes=100000-", "bytes=150000-", "bytes=200000-"]


async def test_a_server_without_ranges_sends_the_whole_file_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.faults = [Fault(cut_after=100_000)]
    pulled = await get(entry_of(server), tmp_path)
    assert server.seen[1].headers["range"] == "bytes=100000-"
    assert server.bytes_sent == 100_000 + len(BODY)
    assert pulled.path.read_bytes() == BODY


async def test_a_file_that_changed_meanwhile_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    server.faults = [Fault(cut_after=100_000)] * 3
    server.body = bytes(len(BODY))
    with pytest.raises(PullFailed):
        await get(entry_of(server), tmp_path, replace(QUICK, tries=1))
    server.body, server.etag, server.faults = BODY, '"two"', []
    pulled = await get(entry_of(server), tmp_path)
    assert server.seen[-1].headers["if-range"] == '"one"'
    assert pulled.path.read_bytes() == BODY


async def test_parts_of_two_files_are_detected_and_the_file_downloaded_again(
    server: Server, tmp_path: Path
) -> None:
    """Without entity tags only the checksum shows that the parts belong to different files."""
    server.etag = None
    server.faults = [Fault(cut_after=100_000)]
    server.body = bytes(len(BODY))
    with pytest.raises(PullFailed):
        await get(entry_of(server), tmp_path, replace(QUICK, tries=1))
    server.body, report = BODY, Report()
    pulled = await get(entry_of(server), tmp_path, report=report)
    assert [seen.headers.get("range") for seen in server.seen] == [None, "bytes=100000-", None]
    assert any("do not belong together" in line for line in report.lines)
    assert pulled.path.read_bytes() == BODY


@pytest.mark.parametrize("etag", ['"one"', None])
async def test_without_a_checksum_only_an_entity_tag_allows_resuming(
    server: Server, tmp_path: Path, etag: str | None
) -> None:
    server.body = null_model(tmp_path / "source.onnx", size=64).read_bytes()
    server.etag = etag
    server.faults = [Fault(cut_after=1000)]
    unknown = entry_of(server, sha256=None, size=None)
    pulled = await get(unknown, tmp_path / "models", replace(QUICK, trust=True))
    assert pulled.path.read_bytes() == server.body
    assert server.seen[1].headers.get("range") == ("bytes=1000-" if etag else None)


async def test_a_part_from_another_url_is_not_resumed(server: Server, tmp_path: Path) -> None:
    server.faults = [Fault(cut_after=100_000)]
    with pytest.raises(PullFailed):
        await get(entry_of(server), tmp_path, replace(QUICK, tries=1))
    moved = replace(entry_of(server), url=server.url + "?other")
    assert (await get(moved, tmp_path)).path.read_bytes() == BODY
    assert "range" not in server.seen[-1].headers


async def test_a_part_without_its_note_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx.part").write_bytes(b"something")
    assert (await get(entry_of(server), tmp_path)).path.read_bytes() == BODY
    (tmp_path / "tiny.onnx").unlink()
    (tmp_path / "tiny.onnx.part").write_bytes(b"something")
    (tmp_path / "tiny.onnx.part.json").write_text("{")
    assert (await get(entry_of(server), tmp_path)).path.read_bytes() == BODY
    assert [seen.headers.get("range") for seen in server.seen] == [None, None]


async def test_a_complete_part_needs_no_request(server: Server, tmp_path: Path) -> None:
    """A crash between the last byte and the rename leaves a complete partial file."""
    (tmp_path / "tiny.onnx.part").write_bytes(BODY)
    assert (await get(entry_of(server), tmp_path)).path.read_bytes() == BODY
    assert server.seen == []
    (tmp_path / "tiny.onnx").unlink()
    (tmp_path / "tiny.onnx.part").write_bytes(bytes(len(BODY)))
    note = {"url": server.url, "etag": server.etag, "total": len(BODY)}
    (tmp_path / "tiny.onnx.part.json").write_text(json.dumps(note))
    assert (await get(entry_of(server), tmp_path)).path.read_bytes() == BODY
    assert [seen.headers.get("range") for seen in server.seen] == [None]


async def test_a_part_that_is_longer_than_the_file_is_downloaded_again(
    server: Server, tmp_path: Path
) -> None:
    server.faults = [Fault(cut_after=100_000)]
    sizeless = entry_of(server, size=None)
    with pytest.raises(PullFailed):
        await get(sizeless, tmp_path, replace(QUICK, tries=1))
    with (tmp_path / "tiny.onnx.part").open("ab") as part:
        part.write(bytes(len(BODY)))
    assert (await get(sizeless, tmp_path)).path.read_bytes() == BODY


async def test_a_wrong_checksum_leaves_nothing_behind(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        WrongFile, match=rf"expected sha256 {'0' * 64}; found {server.sha256}.*https://host/page"
    ):
        await get(entry_of(server, sha256="0" * 64), tmp_path)
    assert names(tmp_path) == []
    assert len(server.seen) == 1


async def test_a_wrong_checksum_leaves_the_installed_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(b"mine")
    (tmp_path / "tiny.json").write_text('{"name": "mine"}')
    with pytest.raises(WrongFile):
        await get(entry_of(server, sha256="0" * 64), tmp_path, replace(QUICK, force=True))
    assert (tmp_path / "tiny.onnx").read_bytes() == b"mine"
    assert read_manifest(tmp_path / "tiny.onnx") == Manifest(name="mine")


@pytest.mark.parametrize(
    ("status", "hint"), [(404, "source"), (403, "denies the file"), (410, "removed"), (400, "400")]
)
async def test_a_refusal_is_final(server: Server, tmp_path: Path, status: int, hint: str) -> None:
    server.faults = [Fault(status=status)] * 5
    with pytest.raises(PullFailed, match=rf"http://127\.0\.0\.1:\d+ answers {status}.*{hint}|{hint}"):
        await get(entry_of(server), tmp_path)
    assert len(server.seen) == 1
    assert names(tmp_path) == []


async def test_a_busy_server_is_retried_and_then_given_up(server: Server, tmp_path: Path) -> None:
    server.faults = [Fault(status=503, headers={"Retry-After": "0"}), Fault(status=429)]
    assert (await get(entry_of(server), tmp_path)).path.exists()
    (tmp_path / "tiny.onnx").unlink()
    server.faults = [Fault(status=500)] * 5
    with pytest.raises(PullFailed, match=r"answers 500.*given up after 3 attempts"):
        await get(entry_of(server), tmp_path)
    assert len(server.seen) == 3 + 3


async def test_silence_ends_an_attempt_and_the_next_one_resumes(server: Server, tmp_path: Path) -> None:
    server.faults = [Fault(silent_after=100_000)]
    report = Report()
    pulled = await get(entry_of(server), tmp_path, replace(QUICK, stall_s=0.5), report)
    assert pulled.path.read_bytes() == BODY
    assert server.seen[1].headers["range"] == "bytes=100000-"
    assert any("received less than 16.4 kB in 0.5 s" in line for line in report.lines)


async def test_a_trickle_counts_as_silence(server: Server, tmp_path: Path) -> None:
    server.faults = [Fault(rate=2_000)] * 3
    with pytest.raises(PullFailed, match=r"received less than 16\.4 kB in 0\.3 s; --stall-timeout"):
        await get(entry_of(server), tmp_path, replace(QUICK, stall_s=0.3, tries=1))


async def test_a_slow_server_is_waited_for(server: Server, tmp_path: Path) -> None:
    """The server sends 300 kB in 2 s: longer than the stall time-out, but without a pause."""
    server.faults = [Fault(rate=150_000)]
    assert (await get(entry_of(server), tmp_path, replace(QUICK, stall_s=1.8))).path.read_bytes() == BODY
    assert len(server.seen) == 1


async def test_another_size_is_refused_before_the_body_is_read(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WrongFile, match=rf"expected 299999 bytes; found {len(BODY)} bytes"):
        await get(entry_of(server, size=len(BODY) - 1), tmp_path)
    assert names(tmp_path) == []


async def test_a_body_without_an_end_is_aborted(server: Server, tmp_path: Path) -> None:
    server.faults = [Fault(chunked=True)]
    with pytest.raises(WrongFile, match="expected 1000 bytes; received more"):
        await get(entry_of(server, size=1000), tmp_path)
    assert names(tmp_path) == []


async def test_a_body_of_unknown_length_is_accepted(server: Server, tmp_path: Path) -> None:
    server.faults = [Fault(chunked=True)]
    assert (await get(entry_of(server, size=None), tmp_path)).path.read_bytes() == BODY


async def test_a_compressed_response_is_refused(server: Server, tmp_path: Path) -> None:
    server.faults = [Fault(headers={"Content-Encoding": "gzip"})]
    with pytest.raises(PullFailed, match=r"compressed \(gzip\)"):
        await get(entry_of(server), tmp_path)
