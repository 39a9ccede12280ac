"""zxing-cpp reads the code of each box, and no other one."""

from __future__ import annotations

import math

import cv2
import numpy as np
import zxingcpp
from zxingcpp import BarcodeFormat as Format

from data.make_sample import code_image
from streamer.imaging.code_symbols import read_symbols
from streamer.imaging.code_text import MAX_TEXT_CHARS
from tests.helpers.printed_codes import EAN_BOX, EAN_TEXT, EMPTY_BOX, QR_BOX, QR_TEXT, sheet

QR, EAN = (QR_TEXT, "QR Code"), (EAN_TEXT, "EAN-13")


def test_each_box_gets_the_text_of_its_own_code() -> None:
    image = sheet()
    boxes = [QR_BOX, EMPTY_BOX, EAN_BOX, (-500, -500, -400, -400), (0, 0, 10_000, 10_000)]
    assert read_symbols(image, boxes, math.inf)[:4] == [QR, None, EAN, None]
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    assert read_symbols(grey, [EAN_BOX, QR_BOX], math.inf) == [EAN, QR]


def test_a_neighbour_in_the_margin_is_not_read() -> None:
    _, y1, x2, y2 = QR_BOX
    beside = (x2 + 2, y1, x2 + 250, y2)
    assert read_symbols(sheet(), [beside], math.inf) == [None]


def test_a_large_code_is_reduced_and_read() -> None:
    image = cv2.resize(sheet(), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    boxes = [[4 * side for side in box] for box in (QR_BOX, EAN_BOX)]
    assert read_symbols(image, boxes, math.inf) == [QR, EAN]


def test_no_code_is_begun_after_the_time() -> None:
    assert read_symbols(sheet(), [QR_BOX, EAN_BOX], 0.0) == [None, None]


def test_long_and_binary_contents_are_left_out() -> None:
    for text, expected in (("x" * MAX_TEXT_CHARS, "QR Code"), ("x" * (MAX_TEXT_CHARS + 1), None)):
        image = code_image(text, Format.QRCode, 3)
        (found,) = read_symbols(image, [[0, 0, *image.shape[::-1]]], math.inf)
        assert (found and found[1]) == expected
    binary = zxingcpp.create_barcode(bytes(range(128, 160)), Format.DataMatrix)
    image = np.array(binary.to_image(scale=6, add_quiet_zones=True), np.uint8)
    assert [code.content_type for code in zxingcpp.read_barcodes(image)] == [zxingcpp.ContentType.Binary]
    assert read_symbols(image, [[0, 0, *image.shape[::-1]]], math.inf) == [None]
