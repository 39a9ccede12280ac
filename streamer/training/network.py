"""The detector: a GELAN backbone and neck with an anchor-free, decoupled head, small enough for one CPU core.

It follows YOLOv9 (Wang, Yeh, Liao 2024, arXiv:2402.13616): every stage is a generalised ELAN block, and the
coarsest level of the pyramid is an SPP-ELAN. It differs from YOLOv9 in three ways, all for speed on a CPU:
its activation is ReLU, which onnxruntime fuses with the convolution before it; it regresses distances
directly instead of as distributions (`docs/decisions/0007`); it has no auxiliary branch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: Grid strides of the three levels, in input pixels.
STRIDES = (8, 16, 32)
#: Scores start near this value. Otherwise the first steps would only reduce the scores of empty cells.
_PRIOR_SCORE = 0.01


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a network: channels of stem (stride 2), stages (4 to 32), neck and head; blocks per stage."""

    stem: int
    widths: tuple[int, int, int, int]
    depth: int
    neck: tuple[int, int, int]
    head: int


#: Networks by name, from small to large: those of `codes_v1` and `codes_v2`.
SHAPES = {
    "n": Shape(stem=16, widths=(24, 48, 96, 128), depth=1, neck=(48, 64, 96), head=48),
    "s": Shape(stem=16, widths=(32, 64, 128, 192), depth=2, neck=(64, 96, 128), head=64),
}


class Unit(nn.Sequential):
    """Convolution, batch normalisation and ReLU; the export merges the first two."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
            nn.ReLU(inplace=True),
        )


class Residual(nn.Module):
    """Two 3x3 convolutions whose result is added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = Unit(channels, channels, 3)
        self.second = Unit(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102  as the class says
        return x + self.second(self.first(x))


class Gelan(nn.Module):
    """Generalised ELAN block: splits its input, runs blocks in a chain on one half, and joins all parts."""

    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        half = outputs // 2
        self.split = Unit(inputs, 2 * half)
        self.chain = nn.ModuleList(Residual(half) for _ in range(depth))
        self.join = Unit((2 + depth) * half, outputs)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102  as the class says
        parts = list(self.split(x).chunk(2, 1))
        for block in self.chain:
            parts.append(block(parts[-1]))
        return self.join(torch.cat(parts, 1))


class SppElan(nn.Module):
    """Joins max pools of growing reach, so that the network sees a large object as a whole."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.squeeze = Unit(channels, half)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.join = Unit(4 * half, channels)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102  as the class says
        parts = [self.squeeze(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.join(torch.cat(parts, 1))


class Head(nn.Module):
    """Two branches of one level: class logits, and distances to the four sides of the box, in strides."""

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.classes = nn.Sequential(
            Unit(inputs, width, 3), Unit(width, width, 3, groups=width), Unit(width, width)
        )
        self.boxes = nn.Sequential(
            Unit(inputs, width, 3), Unit(width, width, 3, groups=width), Unit(width, width)
        )
        self.to_classes = nn.Conv2d(width, classes, 1)
        self.to_boxes = nn.Conv2d(width, 4, 1)
        nn.init.constant_(
            self.to_classes.bias, -torch.log(torch.tensor((1 - _PRIOR_SCORE) / _PRIOR_SCORE)).item()
        )
        nn.init.constant_(self.to_boxes.bias, 1.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102  as the class says
        return self.to_classes(self.classes(x)), self.to_boxes(self.boxes(x))


class Detector(nn.Module):
    """Maps images (n, 3, h, w), RGB in 0..1, sides divisible by 32, to raw predictions per grid cell."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        c4, c8, c16, c32 = shape.widths
        n8, n16, n32 = shape.neck
        depth = shape.depth
        self.shape, self.class_count = shape, classes
        self.stem = nn.Sequential(Unit(3, shape.stem, 3, 2), Unit(shape.stem, c4, 3, 2))
        self.stage4 = Gelan(c4, c4, 1)
        self.stage8 = nn.Sequential(Unit(c4, c8, 3, 2), Gelan(c8, c8, depth))
        self.stage16 = nn.Sequential(Unit(c8, c16, 3, 2), Gelan(c16, c16, depth))
        self.stage32 = nn.Sequential(Unit(c16, c32, 3, 2), Gelan(c32, c32, depth), SppElan(c32))
        self.up = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.top16 = Gelan(c32 + c16, n16, 1)
        self.top8 = Gelan(n16 + c8, n8, 1)
        self.down16 = Unit(n8, n8, 3, 2)
        self.bottom16 = Gelan(n8 + n16, n16, 1)
        self.down32 = Unit(n16, n16, 3, 2)
        self.bottom32 = Gelan(n16 + c32, n32, 1)
        self.heads = nn.ModuleList(Head(width, shape.head, classes) for width in shape.neck)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits (n, cells, classes), and positive side distances (n, cells, 4) in strides."""
        p4 = self.stage4(self.stem(images))
        p8 = self.stage8(p4)
        p16 = self.stage16(p8)
        p32 = self.stage32(p16)
        t16 = self.top16(torch.cat([self.up(p32), p16], 1))
        t8 = self.top8(torch.cat([self.up(t16), p8], 1))
        b16 = self.bottom16(torch.cat([self.down16(t8), t16], 1))
        b32 = self.bottom32(torch.cat([self.down32(b16), p32], 1))
        logits, distances = [], []
        for head, level in zip(self.heads, (t8, b16, b32), strict=True):
            level_logits, level_distances = head(level)
            logits.append(level_logits.flatten(2))
            distances.append(level_distances.flatten(2))
        raw = torch.cat(distances, 2).transpose(1, 2)
        return torch.cat(logits, 2).transpose(1, 2), nn.functional.softplus(raw)


def grid(height: int, width: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Return the cells of all levels: centres (cells, 2) as x, y in input pixels, and strides (cells, 1)."""
    middles, strides = [], []
    for stride in STRIDES:
        rows, columns = height // stride, width // stride
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        middles.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((rows * columns, 1), float(stride)))
    return torch.cat(middles).to(device), torch.cat(strides).to(device)


def corners(distances: Tensor, middles: Tensor, strides: Tensor) -> Tensor:
    """Return boxes (..., 4) as x1, y1, x2, y2 in input pixels."""
    reach = distances * strides
    return torch.cat([middles - reach[..., :2], middles + reach[..., 2:]], -1)


class Exported(nn.Module):
    """Gives the network the output of the `yolo` family: (n, 4 + classes, cells), cx cy w h in pixels."""

    def __init__(self, detector: Detector, side: int) -> None:
        super().__init__()
        self.detector = detector
        middles, strides = grid(side, side)
        self.register_buffer("middles", middles, persistent=False)
        self.register_buffer("strides", strides, persistent=False)

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102  as the class says
        logits, distances = self.detector(images)
        near, far = distances[..., :2], distances[..., 2:]
        centre = self.middles + (far - near) * self.strides * 0.5
        size = (far + near) * self.strides
        return torch.cat([centre, size, logits.sigmoid()], -1).transpose(1, 2)
