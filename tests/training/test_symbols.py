"""An independent decoder reads the drawn codes of every class."""

from __future__ import annotations

import numpy as np
import pytest
import zxingcpp

from models.training.symbols import CLASSES, draw_decoy, draw_symbol

LINEAR = {"Codabar", "Code 39", "Code 93", "Code 128", "ITF", "DataBar", "EAN/UPC", "Telepen"}
SYMBOLOGIES = {
    "barcode": LINEAR,
    "qr_code": {"QR Code"},
    "data_matrix": {"Data Matrix"},
    "aztec": {"Aztec"},
    "pdf417": {"PDF417", "MicroPDF417"},
}


@pytest.mark.parametrize("class_id", range(len(CLASSES)))
def test_a_decoder_reads_the_class_that_was_drawn(class_id: int) -> None:
    rng = np.random.default_rng(class_id)
    read = 0
    for _ in range(40):
        symbol = draw_symbol(rng, class_id)
        assert symbol.class_id == class_id
        assert set(np.unique(symbol.modules)) <= {0, 255}
        image = np.pad(np.repeat(np.repeat(symbol.modules, 4, 0), 4, 1), 48, constant_values=255)
        found = zxingcpp.read_barcodes(image)
        read += bool(found)
        assert {str(code.symbology) for code in found} <= SYMBOLOGIES[CLASSES[class_id]]
    # The decoder does not know every variety that its encoder writes (Telepen, DataBar Stacked, ...).
    assert read >= 30


def test_every_class_is_drawn_and_linear_codes_come_in_many_heights() -> None:
    rng = np.random.default_rng(7)
    symbols = [draw_symbol(rng) for _ in range(300)]
    assert {symbol.class_id for symbol in symbols} == set(range(len(CLASSES)))
    ratios = [symbol.modules.shape[0] / symbol.modules.shape[1] for symbol in symbols if symbol.linear]
    assert min(ratios) < 0.2
    assert max(ratios) > 0.6


def test_a_decoy_is_no_code_of_ours() -> None:
    rng = np.random.default_rng(3)
    for _ in range(40):
        large = np.repeat(np.repeat(draw_decoy(rng), 6, 0), 6, 1)
        found = zxingcpp.read_barcodes(np.pad(large, 60, constant_values=255))
        assert all(str(code.symbology) == "MaxiCode" for code in found)
