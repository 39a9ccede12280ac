"""``streamer models pull`` against a server that cuts connections, stalls, redirects and changes files."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from inference.models.manifest import Manifest, read_manifest
from inference.models.model import Family
from streamer.client.options import Tls
from streamer.core.backoff import Backoff
from streamer.model_zoo.download_url import CannotWrite, NotTrusted, PullFailed, WrongFile
from streamer.model_zoo.pull import PullOptions, PullResult, pull
from streamer.model_zoo.registry import RegistryEntry
from tests.helpers.model_factory import null_model
from tests.integration.release_server import Fault, ForwardProxy, Server
from tests.integration.test_client_network import make_certificate

BODY = random.Random(1).randbytes(300_000)
#: Few attempts, but a long stall time-out: on a busy machine even a local socket may be slow.
QUICK = PullOptions(stall_s=10.0, tries=3)


@dataclass
class Report:
    """Collects the lines that ``pull`` would show on a terminal."""

    lines: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def status(self, text: str) -> None:
        self.statuses.append(text)

    def transfer(self, name: str, done: int, total: int | None) -> None:
        self.statuses.append(f"{name}: {done} of {total}")


@pytest.fixture(autouse=True)
def _no_proxy_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server(BODY) as running:
        yield running


def entry_of(server: Server, *, sha256: str | None = "", size: int | None = len(BODY)) -> RegistryEntry:
    """Return a registry entry for the served file; an empty ``sha256`` means the file's true checksum."""
    return RegistryEntry(
        name="tiny",
        title="Tiny",
        family=Family.YOLO,
        input=(64, 64),
        classes=1,
        licence="Apache-2.0",
        url=server.url,
        source="https://host/page",
        sha256=server.sha256 if sha256 == "" else sha256,
        size=size,
        manifest={"batch_max": 1},
    )


async def get(
    entry: RegistryEntry, folder: Path, options: PullOptions = QUICK, report: Report | None = None
) -> PullResult:
    no_wait = Backoff(uniform=lambda low, high: 0.0)
    return await pull(entry, folder, report or Report(), options, no_wait)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
    assert (await get(entry_of(server), tmp_path, replace(QUICK, stall_s=0.9))).path.read_bytes() == BODY
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


async def test_redirects_are_followed(server: Server, tmp_path: Path) -> None:
    async with Server() as front:
        signed = f"{server.url}?sig=a%7Eb%2F"
        front.faults = [
            Fault(status=301, headers={"Location": "/moved"}),
            Fault(status=302, headers={"Location": signed}),
        ]
        assert (await get(replace(entry_of(server), url=front.url), tmp_path)).path.read_bytes() == BODY
        assert [seen.target for seen in front.seen] == ["/release/model.onnx", "/moved"]
        assert server.seen[0].target.endswith("?sig=a%7Eb%2F")


@pytest.mark.parametrize(
    ("location", "found"),
    [
        (
            "http://example.invalid/x?token=dummy",
            r"redirects to http://example\.invalid, which is not followed",
        ),
        ("ftp://127.0.0.1/x", "is not followed"),
        ("/again", "redirects more than 10 times"),
        ("https://[", "an address that cannot be parsed, which is not followed"),
        ("http://127.0.0.1:port/", "is not followed"),
        ("", "is not followed"),
    ],
)
async def test_a_redirect_to_a_forbidden_url_is_refused(
    server: Server, tmp_path: Path, location: str, found: str
) -> None:
    server.faults = [Fault(status=302, headers={"Location": location} if location else {})] * 11
    with pytest.raises(PullFailed, match=found) as refused:
        await get(entry_of(server), tmp_path)
    assert "dummy" not in str(refused.value)


