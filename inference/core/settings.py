"""Holds the settings of an inference process. The supervisor passes them as one JSON argument."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InferenceSettings:
    """Holds the start parameters of an inference process, which takes none of them from its environment.

    Paths are absolute.
    """

    #: Maps each version name (``v1``, ``v2``) to its model file, in order of preference.
    models: dict[str, str]
    #: A text that `inference.core.device.Device` parses; only ``auto`` may fall back to the CPU.
    device: str = "auto"
    #: Processor cores on which the process runs; empty: all that it may use.
    cores: tuple[int, ...] = ()
    #: Number of the engine among those of its generation.
    index: int = 0
    batch_max: int = 8
    #: Number of threads that call the model; 0: one for each core of a CPU, or 2 to 4 on an accelerator.
    inference_threads: int = 0
    #: Share of the device, 0 to 1, that POSTs get while streams wait, too.
    interactive_share: float = 0.25
    #: Folder that keeps TensorRT engines between starts; empty: they are not kept.
    engine_cache_dir: str = ""
    log_level: str = "info"
    log_json: bool = False
    #: Folder for copies of the models; empty: no copies.
    model_keep_dir: str = ""
    #: Most bytes for these copies; 0: the process makes none, but loads those that there are.
    model_keep_max_bytes: int = 128 << 20
    #: Labels of classes that are codes, in lower case; empty if no codes are read.
    code_classes: tuple[str, ...] = ()
    #: Whether the operator has named them, so that each must be a label of a served model.
    code_classes_given: bool = False
    #: Folder for the metric files of all processes of a replica, and for the measurements of warm-ups.
    metrics_dir: str = ""

    def to_json(self) -> str:
        """Return the argument that :meth:`from_json` parses in the child process."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> InferenceSettings:
        """Parse the text of :meth:`to_json`. Raises TypeError or ValueError for any other text."""
        values = json.loads(text)
        lists = {name: tuple(values.get(name, ())) for name in ("code_classes", "cores")}
        return cls(**(values | lists))
