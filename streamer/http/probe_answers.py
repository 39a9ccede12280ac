"""Defines the answers to probes. Workers give them, or the supervisor while no worker accepts connections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

#: The states of a replica that `/health` and `/livez` report.
ReplicaState = Literal["ok", "starting", "loading", "warming", "restarting", "hung", "draining", "saturated"]


class LivenessDocument(TypedDict):
    """Whether this replica makes progress, or only a restart would help."""

    alive: Annotated[bool, Field(description="False if a process hangs and nothing restarts it.")]
    state: Annotated[
        Literal["ok", "starting", "loading", "warming", "restarting", "hung", "draining"],
        Field(description="What the replica is doing."),
    ]


class WorkersAway(TypedDict):
    """The supervisor's answer to `/health` while no worker accepts connections."""

    status: Annotated[
        Literal["restarting", "draining"],
        Field(description="Whether the workers are being restarted or are shutting down."),
    ]
    reasons: Annotated[list[str], Field(description="Sentences that say why no worker answers.")]