async def test_a_redirect_from_https_to_http_is_refused(server: Server, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    trusting = replace(QUICK, tls=Tls(ca_file=str(certificate)))
    async with Server(BODY, tls=context) as secure:
        with pytest.raises(PullFailed, match=r"127\.0\.0\.1: the certificate is not trusted.*--ca-file"):
            await get(entry_of(secure), tmp_path / "models")
        secure.faults = [Fault(status=302, headers={"Location": server.url})]
        with pytest.raises(PullFailed, match="which is not followed"):
            await get(entry_of(secure), tmp_path / "models", trusting)
        assert server.seen == []
        assert (await get(entry_of(secure), tmp_path / "models", trusting)).path.read_bytes() == BODY


async def test_the_proxy_of_the_environment_is_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        await get(entry_of(server), tmp_path / "one")
        assert proxy.asked == [f"GET {server.url} HTTP/1.1"]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        await get(entry_of(server), tmp_path / "two")
        assert len(proxy.asked) == 1
        assert len(server.seen) == 2


async def test_https_goes_through_the_proxy_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with Server(BODY, tls=context) as secure, ForwardProxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        options = replace(QUICK, tls=Tls(ca_file=str(certificate)))
        assert (await get(entry_of(secure), tmp_path / "models", options)).path.read_bytes() == BODY
        assert proxy.asked == [f"CONNECT 127.0.0.1:{secure.port} HTTP/1.1"]


async def test_an_unreachable_server_is_reported_with_host_and_reason(server: Server, tmp_path: Path) -> None:
    gone = replace(entry_of(server), url="http://127.0.0.1:1/x.onnx")
    with pytest.raises(PullFailed, match=r"127\.0\.0\.1:1 cannot be reached: Connection refused"):
        await get(gone, tmp_path)


async def test_an_installed_file_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    await get(entry_of(server), tmp_path)
    assert (await get(entry_of(server), tmp_path)).was_installed
    assert len(server.seen) == 1
    (tmp_path / "tiny.onnx").write_bytes(b"another")
    with pytest.raises(CannotWrite, match=r"tiny\.onnx: another file.*--force"):
        await get(entry_of(server), tmp_path)
    assert (tmp_path / "tiny.onnx").read_bytes() == b"another"
    assert not (await get(entry_of(server), tmp_path, replace(QUICK, force=True))).was_installed
    assert (tmp_path / "tiny.onnx").read_bytes() == BODY


async def test_an_existing_manifest_is_kept_and_its_problems_are_reported(
    server: Server, tmp_path: Path
) -> None:
    report = Report()
    (tmp_path / "tiny.json").write_text('{"labels": ["mine"]}')
    await get(entry_of(server), tmp_path, report=report)
    assert read_manifest(tmp_path / "tiny.onnx") == Manifest(labels=("mine",))
    assert "tiny: tiny.json exists and is not changed" in report.lines
    (tmp_path / "tiny.onnx").unlink()
    (tmp_path / "tiny.json").write_text(json.dumps({"sha256": "0" * 64}))
    await get(entry_of(server), tmp_path, report=report)
    assert "its `sha256` belongs to another file" in report.lines[-1]


async def test_a_file_without_a_checksum_needs_trust(server: Server, tmp_path: Path) -> None:
    server.body = null_model(tmp_path / "source.onnx", size=64).read_bytes()
    folder = tmp_path / "models"
    unknown = entry_of(server, sha256=None, size=None)
    with pytest.raises(NotTrusted, match=r"no checksum.*https://host/page.*--trust"):
        await get(unknown, folder)
    assert server.seen == []
    report = Report()
    pulled = await get(unknown, folder, replace(QUICK, trust=True), report)
    assert f"tiny: not verified; its sha256 is {server.sha256}" in report.lines
    # The checksum in the manifest lets the service notice when the file changes.
    assert read_manifest(pulled.path).sha256 == server.sha256
    assert (await get(unknown, folder, replace(QUICK, trust=True))).was_installed


async def test_a_checksum_from_the_command_line_is_verified(server: Server, tmp_path: Path) -> None:
    unknown = entry_of(server, sha256=None)
    with pytest.raises(WrongFile):
        await get(unknown, tmp_path, replace(QUICK, sha256="0" * 64))
    assert (await get(unknown, tmp_path, replace(QUICK, sha256=server.sha256))).path.exists()
    with pytest.raises(NotTrusted, match="one of them belongs to another file"):
        await get(entry_of(server), tmp_path, replace(QUICK, sha256="0" * 64))


@pytest.mark.parametrize(
    ("body", "found"),
    [(b"<!DOCTYPE html><p>log in</p>", "a web page"), (b"\x08\x07hello", "not ONNX"), (bytes(5000), "zeros")],
)
async def test_trust_does_not_accept_a_file_that_is_no_model(
    server: Server, tmp_path: Path, body: bytes, found: str
) -> None:
    server.body = body
    with pytest.raises(WrongFile, match=f"expected an ONNX file; found .*{found}"):
        await get(entry_of(server, sha256=None, size=None), tmp_path, replace(QUICK, trust=True))
    assert names(tmp_path) == []


async def test_a_full_disk_is_reported_before_the_body_is_read(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=(16 << 20) + len(BODY) - 1))
    with pytest.raises(CannotWrite, match=f"{len(BODY)} more bytes are needed"):
        await get(entry_of(server), tmp_path)
    assert names(tmp_path) == []


