"""Reads annotated photographs from a folder with `annotations.json` (COCO) and `images/`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from models.training.pool import Sample
from models.training.symbols import CLASSES

_MAX_SIDE = 832


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph: class ids (n,) and boxes (n, 4) as x1 y1 x2 y2 in pixels."""

    path: Path
    #: The symbology of each code, as the decoder named it; an empty text if the file does not name it.
    symbologies: tuple[str, ...]
    class_ids: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]

    @property
    def folder(self) -> str:
        """The name of the test suite's folder; the file name begins with it."""
        return self.path.name.split("_")[0]

    def image(self) -> npt.NDArray[np.uint8]:
        """Return the image (h, w, 3), BGR. Raises ValueError when it cannot be read."""
        image = cv2.imread(str(self.path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{self.path}: not an image that OpenCV reads")
        return image


def read_photos(folder: Path) -> list[Photo]:
    """Return the photographs of a folder. Raises ValueError that names the file and what is wrong with it."""
    source = folder / "annotations.json"
    try:
        document = json.loads(source.read_text("utf-8"))
        names = {category["id"]: category["name"] for category in document["categories"]}
        by_image: dict[int, list[tuple[int, list[float], str]]] = {
            image["id"]: [] for image in document["images"]
        }
        for entry in document["annotations"]:
            name = names[entry["category_id"]]
            if name not in CLASSES:
                raise ValueError(f"{source}: category `{name}` is none of {', '.join(CLASSES)}")
            by_image[entry["image_id"]].append(
                (CLASSES.index(name), entry["bbox"], entry.get("symbology", ""))
            )
        files = [(image["id"], folder / "images" / image["file_name"]) for image in document["images"]]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{source}: expected COCO annotations beside images/, found {error!r}") from error
    photos = []
    for number, path in files:
        boxes = np.array([box for _, box, _ in by_image[number]], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        class_ids = np.array([class_id for class_id, _, _ in by_image[number]], np.int64)
        photos.append(Photo(path, tuple(kind for _, _, kind in by_image[number]), class_ids, boxes))
    return photos


def as_sample(photo: Photo) -> Sample:
    """Return a photograph for training, with boxes that span the full height of linear codes.

    The image is shrunk if it is larger than needed. The decoder reports only one of the rows of a stacked
    linear code, so training ignores these boxes and learns stacked codes from synthetic scenes.
    """
    image = photo.image()
    stacked = np.array(["Stacked" in kind for kind in photo.symbologies], bool)
    boxes = photo.boxes.copy()
    scale = min(1.0, _MAX_SIDE / max(image.shape[:2]))
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        boxes *= scale
    for index, class_id in enumerate(photo.class_ids):
        if CLASSES[class_id] == "barcode":
            boxes[index] = grown(image, boxes[index])
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return Sample(data.tobytes(), np.where(stacked, -1, photo.class_ids), boxes)


def grown(image: npt.NDArray[np.uint8], box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a linear code's box, extended along its bars as far as the rows show the same bars.

    The decoder reports only the rows that it has read.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    inside = grey[y1:y2, x1:x2]
    if min(inside.shape) < 2:
        return box
    upright = np.abs(np.diff(inside, axis=1)).mean() >= np.abs(np.diff(inside, axis=0)).mean()
    if not upright:
        grey, (x1, y1, x2, y2) = grey.T, (y1, x1, y2, x2)
    y1, y2 = _reach(grey, x1, x2, y1, -1), _reach(grey, x1, x2, y2 - 1, 1) + 1
    result = (x1, y1, x2, y2) if upright else (y1, x1, y2, x2)
    return np.array(result, np.float32)


def _reach(grey: npt.NDArray[np.float32], left: int, right: int, row: int, step: int) -> int:
    """Return the last row, going by ``step`` from ``row``, with the same bars, even if slightly shifted."""
    height, width = grey.shape
    slack = max(2, (right - left) // 60)
    row = min(max(row, 0), height - 1)
    pattern = grey[row, left:right] - grey[row, left:right].mean()
    strength = float(np.sqrt((pattern**2).mean()))
    last, misses, shift = row, 0, 0
    while 0 <= row + step < height and misses < 3:
        row += step
        best, best_at = 0.0, shift
        for at in range(shift - slack, shift + slack + 1):
            if left + at < 0 or right + at > width:
                continue
            part = grey[row, left + at : right + at]
            part = part - part.mean()
            spread = float(np.sqrt((part**2).mean()))
            if spread < 0.3 * strength:
                continue
            score = float((part * pattern).mean()) / (spread * strength + 1e-6)
            if score > best:
                best, best_at = score, at
        if best > 0.6:
            last, misses, shift = row, 0, best_at
        else:
            misses += 1
    return last
