"""Tests where heavy packages are imported; `lint-imports` (see pyproject.toml) checks the layers."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_three_files_know_the_inside_of_aiortc() -> None:
    inside = {f"webrtc/{name}.py" for name in ("aiortc_adapter", "ice_agent", "rtp_receiver")}
    # All other files use only the public names of aiortc.
    public = {"webrtc/annotated_track.py", "client/video_connection.py"}
    assert users_of("aiortc") | users_of("aioice") == inside | public


def test_the_scheduler_knows_nothing_of_http() -> None:
    assert not any(name.startswith("scheduling/") for name in users_of("aiohttp"))


def users_of(package: str) -> set[str]:
    """Return the files of the service and its commands that import a package."""
    files = [*(ROOT / "inference").rglob("*.py"), *(ROOT / "streamer").rglob("*.py")]
    return {
        f"{path.parent.name}/{path.name}"
        for path in files
        if any(name.split(".")[0] == package for name in imported(path))
    }


def test_one_file_of_the_service_imports_onnxruntime() -> None:
    tools = ("model_tools/", "training/")
    outside = {name for name in users_of("onnxruntime") if not name.startswith(tools)}
    assert outside == {"engine/onnx_session.py"}


@pytest.mark.parametrize(
    "package", ["inference", "streamer.model_tools", "streamer.training", "models.training"]
)
def test_whoever_loads_onnxruntime_has_turned_its_telemetry_off(package: str) -> None:
    code = (
        f"import {package}, os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    assert answer.stdout.split() == ["1", "False"]


def test_only_decoders_that_read_codes_load_zxing() -> None:
    assert users_of("zxingcpp") == {"imaging/code_symbols.py"}
    readers = [
        path
        for path in (ROOT / "streamer").rglob("*.py")
        if "streamer.imaging.code_symbols" in imported(path)
    ]
    assert [path.name for path in readers] == ["reading_decoder.py"]


def test_graphs_are_edited_with_onnx_in_model_tools_and_training_alone() -> None:
    assert {name.split("/")[0] for name in users_of("onnx")} == {"model_tools", "training"}


def test_only_training_loads_pytorch() -> None:
    assert {name.split("/")[0] for name in users_of("torch")} == {"training"}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        (
            "streamer.server.worker",
            {"onnxruntime", "av", "aiortc", "evidently", "pandas", "aiobotocore", "scipy", "zxingcpp"},
        ),
        ("streamer.decoding.decoder", {"onnxruntime", "aiohttp", "zxingcpp"}),
        ("streamer.supervisor.supervisor", {"numpy", "onnxruntime", "aiohttp", "cv2", "av", "evidently"}),
        ("streamer.sampling.process", {"onnxruntime", "aiohttp", "av", "evidently", "pandas", "aiobotocore"}),
        ("streamer.cli.models", {"onnxruntime", "onnx", "aiohttp", "cv2", "av", "pydantic"}),
        ("inference.engine.process", {"aiohttp", "asyncio", "av", "streamer", "evidently"}),
    ],
)
def test_a_process_does_not_load_what_another_one_needs(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(' '.join({{m.split('.')[0] for m in sys.modules}}))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert set(answer.stdout.split()) & absent == set()
