"""Holds, for every alert, series on which it must fire, its description, and series on which it must not.

Values are in the notation of promtool: ``0+6x30`` starts at 0 and grows by 6 in each of 30 minutes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_TARGET = 'job="vision",instance="a:8000"'
_FRAMES = 'transport="websocket",version="v1"'


@dataclass(frozen=True)
class Case:
    """Describes the test of one alert.

    ``fires`` and ``quiet`` map series (name and labels, without those of the target) to values. The alert
    must fire on the former and must not fire on the latter.
    """

    alert: str
    fires: dict[str, str]
    quiet: dict[str, str]
    #: Minute at which it must fire, not earlier than its `for` allows.
    at: int
    #: Its description, as an operator reads it.
    says: str
    #: Its labels other than severity, job and instance.
    labels: dict[str, str] = field(default_factory=dict)
    #: Minute at which it must not have fired yet; None for alerts without `for`.
    not_yet: int | None = None
    by_replica: bool = True


def series(name: str) -> str:
    """Return the name of a series with the labels that a scrape of replica ``a:8000`` adds."""
    return f"{name[:-1]},{_TARGET}}}" if name.endswith("}") else f"{name}{{{_TARGET}}}"


def _ledger(received: str, inferred: str) -> dict[str, str]:
    still = "0x40"
    return {
        f"object_detection_frames_received_total{{{_FRAMES}}}": received,
        f"object_detection_frames_inferred_total{{{_FRAMES}}}": inferred,
        f'object_detection_frames_dropped_total{{{_FRAMES},reason="stale"}}': "4x40",
        f"object_detection_frames_failed_total{{{_FRAMES}}}": "1x40",
        f"object_detection_frames_in_flight{{{_FRAMES}}}": still,
    }


def _buckets(name: str, labels: str, fast: str, slow: str) -> dict[str, str]:
    """Return a histogram: ``fast`` counts the values up to 50 ms, ``slow`` those up to one second."""
    head = f"{name}_bucket{{{labels}" + ("," if labels else "")
    return {head + 'le="0.05"}': fast, head + 'le="1.0"}': slow, head + 'le="+Inf"}': slow}


CASES = (
    Case(
        "VisionNoReadyReplica",
        fires={"object_detection_inference_ready": "1x9 0x20"},
        quiet={"object_detection_inference_ready": "0x1 1x30"},
        at=12,
        not_yet=10,
        by_replica=False,
        labels={"job": "vision"},
        says="Every replica that Prometheus sees is without a ready inference process, or it sees none"
        " at all. Requests are answered with 503.",
    ),
    Case(
        "VisionReplicaNotReady",
        fires={"object_detection_inference_ready": "1x9 0x20"},
        quiet={"object_detection_inference_ready": "1x9 0x3 1x20"},
        at=16,
        not_yet=13,
        says="a:8000 is loading models, building an engine or restarting for longer than a start takes.",
    ),
    Case(
        "VisionInferenceRestarted",
        fires={'object_detection_process_restarts_total{role="inference"}': "0x9 1x20"},
        quiet={'object_detection_process_restarts_total{role="observer"}': "0x9 1x20"},
        at=12,
        labels={"role": "inference"},
        says="a:8000 lost its inference process 1 time(s) in 15 minutes. Streams continued after a "
        "pause; frames that it held had to be sent again.",
    ),
    Case(
        "VisionProcessKeepsDying",
        fires={'object_detection_process_restarts_total{role="worker"}': "0x9 0+1x8 8x20"},
        quiet={'object_detection_process_restarts_total{role="worker"}': "0x9 1x4 2x4 3x20"},
        at=17,
        labels={"role": "worker"},
        says="On a:8000 the process worker was restarted 7 times in ten minutes. After 20 deaths in a "
        "row of the inference process or a worker the replica ends with code 6.",
    ),
    Case(
        "VisionGpuFallback",
        fires={
            'object_detection_gpu_fallback{version="v1"}': "1x30",
            'object_detection_gpu_fallback{version="v2"}': "0x30",
        },
        quiet={'object_detection_gpu_fallback{version="v1"}': "0x30"},
        at=2,
        not_yet=0,
        says="a:8000 has an NVIDIA driver, so it was meant to use a GPU, but its models run on the CPU. "
        "It serves a fraction of what was planned.",
    ),
    Case(
        "VisionModelKept",
        fires={
            'object_detection_model_kept{version="v1"}': "0x3 1x30",
            'object_detection_model_kept{version="v2"}': "0x40",
        },
        # Somebody replaces the file before a planned restart.
        quiet={'object_detection_model_kept{version="v1"}': "0x3 1x8 0x30"},
        at=15,
        not_yet=12,
        says="a:8000 serves a copy of the model that it was started with. Its next start loads the "
        "current file, or fails.",
    ),
    Case(
        "VisionDecodersUnprotected",
        fires={'object_detection_decoders_unprotected{protection="landlock"}': "1x30"},
        quiet={'object_detection_decoders_unprotected{protection="landlock"}': "0x30"},
        at=2,
        not_yet=0,
        says="On a:8000 the kernel or the container does not support a part of the decoders' sandbox; "
        "the log says which and why.",
    ),
    Case(
        "VisionDecodersDying",
        fires={'object_detection_decoders_ended_total{reason="crash"}': "0+1x30"},
        quiet={  # a decoder now and then, and decoders that are replaced on purpose
            'object_detection_decoders_ended_total{reason="timeout"}': "0x9 2x30",
            'object_detection_decoders_ended_total{reason="retired"}': "0+4x30",
        },
        at=16,
        not_yet=9,
        says="On a:8000 15 decoders crashed or hung in 15 minutes. Either a client sends malicious "
        "images, or a decoder has a fault.",
    ),
    Case(
        "VisionConnectionsRefused",
        fires={"object_detection_connections_refused_total": "0+20x30"},
        quiet={"object_detection_connections_refused_total": "0x9 7x30"},
        at=12,
        not_yet=4,
        says="a:8000 refused 100 connections in five minutes: CONNECTIONS_MAX or CONNECTIONS_PER_ADDRESS"
        " is reached.",
    ),
    Case(
        "VisionKeysRefused",
        fires={
            'object_detection_keys_refused_total{reason="wrong"}': "0+60x30",
            'object_detection_keys_refused_total{reason="limited"}': "0+120x30",
        },
        quiet={'object_detection_keys_refused_total{reason="wrong"}': "0+30x30"},
        at=12,
        not_yet=4,
        says="a:8000 refuses 3.0 keys, tokens and tickets per second. Either somebody guesses keys, or "
        "the key of a client has expired.",
    ),
    Case(
        "VisionLogStalled",
        fires={'object_detection_log_lines_dropped_total{reason="stalled"}': "0+6x30"},
        quiet={  # the limit of one line a second works as intended
            'object_detection_log_lines_dropped_total{reason="limit"}': "0+600x30",
        },
        at=12,
        not_yet=4,
        says="a:8000 dropped 30 log lines in five minutes because its standard error was not read.",
    ),
    Case(
        "VisionFramesDropped",
        fires={
            f"object_detection_frames_received_total{{{_FRAMES}}}": "0+600x30",
            f'object_detection_frames_dropped_total{{{_FRAMES},reason="superseded"}}': "0+90x30",
            f'object_detection_frames_dropped_total{{{_FRAMES},reason="stale"}}': "0+60x30",
        },
        quiet={  # frames beyond the rate that a client was granted are not a fault of the service
            f"object_detection_frames_received_total{{{_FRAMES}}}": "0+600x30",
            f'object_detection_frames_dropped_total{{{_FRAMES},reason="superseded"}}': "0+50x30",
            f'object_detection_frames_dropped_total{{{_FRAMES},reason="rate"}}': "0+400x30",
        },
        at=12,
        not_yet=4,
        says="a:8000 drops 25% of the frames it receives because newer ones replaced them or they "
        "became too old: the load exceeds its capacity.",
    ),
    Case(
        "VisionFramesWaitLong",
        fires=_buckets(
            "object_detection_stage_duration_seconds", 'stage="queue",version="v1"', "0+50x30", "0+100x30"
        ),
        quiet=_buckets(
            "object_detection_stage_duration_seconds", 'stage="queue",version="v1"', "0+97x30", "0+100x30"
        )
        # The duration of inference does not count as waiting.
        | _buckets(
            "object_detection_stage_duration_seconds", 'stage="inference",version="v1"', "0x30", "0+9x30"
        ),
        at=12,
        not_yet=4,
        says="On a:8000 one frame in twenty waits for 905ms or more. After half a second live frames "
        "are dropped as stale.",
    ),
    Case(
        "VisionFramesFailing",
        fires={
            f"object_detection_frames_received_total{{{_FRAMES}}}": "0+600x30",
            f"object_detection_frames_failed_total{{{_FRAMES}}}": "0+30x30",
        },
        quiet={
            f"object_detection_frames_received_total{{{_FRAMES}}}": "0+600x30",
            f"object_detection_frames_failed_total{{{_FRAMES}}}": "0+3x30",
        },
        at=12,
        not_yet=4,
        says="a:8000 answers 5% of its frames with an error.",
    ),
    Case(
        "VisionRequestsFailing",
        fires={
            'object_detection_requests_total{version="v1",status="200"}': "0+90x30",
            'object_detection_requests_total{version="v1",status="503"}': "0+10x30",
        },
        quiet={  # errors of clients do not count
            'object_detection_requests_total{version="v1",status="200"}': "0+90x30",
            'object_detection_requests_total{version="v1",status="400"}': "0+90x30",
            'object_detection_requests_total{version="v1",status="504"}': "0+1x30",
        },
        at=12,
        not_yet=4,
        says="a:8000 answers 10% of its POSTs with 5xx.",
    ),
    Case(
        "VisionSaturated",
        fires={
            'object_detection_refused_total{class="post",reason="saturated"}': "0+30x30",
            'object_detection_refused_total{class="live",reason="saturated"}': "0+6x30",
        },
        quiet={  # requests beyond a client's own share or quota do not require another replica
            'object_detection_refused_total{class="post",reason="share"}': "0+600x30",
            'object_detection_refused_total{class="post",reason="quota"}': "0+600x30",
            'object_detection_refused_total{class="post",reason="waited"}': "0+3x30",
        },
        at=16,
        not_yet=9,
        says="a:8000 refuses 0.6 requests and streams per second for lack of capacity, and not because "
        "a client exceeds its share or quota.",
    ),
    Case(
        "VisionCapacityExhausted",
        fires={
            'object_detection_refused_frames_per_second{version="v1",class="live"}': "0x9 12x40",
            'object_detection_refused_frames_per_second{version="v1",class="post"}': "0x50",
            'object_detection_demand_frames_per_second{version="v1",class="live"}': "150x50",
        },
        quiet={
            # A new replica has come after ten minutes.
            'object_detection_refused_frames_per_second{version="v1",class="live"}': "0x9 12x10 1x40",
            'object_detection_demand_frames_per_second{version="v1",class="live"}': "150x60",
        },
        at=26,
        not_yet=24,
        by_replica=False,
        labels={"job": "vision"},
        says="For 15 minutes, refused clients have asked for some 12.0 frames per second more than the"
        " replicas have room for. Autoscaling would have added replicas meanwhile: it has reached its"
        " maximum, the replicas do not start, or it is off.",
    ),
    Case(
        "VisionWebrtcFailing",
        fires={
            'object_detection_webrtc_ended_total{reason="ice_failed"}': "0+1x30",
            'object_detection_webrtc_ended_total{reason="closed"}': "0+1x30",
        },
        quiet={
            'object_detection_webrtc_ended_total{reason="ice_failed"}': "0+1x30",
            'object_detection_webrtc_ended_total{reason="closed"}': "0+9x30",
        },
        at=25,
        not_yet=4,
        says="On a:8000 15 WebRTC sessions failed in 15 minutes, more than a fifth of those that ended.",
    ),
    Case(
        "VisionEventLoopLag",
        fires=_buckets("object_detection_event_loop_lag_seconds", "", "0+50x30", "0+60x30"),
        quiet=_buckets("object_detection_event_loop_lag_seconds", "", "0+59x30", "0+60x30"),
        at=16,
        not_yet=8,
        says="On a:8000 the event loop wakes up 715ms late one time in twenty. This delays every answer "
        "by the same time.",
    ),
    Case(
        "VisionLedgerUnbalanced",
        fires=_ledger("8x40", "2x40"),
        # At 60 frames per second, a scrape may be a few frames off, because it reads process after process.
        quiet=_ledger("8+3600x40", "6+3600x40"),
        at=16,
        not_yet=8,
        says="On a:8000 1 received frames are neither answered, dropped, failed nor in flight. This is "
        "a fault of the service.",
    ),
    Case(
        "VisionSamplesWaiting",
        fires={"active_learning_spool_oldest_seconds": "3500+60x30"},
        quiet={"active_learning_spool_oldest_seconds": "3500x30"},
        at=12,
        not_yet=4,
        says="On a:8000 the oldest sample has waited for 1h 10m 20s. None is lost while there is room "
        "in SAMPLES_DIR.",
    ),
    Case(
        "VisionUploadsBlocked",
        fires={'active_learning_upload_blocked{reason="credentials"}': "1x30"},
        quiet={'active_learning_upload_blocked{reason="credentials"}': "1x8 0x30"},
        at=11,
        not_yet=8,
        labels={"reason": "credentials"},
        says="a:8000 cannot store samples until somebody fixes this setting: credentials.",
    ),
    Case(
        "VisionSamplesRefused",
        fires={'active_learning_dropped_total{reason="spool_full"}': "0x9 3x30"},
        quiet={'active_learning_dropped_total{reason="duplicate"}': "0x9 3x30"},
        at=12,
        says="a:8000 refused 3 samples in an hour: SAMPLES_DIR is full or cannot be written.",
    ),
    Case(
        "VisionDriftActive",
        fires={"data_drift_active": "0x9 1x30"},
        quiet={"data_drift_active": "0x30"},
        at=12,
        not_yet=9,
        says="a:8000 sees data that differ from its reference. Detections may have become worse.",
    ),
    Case(
        "VisionReferenceStandsStill",
        fires={
            'data_drift_reference_newest_age_seconds{group="gate"}': "345540+60x40",
            'data_drift_window_rows{group="gate"}': "360x40",
        },
        quiet={
            'data_drift_reference_newest_age_seconds{group="gate"}': "259200+60x40",
            'data_drift_window_rows{group="gate"}': "360x40",
            'data_drift_reference_newest_age_seconds{group="off"}': "900000+60x40",
            'data_drift_window_rows{group="off"}': "0x40",
        },
        at=15,
        not_yet=11,
        labels={"group": "gate"},
        says="a:8000 has added no day to the growing reference of gate for 4d 0h 14m 0s. Drift is judged by "
        "an old reference.",
    ),
)
