"""Imports run one way, as the architecture draws them; the heavy ones stay where they belong."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Layers from the bottom up; a module may import only from its own layer's left, never from its right.
INFERENCE = [
    [
        "errors",
        "detections",
        "model",
        "settings",
        "coco",
        "warmup",
        "stride",
        "fair_share",
        "run_limit",
        "single_frame",
        "board",
        "address",
        "group_signals",
        "log_format",
        "log_limit",
    ],
    ["log_output", "metric_store", "child_process"],
    ["metrics", "fields", "protobuf"],
    ["manifest", "device", "letterbox", "ring", "wire", "onnx_graph", "external_data"],
    ["kept_models"],
    ["handshake", "modelfile", "signature", "labels", "nms", "planner", "stem", "pools", "head"],
    ["family", "buffers", "cpu_model"],
    ["normaliser", "decode", "trial", "gpu_model"],
    ["memory_relief", "shapes"],
    ["detector", "client", "handle"],
    ["loop"],
    ["process"],
]
STREAMER = [
    [
        "connection_places",
        "liveness",
        "logs",
        "metrics",
        "message_values",
        "problems",
        "prediction",
        "tracker",
        "mailbox",
        "ice_servers",
        "replicas",
        "probe",
        "durable",
        "converter_threads",
        "protocol",
        "greeting_slots",
        "turn_selector",
        "collector",
    ],
    ["http", "access_settings", "scheduling"],
    [
        "large_frame",
        "settings",
        "fair_rate",
        "exif",
        "image_kind",
        "stream_frame",
        "closing",
        "outbox",
        "hello_gate",
        "control_rate",
        "forwarding",
        "port",
        "acceptor",
        "heartbeat",
    ],
    ["owners", "child_environment", "intake"],
    ["stream"],
    ["imaging", "frame_counters"],
    ["image_header"],
    ["limits", "media", "annotate"],
    ["openapi_video", "openapi_drift", "openapi_access", "messages", "upload", "upload_form"],
    ["parameters", "answers"],
    ["session", "job", "decoding"],
    ["version_queue", "greeting", "socket_writer"],
    ["admission"],
    ["dispatch"],
    ["comparison"],
    ["live_stream", "images", "openapi", "health", "handler", "drift_routes"],
    ["connection", "pages", "webrtc", "metrics_port", "request_metrics"],
    ["websocket"],
    ["app"],
    ["command_group"],
    ["worker", "supervisor", "models", "samples", "keys"],
    ["cli"],
]
HTTP = [
    [
        "identity",
        "networks",
        "site_names",
        "byte_budget",
        "write_watch",
        "audit",
        "stream_names",
        "media_type",
    ],
    ["client_address", "sites", "caller", "route_policy", "key_file"],
    ["failed_keys", "key_ring", "cors", "tickets", "jwt_keys", "body", "memory_return"],
    ["gate"],
    ["guard", "paced_response"],
]
CATALOGUE = [
    ["errors", "address", "amounts", "rate", "header", "option_values"],
    ["entry", "manifest_file", "partial", "interruption", "digest"],
    ["catalogue", "transfer"],
    ["installed", "pull"],
    ["listing"],
    ["list_command"],
    ["pull_command"],
]
WEBRTC = [
    [
        "candidate",
        "client_share",
        "jitter_buffer",
        "depacketiser",
        "video_header",
        "key_frame_requests",
        "inbound_budget",
        "ending",
    ],
    ["trickle", "sctp_limit", "video_messages", "wishes"],
    ["picture", "video_context"],
    ["video_host", "video_process"],
    ["video_pool"],
    ["offer", "listener", "channels", "control", "origin", "request_body"],
    ["video_decoder", "stack", "annotated_track"],
    ["video_feed"],
    ["peer_session"],
    ["peers", "results"],
    ["signalling"],
    ["json_routes", "whip"],
    ["routes"],
]
OBSERVER = [
    [
        "errors",
        "candidate",
        "slug",
        "standing",
        "breaker",
        "overlap",
        "uncertainty",
        "fingerprint",
        "budget",
        "balance",
    ],
    [
        "policy",
        "layout",
        "bare_image",
        "candidate_picture",
        "metrics",
        "drift_metrics",
        "s3_errors",
        "questions",
    ],
    ["measure"],
    ["handover", "tap", "flicker", "disagreement", "spool", "folder", "s3"],
    ["taps", "selection", "delivery", "row_maker"],
    ["stores"],
    ["sidecar"],
    ["observer", "handle", "watch"],
    ["drift_desk"],
    ["process"],
]
DRIFT = [
    ["columns", "errors", "distance", "plan", "episode", "word", "status_page", "evidently_process"],
    ["image_features", "prediction_features", "table", "pace", "history"],
    ["calibration"],
    ["yardstick", "window"],
    ["reference"],
    ["reference_document", "monitor"],
    ["reference_file", "status", "engine"],
    ["lesson"],
]
IMAGING = [
    ["errors"],
    ["header"],
    ["jpeg_frame", "png", "webp"],
    ["jpeg_scans"],
    ["jpeg"],
    ["jpeg_pixels"],
]
DATASET = [
    ["errors", "sample", "source", "split"],
    ["bucket"],
    ["labelled", "origin", "upright", "verification", "statistics"],
    ["coco", "yolo", "label_studio"],
    ["export"],
    ["stats_command", "verify_command", "export_command"],
]
DECODING = [
    ["arena", "digest_memory", "landlock", "messages", "seccomp", "status_page"],
    ["decoder_group", "fork_client", "sandbox"],
    ["fork_server", "population", "watchdog"],
    ["decoder", "work"],
    ["decoder_pool"],
    ["annotator", "single_decoder"],
]
SCHEDULING = [
    ["token_bucket", "decode_cost", "decode_room", "demand", "post_queue"],
    ["service_rate", "suspects", "wait_margin", "queue_pressure"],
    ["image_hint", "post_wait"],
    ["client"],
    ["clients"],
]
#: What workers and the supervisor take from the observer's folder; the rest is the observer's own.
OBSERVER_SHARED = {"candidate", "handover", "slug", "standing", "tap", "taps", "handle", "questions"}
#: What the observer takes from the service.
OBSERVER_STREAMER = {
    "child_environment",
    "stream_frame",
    "settings",
    "logs",
    "protocol",
    "image_header",
    "media",
    "observer",
    "durable",
    "drift",
    "decoding",
}
#: What drift takes from the service: it knows neither workers nor the observer.
DRIFT_STREAMER = {"child_environment", "drift", "settings", "durable"}
SUPERVISING = [
    ["backoff", "failures", "signals", "log_writer", "native_text", "starvation", "stand_in"],
    ["listening", "log_relay", "private_folder", "watch"],
    ["watched", "worker_handle"],
]
WORKSHOP = [
    ["exporters", "agreement", "stopwatch", "graph", "offline", "ranges", "pictures", "feeds", "session"],
    ["head", "switched", "calibration", "examination", "drafts", "comparison"],
    ["half", "quantiser", "sensitivity", "report"],
    ["int8"],
    ["optimisation"],
    ["verdict"],
    ["check_command", "optimize_command"],
]
#: What streamer may enter inference by: its root, its settings, its link, its handle and pure values.
PUBLIC_INFERENCE = {
    "inference",
    "inference.core.settings",
    "inference.ipc.client",
    "inference.ipc.process_handle",
    "inference.ipc.shared_status",
    "inference.telemetry.metrics",
    "inference.preprocess.letterbox",
    "inference.core.fair_share",
    "inference.ipc.wire",
    "inference.core.detections",
    "inference.ipc.unix_socket",
    "inference.ipc.child_process",
    "inference.ipc.group_signals",
    "inference.telemetry.log_format",
    "inference.telemetry.log_limit",
    "inference.telemetry.log_output",
    "inference.telemetry.metric_store",
    "inference.ipc.ring",
    "inference.models.model",
}
#: What reads model files without running them: manifests, and the labels in them.
CATALOGUE_INFERENCE = PUBLIC_INFERENCE | {
    "inference.core.errors",
    "inference.models.fields",
    "inference.models.labels",
    "inference.models.manifest",
    "inference.models.model",
    "inference.models.model_file",
}
#: What examines and rebuilds models works on them as the inference process does, by its detector.
WORKSHOP_INFERENCE = CATALOGUE_INFERENCE | {
    "inference.engine.buffers",
    "inference.models.coco",
    "inference.engine.detector",
    "inference.models.family",
    "inference.preprocess.preprocess",
    "inference.engine.planner",
    "inference.models.signature",
    "inference.engine.validation_run",
}
#: Folder of streamer to what it may enter inference by; `models` gives their errors exit codes.
ENTRANCES = {"catalogue": CATALOGUE_INFERENCE, "workshop": WORKSHOP_INFERENCE}
#: The command implementations belong to the client side.
CLIENT_SIDE = {"push", "predict", "__main__"}


def imported(path: Path) -> set[str]:
    """Return the modules a file imports at run time, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(package: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((ROOT / package).glob("*.py")) if path.stem != "__init__"}


