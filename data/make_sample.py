"""Makes ``sample.mp4`` and ``stills/``: computer-drawn printed codes on parcels and paper.

Run ``python data/make_sample.py [FOLDER]`` (needs zxing-cpp, which draws the codes). The same seed gives the
same images, and the clip loops without a jump: during it, the belt moves by exactly one period of its
pattern. No photograph or font file is used.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import zxingcpp
from zxingcpp import BarcodeFormat as Format

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]

SEED = 7
WIDTH, HEIGHT, FPS, SECONDS = 640, 360, 20, 9
#: Frames are drawn larger by this factor and then shrunk, which smooths the edges.
SUPERSAMPLING = 2
#: Size of the belt. Its pattern and the parcels repeat after its length.
BELT_LENGTH_M, BELT_WIDTH_M = 3.6, 0.92
TEXELS_PER_M = 520
#: Offset (x, y) of a shadow in metres, per metre of height.
SHADOW_PER_M = np.array([0.45, 0.30])

# -- printed codes -----------------------------------------------------------------------------------


def code_image(text: str, kind: zxingcpp.BarcodeFormat, module_px: int, **options: int) -> Image:
    """Return a two-dimensional code as black on white, with its quiet zone."""
    code = zxingcpp.create_barcode(text, kind, **options)
    modules = np.array(code.to_image(scale=1, add_quiet_zones=False), np.uint8)
    modules = np.pad(modules, 3, constant_values=255)
    return np.repeat(np.repeat(modules, module_px, 0), module_px, 1)


def bars_image(text: str, kind: zxingcpp.BarcodeFormat, module_px: int, height_px: int) -> Image:
    """Return a linear code as black on white, with its quiet zones at both ends."""
    modules = np.array(zxingcpp.create_barcode(text, kind).to_image(scale=1, add_quiet_zones=False), np.uint8)
    row = np.pad(modules[0], 9, constant_values=255)
    return np.repeat(np.repeat(row, module_px)[None], height_px, 0)


# -- things on the belt ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parcel:
    """Describes a box on the belt: the position of its centre at the start, its size and its faces."""

    x_m: float
    y_m: float
    length_m: float
    width_m: float
    height_m: float
    yaw_rad: float
    top: Image
    side: Image

    def corners(self, moved_m: float) -> tuple[Points, Points]:
        """Return the four corners at the bottom and at the top, in order, after the belt has moved."""
        half = np.array([[-1, 1], [1, 1], [1, -1], [-1, -1]]) * [self.length_m / 2, self.width_m / 2]
        turn = np.array(
            [[np.cos(self.yaw_rad), -np.sin(self.yaw_rad)], [np.sin(self.yaw_rad), np.cos(self.yaw_rad)]]
        )
        middle = [(self.x_m + moved_m) % BELT_LENGTH_M - BELT_LENGTH_M / 2, self.y_m]
        flat = half @ turn.T + middle
        return np.c_[flat, np.zeros(4)], np.c_[flat, np.full(4, self.height_m)]


def grain(rng: np.random.Generator, shape: tuple[int, int], scale: float, strength: float) -> Points:
    """Return smooth noise around 0, with spots of about ``scale`` pixels."""
    small = rng.normal(size=(max(2, int(shape[0] / scale)), max(2, int(shape[1] / scale))))
    return np.asarray(cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)) * strength


def tinted(rng: np.random.Generator, size: tuple[int, int], colour: tuple[int, int, int]) -> Image:
    """Return a card of one colour (BGR) with paper grain; ``size`` is its width and height in pixels."""
    width, height = size
    light = grain(rng, (height, width), 1.5, 3.0) + grain(rng, (height, width), 90, 3.0)
    return np.clip(np.array(colour)[None, None] + light[..., None], 0, 255).astype(np.uint8)


def stick(card: Image, label: Image, x: int, y: int, paper: tuple[int, int, int] = (238, 242, 244)) -> None:
    """Draw a black-and-white label onto a card, in place, as if printed on paper of the given colour."""
    height, width = label.shape
    ink = label[..., None] / 255.0
    card[y : y + height, x : x + width] = (ink * paper + (1 - ink) * (34, 30, 28)).astype(np.uint8)


def label_image(code: Image, lines: list[str]) -> Image:
    """Return a shipping label: a code with lines of text below it; the first line is larger."""
    label = np.full((code.shape[0] + 42 + 24 * (len(lines) - 1), code.shape[1] + 16), 255, np.uint8)
    label[8 : 8 + code.shape[0], 8 : 8 + code.shape[1]] = code
    y = code.shape[0] + 30
    for index, line in enumerate(lines):
        size, weight = (0.8, 2) if index == 0 else (0.55, 1)
        cv2.putText(label, line, (22, y), cv2.FONT_HERSHEY_SIMPLEX, size, 0, weight, cv2.LINE_AA)
        y += 22
    label[:2] = label[-2:] = label[:, :2] = label[:, -2:] = 170
    return label


KRAFT, WHITE, BLUE, GREEN = (96, 140, 178), (206, 212, 216), (150, 104, 62), (104, 128, 74)


def make_parcels(rng: np.random.Generator) -> list[Parcel]:
    """Return the parcels, which are spread along the whole belt."""

    def lone(text: str, kind: zxingcpp.BarcodeFormat, module_px: int, **options: int) -> Image:
        return label_image(code_image(text, kind, module_px, **options), [text])

    def bars(text: str, kind: zxingcpp.BarcodeFormat, *lines: str) -> Image:
        return label_image(bars_image(text, kind, 3, 130), [text, *lines])

    plan = [
        (0.00, 0.08, (0.40, 0.36, 0.17), 0.08, KRAFT, lone("1042-7781", Format.QRCode, 12)),
        (0.52, -0.15, (0.38, 0.28, 0.06), -0.16, WHITE, bars("400638133393", Format.EAN13)),
        (0.98, 0.10, (0.36, 0.36, 0.21), 0.14, BLUE, lone("3310-0625", Format.Aztec, 15)),
        (1.46, -0.10, (0.44, 0.30, 0.10), -0.06, KRAFT, lone("1004-2778 bay 4", Format.PDF417, 4, columns=2)),
        (1.98, 0.10, (0.38, 0.36, 0.13), 0.22, GREEN, lone("5527-1904", Format.DataMatrix, 17)),
        (2.46, -0.13, (0.34, 0.33, 0.05), 0.10, WHITE, lone("8080-2024", Format.QRCode, 12)),
        (2.98, 0.06, (0.44, 0.32, 0.15), -0.12, KRAFT, bars("10042778", Format.ITF, "EXPRESS")),
    ]
    return [make_parcel(rng, *entry) for entry in plan]


def make_parcel(
    rng: np.random.Generator,
    x_m: float,
    y_m: float,
    size_m: tuple[float, float, float],
    yaw_rad: float,
    colour: tuple[int, int, int],
    label: Image,
) -> Parcel:
    """Return one parcel with tape across its top and the label on it."""
    length, width, height = size_m
    texels = 1300
    top = tinted(rng, (int(length * texels), int(width * texels)), colour)
    if height > 0.08:  # boxes have tape, envelopes do not
        middle = top.shape[0] // 2
        tape = top[middle - 24 : middle + 24]
        tape[:] = (tape * 0.82 + np.array([40, 52, 58]) * 0.5).clip(0, 255).astype(np.uint8)
    room = min(1.0, 0.86 * top.shape[1] / label.shape[1], 0.86 * top.shape[0] / label.shape[0])
    label = np.asarray(cv2.resize(label, None, fx=room, fy=room, interpolation=cv2.INTER_AREA), np.uint8)
    x = int((top.shape[1] - label.shape[1]) * rng.uniform(0.35, 0.65))
    y = int((top.shape[0] - label.shape[0]) * rng.uniform(0.4, 0.6))
    stick(top, label, x, y)
    side = tinted(rng, (200, 80), colour)
    return Parcel(x_m, y_m, length, width, height, yaw_rad, top, side)


# -- camera and drawing ------------------------------------------------------------------------------


class Camera:
    """A pinhole camera over the near edge of the belt, looking down across it."""

    def __init__(self, width: int, height: int) -> None:
        place, target = np.array([0.10, -1.24, 1.28]), np.array([0.02, -0.035, 0.03])
        forward = (target - place) / np.linalg.norm(target - place)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        self._axes = np.stack([right, np.cross(forward, right), forward])
        self._place = place
        self._focal = 1.22 * width
        self._middle = np.array([width / 2, height / 2])

    def project(self, points: Points) -> Points:
        """Return pixels (n, 2) of points in space (n, 3), metres."""
        seen = (points - self._place) @ self._axes.T
        return np.asarray(seen[:, :2] / seen[:, 2:] * self._focal + self._middle)


def paste(image: Points, face: Image, corners: Points, light: float) -> None:
    """Draw a face onto the image, in place, with its corners at the given pixels."""
    height, width = face.shape[:2]
    low = np.maximum(np.floor(corners.min(0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(corners.max(0)).astype(int) + 2, image.shape[1::-1])
    if (high <= low).any():
        return
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, (corners - low).astype(np.float32))
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    warped = cv2.warpPerspective(
        face, matrix, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.float64)
    cover = np.zeros(size[::-1], np.uint8)
    shift = 4
    polygon = np.round((corners - low) * 2**shift).astype(np.int32)
    cv2.fillConvexPoly(cover, polygon, 255, cv2.LINE_AA, shift)
    alpha = cover[..., None] / 255.0
    part = image[low[1] : high[1], low[0] : high[0]]
    part[:] = part * (1 - alpha) + warped * light * alpha


def belt_texture(rng: np.random.Generator) -> Image:
    """Return one period of the belt: dark rubber with fine ribs and a seam."""
    shape = (int(BELT_WIDTH_M * TEXELS_PER_M), int(BELT_LENGTH_M * TEXELS_PER_M))
    ribs = 5.0 * np.sin(np.arange(shape[1]) * 2 * np.pi / 26)[None]
    wear = np.zeros(shape)
    seam_blend = 200
    for scale, strength in ((2, 3.0), (30, 3.0), (160, 4.0)):
        spots = grain(rng, (shape[0], shape[1] + seam_blend), scale, strength)
        # Blend the noise past the end into the beginning, so that the belt has no edge where it repeats.
        fade = np.linspace(0, 1, seam_blend)[None]
        spots[:, :seam_blend] = spots[:, :seam_blend] * fade + spots[:, shape[1] :] * (1 - fade)
        wear += spots[:, : shape[1]]
    light = 58 + ribs + wear
    seam = int(0.27 * TEXELS_PER_M)
    light[:, seam : seam + 7] += 22
    edge = np.minimum(np.arange(shape[0]), np.arange(shape[0])[::-1])[:, None]
    light -= 18 * np.exp(-edge / 14)
    texture: Image = np.clip(light[..., None] + np.array([6, 2, -2]), 0, 255).astype(np.uint8)
    return texture


def surroundings(rng: np.random.Generator, camera: Camera, size: tuple[int, int]) -> Points:
    """Return the background that does not move: the floor and the rails along the belt."""
    width, height = size
    floor = np.full((height, width, 3), (74.0, 68.0, 62.0))
    floor += (grain(rng, (height, width), 3, 2.0) + grain(rng, (height, width), 120, 6.0))[..., None]
    for y, near in ((BELT_WIDTH_M / 2, False), (-BELT_WIDTH_M / 2, True)):
        inner, outer = (y, y + 0.075) if not near else (y, y - 0.075)
        rail = tinted(rng, (1200, 40), (158, 150, 142))
        for x in range(60, 1200, 150):  # bolts
            cv2.circle(rail, (x, 20), 7, (110, 104, 98), -1, cv2.LINE_AA)
            cv2.circle(rail, (x - 1, 18), 4, (186, 180, 174), -1, cv2.LINE_AA)
        far, close = max(inner, outer), min(inner, outer)
        corners = np.array([[-2.0, far, 0.03], [2.0, far, 0.03], [2.0, close, 0.03], [-2.0, close, 0.03]])
        paste(floor, rail, camera.project(corners), 1.0)
        front = np.array([[-2.0, close, 0.03], [2.0, close, 0.03], [2.0, close, -0.09], [-2.0, close, -0.09]])
        paste(floor, tinted(rng, (1200, 40), (108, 102, 96)), camera.project(front), 1.0)
    return floor


def draw_belt(image: Points, texture: Image, camera: Camera, moved_m: float) -> None:
    """Draw the moving surface, in place."""
    shifted = np.roll(texture, round(moved_m * TEXELS_PER_M), axis=1)
    half_x, half_y = BELT_LENGTH_M / 2, BELT_WIDTH_M / 2
    corners = np.array(
        [[-half_x, half_y, 0], [half_x, half_y, 0], [half_x, -half_y, 0], [-half_x, -half_y, 0]]
    )
    paste(image, shifted, camera.project(corners), 1.0)


def draw_shadow(image: Points, base: Points, height_m: float, camera: Camera) -> None:
    """Darken the shadow of a parcel, in place."""
    thrown = base.copy()
    thrown[:, :2] += SHADOW_PER_M * height_m
    outline = cv2.convexHull(camera.project(np.r_[base, thrown]).astype(np.float32))
    shade = np.zeros(image.shape[:2], np.uint8)
    cv2.fillConvexPoly(shade, np.round(outline).astype(np.int32), 255)
    soft = cv2.GaussianBlur(shade, (0, 0), 7) / 255.0
    image *= (1 - 0.55 * soft)[..., None]


def draw_parcel(image: Points, parcel: Parcel, camera: Camera, moved_m: float) -> None:
    """Draw the faces that the camera sees, in place."""
    base, lid = parcel.corners(moved_m)
    low, high = camera.project(base), camera.project(lid)
    for first, second, light in ((0, 1, 0.5), (1, 2, 0.62), (2, 3, 0.74), (3, 0, 0.62)):
        face = np.array([high[first], high[second], low[second], low[first]])
        # The camera sees a face from outside if its corners run anticlockwise on the image.
        turn = np.cross(np.r_[face[1] - face[0], 0.0], np.r_[face[2] - face[1], 0.0])[2]
        if turn < 0:
            paste(image, parcel.side, face, light)
    paste(image, parcel.top, high, 1.0)


def images(seed: int = SEED) -> Iterator[Image]:
    """Yield all frames, BGR."""
    rng = np.random.default_rng(seed)
    width, height = WIDTH * SUPERSAMPLING, HEIGHT * SUPERSAMPLING
    camera = Camera(width, height)
    texture, background = belt_texture(rng), surroundings(rng, camera, (width, height))
    parcels = make_parcels(rng)
    rows, columns = np.mgrid[0:height, 0:width]
    falloff = ((columns / width - 0.42) ** 2 * 0.9 + (rows / height - 0.4) ** 2 * 1.1)[..., None]
    lamp = 1.16 - 0.75 * falloff
    for index in range(FPS * SECONDS):
        moved_m = BELT_LENGTH_M * index / (FPS * SECONDS)
        image = background.copy()
        draw_belt(image, texture, camera, moved_m)
        order = sorted(parcels, key=lambda parcel: -parcel.y_m)
        for parcel in order:
            draw_shadow(image, parcel.corners(moved_m)[0], parcel.height_m, camera)
        for parcel in order:
            draw_parcel(image, parcel, camera, moved_m)
        image = cv2.GaussianBlur(image * lamp, (0, 0), 0.8)
        yield np.clip(cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), 0, 255).astype(
            np.uint8
        )


def sheet(rng: np.random.Generator) -> Image:
    """Return a leaflet with one code of each class, lying on a table at an angle."""
    cards = [
        ("EAN-13", bars_image("590123412345", Format.EAN13, 4, 190)),
        ("QR Code", code_image("https://example.org/parcel/1042", Format.QRCode, 8)),
        ("Data Matrix", code_image("1042-7781", Format.DataMatrix, 13)),
        ("Aztec", code_image("SEAT 17A", Format.Aztec, 14)),
        ("PDF417", code_image("ONE WAY 2026 SEAT 17A", Format.PDF417, 4, columns=3)),
        ("Code 128", bars_image("BAY-04", Format.Code128, 4, 190)),
    ]
    paper: Image = np.full((760, 1500, 3), (238, 242, 244), np.uint8)
    for index, (title, code) in enumerate(cards):
        row, column = divmod(index, 3)
        x, y = 250 + 500 * column - code.shape[1] // 2, 60 + 360 * row
        stick(paper, code, x, y + (230 - code.shape[0]) // 2)
        cv2.putText(
            paper, title, (x + 10, y + 270), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (60, 60, 60), 2, cv2.LINE_AA
        )
    table: Points = np.full((720, 1280, 3), (70.0, 96.0, 124.0))
    table += grain(rng, (720, 1280), 2, 3.0)[..., None] + grain(rng, (720, 1280), 200, 12.0)[..., None]
    corners = np.array([[190.0, 120.0], [1060.0, 60.0], [1180.0, 590.0], [120.0, 650.0]])
    shade = np.zeros(table.shape[:2], np.uint8)
    cv2.fillConvexPoly(shade, (corners + np.array([14, 20])).astype(np.int32), 255)
    table *= 1 - 0.5 * (cv2.GaussianBlur(shade, (0, 0), 12) / 255.0)[..., None]
    paste(table, paper, corners, 1.0)
    return np.clip(table, 0, 255).astype(np.uint8)


def stills() -> Iterator[tuple[str, Image]]:
    """Yield names and images (BGR): a leaflet, a frame of the belt, and the same frame at night."""
    rng = np.random.default_rng(SEED)
    yield "leaflet", sheet(rng)
    belt = next(frame for index, frame in enumerate(images()) if index == 66)
    yield "belt", belt
    dim = belt.astype(np.float64) * 0.22 + rng.normal(0, 4.0, belt.shape)
    yield "belt_at_night", np.clip(dim, 0, 255).astype(np.uint8)


def write(path: Path) -> None:
    """Encode the clip as H.264 for all browsers, with its index in front so that it starts at once."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "21", "preset": "veryslow", "profile": "main", "threads": "1"}
        stream.codec_context.time_base = Fraction(1, FPS)
        stream.codec_context.gop_size = 2 * FPS
        for image in images():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    (folder / "stills").mkdir(exist_ok=True)
    for name, still in stills():
        cv2.imwrite(str(folder / "stills" / f"{name}.jpg"), still, [cv2.IMWRITE_JPEG_QUALITY, 90])
    write(folder / "sample.mp4")
