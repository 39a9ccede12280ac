"""All settings: the groups together, how they are read, and what an error says.

Each group defines environment variables with their types, defaults and descriptions. Settings are read from
the environment here and nowhere else, with two exceptions: the health check of the image reads `PORT`, and
the command line reads `LOG_FORMAT` to report that the settings are wrong. A test compares README's table with
this file.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from streamer.access.access_settings import AccessSettings
from streamer.config.model_settings import ModelSettings
from streamer.config.network_settings import NetworkSettings
from streamer.config.request_settings import RequestSettings
from streamer.config.sampling_settings import SamplingSettings

#: Settings that are secrets: errors never show them, and only workers get them.
SECRETS = frozenset({"api_keys", "turn_secret"})


class SettingsError(Exception):
    """A variable has a value that is not allowed; the text names variable, value and what is allowed."""


class Settings(SamplingSettings, NetworkSettings, RequestSettings, ModelSettings, AccessSettings):
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
        raise SettingsError(f"{name}={shown}: {_allowed(first)}") from error


def _allowed(error: Any) -> str:
    """Turn one pydantic error into a sentence that says what is allowed."""
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "literal_error":
        return f"allowed are {error['ctx']['expected']}"
    return message[0].lower() + message[1:]