@pytest.mark.parametrize(
    ("package", "layers"),
    [
        ("inference", INFERENCE),
        ("streamer", STREAMER),
        ("streamer/catalogue", CATALOGUE),
        ("streamer/http", HTTP),
        ("streamer/webrtc", WEBRTC),
        ("streamer/observer", OBSERVER),
        ("streamer/imaging", IMAGING),
        ("streamer/dataset", DATASET),
        ("streamer/decoding", DECODING),
        ("streamer/drift", DRIFT),
        ("streamer/scheduling", SCHEDULING),
        ("streamer/workshop", WORKSHOP),
        ("streamer/supervising", SUPERVISING),
    ],
)
def test_every_file_imports_only_from_layers_below_it(package: str, layers: list[list[str]]) -> None:
    level = {name: index for index, names in enumerate(layers) for name in names}
    wrong = []
    dotted = package.replace("/", ".")
    for name, path in modules(package).items():
        if name in CLIENT_SIDE and package == "streamer":
            continue
        assert name in level, f"{package}/{name}.py stands in no layer: say where it belongs"
        for other in imported(path):
            target = other.removeprefix(f"{dotted}.").split(".")[0]
            if other.startswith(f"{dotted}.") and target in level and level[target] > level[name]:
                wrong.append(f"{dotted}.{name} -> {other}")
    assert wrong == []


