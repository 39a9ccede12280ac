"""Settings of processes, logging and models; `settings` puts all groups together."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from streamer.assets import MODELS_DIR

#: The user's own models, which are found without a setting.
_OWN_MODELS = {"v1": "yolov9_v1.onnx", "v2": "yolov9_v2.onnx"}
#: The code detectors that come with the project.
_BUNDLED_MODELS = {"v1": "codes_v1.onnx", "v2": "codes_v2.onnx"}


class ModelSettings(BaseSettings):
    """How many processes run, what they log, and which models they serve."""

    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of processes that talk to clients and decode; there is one inference process.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest severity that is logged."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="`auto`: readable on a terminal, JSON lines elsewhere."
    )

    model_v1_path: Path | None = Field(
        None,
        description="ONNX file of version v1. Unset: `models/yolov9_v1.onnx` if it exists, else the bundled "
        "code detector.",
    )
    model_v2_path: Path | None = Field(
        None,
        description="ONNX file of version v2. Unset: `models/yolov9_v2.onnx` if it exists; else the larger "
        "bundled code detector if v1 is a bundled one too; else none.",
    )
    device: Literal["auto", "cuda", "tensorrt", "openvino", "cpu"] = Field(
        "auto", description="Where models run. Only `auto` may fall back to the CPU."
    )
    batch_max: int = Field(
        8,
        ge=1,
        le=64,
        description="Largest batch. The service forms larger batches only where the device gains by it.",
    )
    inference_lanes: int = Field(
        0,
        ge=0,
        le=64,
        description="Number of inference threads, which call the model; 0: one per core on a CPU; on a GPU "
        "2, or 4 if the model runs frames one by one.",
    )
    interactive_share: float = Field(
        0.25, gt=0, lt=1, description="Share of the device reserved for POSTs while live frames wait too."
    )
    engine_cache_dir: Path | None = Field(
        None,
        description="Folder in which `DEVICE=tensorrt` keeps its engines; unset: every start builds them.",
    )
    model_keep_max_bytes: int = Field(
        128 << 20,
        ge=0,
        description="Bytes in `TMPDIR` for copies of the models. A restarted inference process loads these "
        "copies even if the files have changed. 0: no copies.",
    )
    model_start_timeout_s: float = Field(
        600,
        gt=0,
        description="Longest time for loading and warming up the models before the start counts as failed.",
    )

    @field_validator("model_v1_path", "model_v2_path")
    @classmethod
    def _file_exists(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError("no such file")
        return path

    def models(self) -> dict[str, Path]:
        """Return version to model file; only versions that have one.

        The bundled v2 is used only together with the bundled v1: beside the user's own detector, a detector
        of printed codes would only take memory.
        """
        found: dict[str, Path] = {}
        bundled_allowed = True
        for version, given in (("v1", self.model_v1_path), ("v2", self.model_v2_path)):
            bundled = MODELS_DIR / _BUNDLED_MODELS[version]
            candidates = [given] if given else [MODELS_DIR / _OWN_MODELS[version]]
            if not given and bundled_allowed:
                candidates.append(bundled)
            path = next((path for path in candidates if path.is_file()), None)
            if path is not None:
                found[version] = path.resolve()
            bundled_allowed = path == bundled
        return found
