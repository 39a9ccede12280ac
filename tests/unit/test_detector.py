"""Tests the detector on tiny real models: all families end to end, batches, threads, what it publishes."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.core import device as devices
from inference.core.detection_params import DetectionParams
from inference.core.errors import ModelRefused
from inference.engine import detector as detector_module
from inference.engine import onnx_session
from inference.engine.detector import Detector
from inference.models.model import Family, ModelInfo, Placement
from tests.helpers import faulty_models
from tests.helpers import model_factory as factory
from tests.helpers.model_factory import DISTINCT, OBJECTS, Input

PARAMS = DetectionParams()
GREY = np.full((64, 64, 3), 10, np.uint8)


def load(path: Path, *, batch_max: int = 4, device: str = "cpu") -> Detector:
    return Detector(path, version="v1", device=device, batch_max=batch_max)


def warm(path: Path, *, inference_threads: int = 1, **options: Any) -> Detector:
    detector = load(path, **options)
    detector.warm_up(inference_threads=inference_threads)
    return detector


def solid(blue: int, green: int, red: int) -> np.ndarray[Any, Any]:
    return np.full((64, 64, 3), (blue, green, red), np.uint8)


def detr_logits(path: Path) -> Path:
    logits, boxes = factory.detr_logits(DISTINCT, 3)
    return factory.constant_model(path, {"logits": logits, "pred_boxes": boxes})


MAKERS: dict[str, tuple[Family, Callable[[Path], Path]]] = {
    "yolo": (Family.YOLO, lambda p: factory.constant_model(p, {"o": factory.yolo_rows(OBJECTS, 3)})),
    "yolov5": (Family.YOLOV5, lambda p: factory.constant_model(p, {"o": factory.yolov5_rows(OBJECTS, 3)})),
    "yolox": (Family.YOLOX, lambda p: factory.constant_model(p, {"o": factory.yolox_rows(OBJECTS, 3)})),
    "end2end": (
        Family.YOLO_END2END,
        lambda p: factory.constant_model(p, {"o": factory.end2end_rows(DISTINCT)}),
    ),
    "rt-detr": (
        Family.DETR,
        lambda p: factory.constant_model(p, factory.detr_ready(DISTINCT), Input(sizes=True)),
    ),
    "detr": (Family.DETR, detr_logits),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_family_is_recognised_and_gives_its_boxes(kind: str, tmp_path: Path) -> None:
    family, make = MAKERS[kind]
    detector = warm(make(tmp_path / "m.onnx"))
    assert detector.model.family is family
    raw = detector.infer([GREY, GREY, GREY], thread=0)
    for index in range(3):
        found = detector.postprocess(raw, index, PARAMS)
        assert found == pytest.approx(np.array(DISTINCT, np.float32), abs=1e-3)


def test_an_output_with_as_many_rows_as_objects_is_read(tmp_path: Path) -> None:
    arrays = factory.detr_ready(DISTINCT, queries=2)
    ready = factory.constant_model(tmp_path / "m.onnx", arrays, Input(sizes=True), open_rows=True)
    rows = factory.end2end_rows(DISTINCT, queries=2)
    end2end = factory.constant_model(tmp_path / "n.onnx", {"o": rows}, open_rows=True)
    for path in (ready, end2end):
        detector = warm(path)
        for light, count in ((255, 2), (0, 0), (150, 1), (255, 2)):
            raw = detector.infer([solid(light, light, light)] * 2, thread=0)
            found = detector.postprocess(raw, 1, PARAMS)
            assert found == pytest.approx(np.array(DISTINCT[:count], np.float32).reshape(-1, 6), abs=1e-3)


def test_half_precision_models_are_served(tmp_path: Path) -> None:
    rows = factory.yolo_rows(OBJECTS, 3).astype(np.float16)
    detector = warm(factory.constant_model(tmp_path / "m.onnx", {"o": rows}, Input(dtype=np.float16)))
    found = detector.postprocess(detector.infer([GREY], thread=0), 0, PARAMS)
    assert found == pytest.approx(np.array(DISTINCT, np.float32), abs=0.05)


def test_a_dynamic_batch_has_buckets_of_powers_of_two_with_costs(tmp_path: Path) -> None:
    detector = warm(factory.null_model(tmp_path / "m.onnx", size=64), batch_max=7)
    assert detector.model.buckets == (1, 2, 4)
    assert set(detector.cost_s) == {1, 2, 4}
    assert all(cost > 0 for cost in detector.cost_s.values())


def test_a_static_batch_is_filled_up(tmp_path: Path) -> None:
    detector = warm(
        factory.null_model(tmp_path / "m.onnx", size=64, batch=3, objects=OBJECTS[:2]), batch_max=8
    )
    assert detector.model.buckets == (3,)
    for count in (1, 2, 3):
        raw = detector.infer([GREY] * count, thread=0)
        assert len(detector.postprocess(raw, count - 1, PARAMS)) == 1
    with pytest.raises(ValueError, match="takes 1 to 3 frames; found 4"):
        detector.infer([GREY] * 4, thread=0)
    with pytest.raises(ValueError, match="found 0"):
        detector.infer([], thread=0)


def scores(detector: Detector, frame: np.ndarray[Any, Any]) -> list[float]:
    """Return the scores of a colour model by class; each one is the mean of one input plane."""
    found = detector.postprocess(
        detector.infer([frame], thread=0), 0, DetectionParams(conf_threshold=0.0, iou_threshold=1.0)
    )
    return [float(found[found[:, 5] == kind, 4].max(initial=0)) for kind in range(3)]


def test_planes_are_rgb_in_0_to_1_unless_the_manifest_says_otherwise(tmp_path: Path) -> None:
    path = factory.colour_model(tmp_path / "m.onnx")
    assert scores(warm(path), solid(51, 102, 204)) == pytest.approx([0.8, 0, 0], abs=1e-4)
    assert scores(warm(path), solid(204, 102, 51)) == pytest.approx([0, 0, 0.8], abs=1e-4)
    (tmp_path / "m.json").write_text('{"colour": "bgr"}')
    assert scores(warm(path), solid(204, 102, 51)) == pytest.approx([0.8, 0, 0], abs=1e-4)


def test_scale_mean_and_std_are_applied_per_plane(tmp_path: Path) -> None:
    path = factory.colour_model(tmp_path / "m.onnx")
    (tmp_path / "m.json").write_text('{"scale": 0.01, "mean": [1, 0.5, 0], "std": [1, 2, 4]}')
    # Red 100 -> (1 - 1) / 1, green 250 -> (2.5 - 0.5) / 2, blue 200 -> 2 / 4; a box has its best class only.
    assert scores(warm(path), solid(200, 250, 100)) == pytest.approx([0, 1, 0], abs=1e-4)
    assert scores(warm(path), solid(200, 50, 100)) == pytest.approx([0, 0, 0.5], abs=1e-4)


def test_frames_of_a_batch_keep_their_places(tmp_path: Path) -> None:
    detector = warm(factory.colour_model(tmp_path / "m.onnx"))
    frames = [solid(0, 0, 255), solid(0, 255, 0), solid(255, 0, 0)]
    raw = detector.infer(frames, thread=0)
    assert [detector.postprocess(raw, index, PARAMS)[0, 5] for index in range(3)] == [0, 1, 2]


def test_lanes_run_side_by_side_without_mixing(tmp_path: Path) -> None:
    detector = warm(factory.colour_model(tmp_path / "m.onnx"), inference_threads=3)
    frames = [solid(0, 0, 255), solid(0, 255, 0), solid(255, 0, 0)]
    wrong: list[object] = []

    def run(thread: int) -> None:
        for turn in range(60):
            raw = detector.infer([frames[thread]] * (turn % 3 + 1), thread=thread, single=turn % 2 == 0)
            found = detector.postprocess(raw, turn % 3, PARAMS)
            if found[:, 5].tolist() != [thread]:
                wrong.append(found)

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("all_cores_s", "kept", "begins_on_all"),
    [(0.006, True, True), (0.010, True, False), (0.020, False, False)],
)
def test_the_start_chooses_what_to_begin_with_and_drops_only_what_is_hopeless(
    all_cores_s: float, kept: bool, begins_on_all: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    detector = load(factory.null_model(tmp_path / "m.onnx", size=64), batch_max=1)
    # Costs in the order in which they are measured: bucket 1, the session on all cores, one core again.
    costs = iter([0.010, all_cores_s, 0.010])

    def timed(run: Callable[[], None]) -> list[float]:
        run()
        best = next(costs)
        return [best * 3, best]

    monkeypatch.setattr("inference.engine.detector.run_times_s", timed)
    measured = detector.warm_up()
    assert (detector._runner.all_cores_session is not None) is kept
    assert (measured.all_cores_session, measured.all_cores) == (kept, begins_on_all)
    assert detector.single_frames.all_cores is begins_on_all
    assert len(detector.postprocess(detector.infer([GREY], thread=0, single=True), 0, PARAMS)) == 0


def test_single_frames_are_timed_only_where_they_had_the_device_to_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    detector = warm(factory.null_model(tmp_path / "m.onnx", size=64))
    timed: list[bool] = []
    monkeypatch.setattr(detector.single_frames, "ran", lambda _, *, all_cores: timed.append(all_cores))
    run = detector._runner.run

    def with_another(frames: Any, thread: int, bucket: int, *, all_cores: bool) -> Any:
        monkeypatch.setattr(detector._runner, "run", run)
        detector.infer([GREY], thread=1)
        return run(frames, thread, bucket, all_cores=all_cores)

    detector.infer([GREY], thread=0, single=True)
    assert len(timed) == 1
    monkeypatch.setattr(detector._runner, "run", with_another)
    detector.infer([GREY], thread=0, single=True)
    assert len(timed) == 1


def test_one_core_has_no_session_over_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert warm(factory.null_model(tmp_path / "m.onnx", size=64))._runner.all_cores_session is None


def test_a_run_that_raises_leaves_the_next_one_whole(tmp_path: Path) -> None:
    detector = warm(faulty_models.white_pixel_fails_model(tmp_path / "m.onnx"))
    with pytest.raises(Exception, match="Gather"):
        detector.infer([GREY, solid(255, 255, 255)], thread=0)
    assert len(detector.postprocess(detector.infer([GREY], thread=0), 0, PARAMS)) == 0


def test_name_labels_digest_and_threshold_are_published(tmp_path: Path) -> None:
    path = MAKERS["yolo"][1](tmp_path / "mine.onnx")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = {
        "name": "codes_v1",
        "labels": ["a", "b", "c"],
        "conf_threshold": 0.4,
        "sha256": digest.upper(),
    }
    (tmp_path / "mine.json").write_text(json.dumps(manifest))
    model = warm(path).model
    assert (model.name, model.labels, model.conf_threshold) == ("codes_v1", ("a", "b", "c"), 0.4)
    assert (model.sha256, model.provider, model.placement) == (digest, "cpu", Placement.CENTRED)
    assert (model.input_width, model.input_height, model.pad_value) == (64, 64, 114)
    (tmp_path / "mine.json").unlink()
    assert load(path).model.name == "mine"


def test_the_manifest_says_which_classes_are_codes(tmp_path: Path) -> None:
    path = MAKERS["yolo"][1](tmp_path / "mine.onnx")
    assert load(path).model.code_classes is None
    for stated in ([], ["c", "a"]):
        (tmp_path / "mine.json").write_text(json.dumps({"labels": ["a", "b", "c"], "code_classes": stated}))
        model = load(path).model
        assert model.code_classes == tuple(stated)
        assert ModelInfo.from_dict(json.loads(json.dumps(model.to_dict()))) == model
    (tmp_path / "mine.json").write_text('{"labels": ["a", "b", "c"], "code_classes": ["a", "A"]}')
    with pytest.raises(ModelRefused, match=r"code_classes.*are a, b, c; found `A`"):
        load(path)
    with pytest.raises(ValueError, match="code_classes"):
        ModelInfo.from_dict(model.to_dict() | {"code_classes": ["d"]})


def test_metadata_gives_labels_and_size(tmp_path: Path) -> None:
    image = Input(
        width=96, height=64, dynamic_size=True, metadata={"imgsz": "[64, 96]", "names": "['x', 'y']"}
    )
    rows = factory.yolo_rows(DISTINCT, 2, image)
    model = load(factory.constant_model(tmp_path / "m.onnx", {"o": rows}, image)).model
    assert (model.labels, model.input_width, model.input_height) == (("x", "y"), 96, 64)


def test_batch_max_of_the_manifest_serves_a_careless_export(tmp_path: Path) -> None:
    path = faulty_models.fixed_reshape_model(tmp_path / "m.onnx")
    with pytest.raises(ModelRefused, match="batch_max"):
        load(path)
    (tmp_path / "m.json").write_text('{"batch_max": 1}')
    assert warm(path).model.buckets == (1,)


def test_tensorrt_gets_the_shapes_and_the_folder_of_its_engines() -> None:
    (name, options), *rest = devices.chain(
        "tensorrt", engine_cache=Path("/engines"), profile=("x:1x3x64x64", "x:8x3x64x64")
    )
    assert name == "TensorrtExecutionProvider"
    assert options["trt_engine_cache_path"] == "/engines"
    assert options["trt_profile_min_shapes"] == "x:1x3x64x64"
    assert options["trt_profile_max_shapes"] == "x:8x3x64x64"
    assert [entry[0] for entry in rest] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert rest[0][1]["cudnn_conv_algo_search"] == "HEURISTIC"


def test_close_releases_the_sessions(tmp_path: Path) -> None:
    detector = warm(factory.null_model(tmp_path / "m.onnx", size=64))
    detector.close()
    assert detector._runner.session is None
    assert detector._runner.buffers == {}


def test_threads_share_a_run_and_need_no_other_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`streamer models check` needs one session; the service also loads one that runs on all cores."""
    asked: list[int] = []
    load_session = onnx_session.load_session

    def note(path: Path, threads: int, providers: list[tuple[str, dict[str, Any]]]) -> Any:
        asked.append(threads)
        return load_session(path, threads, providers)

    monkeypatch.setattr(onnx_session, "load_session", note)
    monkeypatch.setattr(detector_module, "_cores", lambda: 4)
    path = factory.null_model(tmp_path / "m.onnx", size=64)
    buckets: list[int] = []
    detector = Detector(path, version="v1", device="cpu", batch_max=4, threads=3)
    detector.warm_up(on_bucket=buckets.append)
    assert asked == [3]
    assert buckets == list(detector.buckets) == [1, 2, 4]
    asked.clear()
    warm(path)
    assert asked == [1, 4]


def test_a_run_is_ended_by_its_switch_and_the_next_one_is_right(tmp_path: Path) -> None:
    detector = warm(factory.constant_model(tmp_path / "m.onnx", {"o": factory.yolo_rows(OBJECTS, 3)}))
    switch = onnx_session.RunSwitch()
    whole = detector.infer([GREY], thread=0, switch=switch)
    expected = detector.postprocess(whole, 0, PARAMS)
    switch.throw()
    with pytest.raises(Exception, match="terminate"):
        detector.infer([GREY], thread=0, switch=switch)
    again = detector.infer([GREY], thread=0, switch=onnx_session.RunSwitch())
    assert np.array_equal(detector.postprocess(again, 0, PARAMS), expected)