def test_webrtc_imports_only_what_lies_below_it() -> None:
    level = {name: index for index, names in enumerate(STREAMER) for name in names}
    names = {name for path in modules("streamer/webrtc").values() for name in imported(path)}
    service = {name for name in names if name.startswith("streamer.")}
    observer = {name for name in service if name.startswith("streamer.observer.")}
    assert {name.split(".")[2] for name in observer} <= OBSERVER_SHARED
    assert {name for name in service - observer if level[name.split(".")[1]] > level["webrtc"]} == set()


def test_one_file_knows_the_inside_of_the_webrtc_stack() -> None:
    # The others use aiortc by its public names.
    public = {"webrtc/annotated_track.py", "client/video_link.py"}
    assert users_of("aiortc") | users_of("aioice") == {"webrtc/stack.py"} | public


def test_inference_never_imports_streamer() -> None:
    assert [
        n for n, p in modules("inference").items() if any(i.split(".")[0] == "streamer" for i in imported(p))
    ] == []


def test_streamer_enters_inference_only_by_its_public_modules() -> None:
    wrong = set()
    for path in (ROOT / "streamer").rglob("*.py"):
        allowed = ENTRANCES.get(path.parent.name, PUBLIC_INFERENCE)
        if path.name == "models.py":
            allowed = CATALOGUE_INFERENCE
        wrong |= {
            f"{path.name} -> {name}"
            for name in imported(path)
            if name.startswith("inference.")
            and name not in allowed
            and name.rpartition(".")[0] not in allowed
        }
    assert wrong == set()


