"""Settings of POSTs and streams: their limits, images at URLs, and the texts of codes."""

from __future__ import annotations

import importlib.util

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings

from streamer.config.image_hosts import HostRule, parse_image_hosts
from streamer.core.extras import install_command


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
