"""Changes inputs as a coverage-guided fuzzer does; Hypothesis draws the changes and shrinks a failure."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

#: Numbers at which parsers often mishandle lengths, counts and signs.
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_TEXTS = (
    b"1e999",
    b"-1",
    b"9" * 400,
    b"NaN",
    b"\\ud800",
    b"[" * 2000,
    b'{"a":' * 500,
    b"\xc2\xb2",
    b"\xe2\x80\xa8",
    b"\x00",
    b"\r\n",
    b"\xff" * 9,
)

Edit = tuple[str, int, int, bytes]

_PLACES = st.integers(0, 1 << 16)
_EDITS: st.SearchStrategy[Edit] = st.one_of(
    st.tuples(st.just("set"), _PLACES, st.integers(0, 255), st.just(b"")),
    st.tuples(st.just("cut"), _PLACES, st.integers(1, 64), st.just(b"")),
    st.tuples(st.just("end"), _PLACES, st.just(0), st.just(b"")),
    st.tuples(st.just("repeat"), _PLACES, st.integers(1, 64), st.just(b"")),
    st.tuples(st.just("edge"), _PLACES, st.integers(0, len(_EDGES) * 4 - 1), st.just(b"")),
    st.tuples(st.just("insert"), _PLACES, st.just(0), st.sampled_from(_TEXTS)),
    st.tuples(st.just("insert"), _PLACES, st.just(0), st.binary(min_size=1, max_size=16)),
)


def mutated(seeds: Sequence[bytes], most_bytes: int) -> st.SearchStrategy[bytes]:
    """Return a strategy that draws a seed with a few changes, two seeds joined, or noise."""
    one = st.builds(_apply, st.sampled_from(seeds), st.lists(_EDITS, min_size=1, max_size=6))
    joined = st.builds(
        lambda a, b, at: a[: at % (len(a) + 1)] + b[at % (len(b) + 1) :],
        st.sampled_from(seeds),
        st.sampled_from(seeds),
        _PLACES,
    )
    return st.one_of(one, one, one, joined, st.binary(max_size=200)).map(lambda data: data[:most_bytes])


def _apply(seed: bytes, edits: Sequence[Edit]) -> bytes:
    data = bytearray(seed)
    for kind, place, number, text in edits:
        at = place % (len(data) + 1)
        if kind == "set" and data:
            data[at % len(data)] = number
        elif kind == "cut":
            del data[at : at + number]
        elif kind == "end":
            del data[at:]
        elif kind == "repeat":
            data[at:at] = data[at : at + number] * 8
        elif kind == "edge":
            edge, size = _EDGES[number // 4], (1, 2, 4, 4)[number % 4]
            order = "big" if number % 4 == 3 else "little"
            data[at : at + size] = (edge & (1 << 8 * size) - 1).to_bytes(size, order)  # type: ignore[arg-type]
        elif kind == "insert":
            data[at:at] = text
    return bytes(data)
