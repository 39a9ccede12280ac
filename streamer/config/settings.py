"""The one table of settings: environment variables, their types, defaults and what they mean.

Settings are read from the environment here and nowhere else, but for two: the health check of the image reads
`PORT`, and the command line reads `LOG_FORMAT` to tell that the settings are wrong. README's table is tested
against this file.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from streamer.access.access_settings import AccessSettings
from streamer.assets import MODELS_DIR
from streamer.config.ice_servers import parse_ice_servers
from streamer.config.replica_addresses import Address, parse_own, parse_peers

#: Where a user's own models are found without being named.
_OWN_MODELS = {"v1": "yolov9_v1.onnx", "v2": "yolov9_v2.onnx"}
#: The code detectors that come with the project.
_BUNDLED_MODELS = {"v1": "codes_v1.onnx", "v2": "codes_v2.onnx"}


#: What shows that somebody has set AWS up; an instance's own role does not show, `SAMPLES_STORE=s3` says it.
_AWS_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


#: Settings that are secrets: never shown in an error, and only workers get them.
SECRETS = frozenset({"api_keys", "turn_secret"})


class SettingsError(Exception):
    """A variable has a value that is not allowed; the text names variable, value and what is allowed."""


class Settings(AccessSettings):
    """Everything that can be set, by the name of its environment variable."""

    model_config = SettingsConfigDict(case_sensitive=False, extra="ignore", env_ignore_empty=True)

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
    ice_servers: str = Field(
        "",
        description="Comma-separated STUN and TURN servers (`stun:host:3478`, "
        "`turn:host:3478?transport=udp`), which clients get. The service contacts no other "
        "server.",
    )
    turn_secret: str = Field(
        "",
        description="Secret shared with the TURN servers; the service derives short-lived credentials for "
        "clients from it.",
    )
    turn_ttl_s: float = Field(3600, ge=60, le=86_400, description="How long TURN credentials are valid.")
    udp_port_range: str = Field(
        "", description="UDP ports of WebRTC media, such as `50000-50100`; each session uses one. Unset: any."
    )
    public_ip: str = Field(
        "",
        description="Address that WebRTC clients are given in place of the service's own, for example behind "
        "a port mapping.",
    )
    webrtc_sessions_max: int = Field(
        64, ge=0, le=10_000, description="WebRTC and WHIP sessions per worker; beyond it: 503."
    )
    webrtc_connect_timeout_s: float = Field(
        10, gt=0, description="Time from an offer until its WebRTC connection must be established."
    )
    webrtc_media_timeout_s: float = Field(
        15, gt=0, description="Time without video after which a WebRTC session ends."
    )
    webrtc_private_candidates: bool = Field(
        False,
        description="Whether to send to private addresses that WebRTC clients offer before these have sent "
        "anything. Needed only if a firewall blocks all unsolicited incoming packets.",
    )
    replica_address: str = Field(
        "",
        description="This replica's own address among `REPLICA_PEERS`, as `IP` or `IP:PORT`; the port is "
        "`PORT` unless given.",
    )
    replica_peers: str = Field(
        "",
        description="Comma-separated addresses of the replicas of this release, which forward requests about "
        "their sessions to each other. One DNS name may stand for all of them. Unset: the "
        "replica is alone.",
    )
    connections_max: int = Field(
        0,
        ge=0,
        description="Open connections per worker; 0: what its file descriptors allow, at most 80 % of them. "
        "Beyond it, silent and idle connections are closed; probes are still answered.",
    )
    connections_per_address: int = Field(
        0,
        ge=0,
        description="Open connections of one client address per worker; 0: three quarters of "
        "`CONNECTIONS_MAX`, because a proxy in front is one address.",
    )

    sampling: bool = Field(
        True, description="Keep frames worth labelling (docs/sampling.md); `False`: no frame is ever stored."
    )
    samples_dir: Path = Field(
        Path("data/samples"),
        description="Folder of samples, and of samples that wait for a store. Each replica needs its own.",
    )
    samples_store: Literal["auto", "s3", "folder"] = Field(
        "auto",
        description="Where samples go: `s3`, `folder` (`SAMPLES_DIR`), or `auto`: S3 if the environment has "
        "AWS credentials, else the folder.",
    )
    s3_bucket_name: str = Field(
        "ml-active-learning", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="Bucket for samples."
    )
    s3_prefix: str = Field(
        "",
        pattern=r"^[A-Za-z0-9!_.*'()/=-]{0,512}$",
        description="Prefix of every key in the bucket.",
    )
    s3_endpoint_url: str = Field(
        "",
        pattern=r"^(https?://[^\s/]+/?)?$",
        description="Address of an S3-compatible store; empty: AWS, or `AWS_ENDPOINT_URL_S3`.",
    )
    aws_region: str = Field("", description="Region of the bucket; if empty, `AWS_DEFAULT_REGION`.")
    s3_encryption: Literal["", "AES256", "aws:kms"] = Field(
        "",
        description="Server-side encryption to request: `AES256` or `aws:kms`; empty: the bucket's default.",
    )
    s3_timeout_s: float = Field(30, gt=0, description="Longest time for storing one object in the bucket.")
    uncertainty_threshold: float = Field(
        0.7,
        ge=0,
        le=2,
        description="A frame with at least this uncertainty (0 to 1) is worth labelling; 0: every frame, "
        "more than 1: none.",
    )
    samples_interval_s: float = Field(
        60, ge=0, description="The best candidate of each stream in this time becomes a sample."
    )
    samples_spacing_s: float = Field(10, ge=0, description="Shortest time between two samples of a stream.")
    samples_random_every_s: float = Field(
        1800, ge=0, description="Mean time between two random samples of a stream; 0: none."
    )
    samples_stream_per_hour: int = Field(20, ge=0, description="Most samples of one stream per hour.")
    samples_per_hour: int = Field(200, ge=0, description="Most samples per hour.")
    samples_per_day: int = Field(2000, ge=0, description="Most samples per day (UTC).")
    samples_day_bytes: int = Field(500 << 20, ge=0, description="Most bytes of samples per day (UTC).")
    samples_max_bytes: int = Field(
        2 << 30,
        ge=0,
        description="Most bytes in `SAMPLES_DIR`; beyond it, new samples are refused and none is deleted.",
    )
    samples_strip_metadata: bool = Field(
        False,
        description="Remove GPS position, camera data and comments from samples; the pixels do not change.",
    )
    samples_compare: bool = Field(
        False,
        description="Run candidates through the other model version too while the device is idle, and keep "
        "frames on which the two disagree.",
    )
    samples_deny: str = Field("", description="Comma-separated names of streams that are never sampled.")
    samples_drain_s: float = Field(
        10,
        ge=0,
        description="Time at shutdown for delivering samples; the rest is delivered after the next start.",
    )

    samples_candidate_s: float = Field(
        1,
        ge=0,
        le=60,
        description="Interval at which one frame of each stream is examined for sampling and drift.",
    )
    drift: bool = Field(
        True,
        description="Watch whether streams still look like the reference (docs/drift.md); needs `SAMPLING`.",
    )
    reference_data_path: Path = Field(
        Path("data/reference_features.json"),
        description="File of the drift reference, created by `POST /reference/update`. Each replica needs "
        "its own.",
    )
    drift_sample_interval_s: float = Field(
        5, ge=0.1, le=60, description="Interval at which one row of each stream is recorded."
    )
    drift_window_s: float = Field(1800, ge=60, le=86_400, description="Length of a window of rows.")
    drift_step_s: float = Field(600, ge=20, le=86_400, description="Time between two evaluations.")
    drift_alpha: float = Field(
        0.001,
        gt=0,
        le=0.1,
        description="False-positive rate per window; an episode needs two flagged windows of three.",
    )
    drift_samples: int = Field(
        20, ge=0, description="Samples taken because of one episode, within the other budgets."
    )
    drift_history_bytes: int = Field(
        256 << 20,
        ge=0,
        description="Bytes of rows kept in `SAMPLES_DIR/.drift`, from which a reference can be made.",
    )
    drift_engine: Literal["auto", "builtin"] = Field(
        "auto",
        description="`auto`: Evidently decides, in its own process, if it is installed; `builtin`: Evidently "
        "is never started.",
    )
    drift_engine_timeout_s: float = Field(
        180, gt=0, description="Time after which a run of Evidently is killed."
    )

    drain_delay_s: float = Field(
        3,
        ge=0,
        description="Time after SIGTERM in which new requests are still served while `/health` says "
        "`draining`.",
    )
    drain_timeout_s: float = Field(
        20, gt=0, description="Time after that delay for streams and requests to finish."
    )

    @field_validator("model_v1_path", "model_v2_path")
    @classmethod
    def _file_exists(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError("no such file")
        return path

    @field_validator("buffered_max_bytes")
    @classmethod
    def _holds_a_request(cls, count: int, info: ValidationInfo) -> int:
        needed = _least_budget(info.data.get("request_max_bytes", 0))
        if count and count < needed:
            raise ValueError(f"allowed are 0, and {needed} or more: the largest request must fit")
        return count

    @field_validator("ice_servers")
    @classmethod
    def _are_ice_servers(cls, text: str) -> str:
        parse_ice_servers(text)
        return text

    @field_validator("udp_port_range")
    @classmethod
    def _is_port_range(cls, text: str) -> str:
        _parse_ports(text)
        return text

    @field_validator("public_ip")
    @classmethod
    def _is_address(cls, text: str) -> str:
        try:
            return str(ipaddress.ip_address(text)) if text else ""
        except ValueError:
            raise ValueError("allowed is an IPv4 or IPv6 address") from None

    @field_validator("replica_address")
    @classmethod
    def _is_own_address(cls, text: str) -> str:
        parse_own(text, 1)
        return text

    @field_validator("replica_peers")
    @classmethod
    def _are_peers(cls, text: str, info: ValidationInfo) -> str:
        if parse_peers(text, 1) and not info.data.get("replica_address"):
            raise ValueError("allowed together with REPLICA_ADDRESS, by which the others reach this replica")
        return text

    @property
    def byte_budget(self) -> int:
        """Bytes that a worker may hold for its clients."""
        return self.buffered_max_bytes or max(48 << 20, _least_budget(self.request_max_bytes))

    @property
    def own_address(self) -> Address | None:
        """Where the other replicas reach this one; None: it is alone."""
        return parse_own(self.replica_address, self.port)

    @property
    def peer_addresses(self) -> tuple[Address, ...]:
        """The replicas of this release, or names that stand for several."""
        return parse_peers(self.replica_peers, self.port)

    @property
    def ice_urls(self) -> tuple[str, ...]:
        """The STUN and TURN servers."""
        return parse_ice_servers(self.ice_servers)

    @property
    def udp_ports(self) -> tuple[int, int] | None:
        """First and last UDP port of media; None: any."""
        return _parse_ports(self.udp_port_range)

    def models(self) -> dict[str, Path]:
        """Return version to model file; only versions that have one.

        The bundled v2 stands in only beside the bundled v1: who serves a detector of their own does not
        want another one of printed codes to take memory beside it.
        """
        found: dict[str, Path] = {}
        beside_ours = True
        for version, given in (("v1", self.model_v1_path), ("v2", self.model_v2_path)):
            bundled = MODELS_DIR / _BUNDLED_MODELS[version]
            candidates = [given] if given else [MODELS_DIR / _OWN_MODELS[version]]
            if not given and beside_ours:
                candidates.append(bundled)
            path = next((path for path in candidates if path.is_file()), None)
            if path is not None:
                found[version] = path.resolve()
            beside_ours = path == bundled
        return found

    @property
    def public(self) -> Settings:
        """The same without the secrets, for a process that needs none."""
        return self.model_copy(update=dict.fromkeys(SECRETS, ""))

    @property
    def uses_s3(self) -> bool:
        """Whether samples go to a bucket. Credentials themselves are read by botocore, never here."""
        if self.samples_store != "auto":
            return self.samples_store == "s3"
        return any(os.environ.get(name) for name in _AWS_CREDENTIALS)

    @property
    def samples_denied(self) -> frozenset[str]:
        """Names of streams that are never sampled."""
        return frozenset(name.strip() for name in self.samples_deny.split(",") if name.strip())


def _least_budget(request_bytes: int) -> int:
    """Return the byte budget of which one client's part holds the largest request, with what surrounds it."""
    return (request_bytes + (1 << 20)) * 3 // 2


def _parse_ports(text: str) -> tuple[int, int] | None:
    """Return first and last port of `50000-50100`; None when empty. Raises ValueError."""
    if not text:
        return None
    first, dash, last = text.partition("-")
    if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit() and dash):
        raise ValueError("allowed is FIRST-LAST, such as 50000-50100")
    ports = int(first), int(last)
    if not 1024 <= ports[0] <= ports[1] <= 65535:
        raise ValueError("allowed are ports from 1024 to 65535, the first not above the last")
    return ports


def load_settings(**overrides: Any) -> Settings:
    """Read the environment; ``overrides`` (from the command line) win.

    Raises SettingsError naming the first wrong variable, its value and what is allowed.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper()
        value = first.get("input")
        shown = "…" if name.lower() in SECRETS or "@" in str(value) else repr(value)
        raise SettingsError(f"{name}={shown}: {_allowed(first)}") from error


def _allowed(error: Any) -> str:
    """Turn one pydantic error into a sentence that says what is allowed."""
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "literal_error":
        return f"allowed are {error['ctx']['expected']}"
    return message[0].lower() + message[1:]
