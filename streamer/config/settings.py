"""All settings: those of models and requests, the other groups, how they are read, and what an error says.

Each group defines environment variables with their types, defaults and descriptions. Settings are read from
the environment here and nowhere else, with two exceptions: the health check of the image reads `PORT`, and
the command line reads `LOG_FORMAT` to report that the settings are wrong. A test compares the table of
docs/configuration.md with this file.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from inference.core.device import PATTERN, parse_devices
from streamer.access.access_settings import AccessSettings
from streamer.assets import MODELS_DIR
from streamer.config.image_hosts import HostRule, parse_image_hosts
from streamer.config.network_settings import NetworkSettings
from streamer.config.sampling_settings import SamplingSettings
from streamer.config.version_settings import VersionSettings
from streamer.core.extras import install_command

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


class RequestSettings(BaseSettings):
    """Limits of POSTs and of streams."""

    request_timeout_s: float = Field(
        10, gt=0, le=600, description="Deadline of one POST, from its headers to its answer; then 504."
    )
    request_queue_max: int = Field(
        128,
        ge=1,
        le=100_000,
        description="Images of POSTs that may wait per worker and version, which bounds their memory; beyond "
        "it: 503.",
    )
    request_queue_s: float = Field(
        1,
        gt=0,
        le=600,
        description="Longest time that an image of a POST may wait for its turn. A request that would wait "
        "longer is refused immediately, with 503 or 429.",
    )
    body_timeout_s: float = Field(
        15, gt=0, description="Longest time in which a request body must arrive; then 408."
    )
    image_max_bytes: int = Field(8 << 20, ge=1024, description="Largest encoded image of a POST.")
    request_max_bytes: int = Field(32 << 20, ge=1024, description="Largest POST body with several images.")
    buffered_max_bytes: int = Field(
        0,
        ge=0,
        description="Bytes of bodies, answers and messages that a worker holds for all clients together; "
        "beyond it: 503. One client may use two thirds. 0: what the largest request needs, at "
        "least 48 MiB.",
    )
    request_max_images: int = Field(16, ge=1, le=1000, description="Most images in one POST.")
    image_max_pixels: int = Field(
        33_554_432, ge=1, description="Most pixels of an image, checked by its header."
    )
    image_max_side: int = Field(8192, ge=1, le=65535, description="Longest side of an image in pixels.")
    image_reducible_max_pixels: int = Field(
        134_217_728,
        ge=1,
        description="Most pixels of a JPEG that exceeds the limits on pixels and sides; it is decoded at a "
        "reduced size, and the answer says so.",
    )
    image_decode_max_bytes: int = Field(
        56 << 20,
        ge=8 << 20,
        le=400 << 20,
        description="Most memory for decoding one image. A JPEG that needs more is decoded at a reduced size "
        "if that is enough; other images get 413.",
    )

    image_url_hosts: str = Field(
        "",
        description="Comma-separated hosts, such as `images.example.com,*.cdn.example.com:8443`, from which "
        "the service fetches images that clients name by URL in JSON bodies; `*`: any with a public address. "
        "Without a port, only the default port of the scheme is allowed. Unset: no images are fetched.",
    )

    read_codes: bool = Field(
        False,
        description="Whether decoders that are idle read the codes that the models find: answers and results "
        "then contain their texts. Needs the extra `codes`.",
    )
    read_codes_budget_ms: float = Field(
        100,
        ge=1,
        le=10_000,
        description="Longest time for which the answer to a posted image waits for the texts of its codes, "
        "and for which a decoder reads codes in one frame of a stream.",
    )
    read_codes_classes: str = Field(
        "barcode,qr_code,data_matrix,aztec,pdf417",
        description="Comma-separated labels of the classes that are codes, whatever their case. With "
        "`READ_CODES=1`, each label that is set must be one of a served model.",
    )

    stream_max_message_bytes: int = Field(2 << 20, ge=4096, description="Largest WebSocket message.")
    stream_max_pixels: int = Field(16_777_216, ge=1, description="Most pixels of a stream's frame.")
    stream_max_age_ms: float = Field(
        500,
        gt=0,
        description="A live frame that is older than this when its turn comes is dropped as `stale`.",
    )
    stream_hello_timeout_s: float = Field(
        5, gt=0, description="Time for `hello` after the upgrade; then 4408."
    )
    stream_idle_timeout_s: float = Field(
        60, gt=0, description="Time without a message after which a stream is closed with 4440."
    )
    stream_heartbeat_s: float = Field(
        20, gt=0, description="Interval of WebSocket pings; without an answer the connection is closed."
    )
    stream_send_timeout_s: float = Field(
        10, gt=0, description="If one send takes longer, the connection is closed with 4441."
    )
    stream_resume_s: float = Field(
        30, ge=0, description="How long a session is kept after its socket was lost."
    )
    stream_min_fps: float = Field(
        5, ge=0, description="A new stream is refused if its fair share would be lower than this; 0: never."
    )

    @field_validator("buffered_max_bytes")
    @classmethod
    def _holds_a_request(cls, count: int, info: ValidationInfo) -> int:
        needed = _least_budget(info.data.get("request_max_bytes", 0))
        if count and count < needed:
            raise ValueError(f"allowed are 0, and {needed} or more: the largest request must fit")
        return count

    @field_validator("read_codes")
    @classmethod
    def _can_read_codes(cls, wanted: bool) -> bool:
        if wanted and importlib.util.find_spec("zxingcpp") is None:
            raise ValueError(f"needs the package zxing-cpp; install it with: {install_command('codes')}")
        return wanted

    @field_validator("read_codes_classes")
    @classmethod
    def _names_classes(cls, text: str) -> str:
        if not text.replace(",", "").strip():
            raise ValueError(
                "allowed are labels of classes, separated by commas; READ_CODES=0 reads no codes"
            )
        return text

    @field_validator("image_url_hosts")
    @classmethod
    def _are_image_hosts(cls, text: str) -> str:
        parse_image_hosts(text)
        return text

    @property
    def image_hosts(self) -> tuple[HostRule, ...]:
        """Hosts from which images are fetched."""
        return parse_image_hosts(self.image_url_hosts)

    @property
    def code_classes(self) -> frozenset[str]:
        """Labels of the classes that are codes, in lower case."""
        return frozenset(name.strip().lower() for name in self.read_codes_classes.split(",")) - {""}

    @property
    def byte_budget(self) -> int:
        """Bytes that a worker may hold for its clients."""
        return self.buffered_max_bytes or max(48 << 20, _least_budget(self.request_max_bytes))


def _least_budget(request_bytes: int) -> int:
    """Return the least byte budget: two thirds of it, one client's part, hold the largest request."""
    return (request_bytes + (1 << 20)) * 3 // 2


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
