"""The recording keeps capture times and order, carries boxes over, and is playable however it ends."""

from __future__ import annotations

import threading
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.cli.recorder import QUEUE_MAX, Recorder
from streamer.client.capture import Captured
from streamer.client.detections import Detections
from streamer.client.errors import BadInput, SaveFailed

BOX = Detections.from_rows([[10, 30, 50, 60, 0.9, 0]], ["person"])


def captured(
    number: int, time_s: float, *, size: tuple[int, int] = (64, 96), duration_s: float = 0.1
) -> Captured:
    return Captured(number, time_s, duration_s, np.full((*size, 3), 90, np.uint8))


def decoded(path: Path) -> tuple[list[float], float, list[npt.NDArray[np.uint8]]]:
    """Return times, duration in seconds and images of a file."""
    with av.open(str(path)) as container:
        frames = [
            (float(f.pts * f.time_base), f.to_ndarray(format="bgr24")) for f in container.decode(video=0)
        ]
        return [time for time, _ in frames], container.duration / 1e6, [image for _, image in frames]


def has_box(image: npt.NDArray[np.uint8]) -> bool:
    return int(np.ptp(image[45].astype(int))) > 60


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(gaps_ms=st.lists(st.integers(1, 3000), min_size=1, max_size=12), start_ms=st.integers(0, 10**6))
def test_frames_are_shown_when_they_were_captured(gaps_ms: list[int], start_ms: int, tmp_path: Path) -> None:
    """Record with any gaps and any start time; the last frame must last as long as the source said."""
    times = [0.0]
    for gap in gaps_ms:
        times.append(times[-1] + gap / 1e3)
    recorder = Recorder(tmp_path / "v.mp4")
    for number, time_s in enumerate(times):
        frame = captured(number, start_ms / 1e3 + time_s, duration_s=0.25)
        recorder.add(frame, wait_stop=threading.Event())
        recorder.settle(frame, None)
    recorder.close()
    found, duration_s, _ = decoded(recorder.path)
    np.testing.assert_allclose(found, times, atol=1e-4)
    assert abs(duration_s - (times[-1] + 0.25)) < 0.002
    assert (recorder.written, recorder.missed) == (len(times), 0)
    assert abs(recorder.duration_s - duration_s) < 0.002


@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
def test_other_containers_keep_the_timing_too(tmp_path: Path, suffix: str) -> None:
    recorder = Recorder(tmp_path / f"v{suffix}")
    for number, time_s in enumerate((0.0, 0.3, 0.35)):
        recorder.add(frame := captured(number, time_s))
        recorder.settle(frame, BOX)
    recorder.close()
    found, duration_s, _ = decoded(recorder.path)
    np.testing.assert_allclose(found, (0.0, 0.3, 0.35), atol=1e-3)
    assert abs(duration_s - 0.45) < 0.06


def test_frames_wait_for_their_own_boxes_and_others_show_the_newest_known(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "v.mp4")
    frames = [captured(number, number * 0.5) for number in range(6)]
    for frame in frames:
        recorder.add(frame)
    # Frames are settled out of order, because outcomes may arrive in any order.
    recorder.settle(frames[2], None)
    recorder.settle(frames[1], BOX)
    for number in (0, 3, 4):
        recorder.settle(frames[number], None)
    recorder.close()  # the last frame was never settled
    found, _, images = decoded(recorder.path)
    assert len(found) == 6
    # The box of frame 1 (0.5 s) is shown for another second; after that it is too old.
    assert [has_box(image) for image in images] == [False, True, True, True, False, False]


def test_odd_sizes_are_padded_and_other_sizes_fitted(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "v.mp4")
    for number, size in enumerate(((63, 95), (200, 40), (31, 95))):
        recorder.add(frame := captured(number, number * 0.1, size=size))
        recorder.settle(frame, None)
    recorder.close()
    _, _, images = decoded(recorder.path)
    assert {image.shape for image in images} == {(64, 96, 3)}
    assert images[1][32, 48].min() > 60
    assert images[1][32, 2].max() < 40  # bars beside the image


def test_a_live_source_is_not_held_up_and_a_file_loses_nothing(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "v.mp4")
    frames = [captured(number, number * 0.1) for number in range(QUEUE_MAX + 1)]
    for frame in frames[:-1]:
        assert recorder.add(frame)
    assert not recorder.add(frames[-1])
    assert recorder.missed == 1

    def settle_all() -> None:
        for frame in frames:
            recorder.settle(frame, None)

    threading.Timer(0.2, settle_all).start()
    late = captured(QUEUE_MAX + 1, 9.0)
    assert recorder.add(late, wait_stop=threading.Event())
    recorder.close()
    assert recorder.written == QUEUE_MAX + 1
    assert len(decoded(recorder.path)[0]) == QUEUE_MAX + 1


def test_a_broken_image_is_left_out(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "v.mp4")
    broken = Captured(0, 0.0, 0.1, b"not an image")
    recorder.add(broken)
    recorder.settle(broken, None)
    recorder.add(good := captured(1, 0.1))
    recorder.settle(good, None)
    recorder.close()
    assert recorder.written == 1


def test_nothing_captured_leaves_an_empty_file(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "v.mp4")
    recorder.close()
    assert (recorder.written, recorder.duration_s) == (0, 0.0)


def test_names_that_cannot_be_written_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\.mp4"):
        Recorder(tmp_path / "v.gif")
    with pytest.raises(BadInput, match="folder"):
        Recorder(tmp_path / "no" / "v.mp4")
    (tmp_path / "dir.mp4").mkdir()
    with pytest.raises(SaveFailed, match=r"dir\.mp4"):
        Recorder(tmp_path / "dir.mp4")


def test_a_file_that_cannot_be_written_on_is_reported(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "v.mp4")
    recorder._writer.write = _fail  # type: ignore[method-assign, assignment]
    recorder.add(frame := captured(0, 0.0))
    recorder.settle(frame, None)
    with pytest.raises(SaveFailed, match="No space left"):
        recorder.close()
    with pytest.raises(SaveFailed):
        recorder.add(frame)


def _fail(*_: object) -> None:
    raise OSError(28, "No space left on device")
