"""Answers of `/predict` as JSON or MessagePack. `refusals` maps errors of the scheduler to statuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal, NotRequired, cast

import msgpack
from pydantic import Field
from typing_extensions import TypedDict

from inference.models.model import ModelInfo
from streamer.accounting.ledger import VERSIONS
from streamer.http.problem_details import Problem, ProblemDocument
from streamer.imaging.code_text import MAX_TEXT_CHARS
from streamer.scheduling.job import Prediction


class AnswerForm(StrEnum):
    """Media types of answers, the default first."""

    JSON = "application/json"
    MSGPACK = "application/msgpack"
    JPEG = "image/jpeg"


class Detection(TypedDict):
    """One object that the model has found."""

    box: Annotated[
        list[float],
        Field(
            min_length=4,
            max_length=4,
            description="`[x1, y1, x2, y2]` in pixels of the upright original (EXIF orientation applied).",
        ),
    ]
    score: Annotated[float, Field(ge=0, le=1, description="How sure the model is, from 0 to 1.")]
    class_id: Annotated[
        int, Field(ge=0, description="Number of the class in the list of the model's labels.")
    ]
    label: Annotated[str, Field(description="Label of the class, such as `person`.")]
    text: NotRequired[
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=MAX_TEXT_CHARS,
                description="What the code in the box contains. Present if the service reads codes "
                "(`READ_CODES`) and has read this one in time. Whoever printed the code chose the text: do "
                "not trust it.",
            ),
        ]
    ]
    format: NotRequired[
        Annotated[
            str, Field(description="Symbology of the code, such as `QR Code` or `EAN-13`; beside `text`.")
        ]
    ]


class AnsweringModel(TypedDict):
    """The model that has answered."""

    version: Annotated[
        str,
        Field(json_schema_extra={"enum": list(VERSIONS)}, description="Version under which it is served."),
    ]
    name: Annotated[str, Field(description="Name of the model.")]
    sha256: Annotated[str, Field(description="SHA-256 of the model file, in hexadecimal digits.")]


class ImageSize(TypedDict):
    """The image, with its EXIF orientation applied."""

    width: Annotated[int, Field(ge=1, description="Width in pixels.")]
    height: Annotated[int, Field(ge=1, description="Height in pixels.")]
    damaged: NotRequired[
        Annotated[
            Literal[True],
            Field(description="Present if parts of the image could not be decoded."),
        ]
    ]
    reduced: NotRequired[
        Annotated[
            Literal[2, 4, 8],
            Field(
                description="Present if the image was decoded at 1/2, 1/4 or 1/8 of its size, because it "
                "exceeds a limit on pixels or memory. `width`, `height` and boxes are those of the image "
                "itself."
            ),
        ]
    ]


class PredictTimings(TypedDict):
    """Where the time went, in milliseconds."""

    decode: Annotated[float, Field(ge=0, description="Time in which the image was decoded and scaled.")]
    queue: Annotated[float, Field(ge=0, description="Time for which the image waited for the model.")]
    inference: Annotated[float, Field(ge=0, description="Time for which the model ran.")]
    total: Annotated[float, Field(ge=0, description="Time from the last byte of the body to the answer.")]


class PredictionDocument(TypedDict):
    """The answer for one image."""

    model: AnsweringModel
    image: ImageSize
    detections: Annotated[list[Detection], Field(description="The detections, highest score first.")]
    timings_ms: PredictTimings
    request_id: Annotated[str, Field(description="The id of the request, as in `X-Request-Id`.")]


class FailedImage(TypedDict):
    """One image of several that has no detections, and why."""

    error: ProblemDocument
    request_id: Annotated[str, Field(description="The id of the request, as in `X-Request-Id`.")]


# This type only documents the answer. `encode_results` joins the bytes of the entries instead, because a
# dictionary of all boxes would take more memory.
class PredictionsDocument(TypedDict):
    """The answer for several images."""

    results: Annotated[
        list[PredictionDocument | FailedImage],
        Field(description="One entry for each image, in the order in which they were sent."),
    ]
    request_id: Annotated[str, Field(description="The id of the request, as in `X-Request-Id`.")]


_ALIASES = {
    "application/x-msgpack": AnswerForm.MSGPACK,
    "application/vnd.msgpack": AnswerForm.MSGPACK,
    "*/*": AnswerForm.JSON,
    "application/*": AnswerForm.JSON,
    "image/*": AnswerForm.JPEG,
}
_MAX_RANGES = 50
#: One shared encoder, because `json.dumps` with options creates a new one for each answer.
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def choose_form(accept: str) -> AnswerForm:
    """Return the media type that an ``Accept`` header prefers; JSON if it is empty or accepts anything.

    Raises Problem 406 if it accepts none of them.
    """
    if not accept or accept == "*/*" or not accept.strip():
        return AnswerForm.JSON
    best: tuple[float, AnswerForm] | None = None
    for item in accept.split(",")[:_MAX_RANGES]:
        name, _, parameters = item.partition(";")
        media = name.strip().lower()
        form = _ALIASES.get(media) or next((form for form in AnswerForm if form == media), None)
        quality = _quality(parameters)
        if form is not None and quality > 0 and (best is None or quality > best[0]):
            best = (quality, form)
    if best is None:
        raise Problem.not_acceptable(f"Accept is {accept[:100]!r}; answers exist as {', '.join(AnswerForm)}.")
    return best[1]


def _quality(parameters: str) -> float:
    """Return the ``q`` of a media range: 1 if it is absent, 0 if it is invalid."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                quality = float(value)
            except ValueError:
                return 0.0
            return quality if 0 <= quality <= 1 else 0.0
    return 1.0


