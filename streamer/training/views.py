"""Makes the training views: crops, mosaics and recoloured copies of labelled pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

PAD = 114
#: Maximum number of objects in one view. A mosaic of full pictures can have more; the view omits the excess.
MAX_OBJECTS = 48
_MIN_VISIBLE = 0.6

Image = npt.NDArray[np.uint8]


class Labelled(Protocol):
    """A picture with the class ids (n,) and boxes (n, 4) of its objects, x1 y1 x2 y2 in its pixels."""

    @property
    def class_ids(self) -> npt.NDArray[np.int64]:
        """Class ids; -1 marks objects that training ignores."""

    @property
    def boxes(self) -> npt.NDArray[np.float32]:
        """Boxes."""

    def image(self) -> Image:
        """Return the picture (h, w, 3), BGR."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Chances, of 0..1, of the changes that a view makes to its pictures."""

    #: Chance that a view joins four pictures.
    mosaic: float = 0.4
    #: Chances of mirroring left and right, of turning upside down, and of swapping rows and columns.
    mirror: float = 0.4
    upside_down: float = 0.2
    transpose: float = 0.15
    #: Chance of inverting the colours.
    invert: float = 0.06
    #: Range of the scale of a picture that is not placed as the service would place it; 1 fills the view.
    scale: tuple[float, float] = (0.4, 1.6)


#: For printed codes, which appear in every orientation, and inverted.
CODES = Augmentation()


@dataclass(slots=True)
class _View:
    """Holds an image (h, w, 3) BGR, class ids (n,), boxes (n, 4), and the interpolation for resizing."""

    image: Image
    class_ids: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    interpolation: int = cv2.INTER_LINEAR


