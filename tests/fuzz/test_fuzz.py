"""S11: in a short run, each parser raises only its own errors, and takes little time and memory."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import mutated
from tests.fuzz.target import Target
from tests.fuzz.targets import ALL

#: Number of examples per target here; `make fuzz` runs each target for 30 s, the nightly run for two minutes.
EXAMPLES = 250
#: Limit of processor time for one input. The slowest valid one, a drift reference, takes some 50 ms.
MOST_CPU_S = 1.0
#: Limit of the memory that one input takes in addition to itself.
MOST_BYTES = 32 << 20

TARGETS = [pytest.param(target, id=target.name) for target in ALL.values()]


def bounded(target: Target, data: bytes) -> bool:
    """Run one input and assert that it takes little processor time; return whether it was accepted."""
    begun = time.process_time()
    accepted = target.try_input(data)
    took_s = time.process_time() - begun
    assert took_s < MOST_CPU_S, f"{len(data)} bytes took {took_s:.2f} s"
    return accepted


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_is_read_without_a_fault(target: Target) -> None:
    corpus = target.corpus()
    assert any(bounded(target, data) for data in corpus), "no input of the corpus is accepted"
    assert {seed[: target.most_bytes] for seed in target.seeds()} <= set(corpus) or target.name in UNSTABLE


#: Targets whose seeds come from libraries whose output may change with a release.
UNSTABLE = {"image", "image_header", "ipc_candidate", "reference"}


@pytest.mark.parametrize("target", TARGETS)
def test_changed_inputs_are_read_without_a_fault(target: Target) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(mutated(target.corpus(), target.most_bytes))
    def run(data: bytes) -> None:
        bounded(target, data)

    run()


#: Lines that a valid offer may contain many times. They reveal code whose time grows with the square of
#: their number.
SDP_LINES = (
    *(f"a=candidate:{{}} 1 udp 1 198.51.100.7 {port} typ host\r\n" for port in (50_000, 1)),
    "a=rtpmap:{} VP8/90000\r\n",
    "a=fmtp:97 a{}=b\r\n",
    "a=rtcp-fb:{} nack\r\n",
    "a=ssrc:{} cname:x\r\n",
    "a=extmap:{} urn:x\r\n",
    "a=group:BUNDLE {}\r\n",
)


def _offer(line: str) -> bytes:
    sdp = next(ALL["offer"].seeds()).decode()
    many = "".join(line.format(number) for number in range(1000))
    formats = " ".join(map(str, range(96, 3000)))
    wide = sdp.replace("SAVPF 96 97", f"SAVPF {formats}").replace("m=application", f"{many}m=application")
    return wide.encode()


#: Inputs of the largest size. They reveal code whose time or memory grows faster than its input.
LARGEST: dict[str, list[bytes]] = {
    "control_json": [
        b'{"type":"hello","a":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"type":"hello","' + b"x" * 2000 + b'":[' + b"1," * 900 + b"1]}",
        b'{"type":"hello","a":' + b"9" * 4000 + b"}",
        b'{"type":"ping","t0":"' + b"\\u0000" * 600 + b'"}',
    ],
    "control_msgpack": [b"\x81\xa4type" + b"\x91" * 4000, b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"],
    "offer": [
        b"v=0\n" + b"a=candidate:1\n" * 1990,
        b"v=0\nm=video 9 X 96\n" + b"a=rtpmap:96 VP8/90000\n" * 1900,
        b"v=0\nm=video 9 X " + b"96 " * 20_000,
        b"v=0\nm=video 9 X 96\na=fmtp:96 " + b"a=b;" * 15_000,
        b"v=0\na=fingerprint:sha-256 " + b"AB:" * 20_000,
        *(_offer(more) for more in SDP_LINES),
    ],
    "candidate": [b"1 1 udp 1 192.0.2.1 50000 typ host" + b" a b" * 1000, b"1 " * 2000],
    "trickle": [b"a=candidate:1\n" * 1100, b"[" * 16_000],
    "query": [b"classes=" + b"," * 4000, b"conf_threshold=" + b"9" * 4000, b"a=1&" * 1000],
    "h264_header": [
        b"\0\0\1\x67" * 1000,
        b"\0\0\1\x67\x64\0\x1e" + b"\xff" * 4000,
        b"\0\0\1\x67" + b"\0" * 4000,
    ],
    "h264_payload": [b"\x78" + b"\x00\x01\x67" * 1300, b"\x78" + b"\0" * 4000],
    "image_header": [
        b"\xff\xd8" + b"\xff" * 65_000,
        b"\xff\xd8" + b"\xff\xfe\x00\x02" * 16_000,
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0\x90wS\xde"
        + b"\0\0\0\0tEXt\0\0\0\0" * 5000,
        b"RIFF\xff\xff\0\0WEBPVP8X\x0a\0\0\0" + bytes(10) + b"JUNK\0\0\0\0" * 7000,
    ],
    "protobuf": [b"\x08\x01" * 2000, b"\xff" * 4000, b"\x0a\xff\xff\xff\xff\x7f"],
    "onnx_graph": [b"\x3a\xfc\x1f" + b"\x0a\x00" * 2046],
    "onnx_header": [b"\x08\x01" * 2000, b"\x42\x00" * 2000, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"],
    "label_names": [b"{" * 4000, b"{0: '" + b"\\" * 4000, b"[" * 4000, b"0: 'a', " * 500],
    "sample": [b"[" * 4000, b'{"schema":' + b"9" * 4000 + b"}"],
    "reference": [b"[" * 60_000, b"[{}" + b",{}" * 20_000 + b"]", b'[{"at":' + b"9" * 4000 + b"}]"],
    "manifest": [b"[" * 4000, b'{"labels":' + b"[" * 2000],
    "ipc_handshake": [b"[" * 4000],
    "ipc_candidate": [b"\x91" * 4000, b"\xdf\xff\xff\xff\xff"],
    "exif": [b"II*\0\x08\0\0\0\xff\xff" + b"\x12\1\3\0\1\0\0\0\6\0\0\0" * 300],
    "settings": [b"stun:a," * 500, b"\n\n\n\n" + b"10.0.0.1:1," * 300, b"\n" + b"1" * 4000],
}


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_inputs_take_neither_long_nor_much_memory(name: str) -> None:
    target = ALL[name]
    for data in LARGEST[name]:
        bounded(target, data[: target.most_bytes])
        tracemalloc.start()
        try:
            target.try_input(data[: target.most_bytes])
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak_bytes < MOST_BYTES, f"{data[:40]!r} … takes {peak_bytes >> 20} MB"


def test_a_fault_is_found() -> None:
    def faulty(data: bytes) -> None:
        if data[3:5] == b"\xff\xff":
            raise KeyError(data)

    target = Target("faulty", faulty, (ValueError,), lambda: iter([b"abcdefgh"]))

    @settings(max_examples=5000, deadline=None, database=None, derandomize=True)
    @given(mutated([b"abcdefgh"], 100))
    def run(data: bytes) -> None:
        bounded(target, data)

    with pytest.raises(KeyError):
        run()


@given(st.data())
@settings(max_examples=20, database=None, deadline=None)
def test_mutations_keep_to_the_longest_input(data: st.DataObject) -> None:
    assert len(data.draw(mutated([b"seed" * 10], 50))) <= 50
