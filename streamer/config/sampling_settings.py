"""Settings of samples and drift; the sampling process reads them."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings

from streamer.core.extras import image_command

#: A name without empty parts, or an IPv6 address, perhaps with a zone.
_HOST = re.compile(r"[^\s.:/@\[\]]+(\.[^\s.:/@\[\]]+)*\.?|[0-9a-f:.]*:[0-9a-f:.]*(%[\w.~%-]+)?")
#: Variables that are set where the environment has AWS credentials. The role of an instance sets none of
#: them, so it needs `SAMPLES_STORE=s3`.
_AWS_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def _host_of_endpoint(url: str) -> str:
    """Return the host of the address of a store. Raises ValueError with what is wrong with the address."""
    allowed = "allowed are addresses such as http://minio:9000 or https://[2001:db8::1]:9000"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(
            f"its port is no number of 1 to 65535, or its brackets are wrong; {allowed}"
        ) from None
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host) or port == 0:
        raise ValueError(f"it is not an http or https address with a host; {allowed}")
    if "@" in parts.netloc:
        raise ValueError(f"credentials belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; {allowed}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(
            f"an address has no path: S3_BUCKET_NAME and S3_PREFIX say where objects go; {allowed}"
        )
    return host


class SamplingSettings(BaseSettings):
    """Which frames become samples, where they are stored, and when streams are in drift."""

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
    s3_addressing_style: Literal["auto", "path", "virtual"] = Field(
        "auto",
        description="Where the bucket stands in the address: `path` (`HOST/BUCKET`), `virtual` "
        "(`BUCKET.HOST`), or `auto`: `path` for a store that is not AWS.",
    )
    s3_endpoint_url: str = Field(
        "",
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
        1800, ge=0, description="Time between two random samples of a stream; 0: none."
    )
    samples_random_day_bytes: int = Field(
        1 << 30,
        ge=0,
        description="Bytes of random samples per day above which they become rarer, in all streams alike.",
    )
    samples_reports_per_hour: int = Field(
        120,
        ge=0,
        description="Most frames per hour that people report, a quarter of them in one stream; 0: none.",
    )
    samples_stream_per_hour: int = Field(
        20, ge=0, description="Most samples of one stream per hour that are chosen for their content."
    )
    samples_per_hour: int = Field(
        200, ge=0, description="Most samples per hour that are chosen for their content."
    )
    samples_per_day: int = Field(
        2000, ge=0, description="Most samples per day (UTC) that are chosen for their content."
    )
    samples_day_bytes: int = Field(
        500 << 20,
        ge=0,
        description="Most bytes per day (UTC) of samples that are chosen for their content, and of reports.",
    )
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
        0.01,
        gt=0,
        le=1,
        description="False episodes of a stream per day that the thresholds of a new reference allow.",
    )
    drift_samples: int = Field(
        20, ge=0, description="Samples taken because of one episode, within the other budgets."
    )
    drift_rolling_days: int = Field(
        0,
        ge=0,
        le=56,
        description="Days of a rolling reference: it grows by days without drift, and beyond this number the "
        "oldest leave; 0: the reference stays as it was made.",
    )
    drift_history_bytes: int = Field(
        256 << 20,
        ge=0,
        description="Bytes of rows kept in `SAMPLES_DIR/.drift`, from which a reference can be made.",
    )
    drift_rows: bool = Field(
        False,
        description="Also store the rows where samples go, for `streamer drift evaluate`, which judges all "
        "replicas together (docs/drift.md); needs `DRIFT`.",
    )
    drift_engine: Literal["auto", "builtin", "evidently"] = Field(
        "auto",
        description="`auto`: Evidently decides, in its own process, if it is installed; `evidently`: the "
        "same, and the service does not start without it; `builtin`: Evidently is never started.",
    )
    drift_engine_timeout_s: float = Field(
        180, gt=0, description="Time after which a run of Evidently is killed."
    )

    @field_validator("s3_endpoint_url")
    @classmethod
    def _is_endpoint(cls, url: str, info: ValidationInfo) -> str:
        url = url.strip()
        host = _host_of_endpoint(url) if url else ""
        bucket = info.data.get("s3_bucket_name", "")
        if info.data.get("s3_addressing_style") == "auto" and bucket and host.startswith(f"{bucket}."):
            raise ValueError(
                f"the address begins with the bucket {bucket!r}, so objects would end up below a second "
                f"{bucket!r}; set S3_ADDRESSING_STYLE=virtual and leave the bucket out of the address, or "
                "S3_ADDRESSING_STYLE=path if this is the name of the store itself"
            )
        return url

    @field_validator("drift_rows")
    @classmethod
    def _has_history(cls, wanted: bool, info: ValidationInfo) -> bool:
        if wanted and not info.data.get("drift_history_bytes", 1):
            raise ValueError("rows are stored from the history, so DRIFT_HISTORY_BYTES must be more than 0")
        return wanted

    @field_validator("drift_engine")
    @classmethod
    def _has_evidently(cls, engine: str) -> str:
        if engine == "evidently" and importlib.util.find_spec("evidently") is None:
            raise ValueError(f"the package evidently is not installed; {image_command('drift')}")
        return engine

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