class Views(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Makes ``count`` views: an image (3, side, side) uint8 RGB, class ids (48,), boxes (48, 4) in px.

    Class id -2 marks unused rows, -1 marks objects that training ignores. The same number always gives the
    same view, so an interrupted training resumes with exactly the views that it has not seen. The views in
    the last ``plain`` share of the numbers are not mosaics. Pictures come from ``scenes`` and, with the
    chance ``photo_share``, from ``photos``.
    """

    def __init__(  # noqa: PLR0913 - they describe the views
        self,
        scenes: Sequence[Labelled],
        photos: Sequence[Labelled],
        *,
        side: int,
        count: int,
        seed: int,
        photo_share: float = 0.0,
        sampled_share: float = 0.0,
        plain: float = 0.2,
        augmentation: Augmentation = CODES,
    ) -> None:
        self._scenes, self._photos = scenes, photos
        self._side, self._count, self._seed = side, count, seed
        self._photo_share = photo_share if photos else 0.0
        self._sampled_share = sampled_share
        self._plain_from = count * (1 - plain)
        self._augmentation = augmentation

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.make(number, may_join=number < self._plain_from)

    def make(self, number: int, *, may_join: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return the view of a number; without ``may_join`` it is no mosaic."""
        rng = np.random.default_rng([self._seed, number])
        joined = may_join and rng.random() < self._augmentation.mosaic
        view = self._mosaic(rng) if joined else self._single(rng)
        view.image = _discoloured(rng, view.image, self._augmentation.invert)
        planes = np.ascontiguousarray(view.image[..., ::-1].transpose(2, 0, 1))
        class_ids = torch.full((MAX_OBJECTS,), -2, dtype=torch.int64)
        boxes = torch.zeros(MAX_OBJECTS, 4)
        kept = min(len(view.class_ids), MAX_OBJECTS)
        class_ids[:kept] = torch.from_numpy(view.class_ids[:kept])
        boxes[:kept] = torch.from_numpy(view.boxes[:kept])
        return torch.from_numpy(planes), class_ids, boxes

    def _pick(self, rng: np.random.Generator) -> _View:
        source = self._photos if rng.random() < self._photo_share else self._scenes
        sample = source[int(rng.integers(len(source)))]
        # Linear resizing of a much larger image hardly averages its pixels, so fine modules turn into noise.
        # Nearest-neighbour resizing has the same effect.
        sampled = self._sampled_share > 0 and rng.random() < self._sampled_share
        way = cv2.INTER_NEAREST if sampled else cv2.INTER_LINEAR
        view = _View(sample.image(), sample.class_ids.copy(), sample.boxes.copy(), way)
        return _turned(rng, view, self._augmentation)

    def _single(self, rng: np.random.Generator) -> _View:
        """Return a view of one image; in half of the cases it is placed as the service would place it."""
        view, side = self._pick(rng), self._side
        height, width = view.image.shape[:2]
        scale = side / max(height, width)
        fits = rng.random() < 0.5
        if not fits:
            scale *= float(np.exp(rng.uniform(*np.log(self._augmentation.scale))))
            stretch = float(np.exp(rng.normal(0, 0.12)))
        scale_x, scale_y = (scale, scale) if fits else (scale * stretch, scale / stretch)
        size = max(4, round(width * scale_x)), max(4, round(height * scale_y))
        if fits:
            left, top = (side - size[0]) // 2, (side - size[1]) // 2
        else:
            left, top = (int(rng.uniform(min(0, side - s), max(0, side - s) + 1)) for s in size)
        ground = np.full((side, side, 3), PAD, np.uint8)
        if not fits and rng.random() < 0.5:
            ground[:] = rng.integers(0, 256, 3)
        return _laid([(view, size, left, top)], ground, (0, 0, side, side))

    def _mosaic(self, rng: np.random.Generator) -> _View:
        """Return a view of four images that meet at one point."""
        side = self._side
        x, y = (int(v) for v in rng.uniform(0.25, 0.75, 2) * side)
        ground = np.full((side, side, 3), PAD, np.uint8)
        views = []
        for column, row, right, bottom in (
            (0, 0, x, y),
            (x, 0, side, y),
            (0, y, x, side),
            (x, y, side, side),
        ):
            view = self._pick(rng)
            height, width = view.image.shape[:2]
            scale = side * float(np.exp(rng.uniform(np.log(0.35), np.log(1.1)))) / max(height, width)
            size = max(4, round(width * scale)), max(4, round(height * scale))
            left = column + int(
                rng.uniform(min(0, right - column - size[0]), max(0, right - column - size[0]) + 1)
            )
            top = row + int(rng.uniform(min(0, bottom - row - size[1]), max(0, bottom - row - size[1]) + 1))
            views.append(_laid([(view, size, left, top)], ground, (column, row, right, bottom)))
        class_ids = np.concatenate([view.class_ids for view in views])
        return _View(ground, class_ids, np.concatenate([view.boxes for view in views]))


def _laid(
    parts: list[tuple[_View, tuple[int, int], int, int]], ground: Image, frame: tuple[int, int, int, int]
) -> _View:
    """Draw resized images onto ``ground``, in place, within ``frame``; return the result and its objects."""
    x1, y1, x2, y2 = frame
    class_ids, boxes = [], []
    for view, size, left, top in parts:
        resized = cv2.resize(view.image, size, interpolation=view.interpolation)
        a, b, c, d = max(left, x1), max(top, y1), min(left + size[0], x2), min(top + size[1], y2)
        if a < c and b < d:
            ground[b:d, a:c] = resized[b - top : d - top, a - left : c - left]
        ratio = np.array([size[0] / view.image.shape[1], size[1] / view.image.shape[0]] * 2, np.float32)
        moved = view.boxes * ratio + np.array([left, top] * 2, np.float32)
        cut = np.clip(moved, [a, b, a, b], [c, d, c, d]).astype(np.float32) if a < c and b < d else moved * 0
        whole, seen = _areas(moved), _areas(cut)
        sides = (cut[:, 2:] - cut[:, :2]).min(1, initial=1e9)
        ignored = (seen < _MIN_VISIBLE * whole) | (sides < 6)
        kept = seen > 4
        class_ids.append(np.where(ignored, -1, view.class_ids)[kept])
        boxes.append(cut[kept])
    return _View(ground, np.concatenate(class_ids), np.concatenate(boxes))


def _areas(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)


def _turned(rng: np.random.Generator, view: _View, chances: Augmentation) -> _View:
    """Mirror and transpose at random."""
    height, width = view.image.shape[:2]
    x1, y1, x2, y2 = view.boxes.T
    if rng.random() < chances.mirror:
        view.image, x1, x2 = view.image[:, ::-1], width - x2, width - x1
    if rng.random() < chances.upside_down:
        view.image, y1, y2 = view.image[::-1], height - y2, height - y1
    if rng.random() < chances.transpose:
        view.image, x1, y1, x2, y2 = view.image.transpose(1, 0, 2), y1, x1, y2, x2
    view.image = np.ascontiguousarray(view.image)
    view.boxes = np.stack([x1, y1, x2, y2], 1)
    return view


def _discoloured(rng: np.random.Generator, image: Image, invert: float) -> Image:
    """Return the image with other light and colours, at times inverted, grey, blurred or noisy."""
    if rng.random() < 0.6:
        table = np.arange(256, dtype=np.float32)[:, None] / 255
        table = (
            (table ** np.exp(rng.normal(0, 0.25)) - 0.5) * np.exp(rng.normal(0, 0.2))
            + 0.5
            + rng.normal(0, 0.06)
        )
        table = table * np.exp(rng.normal(0, 0.06, 3)) * 255
        image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[None].transpose(1, 0, 2))
    # The ranges below are for a chance of 0.06 to invert; another one moves them.
    chance = rng.random() + 0.06 - invert
    if chance < 0.06:
        image = 255 - image
    elif chance < 0.16:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    elif chance < 0.26:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.4))
    elif chance < 0.32:
        noise = rng.normal(0, rng.uniform(2, 14), image.shape[:2]).astype(np.float32)
        image = np.clip(image + noise[..., None], 0, 255).astype(np.uint8)
    return image
