"""Describes the field `comparison` of ``GET /versions``: types and texts. `comparison` fills them."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

State = Literal["undecided", "no_difference", "differs"]
_Interval = Annotated[list[float], Field(min_length=2, max_length=2)]
_Bounds = Annotated[list[float | None], Field(min_length=2, max_length=2)]


class ComparedQuantity(TypedDict):
    """A quantity by which the second version may differ from the first one."""

    first: NotRequired[Annotated[float, Field(description="Its mean of the first version.")]]
    second: NotRequired[Annotated[float, Field(description="Its mean of the second version.")]]
    difference: NotRequired[Annotated[float, Field(description="Second minus first; `unit` says of what.")]]
    unit: Annotated[
        Literal["share", "absolute"],
        Field(description="`share`: of the first version's figure; `absolute`: a difference of figures."),
    ]
    interval: NotRequired[
        Annotated[
            _Interval,
            Field(description="95 % interval by bootstrap over blocks of stream and time, for one look."),
        ]
    ]
    always_valid: Annotated[
        _Bounds,
        Field(
            description="Interval that holds however often one looks, for all quantities together; null: no "
            "bound yet."
        ),
    ]
    margin: Annotated[float, Field(description="Differences up to this one do not matter.")]
    verdict: Annotated[State, Field(description="What is known of this quantity.")]
    judged: Annotated[bool, Field(description="Whether the verdict on the versions depends on it.")]


class Period(TypedDict):
    """What both versions found in one stretch of time."""

    at: Annotated[str, Field(description="Its beginning (UTC).")]
    minutes: Annotated[float, Field(description="Its length.")]
    frames: Annotated[int, Field(ge=1, description="Frames that both versions ran.")]
    first: Annotated[float, Field(ge=0, description="Boxes per frame of the first version.")]
    second: Annotated[float, Field(ge=0, description="Boxes per frame of the second version.")]
    agreement: NotRequired[
        Annotated[float, Field(description="Share on which both agree, weighted by IoU and score.")]
    ]


class PictureBox(TypedDict):
    """A box in a picture."""

    box: Annotated[
        list[float], Field(min_length=4, max_length=4, description="x1, y1, x2, y2 in upright pixels.")
    ]
    score: Annotated[float, Field(description="Its score.")]
    label: Annotated[str, Field(description="Its class.")]


class ComparedPicture(TypedDict):
    """A frame on which the versions differ much."""

    url: Annotated[str, Field(description="Where the picture is, relative to this document.")]
    at: Annotated[str, Field(description="When it arrived (UTC).")]
    width: Annotated[int, Field(ge=1, description="Width of the upright picture in pixels.")]
    height: Annotated[int, Field(ge=1, description="Its height.")]
    rotation: Annotated[int, Field(ge=0, le=3, description="Clockwise quarter turns that make it upright.")]
    disagreement: Annotated[float, Field(description="Share on which the versions do not agree.")]
    boxes: Annotated[dict[str, list[PictureBox]], Field(description="What each version found.")]


class Labelled(TypedDict):
    """What labelled pictures say: the scores in the manifests."""

    verdict: Annotated[
        Literal["better", "worse", "undecided"], Field(description="Of the second version, if it is certain.")
    ]
    text: Annotated[str, Field(description="The figures in a sentence.")]


class Counted(TypedDict):
    """How much has been compared."""

    frames: Annotated[int, Field(ge=0, description="Frames that both versions ran, in finished blocks.")]
    streams: Annotated[int, Field(ge=0, description="Streams of these frames; at least that many.")]
    same_direction: Annotated[
        int, Field(ge=0, description="Streams whose number of boxes differs in the direction of the whole.")
    ]
    blocks: Annotated[int, Field(ge=0, description="Finished blocks of stream and time.")]
    windows: Annotated[int, Field(ge=0, description="Finished stretches of five minutes with frames.")]
    windows_needed: Annotated[int, Field(ge=1, description="Windows without which there is no verdict.")]
    hours: Annotated[float, Field(ge=0, description="Hours from the first of them to the last.")]


class ComparisonDocument(TypedDict):
    """How the detections of two versions on the same frames differ."""

    first: Annotated[str, Field(description="The version that is compared with.")]
    second: Annotated[str, Field(description="The version that is judged.")]
    verdict: Annotated[State, Field(description="Whether they detect differently.")]
    text: Annotated[str, Field(description="The verdict in a sentence.")]
    remarks: Annotated[list[str], Field(description="What one must know to read the verdict.")]
    counted: Counted
    quantities: Annotated[dict[str, ComparedQuantity], Field(description="By name.")]
    classes: Annotated[dict[str, ComparedQuantity], Field(description="Number of boxes by class.")]
    both: Annotated[int, Field(ge=0, description="Boxes that both versions found.")]
    only_first: Annotated[int, Field(ge=0, description="Boxes that only the first version found.")]
    only_second: Annotated[int, Field(ge=0, description="Boxes that only the second version found.")]
    history: Annotated[list[Period], Field(description="In the order of time.")]
    labelled: NotRequired[Labelled]
    pictures: NotRequired[
        Annotated[list[ComparedPicture], Field(description="Frames with most disagreement, worst first.")]
    ]
    absent: Annotated[dict[str, str], Field(description="Why fields of this object are absent.")]
