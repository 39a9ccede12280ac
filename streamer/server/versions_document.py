"""Describes the answer of ``GET /versions``: types and texts of its fields. `versions` fills them."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from streamer.server.comparison_document import ComparisonDocument
from streamer.server.served_models import Parent

Count = Annotated[int, Field(ge=0)]


class Labels(TypedDict):
    """The classes that a model distinguishes."""

    count: Annotated[int, Field(ge=0, description="Number of classes.")]
    names: NotRequired[Annotated[list[str], Field(description="Their names, in the order of class ids.")]]


class BatchRun(TypedDict):
    """A batch size that the device runs."""

    size: Annotated[int, Field(ge=1, description="Number of frames in a run.")]
    run_ms: Annotated[float, Field(description="Median time of a run, measured during the warm-up.")]


class LoadedModel(TypedDict):
    """The model file that is loaded, and how it runs."""

    name: Annotated[str, Field(description="Name of the model in its manifest, else that of its file.")]
    file: Annotated[str, Field(description="Name of the file, after links are resolved.")]
    sha256: Annotated[str, Field(description="SHA-256 of the file, in hexadecimal digits.")]
    family: Annotated[str, Field(description="Which inputs and outputs the model has.")]
    input: Annotated[
        list[int], Field(min_length=2, max_length=2, description="Width and height of its input, in pixels.")
    ]
    labels: Labels
    device: Annotated[str, Field(description="The device on which it runs, such as `cpu` or `cuda`.")]
    batches: Annotated[list[BatchRun], Field(description="The batch sizes that it runs, ascending.")]
    threshold: Annotated[float, Field(description="Lowest score of boxes, for requests that set none.")]
    loaded_at: NotRequired[
        Annotated[
            str,
            Field(
                description="When the process that serves it has loaded it (UTC); a process that is "
                "started again loads it again."
            ),
        ]
    ]


class Change(TypedDict):
    """By how much a figure has changed."""

    value: Annotated[float, Field(description="The difference.")]
    low: Annotated[float, Field(description="Lower bound of its 95 % interval.")]
    high: Annotated[float, Field(description="Upper bound of its 95 % interval.")]


class Replaced(TypedDict):
    """The model that was served before a promotion."""

    name: Annotated[str, Field(description="Name of the model.")]
    sha256: Annotated[str, Field(description="SHA-256 of its file.")]
    map50_change: NotRequired[Change]


# Field names that are keywords of Python need this form.
Promotion = TypedDict(
    "Promotion",
    {
        "as": Annotated[str, Field(description="The version as which the model was promoted.")],
        "at": Annotated[str, Field(description="When it was promoted (UTC).")],
        "replaced": NotRequired[Replaced],
    },
)
Promotion.__doc__ = (
    "When `streamer promote` made the model the served one. `evaluations.promotion` decided it."
)


class VersionLineage(TypedDict):
    """Where a model comes from, as its manifest says."""

    parents: NotRequired[Annotated[list[Parent], Field(description="The models from which it was trained.")]]
    training: NotRequired[
        Annotated[
            dict[str, Any],
            Field(
                description="Facts of its training, such as the digest of the labelled `set`, and its seed."
            ),
        ]
    ]
    promotion: NotRequired[Promotion]
    licence: NotRequired[Annotated[str, Field(description="Licence of the weights.")]]
    source: NotRequired[Annotated[str, Field(description="Where the weights come from.")]]


class Score(TypedDict, total=False):
    """What a model scored on some pictures. Figures that its manifest does not have are absent."""

    set: Annotated[str, Field(description="Digest of the labelled set.")]
    part: Annotated[str, Field(description="Part of the set: `train`, `val` or `test`.")]
    pictures: Annotated[int, Field(ge=0, description="Number of pictures.")]
    empty_pictures: Annotated[int, Field(ge=0, description="Number of pictures with nothing in them.")]
    map50: Annotated[float, Field(description="Mean average precision at an IoU of 0.5.")]
    map50_95: Annotated[float, Field(description="The same, averaged over IoUs of 0.5 to 0.95.")]
    precision: Annotated[float, Field(description="Precision at the threshold.")]
    recall: Annotated[float, Field(description="Recall at the threshold.")]
    threshold: Annotated[float, Field(description="The threshold at which boxes were counted.")]
    false_per_empty_picture: Annotated[
        float, Field(description="Boxes per picture with nothing in it, at the threshold.")
    ]
    run_ms: Annotated[float, Field(description="Median time of a run of the model, one picture.")]
    provider: Annotated[str, Field(description="The device of that time.")]
    intervals: Annotated[
        dict[str, list[float]], Field(description="95 % intervals by figure: lower and upper bound.")
    ]
    by_size: Annotated[
        dict[str, float | None],
        Field(description="AP50-95 by size of the objects, as COCO defines sizes; null if there are none."),
    ]
    by_class: Annotated[
        dict[str, dict[str, float | None]],
        Field(description="`ap50`, `ap50_95` and the number of `objects` by class."),
    ]


class Frames(TypedDict):
    """Frames of streams and posted images. Those received are answered, failed, dropped or in flight."""

    received: Annotated[int, Field(description="Frames that arrived.")]
    answered: Annotated[int, Field(description="Frames that got a result.")]
    answered_by_transport: Annotated[
        dict[str, int], Field(description="These by transport: `http`, `websocket`, `webrtc`, `whip`.")
    ]
    in_flight: Annotated[int, Field(description="Frames without an outcome yet.")]


class BoxCounts(TypedDict):
    """Boxes of answered frames, as clients got them: after their thresholds and filters."""

    total: Annotated[int, Field(ge=0, description="Number of boxes.")]
    frames: Annotated[int, Field(ge=0, description="Answered frames in which they were counted.")]
    without: Annotated[int, Field(ge=0, description="Those of these frames that have no box.")]
    per_frame: NotRequired[Annotated[float, Field(ge=0, description="Mean number of boxes per frame.")]]
    by_class: Annotated[
        dict[str, int],
        Field(
            description="Boxes by label; classes without a box are absent. Classes beyond the first 100 of a "
            "model are counted as `other`."
        ),
    ]


class Errors(TypedDict):
    """What went without an answer, by kind; kinds that did not occur are absent."""

    frames_failed: Annotated[int, Field(ge=0, description="Frames that were answered with an error.")]
    frames_dropped: Annotated[
        dict[str, int], Field(description="Frames on which the model did not run, by reason.")
    ]
    requests: Annotated[
        dict[str, int],
        Field(description="Predict requests by HTTP status from 400; 499: the client disconnected."),
    ]
    model_failures: Annotated[int, Field(ge=0, description="Frames on which the model itself failed.")]


class QuantileEstimate(TypedDict):
    """A quantile of durations."""

    value_ms: Annotated[
        float, Field(description="Interpolated within its bucket of the histogram, as Prometheus does.")
    ]
    low_ms: Annotated[float, Field(description="Lower bound of the bucket; the quantile is above it.")]
    high_ms: Annotated[
        float | None, Field(description="Upper bound of the bucket; null if it has none, as the last one.")
    ]


class Durations(TypedDict):
    """Durations since the start of the replica."""

    count: Annotated[int, Field(ge=1, description="Number of durations.")]
    mean_ms: Annotated[float, Field(description="Their mean.")]
    p50: QuantileEstimate
    p95: QuantileEstimate
    p99: QuantileEstimate


class Latency(TypedDict):
    """Durations by what was timed; what has not occurred yet is absent."""

    request: NotRequired[Durations]
    model_run: NotRequired[Durations]
    stages: Annotated[
        dict[str, Durations],
        Field(description="Times of frames by stage, as in `object_detection_stage_duration_seconds`."),
    ]


class Traffic(TypedDict):
    """What was measured of a version since the start of the replica, by all of its workers."""

    requests: Annotated[int, Field(ge=0, description="Predict requests that were answered with 200.")]
    frames: Frames
    boxes: BoxCounts
    errors: Errors
    latency: Latency


class ServedVersion(TypedDict):
    """A served version: its model, what that scored, and what was measured of it."""

    model: LoadedModel
    lineage: NotRequired[VersionLineage]
    evaluations: NotRequired[
        Annotated[
            dict[str, Score],
            Field(
                description="What the manifest says that the model scored: by part of its labelled set, and "
                "`promotion`, which decided its promotion."
            ),
        ]
    ]
    traffic: NotRequired[Traffic]
    absent: Annotated[
        dict[str, str], Field(description="Why fields are absent, by the path of the field: a sentence each.")
    ]


class SplitDocument(TypedDict):
    """How clients on routes without a version are divided."""

    v2: Annotated[
        float, Field(ge=0, le=1, description="Share of the clients that v2 serves; 0 while no v2 is loaded.")
    ]


class ShadowDocument(TypedDict):
    """Which frames run on two versions."""

    v2: Annotated[
        float, Field(ge=0, le=1, description="Share of v1's frames that v2 runs, too, on an idle device.")
    ]


class VersionsDocument(TypedDict):
    """The versions that this replica serves, side by side."""

    replica: NotRequired[
        Annotated[
            str, Field(description="Name of the replica, as in `X-Replica`; absent if it has no peers.")
        ]
    ]
    workers: Annotated[int, Field(ge=1, description="Number of workers whose figures are added up.")]
    since: NotRequired[
        Annotated[str, Field(description="Start of the replica (UTC), from which its counts begin.")]
    ]
    elapsed_s: NotRequired[Annotated[float, Field(ge=0, description="Seconds since then.")]]
    split: SplitDocument
    shadow: ShadowDocument
    versions: Annotated[dict[str, ServedVersion], Field(description="By version; empty while models load.")]
    commands: Annotated[
        list[str],
        Field(
            description="Commands that change what is served: `shadow`, `split`, `load`, `promote` and so on."
        ),
    ]
    comparison: NotRequired[ComparisonDocument]
    absent: Annotated[dict[str, str], Field(description="Why fields of this object are absent.")]
