"""All settings: those of models, the other groups, how they are read, and what an error says.

Each group defines environment variables with their types, defaults and descriptions. Settings are read from
the environment here and nowhere else, with two exceptions: the health check of the image reads `PORT`, and
the command line reads `LOG_FORMAT` to report that the settings are wrong. A test compares the table of
docs/configuration.md with this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from inference.core.device import PATTERN, parse_devices
from streamer.access.access_settings import AccessSettings
from streamer.assets import MODELS_DIR
from streamer.config.network_settings import NetworkSettings
from streamer.config.request_settings import RequestSettings
from streamer.config.sampling_settings import SamplingSettings
from streamer.config.version_settings import VersionSettings

#: The user's own models, which are found without a setting.
OWN_MODELS = {"v1": "yolov9_v1.onnx", "v2": "yolov9_v2.onnx"}
#: The code detectors that come with the project.
BUNDLED_MODELS = {"v1": "codes_v1.onnx", "v2": "codes_v2.onnx"}


class ModelSettings(BaseSettings):
    """How many processes run, what they log, and which models they serve."""

    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of processes that talk to clients and decode.",
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
    models_dir: Path | None = Field(
        None,
        description="Folder of the models that `POST /versions/{version}/load` may name, and no others. "
        "Unset: the folder of the version's model file.",
    )
    versions_state_file: Path | None = Field(
        None,
        description="File that keeps the choice of models across restarts. Unset: `.versions.json` in the "
        "folder of the models.",
    )
    rollback_keep_s: float = Field(
        3600,
        ge=0,
        le=604_800,
        description="How long the processes that a promotion replaces stay loaded, so that a rollback takes "
        "no time; 0: they end at once.",
    )
    device: str = Field(
        "auto",
        json_schema_extra={"pattern": f"^{PATTERN}( *, *{PATTERN})*$"},
        description="Where models run: `auto`, `cpu`, `cuda`, `tensorrt` or `openvino`, or one GPU such as "
        "`cuda:1`, or `openvino:GPU`. Each of several, separated by commas, gets an engine. `auto` takes "
        "every GPU that it may see; only it may fall back to the CPU.",
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
        description="Folder in which `DEVICE=tensorrt` keeps its engines, which replicas may share; unset: "
        "every start builds them.",
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

    @field_validator("models_dir")
    @classmethod
    def _folder_exists(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_dir():
            raise ValueError("no such folder")
        return path

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
            bundled = MODELS_DIR / BUNDLED_MODELS[version]
            candidates = [given] if given else [MODELS_DIR / OWN_MODELS[version]]
            if not given and bundled_allowed:
                candidates.append(bundled)
            path = next((path for path in candidates if path.is_file()), None)
            if path is not None:
                found[version] = path.resolve()
            bundled_allowed = path == bundled
        return found

    @field_validator("device")
    @classmethod
    def _names_devices(cls, text: str) -> str:
        return ",".join(parse_devices(text))


#: Settings that are secrets. Errors never show them, and of the child processes only workers get them.
SECRETS = frozenset(
    {
        *("api_keys", "admin_api_keys", "turn_secret"),
        *("otel_exporter_otlp_headers", "otel_exporter_otlp_traces_headers"),
    }
)


class SettingsError(Exception):
    """A setting has a value that is not allowed; the text names variable, value and what is allowed."""

    def __init__(self, setting: str, text: str, value: object = None) -> None:
        super().__init__(text)
        #: Name of the setting, in lower case.
        self.setting = setting
        #: The value that is not allowed.
        self.value = value


class Settings(
    SamplingSettings, NetworkSettings, RequestSettings, VersionSettings, ModelSettings, AccessSettings
):
    """Everything that can be set, by the name of its environment variable."""

    model_config = SettingsConfigDict(case_sensitive=False, extra="ignore", env_ignore_empty=True)

    drain_delay_s: float = Field(
        3,
        ge=0,
        description="Time after SIGTERM in which new requests are still served while `/health` says "
        "`draining`.",
    )
    drain_timeout_s: float = Field(
        20, gt=0, description="Time after that delay for streams and requests to finish."
    )

    @property
    def public(self) -> Settings:
        """A copy without the secrets, for a process that needs none."""
        return self.model_copy(update=dict.fromkeys(SECRETS, ""))


def load_settings(**overrides: Any) -> Settings:
    """Read the environment; ``overrides`` from the command line take precedence.

    Raises SettingsError naming the first wrong variable, its value and what is allowed.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper()
        value = first.get("input")
        shown = "…" if name.lower() in SECRETS or "@" in str(value) else repr(value)
        raise SettingsError(name.lower(), f"{name}={shown}: {_allowed(first)}", value) from error


def _allowed(error: Any) -> str:
    """Turn one pydantic error into a sentence that says what is allowed."""
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "literal_error":
        return f"allowed are {error['ctx']['expected']}"
    return message[0].lower() + message[1:]
