"""Runs the demo page's module tests in node, and checks that page and Python agree on frames and boxes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from streamer.imaging.draw import box_colour
from streamer.imaging.palette import class_dash, score_text
from streamer.protocol.wire import Codec, Frame, FrameFlag, pack_frame, unpack_frame

ROOT = Path(__file__).resolve().parents[2]
TESTS = sorted((Path(__file__).parent / "js").glob("*.test.mjs"))
PACK = """
import { packFrame } from './static/js/protocol.js';
const frames = JSON.parse(process.argv[1]);
const packed = frames.map((frame) => Buffer.from(packFrame(frame, new Uint8Array(frame.payload).buffer)));
console.log(JSON.stringify(packed.map((bytes) => bytes.toString('hex'))));
"""
PALETTE = """
import { classColour, classDash, scoreText } from './static/js/palette.js';
const [classes, scores] = JSON.parse(process.argv[1]);
console.log(JSON.stringify([classes.map(classColour), classes.map(classDash), scores.map(scoreText)]));
"""


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("needs node, which is not installed")
    return found


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_modules(node: str, path: Path) -> None:
    done = subprocess.run([node, str(path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_module_tests() -> None:
    assert len(TESTS) >= 10


def test_frames_are_packed_as_the_server_packs_them(node: str) -> None:
    frames = [
        Frame(codec=Codec.JPEG, seq=1, ts=0, payload=b""),
        Frame(
            codec=Codec.JPEG, seq=0xFFFFFFFF, ts=2**53 - 1, payload=bytes(range(256)), width=65535, height=1
        ),
        Frame(
            codec=Codec.JPEG,
            seq=77,
            ts=123456789,
            payload=b"\xff\xd8",
            width=416,
            height=234,
            stream=7,
            rotation=3,
            epoch=65535,
            flags=FrameFlag.DISCONTINUITY,
        ),
    ]
    asked = [
        {
            "seq": frame.seq,
            "tsUs": frame.ts,
            "width": frame.width,
            "height": frame.height,
            "epoch": frame.epoch,
            "flags": int(frame.flags),
            "stream": frame.stream,
            "rotation": frame.rotation,
            "payload": list(frame.payload),
        }
        for frame in frames
    ]
    done = subprocess.run(
        [node, "--input-type=module", "--eval", PACK, json.dumps(asked)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    packed = [bytes.fromhex(text) for text in json.loads(done.stdout)]
    assert packed == [pack_frame(frame) for frame in frames]
    assert unpack_frame(packed[2]).epoch == 65535


def test_page_and_commands_draw_the_same_colours_dashes_and_scores(node: str) -> None:
    classes = list(range(100))
    scores = [0, 1, 0.005, 0.125, 0.135, 0.5, 0.499999, 0.994999, 0.995, 0.874, 2 / 3]
    done = subprocess.run(
        [node, "--input-type=module", "--eval", PALETTE, json.dumps([classes, scores])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    colours, dashes, texts = json.loads(done.stdout)
    ours = [box_colour(number)[::-1] for number in classes]
    assert colours == ["#{:02x}{:02x}{:02x}".format(*colour) for colour in ours]
    assert dashes == [list(class_dash(number)) for number in classes]
    assert texts == [score_text(score) for score in scores]
    assert texts[3] == "13%"
