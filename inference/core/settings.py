"""What one inference process is told at its start; made by the supervisor, read from one JSON argument."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InferenceSettings:
    """Start parameters of an inference process. Paths are absolute; the environment is not consulted."""

    #: Version name (``v1``, ``v2``) to model file, in order of preference.
    models: dict[str, str]
    #: ``auto``, ``cuda``, ``tensorrt``, ``openvino`` or ``cpu``; only ``auto`` may fall back to the CPU.
    device: str = "auto"
    batch_max: int = 8
    #: Threads that call the model; 0: as many as the process has cores on a CPU, 2 on an accelerator.
    inference_threads: int = 0
    #: Share of the device that waiting POSTs get while streams wait too, 0..1.
    interactive_share: float = 0.25
    #: Folder in which TensorRT engines are kept between starts; empty: none are.
    engine_cache_dir: str = ""
    log_level: str = "info"
    log_json: bool = False
    #: Bytes that copies of the models may take in ``metrics_dir``; 0: none are kept.
    model_keep_max_bytes: int = 128 << 20
    #: Directory of the metric files of all processes of a replica, and of what warm-ups measured.
    metrics_dir: str = ""

    def to_json(self) -> str:
        """Return the one argument that :meth:`from_json` reads in the child."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> InferenceSettings:
        """Rebuild from :meth:`to_json`. Raises TypeError or ValueError on anything else."""
        return cls(**json.loads(text))