def users_of(package: str) -> set[str]:
    """Return the files, in the service and its commands, that import a package."""
    files = [*(ROOT / "inference").rglob("*.py"), *(ROOT / "streamer").rglob("*.py")]
    return {
        f"{path.parent.name}/{path.name}"
        for path in files
        if any(name.split(".")[0] == package for name in imported(path))
    }


def test_one_file_of_the_service_imports_onnxruntime() -> None:
    outside = {name for name in users_of("onnxruntime") if not name.startswith("workshop/")}
    assert outside == {"inference/engine/detector.py"}


@pytest.mark.parametrize("package", ["inference", "streamer.workshop", "models.training"])
def test_whoever_loads_onnxruntime_has_turned_its_telemetry_off(package: str) -> None:
    code = (
        f"import {package}, os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    assert answer.stdout.split() == ["1", "False"]


def test_graphs_are_edited_in_the_workshop_alone() -> None:
    assert {name.split("/")[0] for name in users_of("onnx")} == {"workshop"}


def test_the_service_enters_neither_catalogue_nor_workshop() -> None:
    allowed = {"models", "catalogue", "workshop"}
    wrong = {
        f"{path.name} -> {name}"
        for path in (ROOT / "streamer").rglob("*.py")
        if path.stem not in allowed and path.parent.name not in allowed
        for name in imported(path)
        if name.startswith(("streamer.catalogue", "streamer.workshop"))
    }
    assert wrong == set()


def test_workers_and_observer_share_only_what_passes_between_them() -> None:
    into, out = set(), set()
    for path in (ROOT / "streamer").glob("*.py"):
        into |= {name for name in imported(path) if name.startswith("streamer.observer.")}
    for path in (ROOT / "streamer" / "observer").glob("*.py"):
        out |= {name for name in imported(path) if name.startswith("streamer.")}
    assert {name.split(".")[2] for name in into} <= OBSERVER_SHARED
    assert {name.split(".")[1] for name in out} <= OBSERVER_STREAMER


def test_drift_knows_neither_workers_nor_the_observer() -> None:
    out = {name for path in modules("streamer/drift").values() for name in imported(path)}
    assert {name.split(".")[1] for name in out if name.startswith("streamer.")} <= DRIFT_STREAMER


def test_the_client_library_imports_only_the_protocol_of_the_service() -> None:
    allowed = ("streamer.protocol.wire", "streamer.client")
    wrong = {
        f"{path.name} -> {name}"
        for path in (ROOT / "streamer" / "client").rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in ("streamer", "inference")
        and name != "streamer"
        and not name.startswith(allowed)
    }
    assert wrong == set()


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        (
            "streamer.server.worker",
            {"onnxruntime", "av", "aiortc", "evidently", "pandas", "aiobotocore", "scipy"},
        ),
        ("streamer.supervisor.supervisor", {"onnxruntime", "aiohttp", "cv2", "av", "evidently"}),
        ("streamer.sampling.process", {"onnxruntime", "aiohttp", "av", "evidently", "pandas", "aiobotocore"}),
        ("streamer.cli.models", {"onnxruntime", "onnx", "aiohttp", "cv2", "av", "pydantic"}),
        ("inference.engine.process", {"aiohttp", "av", "streamer", "evidently"}),
    ],
)
def test_a_process_does_not_load_what_another_one_needs(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(' '.join({{m.split('.')[0] for m in sys.modules}}))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert set(answer.stdout.split()) & absent == set()