async def test_a_folder_that_cannot_be_made_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="file"):
        await get(entry_of(server), tmp_path / "file" / "models")
    assert server.seen == []


# -- the command in a separate process ---------------------------------------------------------------


def registry_for(server: Server, folder: Path) -> Path:
    """Write a registry with one entry."""
    model = {
        "name": "tiny",
        "title": "Tiny",
        "family": "yolo",
        "input": {"width": 64, "height": 64},
        "classes": ["ball"],
        "licence": "MIT",
        "bytes": len(server.body),
        "sha256": server.sha256,
        "url": server.url,
        "source": server.url,
    }
    path = folder / "catalogue.json"
    path.write_text(json.dumps({"version": 1, "models": [model]}))
    return path


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "streamer",
        "models",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finish(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    out, error = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    return process.returncode, out.decode(), error.decode()


async def test_two_pulls_of_one_model_share_one_download(server: Server, tmp_path: Path) -> None:
    server.faults = [Fault(rate=120_000)]
    arguments = ("pull", "tiny", "--to", str(tmp_path), "--catalogue", str(registry_for(server, tmp_path)))
    one, other = await asyncio.gather(start(*arguments), start(*arguments))
    outcomes = await asyncio.gather(finish(one), finish(other))
    assert [code for code, _, _ in outcomes] == [0, 0]
    assert [out for _, out, _ in outcomes] == [f"{tmp_path / 'tiny.onnx'}\n"] * 2
    texts = "".join(error for _, _, error in outcomes)
    assert "another process is downloading it" in texts
    assert "is installed already, its sha256 is as expected" in texts
    assert len(server.seen) == 1
    assert (tmp_path / "tiny.onnx").read_bytes() == BODY
    assert names(tmp_path) == ["catalogue.json", "tiny.json", "tiny.onnx"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
async def test_the_received_part_survives_ctrl_c_and_a_kill(
    server: Server, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    server.faults = [Fault(silent_after=100_000)]
    arguments = ("pull", "tiny", "--to", str(tmp_path), "--catalogue", str(registry_for(server, tmp_path)))
    process = await start(*arguments)
    part = tmp_path / "tiny.onnx.part"
    async with asyncio.timeout(60):
        while not part.exists() or part.stat().st_size < 100_000:
            await asyncio.sleep(0.02)
    process.send_signal(number)
    found, out, error = await finish(process)
    assert (found, out) == (code, "")
    if number is signal.SIGINT:
        assert error.splitlines()[-1] == "tiny: stopped; the same command resumes it"
    assert part.stat().st_size == 100_000
    found, out, error = await finish(await start(*arguments))
    assert (found, out) == (0, f"{tmp_path / 'tiny.onnx'}\n")
    assert server.seen[1].headers["range"] == "bytes=100000-"
    assert (tmp_path / "tiny.onnx").read_bytes() == BODY
    assert "licence MIT" in error
    assert "MODEL_V1_PATH=" in error


async def test_every_failure_has_its_own_exit_code(server: Server, tmp_path: Path) -> None:
    catalogue = registry_for(server, tmp_path)
    to = ("--to", str(tmp_path / "models"), "--catalogue", str(catalogue))

    async def outcome(*arguments: str) -> tuple[int, str]:
        code, _, error = await finish(await start("pull", *arguments))
        return code, error

    server.faults = [Fault(status=404)]
    (code, error), unknown, wrong = await asyncio.gather(
        outcome("tiny", *to), outcome("tiny2", *to), outcome("tiny", *to, "--sha256", "abc")
    )
    assert (code, error.count("\n")) == (3, 1)
    assert error.startswith("streamer models pull: ")
    assert unknown == (2, f"streamer models pull: NAME 'tiny2' is not in {catalogue}; did you mean tiny?\n")
    assert wrong[0] == 2
    assert "--sha256: expected 64 hexadecimal digits; found 'abc'" in wrong[1]
    server.body = bytes(len(BODY))
    code, error = await outcome("tiny", *to)
    assert code == 6
    assert "expected sha256" in error
