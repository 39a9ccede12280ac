"""Fuzz targets that read models, manifests, samples, drift references, rows and histories, and settings."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from inference.core.errors import ModelRefused
from inference.graph.onnx_graph import OnnxGraph, make_node, shape_of
from inference.graph.protobuf import fields, varints, write_bytes, write_varint
from inference.models.class_names import parse_names
from inference.models.manifest import parse_manifest
from inference.models.onnx_header import NotOnnx, read_header
from streamer.config.settings import SettingsError, load_settings
from streamer.datasets.sample import DamagedSample, parse_sample
from streamer.drift.errors import ReferenceBroken
from streamer.drift.history import _unpack
from streamer.drift.reference import learn
from streamer.drift.reference_document import document_of, parse
from streamer.drift.row_file import DamagedRows, OtherFeatures, RowFile, decode, encode
from streamer.drift.rows import FEATURE_VERSION, NUMERIC
from tests.fuzz.target import Target
from tests.helpers.drift_rows import World, rows


def _models() -> Iterator[bytes]:
    nodes = [
        make_node("Conv", ["images", "weights"], "inner", strides=[2, 2], group=1).raw,
        make_node("Sigmoid", "inner", "output").raw,
    ]
    shape = write_bytes(2, *(write_bytes(1, write_varint(1, side)) for side in (1, 3, 64, 64)))
    declared = write_bytes(2, write_bytes(1, write_varint(1, 1), shape))
    tensor = write_bytes(
        5, write_varint(1, 4), write_varint(2, 7), write_bytes(8, b"sizes"), write_bytes(9, bytes(32))
    )
    floats = write_bytes(
        5, write_varint(1, 2), write_varint(2, 1), write_bytes(8, b"weights"), write_bytes(4, bytes(8))
    )
    graph = write_bytes(
        7,
        *(bytes(node) for node in nodes),
        tensor,
        floats,
        write_bytes(11, write_bytes(1, b"images"), declared),
        write_bytes(12, write_bytes(1, b"output"), declared),
    )
    opset = write_bytes(8, write_bytes(1, b""), write_varint(2, 17))
    names = write_bytes(14, write_bytes(1, b"names"), write_bytes(2, b"{0: 'cat', 1: 'dog'}"))
    yield write_varint(1, 8) + write_bytes(2, b"test") + graph + opset + names
    yield write_varint(1, 8) + write_bytes(7, tensor) + opset


def _read_graph(data: bytes) -> None:
    graph = OnnxGraph(memoryview(data))
    for name in [*graph.tensors, *graph.makers]:
        graph.constant(name)
        graph.sides(name)
        graph.numbers(name)
    for value in [*graph.inputs.values(), *graph.outputs.values()]:
        shape_of(value)
    for node in graph.nodes:
        for attribute in node.attributes:
            node.whole(attribute)
            node.int_list(attribute)
        assert node.pads_itself in (True, False)
    graph.write()


def _read_fields(data: bytes) -> None:
    for _, raw, _, content in fields(memoryview(data)):
        assert len(content) <= len(raw) <= len(data)
        varints(content)


#: `read_header` reads from a file, because models are too large for memory.
_FILE = Path(tempfile.gettempdir()) / f"fuzz-{os.getpid()}.onnx"


def _read_header(data: bytes) -> None:
    try:
        _FILE.write_bytes(data)
        read_header(_FILE)
    finally:
        _FILE.unlink(missing_ok=True)


def _manifests() -> Iterator[bytes]:
    manifest: dict[str, Any] = {
        "name": "cats",
        "family": "yolo",
        "placement": "centred",
        "pad_value": 114,
        "colour": "rgb",
        "scale": 255,
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "labels": ["cat", "dog"],
        "sha256": "0" * 64,
        "conf_threshold": 0.3,
        "batch_max": 8,
    }
    yield json.dumps(manifest).encode()
    yield b'{"labels": ["cat", "dog"], "activation": "softmax", "input": 640}'


def _names() -> Iterator[bytes]:
    yield from (b"{0: 'cat', 1: 'dog'}", b'["cat", "dog"]', b'{"0": "cat"}', b"cat,dog\nbird")


def _samples() -> Iterator[bytes]:
    detection = {"box": [1.0, 2.0, 3.0, 4.0], "score": 0.5, "label": "cat", "below_threshold": False}
    image = {
        "key": "a/b.jpg",
        "sha256": "0" * 64,
        "bytes": 100,
        "format": "jpeg",
        "width": 64,
        "height": 48,
        "exif_orientation": 1,
        "rotation": 0,
    }
    sample = {
        "schema": 1,
        "image": image,
        "captured_at": "2026-11-23T14:00:00Z",
        "stream": "hall",
        "model": {"version": "v1", "name": "codes"},
        "classes": ["cat"],
        "detections": [detection],
        "selection": {"reasons": ["random"], "uncertainty": 0.4, "probability": 0.1},
    }
    yield json.dumps(sample).encode()
    yield json.dumps(sample | {"detections": []}).encode()


def _references() -> Iterator[bytes]:
    plain = [{"brightness": 100 + i % 7, "n_boxes": i % 3, "top_class": "cat"} for i in range(110)]
    yield json.dumps(plain).encode()
    yield json.dumps({"rows": plain[:2]}).encode()
    # Nested `rows` once raised a TypeError in the parser.
    yield json.dumps({"rows": [{"rows": [1]}]}).encode()
    found = learn(list(rows(World(1).values(120))), 1800, 0.001)
    whole = json.loads(document_of({"gate": found}, window_s=1800, interval_s=5))
    del whole["sha256"]  # otherwise it reveals every change, and the later checks never run
    yield json.dumps(whole).encode()


def _row_files() -> Iterator[bytes]:
    made = encode(RowFile("gate", "a-1", 1_800_000_000, 5.0, list(rows(World(1).values(3)))), "1.0")
    yield gzip.decompress(made[1])


def _histories() -> Iterator[bytes]:
    numbers = np.zeros(len(NUMERIC), "<f4").tobytes()
    row = (FEATURE_VERSION, 1.0, 0, "m", numbers, "cat", "64x48", "jpeg", (("cat", 1),))
    yield msgpack.packb(row) * 3


def _read_history(data: bytes) -> None:
    for row in _unpack(io.BytesIO(data), "gate"):
        assert len(row.numbers) == len(NUMERIC)


#: Settings whose values have a grammar of their own; line n of an input is the value of setting n.
_SETTINGS = (
    "ICE_SERVERS",
    "UDP_PORT_RANGE",
    "PUBLIC_IP",
    "REPLICA_ADDRESS",
    "REPLICA_PEERS",
    "ALLOWED_ORIGINS",
    "PORT",
    "WORKERS",
)


def _environments() -> Iterator[bytes]:
    yield (
        b"stun:stun.example:3478,turn:turn.example?transport=udp\n50000-50100\n198.51.100.7\n"
        b"10.0.0.1:8000\npeers:8000"
    )
    yield b"\n\n\n\n\nhttps://a.example, http://b.example:8080\n8000\n2"


def _load_settings(data: bytes) -> None:
    kept = dict(os.environ)
    lines = data.decode(errors="replace").replace("\0", "").split("\n")
    try:
        os.environ.update(
            {
                name: line.encode(errors="replace").decode()
                for name, line in zip(_SETTINGS, lines, strict=False)
            }
        )
        settings = load_settings()
        # Values that the service derives from accepted settings must be valid, too.
        assert settings.own_address is None or settings.own_address.host
        for found in (settings.ice_urls, settings.peer_addresses, settings.origins):
            assert all(found)
        assert settings.udp_ports is None or settings.udp_ports[0] <= settings.udp_ports[1]
    finally:
        os.environ.clear()
        os.environ.update(kept)


TARGETS = (
    Target("onnx_graph", _read_graph, (ValueError, struct.error), _models),
    Target("protobuf", _read_fields, (ValueError,), _models),
    Target("onnx_header", _read_header, (NotOnnx,), _models),
    Target("manifest", lambda data: parse_manifest(data, "m.json"), (ModelRefused,), _manifests),
    Target("label_names", lambda data: parse_names(data.decode(errors="replace")), (), _names),
    Target(
        "row_file",
        lambda data: decode(gzip.compress(data, 1), "a.json.gz"),
        (DamagedRows, OtherFeatures),
        _row_files,
    ),
    Target("sample", lambda data: parse_sample(data, "a.json"), (DamagedSample,), _samples),
    Target(
        "reference",
        lambda data: parse(data, window_s=1800.0, alpha=0.001),
        (ReferenceBroken,),
        _references,
        65_536,
    ),
    Target("history", _read_history, (), _histories),
    Target("settings", _load_settings, (SettingsError,), _environments),
)
