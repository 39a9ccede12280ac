"""Settings of how clients and frames are divided between model versions."""

from __future__ import annotations

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

#: Longest salt: the longest key of the hash.
_SALT_BYTES = 64


class VersionSettings(BaseSettings):
    """Which version serves the clients that name none, and which frames run on both."""

    split_v2: float = Field(
        0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of the clients on routes without a version that v2 serves, 0 to 1, until "
        "`PUT /versions/split` changes it; the rest get v1. While no v2 is loaded, everybody gets v1.",
    )
    split_salt: str = Field(
        "",
        description="Text that decides which clients v2 gets first, the same for all replicas. Another text "
        "draws all clients anew.",
    )
    shadow_v2: float = Field(
        0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of v1's frames that v2 runs, too, 0 to 1, while the device is idle, until "
        "`PUT /versions/shadow` changes it.",
    )

    @field_validator("split_salt")
    @classmethod
    def _fits(cls, text: str) -> str:
        count = len(text.encode(errors="surrogateescape"))
        if count > _SALT_BYTES:
            raise ValueError(f"has {count} bytes, at most {_SALT_BYTES}")
        return text