def describe_prediction(
    prediction: Prediction, version: str, model: ModelInfo, total_ms: float, request_id: str
) -> PredictionDocument:
    """Return the answer for one image in plain types. Boxes are in pixels of the upright original image.

    ``total_ms`` is the time from the last byte of the body to now.
    """
    labels = model.labels
    image: ImageSize = {"width": prediction.width, "height": prediction.height}
    if prediction.damaged:
        image["damaged"] = True
    if prediction.reduced > 1:
        image["reduced"] = cast("Literal[2, 4, 8]", prediction.reduced)
    detections: list[Detection] = [
        {
            "box": [round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)],
            "score": round(score, 4),
            "class_id": int(number),
            "label": labels[int(number)] if int(number) < len(labels) else str(int(number)),
        }
        for x1, y1, x2, y2, score, number in prediction.boxes.tolist()
    ]
    for detection, code in zip(detections, prediction.codes, strict=False):
        if code is not None:
            detection["text"], detection["format"] = code
    return {
        "model": {"version": version, "name": model.name, "sha256": model.sha256},
        "image": image,
        "detections": detections,
        "timings_ms": {
            "decode": round(prediction.decode_ms, 2),
            "queue": round(prediction.queue_ms, 2),
            "inference": round(prediction.inference_ms, 2),
            "total": round(total_ms, 2),
        },
        "request_id": request_id,
    }


def encode_answer(answer: PredictionDocument | FailedImage, form: AnswerForm) -> bytes:
    """Return the bytes of ``answer`` as JSON or msgpack."""
    if form is AnswerForm.MSGPACK:
        packed: bytes = msgpack.packb(answer)
        return packed
    return _JSON.encode(answer).encode()


def encode_results(entries: Sequence[bytes], request_id: str, form: AnswerForm) -> bytes:
    """Join the encoded answers for several images, which :func:`encode_answer` made, to one answer."""
    if form is AnswerForm.MSGPACK:
        packer = msgpack.Packer(autoreset=False)
        packer.pack_map_header(2)
        packer.pack("results")
        packer.pack_array_header(len(entries))
        head: bytes = packer.bytes()
        tail: bytes = msgpack.packb("request_id") + msgpack.packb(request_id)
        return b"".join((head, *entries, tail))
    return b'{"results":[' + b",".join(entries) + b'],"request_id":' + json.dumps(request_id).encode() + b"}"
