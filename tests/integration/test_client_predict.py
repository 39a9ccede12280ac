"""Tests one-shot detection, by the library's functions and `streamer predict`, against the real service."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamer.cli.main import main
from streamer.client import (
    BadInput,
    ClientError,
    ConnectionFailed,
    Params,
    PredictFailed,
    Prediction,
    Request,
    Tls,
    predict,
    predict_async,
    predict_many,
)
from tests.conftest import shared
from tests.helpers.service import Service


@pytest.fixture(scope="module")
def bus() -> Path:
    """Return the path of a JPEG of 810x1080 pixels that shows a bus and people."""
    return shared("data/images/bus.jpg")


@pytest.fixture
def folder(tmp_path: Path, bus: Path) -> Path:
    """Return a folder with six image files, two of them broken."""
    made = tmp_path / "photos"
    made.mkdir()
    data = bus.read_bytes()
    for number in range(1, 5):
        (made / f"{number}.jpg").write_bytes(data)
    (made / "10.jpg").write_bytes(data[:20_000])
    (made / "11.png").write_bytes(b"not an image")
    return made


def test_one_image(service: Service, bus: Path) -> None:
    answer = predict(bus, url=service.http_url)
    assert isinstance(answer, Prediction)
    assert (answer.width, answer.height) == (810, 1080)
    assert answer.detections.labels[0] == "bus"
    assert answer.model["version"] == "v1"
    assert set(answer.timings_ms) >= {"decode", "inference", "total"}
    assert answer.request_id


async def test_parameters_and_versions_and_arrays(service: Service, bus: Path) -> None:
    image = cv2.imread(str(bus))
    assert image is not None
    request = Request(params=Params(conf_threshold=0.3, classes=["bus", 0], max_detections=2))
    answer = await predict_async(np.asarray(image, np.uint8), url=service.ws_url, request=request)
    assert len(answer.detections) == 2
    assert set(answer.detections.labels) == {"bus", "person"}
    other = await predict_async(bus, url=f"{service.http_url}/v2/predict")
    assert other.model["version"] == "v2"
    with pytest.raises(ClientError, match="predict_async"):
        predict(bus, url=service.http_url)


async def test_many_images_and_their_errors_come_one_by_one(
    service: Service, folder: Path, bus: Path
) -> None:
    images = [bus, folder / "10.jpg", folder / "absent.jpg", folder / "11.png", bus]
    answers = {i: a async for i, a in predict_many(images, url=service.http_url, concurrency=2)}
    assert sorted(answers) == [0, 1, 2, 3, 4]
    assert isinstance(answers[0], Prediction)
    assert isinstance(answers[4], Prediction)
    assert isinstance(answers[1], PredictFailed)
    assert answers[1].status == 422
    assert isinstance(answers[2], BadInput)
    assert isinstance(answers[3], BadInput)


def test_errors_say_what_the_server_said(service: Service, bus: Path) -> None:
    with pytest.raises(PredictFailed, match="v7") as missing:
        predict(bus, url=f"{service.http_url}/v7/predict")
    assert missing.value.status == 404
    with pytest.raises(PredictFailed, match="classes") as wrong:
        predict(bus, url=service.http_url, request=Request(params=Params(classes=["buss"])))
    assert (wrong.value.status, wrong.value.code) == (400, "invalid_parameter")
    assert wrong.value.request_id
    with pytest.raises(PredictFailed, match="method") as method:
        predict(bus, url=f"{service.http_url}/openapi.json")
    assert method.value.status == 405


def test_nobody_there_and_bad_certificates_files(bus: Path, tmp_path: Path) -> None:
    secret = "hunter22-dummy"  # noqa: S105 - a dummy
    with pytest.raises(ConnectionFailed, match="Connection refused") as caught:
        predict(bus, url=f"http://me:{secret}@127.0.0.1:9/v1/predict?api_key={secret}", token=None)
    assert secret not in str(caught.value)
    (tmp_path / "x.pem").write_text("no certificate")
    for name in ("x.pem", "absent.pem"):
        with pytest.raises(BadInput, match=name):
            predict(bus, request=Request(tls=Tls(ca_file=str(tmp_path / name))))


def test_the_command_prints_a_table(service: Service, bus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(bus), "--url", service.http_url, "--classes", "bus", "--conf", "0.5"]) == 0
    out, err = capsys.readouterr()
    first, second = out.splitlines()
    assert first.startswith(f"{bus}  810x1080  1 box  ms: ")
    assert second.split()[:2] == ["bus", "91%"]
    assert err == ""


def test_a_folder_with_broken_images_gives_lines_errors_and_exit_code_1(
    service: Service, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = tmp_path / "boxes"
    command = ["predict", str(folder), "--url", service.http_url, "--json", "--save", str(boxes)]
    assert main(command) == 1
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [Path(line["image"]).name for line in lines] == [
        *(f"{number}.jpg" for number in (1, 2, 3, 4, 10)),
        "11.png",
    ]
    assert ["error" in line for line in lines] == [False] * 4 + [True] * 2
    assert lines[4]["error"]["status"] == 422
    assert lines[0]["detections"][0]["label"] == "bus"
    assert sorted(path.name for path in boxes.iterdir()) == [f"{n}-boxes.jpg" for n in (1, 2, 3, 4)]
    drawn = cv2.imread(str(boxes / "1-boxes.jpg"))
    assert drawn is not None
    assert drawn.shape == (1080, 810, 3)
    assert "11.png" in err


def test_standard_input_is_an_image(
    service: Service,
    bus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Stdin:
        buffer = io.BytesIO(bus.read_bytes())

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert main(["predict", "-", "--url", service.http_url, "--save", str(tmp_path), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "stdin-boxes.jpg").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--url", "http://127.0.0.1:9"], 3, "Connection refused"),
        (["--url", "gopher://x"], 2, "must begin with"),
        (["--conf", "7"], 2, "conf_threshold"),
        (["--jobs", "0"], 2, "--jobs"),
    ],
)
def test_exit_codes(
    bus: Path, arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(bus), *arguments]) == code
    assert says in capsys.readouterr().err


def test_a_wrong_version_is_a_refusal_and_an_unwritable_folder_has_its_own_code(
    service: Service, bus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(bus), "--url", f"{service.http_url}/v7/predict"]) == 3
    (tmp_path / "file").write_text("")
    assert main(["predict", str(bus), "--url", service.http_url, "--save", str(tmp_path / "file")]) == 5
    assert "--save" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(tmp_path / "empty")]) == 2
