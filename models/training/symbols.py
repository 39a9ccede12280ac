"""Draws random codes with the encoders of zxing-cpp, at one pixel per module."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import zxingcpp
from zxingcpp import BarcodeFormat as Format

Image = npt.NDArray[np.uint8]

#: Class names in the order of the model's outputs.
CLASSES = ("barcode", "qr_code", "data_matrix", "aztec", "pdf417")
#: Share of each class among the drawn codes. Linear codes have the most varieties.
_CLASS_SHARES = (0.30, 0.22, 0.18, 0.14, 0.16)

_ALPHANUMERIC = string.ascii_uppercase + string.digits
_PRINTABLE = string.ascii_letters + string.digits + " .,:;/-+?=&%#@"


@dataclass(frozen=True, slots=True)
class Symbol:
    """Holds one code without its quiet zone, at one pixel per module: 0 is ink, 255 is paper."""

    modules: Image
    class_id: int
    text: str
    #: Whether its rows are copies of each other, so that its height can change without changing its content.
    linear: bool


Writer = Callable[[np.random.Generator], tuple[str, Format, dict[str, object]]]


def _some(rng: np.random.Generator, alphabet: str, low: int, high: int) -> str:
    """Return a random text of ``low`` to ``high`` characters; short texts are more frequent."""
    length = int(np.exp(rng.uniform(np.log(low), np.log(high + 1))))
    return "".join(rng.choice(list(alphabet), min(length, high)))


def _digits(rng: np.random.Generator, low: int, high: int | None = None) -> str:
    return _some(rng, string.digits, low, high or low)


def _gs1(rng: np.random.Generator) -> str:
    digits = _digits(rng, 13)
    check = -sum(int(d) * (1 if i % 2 else 3) for i, d in enumerate(digits)) % 10
    more = rng.integers(3)
    extra = (
        f"[10]{_some(rng, _ALPHANUMERIC, 3, 12)}"
        if more == 1
        else f"[3103]{_digits(rng, 6)}"
        if more == 2
        else ""
    )
    return f"[01]{digits}{check}{extra}"


_LINEAR: tuple[tuple[float, Writer], ...] = (
    (5.0, lambda r: (_digits(r, 12), Format.EAN13, {})),
    (2.0, lambda r: (_digits(r, 7), Format.EAN8, {})),
    (3.0, lambda r: (_digits(r, 11), Format.UPCA, {})),
    (1.5, lambda r: ("0" + _digits(r, 6), Format.UPCE, {})),
    (3.0, lambda r: (_some(r, _PRINTABLE, 3, 24), Format.Code128, {})),
    (2.0, lambda r: (_digits(r, 6, 30), Format.Code128, {})),
    (2.5, lambda r: (_some(r, _ALPHANUMERIC, 2, 14), Format.Code39, {})),
    (1.0, lambda r: (_some(r, _ALPHANUMERIC, 2, 14), Format.Code93, {})),
    (1.5, lambda r: ("A" + _digits(r, 3, 14) + "B", Format.Codabar, {})),
    (2.0, lambda r: (_digits(r, 2 * int(r.integers(2, 9))), Format.ITF, {})),
    (0.7, lambda r: (_some(r, _ALPHANUMERIC, 2, 12), Format.Telepen, {})),
    (1.0, lambda r: (_digits(r, 13), Format.DataBarOmni, {})),
    (0.7, lambda r: (_digits(r, 13), Format.DataBarStk, {})),
    (0.8, lambda r: (_digits(r, 13), Format.DataBarStkOmni, {})),
    (0.5, lambda r: (str(r.integers(2)) + _digits(r, 12), Format.DataBarLtd, {})),
    (2.0, lambda r: (_gs1(r), Format.DataBarExp, {})),
    (1.5, lambda r: (_gs1(r), Format.DataBarExpStk, {})),
)
_QR: tuple[tuple[float, Writer], ...] = (
    (4.0, lambda r: (_some(r, _PRINTABLE, 3, 60), Format.QRCode, {"ec_level": str(r.choice(list("LMQH")))})),
    (
        1.6,
        lambda r: (_some(r, _PRINTABLE, 40, 1000), Format.QRCode, {"ec_level": str(r.choice(list("LMQH")))}),
    ),
    (1.0, lambda r: (_digits(r, 2, 15), Format.MicroQRCode, {})),
    (0.8, lambda r: (_some(r, _ALPHANUMERIC, 2, 60), Format.RMQRCode, {})),
)
_DATA_MATRIX: tuple[tuple[float, Writer], ...] = (
    (3.0, lambda r: (_some(r, _PRINTABLE, 2, 60), Format.DataMatrix, {"force_square": True})),
    (1.0, lambda r: (_some(r, _PRINTABLE, 60, 700), Format.DataMatrix, {"force_square": True})),
    (1.4, lambda r: (_some(r, _ALPHANUMERIC, 2, 40), Format.DataMatrix, {})),
    (1.0, lambda r: (_digits(r, 4, 40), Format.DataMatrix, {})),
)
_AZTEC: tuple[tuple[float, Writer], ...] = (
    (4.0, lambda r: (_some(r, _PRINTABLE, 2, 50), Format.Aztec, {})),
    (1.5, lambda r: (_some(r, _PRINTABLE, 50, 900), Format.Aztec, {})),
    (0.5, lambda r: (str(r.integers(256)), Format.AztecRune, {})),
)
_PDF417: tuple[tuple[float, Writer], ...] = (
    (4.0, lambda r: (_some(r, _PRINTABLE, 8, 300), Format.PDF417, {"columns": int(r.integers(1, 13))})),
    (1.5, lambda r: (_some(r, _PRINTABLE, 8, 200), Format.PDF417, {})),
    (0.8, lambda r: (_some(r, _PRINTABLE, 8, 100), Format.CompactPDF417, {})),
    (1.5, lambda r: (_some(r, _ALPHANUMERIC, 2, 80), Format.MicroPDF417, {})),
)
_VARIETIES = (_LINEAR, _QR, _DATA_MATRIX, _AZTEC, _PDF417)


def draw_symbol(rng: np.random.Generator, class_id: int | None = None) -> Symbol:
    """Return a code of a random variety, and of a random class if ``class_id`` is None."""
    if class_id is None:
        class_id = int(rng.choice(len(CLASSES), p=_CLASS_SHARES))
    varieties = _VARIETIES[class_id]
    weights = np.array([weight for weight, _ in varieties])
    while True:
        _, writer = varieties[rng.choice(len(varieties), p=weights / weights.sum())]
        text, kind, options = writer(rng)
        try:
            code = zxingcpp.create_barcode(text, kind, **options)
        except ValueError:
            continue  # this text does not fit into this variety: draw another
        modules = np.array(code.to_image(scale=1, add_quiet_zones=False), np.uint8)
        return _shaped(rng, Symbol(modules, class_id, text, _is_plain(modules)))


def draw_decoy(rng: np.random.Generator) -> Image:
    """Return an image that resembles a code but is of none of the classes: a MaxiCode, or random modules."""
    if rng.random() < 0.5:
        code = zxingcpp.create_barcode(_some(rng, _ALPHANUMERIC, 4, 60), Format.MaxiCode)
        return np.array(code.to_image(scale=1, add_quiet_zones=False), np.uint8)
    rows, columns = rng.integers(3, 9, 2)
    return np.where(rng.random((rows, columns)) < 0.5, 0, 255).astype(np.uint8)


def _is_plain(modules: Image) -> bool:
    return bool((modules[: modules.shape[0] // 2] == modules[0]).all())


def _shaped(rng: np.random.Generator, symbol: Symbol) -> Symbol:
    """Return a linear code with a random height and its guard bars; return other codes unchanged."""
    if not symbol.linear:
        return symbol
    row = symbol.modules[0]
    height = int(np.clip(len(row) * np.exp(rng.uniform(np.log(0.12), np.log(1.0))), 8, 400))
    modules = np.repeat(row[None], height, 0)
    tail = symbol.modules[-1]
    if (tail != row).any() and height > 24:  # EAN and UPC: the last rows contain only the guard bars
        modules[-5:] = tail
    return Symbol(modules, symbol.class_id, symbol.text, True)
