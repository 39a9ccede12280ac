"""Runs a model on the pictures of a labelled set exactly as the service would."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.core.detection_params import DetectionParams
from inference.core.detections import Boxes
from inference.engine.detector import Detector
from inference.preprocess.letterbox import Letterbox
from streamer.assets import MODELS_DIR
from streamer.config.settings import SettingsError, load_settings
from streamer.datasets.labelled_set import LabelledPicture
from streamer.datasets.sample import BadRequest, CannotRead
from streamer.datasets.upright import upright_pixels

#: Boxes below this score do not count. Average precision needs weak boxes, but not those by the thousand.
LOWEST_SCORE = 0.001
#: COCO counts at most this many boxes of a picture.
MOST_BOXES = 100


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A loaded model and how its classes relate to those of a set."""

    #: As the user named it.
    name: str
    path: Path
    detector: Detector
    #: Index of each of the model's classes in the set; -1 for a class that the set does not have.
    class_map: npt.NDArray[np.int64]
    #: Classes of the set that the model does not have.
    lacking: tuple[str, ...]

    @property
    def threshold(self) -> float:
        """The score from which the service shows boxes, unless a client asks for another."""
        return self.detector.model.default_params.conf_threshold

    def close(self) -> None:
        """Release the model."""
        self.detector.close()


@dataclass(frozen=True, slots=True)
class PictureDetections:
    """What a model found in one picture."""

    #: float32 (n, 6), best first: x1, y1, x2, y2 in pixels of the picture, score, index of the set's class.
    boxes: Boxes
    #: Seconds of the model run alone.
    run_s: float


def model_path(name: str) -> Path:
    """Return the file of a model: a path, a version that the service serves, or a model in its folder.

    Raises BadRequest that says what is allowed.
    """
    if Path(name).is_file():
        return Path(name)
    try:
        served = load_settings().models()
    except SettingsError as error:
        raise BadRequest(str(error)) from error
    installed = MODELS_DIR / f"{name}.onnx"
    if name in served:
        return served[name]
    if Path(name).name == name and installed.is_file():
        return installed
    raise BadRequest(
        f"MODEL is {name!r}; expected a file, one of {', '.join(served)} (served), or the name of a model "
        f"in {MODELS_DIR}"
    )


def open_model(name: str, classes: Sequence[str], device: str = "cpu") -> OpenModel:
    """Load a model, which runs on one core of a CPU. Raises BadRequest, ModelRefused or DeviceUnavailable."""
    path = model_path(name)
    detector = Detector(path, version="evaluate", device=device, batch_max=1)
    labels = detector.model.labels
    indices = {label: index for index, label in enumerate(classes)}
    class_map = np.array([indices.get(label, -1) for label in labels], np.int64)
    lacking = tuple(label for label in classes if label not in labels)
    if len(lacking) == len(classes):
        detector.close()
        shown = ", ".join(labels[:8]) + (", …" if len(labels) > 8 else "")
        raise BadRequest(
            f"{name} has none of the set's classes ({', '.join(classes)}); its classes are {shown}"
        )
    return OpenModel(name, path, detector, class_map, lacking)


def detect(model: OpenModel, picture: LabelledPicture) -> PictureDetections:
    """Return what the service would find in the picture, with all boxes down to `LOWEST_SCORE`.

    Boxes of classes that the set does not have are left out. Raises CannotRead or DamagedSample.
    """
    params = DetectionParams(
        conf_threshold=LOWEST_SCORE,
        max_detections=MOST_BOXES,
        agnostic_nms=model.detector.model.default_params.agnostic_nms,
        class_ids=tuple(np.nonzero(model.class_map >= 0)[0].tolist()),
    )
    found = detect_file(model.detector, picture.path, params)
    boxes = found.boxes.copy()
    boxes[:, 5] = model.class_map[boxes[:, 5].astype(np.int64)]
    return PictureDetections(boxes, found.run_s)


def detect_file(detector: Detector, path: Path, params: DetectionParams) -> PictureDetections:
    """Return the boxes of an image file as a POST of it would, with the model's class ids.

    Raises CannotRead or DamagedSample.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CannotRead(f"{path}: {error.strerror or error}") from error
    image = upright_pixels(data, str(path))
    info = detector.model
    slot = np.empty((info.input_height, info.input_width, 3), np.uint8)
    place = Letterbox.fit(image.shape[1], image.shape[0], info)
    place.write(image, slot)
    begun = time.perf_counter()
    raw = detector.infer([slot], thread=0)
    run_s = time.perf_counter() - begun
    return PictureDetections(place.to_source(detector.postprocess(raw, 0, params)), run_s)


def detect_all(
    model: OpenModel,
    pictures: Sequence[LabelledPicture],
    on_picture: Callable[[int], None] = lambda done: None,
) -> list[PictureDetections]:
    """Return what the model finds in each picture; ``on_picture`` is called with the number that is done."""
    found = []
    for done, picture in enumerate(pictures):
        on_picture(done)
        found.append(detect(model, picture))
    return found
