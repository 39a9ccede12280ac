"""Features of the client that shorten programs: indexing, drawing, parameters by name, and `VideoSource`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamer.client import (
    BadInput,
    Detections,
    Params,
    Prediction,
    Request,
    Result,
    SourceFailed,
    VideoSource,
    predict,
    predict_many,
    sources,
)
from streamer.client.capture import Source
from streamer.client.sources import ImageFiles, SourceOptions
from streamer.core.backoff import Backoff
from tests.helpers.service import ROOT

ROWS = [[10, 20, 60, 80, 0.9, 1, 7], [0, 0, 5, 5, 0.4, 9, 8], [1, 2, 3, 4, 0.3, 0, 9]]
FOUND = Detections.from_rows(ROWS, ["person", "bus"])
BLACK = np.zeros((90, 120, 3), np.uint8)


def prediction(image: Any, *, size: tuple[int, int] = (120, 90)) -> Prediction:
    return Prediction(FOUND, *size, model={}, timings_ms={}, request_id="", image=image)


def test_boxes_by_position_slice_and_mask() -> None:
    assert FOUND[0].label == "bus"
    assert FOUND[-1].track_id == 9
    assert FOUND[np.int64(1)].label == "9"
    assert FOUND[:2].labels == ("bus", "9")
    sure = FOUND[FOUND.scores > 0.35]
    assert isinstance(sure, Detections)
    assert [found.label for found in sure] == ["bus", "9"]
    assert sure.track_ids is not None
    assert sure.track_ids.tolist() == [7, 8]
    assert sure.xyxy.shape == (2, 4)
    assert FOUND[5:].xyxy.shape == (0, 4)
    with pytest.raises(ValueError, match="read-only"):
        sure.scores[0] = 1
    for wrong in (3, FOUND.scores[:1] > 0, (0, 1), "bus"):
        with pytest.raises(IndexError):
            FOUND[wrong]


def test_results_are_iterated_and_counted_as_their_boxes() -> None:
    result = Result(1, 0.0, None, FOUND, 120, 90, 0, 0.01)
    for outcome in (prediction(None), result):
        assert len(outcome) == 3
        assert [found.label for found in outcome] == ["bus", "9", "person"]


def test_boxes_are_drawn_on_what_was_passed(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), BLACK)
    for image in (BLACK, photo, str(photo), photo.read_bytes(), BLACK[:, :, 0]):
        drawn = prediction(image).draw()
        assert drawn.shape == (90, 120, 3)
        assert drawn.dtype == np.uint8
        assert drawn[50, 10].any()
    assert not BLACK.any()
    assert prediction(None).draw(BLACK).any()
    assert Result(1, 0.0, None, FOUND, 120, 90, 0, 0.01).draw(BLACK).any()


def test_boxes_are_not_drawn_on_another_image(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not know it"):
        prediction(None).draw()
    with pytest.raises(BadInput, match="the image is 120x90, but the boxes belong to one of 60x45 pixels"):
        prediction(BLACK, size=(60, 45)).draw()
    with pytest.raises(BadInput, match=r"gone\.jpg"):
        prediction(tmp_path / "gone.jpg").draw()


def test_without_the_extra_drawing_says_what_to_install() -> None:
    program = """
import sys
sys.modules["cv2"] = None
import numpy as np
from streamer.client import Detections, MissingPackage, Prediction
answer = Prediction(Detections.from_rows([], []), 4, 4, {}, {}, "", image=np.zeros((4, 4, 3), np.uint8))
try:
    answer.draw()
except MissingPackage as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "draw(): the package cv2 is not installed" in done.stdout
    assert "real-time-vision-api[view]" in done.stdout


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"conf": 40}, "conf is 40; allowed is a number from 0 to 1"),
        ({"conf": "0.4"}, "conf is '0.4'; allowed is a number"),
        ({"conf": float("nan")}, "conf is nan"),
        ({"conf": True}, "conf is True"),
        ({"classes": "person"}, "classes is the text 'person'; give a list"),
        ({"classes": 0}, "classes is 0; give a list"),
        ({"classes": iter(["person"])}, "give a list"),
        ({"classes": [1.5]}, "classes contains 1.5"),
        ({"classes": [None]}, "classes contains None"),
        ({"classes": [True]}, "classes contains True"),
        ({"classes": [""]}, "classes contains ''"),
        ({"classes": ["person", -1]}, "classes contains -1; class ids start at 0"),
        (
            {"conf": 0.5, "request": Request(params=Params(conf_threshold=0.4))},
            r"request\.params states 0\.4",
        ),
        ({"classes": [], "request": Request(params=Params(classes=["bus"]))}, "give one of the two"),
    ],
)
def test_wrong_parameters_are_named_before_anything_is_sent(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        predict(BLACK, **wrong)

    async def many() -> None:
        async for _ in predict_many([BLACK], **wrong):
            pass

    with pytest.raises(BadInput, match=message):
        asyncio.run(many())


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Write five images, each brighter than the one before, and return their folder."""
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8, 3), 10 * number, np.uint8))
    return tmp_path


def test_a_source_yields_the_frames_that_push_would_send(images: Path) -> None:
    source = VideoSource(images)
    assert (source.live, source.total) == (False, 5)
    frames = list(source)
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    assert [int(frame.pixels()[0, 0, 0]) for frame in frames] == [0, 10, 20, 30, 40]
    assert len(list(source)) == 5
    everything, twice_a_second = list(VideoSource("sample")), list(VideoSource("sample", fps=2))
    assert len(twice_a_second) == pytest.approx(2 * everything[-1].time_s, abs=3)


def test_a_source_ends_when_it_is_closed(images: Path) -> None:
    seen = []
    with VideoSource(images, loop=True) as source:
        for frame in source:
            seen.append(frame.number)
            if len(seen) == 12:
                source.close()
    assert seen == list(range(12))


async def test_a_source_does_not_hold_up_the_event_loop(images: Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticker = asyncio.create_task(tick())
    # The event loop runs while the source waits for the time of the next image. The source skips late images.
    numbers = [frame.number async for frame in VideoSource(images, realtime=True, fps=20)]
    ticker.cancel()
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0
    assert ticks > 5


class AbsentCamera:
    """Stands for `open_source`: fails as often as ``failures`` says, and then opens a folder of images."""

    def __init__(self, folder: Path, failures: int) -> None:
        self.error = SourceFailed("camera: refused", temporary=True)
        self._folder = folder
        self._failures = failures

    def __call__(self, _name: str, options: SourceOptions) -> Source:
        if self._failures == 0:
            return ImageFiles(self._folder)
        self._failures -= 1
        raise self.error


def test_a_source_that_is_not_there_yet_is_opened_by_the_iteration(
    images: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sources, "Backoff", lambda: Backoff(lambda _low, _high: 0.0))
    monkeypatch.setattr(sources, "open_source", AbsentCamera(images, 3))
    said: list[str] = []
    source = VideoSource("rtsp://camera/1", on_trouble=said.append)
    assert (source.live, source.total) == (True, None)
    assert said == ["camera: refused; next try in 0.0 s"]
    assert [frame.number for frame in source] == [0, 1, 2, 3, 4]
    assert len(said) == 3
    assert (source.live, source.total) == (False, 5)
    # Without a callback, the log says it.
    monkeypatch.setattr(sources, "open_source", AbsentCamera(images, 1))
    assert len(list(VideoSource("rtsp://camera/1"))) == 5
    assert [record.getMessage() for record in caplog.records if record.name == "streamer.client"] == said[:1]


def test_a_source_that_cannot_become_available_is_refused_at_once(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = AbsentCamera(images, 2)
    monkeypatch.setattr(sources, "open_source", absent)
    with pytest.raises(SourceFailed):
        VideoSource("rtsp://camera/1", reconnect=False)
    absent.error = SourceFailed("camera: the password is wrong (401)")
    with pytest.raises(SourceFailed, match="401"):
        VideoSource("rtsp://camera/1")


def test_a_source_that_is_waited_for_can_be_closed(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "Backoff", lambda: Backoff(lambda _low, _high: 3600.0))
    monkeypatch.setattr(sources, "open_source", AbsentCamera(images, -1))
    source = VideoSource("rtsp://camera/1")
    reader = threading.Thread(target=list, args=(source,), daemon=True)
    reader.start()
    source.close()
    reader.join(60)
    assert not reader.is_alive()


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"source .*gone\.mp4.* does not exist"):
        VideoSource(tmp_path / "gone.mp4")
    with pytest.raises(SourceFailed, match="contains no image"):
        VideoSource(tmp_path)
    with pytest.raises(BadInput, match="source is None; give a camera number"):
        VideoSource(None)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="fps is 0; allowed is more than 0"):
        VideoSource("sample", fps=0)
    with pytest.raises(BadInput, match="size is '1280x720'; give width and height"):
        VideoSource(0, size="1280x720")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="are for local cameras"):
        VideoSource("sample", size=(1280, 720))
