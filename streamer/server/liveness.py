"""The liveness of each process of the replica, read from the shared status for `health`."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from inference.ipc.shared_status import Presence, SharedStatus, State

#: A process without a heartbeat for this time is reported as silent, before the supervisor kills it.
SILENT_S = 2.5
#: If a process hangs for longer than this, the supervisor is not restarting it.
ABANDONED_S = 10.0
ProcessState = Literal["ok", "starting", "restarting", "silent", "off"]
_STATES: dict[Presence, ProcessState] = {
    Presence.OFF: "off",
    Presence.STARTING: "starting",
    Presence.SERVING: "ok",
    Presence.DOWN: "restarting",
    Presence.HUNG: "silent",
}


class ProcessStates(TypedDict):
    """The state of each process of this replica; `silent` means that it has stopped responding."""

    supervisor: Annotated[ProcessState, Field(description="The process that starts and watches the others.")]
    inference: Annotated[ProcessState, Field(description="The process that runs the models.")]
    workers: Annotated[list[ProcessState], Field(description="The processes that answer requests.")]
    observer: Annotated[
        ProcessState, Field(description="The sampling process, which keeps images and detects drift.")
    ]


class Liveness:
    """Reads the shared status. All times are CLOCK_MONOTONIC seconds."""

    def __init__(self, shared_status: SharedStatus) -> None:
        self._shared_status = shared_status

    @property
    def inference_hangs(self) -> bool:
        """Whether the inference process is ready but does not answer."""
        if self._shared_status.state is not State.READY:
            return False
        now = time.monotonic()
        return self._shared_status.hung(now) or now - self._shared_status.read("heartbeat") > SILENT_S

    @property
    def abandoned(self) -> bool:
        """Whether the inference process hangs, and the supervisor, which should kill it, hangs too."""
        now = time.monotonic()
        return (
            self.inference_hangs
            and now - self._shared_status.read("heartbeat") > ABANDONED_S
            and now - self._shared_status.read("supervisor_beat") > ABANDONED_S
        )

    @property
    def saturated(self) -> bool:
        """Whether the queue of POSTs has been full for long in every worker that serves."""
        numbers = range(int(self._shared_status.read("workers")))
        serving = [n for n in numbers if self._shared_status.read_worker(n, "presence") == Presence.SERVING]
        return bool(serving) and all(self._shared_status.read_worker(n, "saturated") for n in serving)

    def describe(self) -> ProcessStates:
        """Return the state of each process."""
        return {
            "supervisor": self._by_beat(self._shared_status.read("supervisor_beat")),
            "inference": self._inference(),
            "workers": [self._worker(number) for number in range(int(self._shared_status.read("workers")))],
            "observer": self._sampling_process(),
        }

    def reasons(self) -> list[str]:
        """Return a sentence for each process that is missing or silent."""
        states = self.describe()
        named = {"the supervisor": states["supervisor"], "the observer": states["observer"]}
        named |= {f"worker {number}": word for number, word in enumerate(states["workers"])}
        found = [f"{name} does not answer" for name, word in named.items() if word == "silent"]
        found += [
            f"{name} has ended and is being started again"
            for name, word in named.items()
            if word == "restarting"
        ]
        changed = int(self._shared_status.read("models_changed"))
        found += [
            f"the file of model {index + 1} has changed or gone since the start; a copy is served"
            for index in range(changed.bit_length())
            if changed >> index & 1
        ]
        if self._shared_status.read("dying"):
            found.append("processes keep dying")
        return found

    def _inference(self) -> ProcessState:
        if self.inference_hangs:
            return "silent"
        if self._shared_status.state is State.READY:
            return "ok"
        return (
            "restarting"
            if self._shared_status.state is State.DOWN or self._shared_status.read("restarts")
            else "starting"
        )

    def _worker(self, number: int) -> ProcessState:
        presence = _presence(self._shared_status.read_worker(number, "presence"))
        if presence is Presence.SERVING:
            return self._by_beat(self._shared_status.read_worker(number, "beat"))
        return _STATES[presence]

    def _sampling_process(self) -> ProcessState:
        presence = _presence(self._shared_status.read("sampling_presence"))
        if presence is Presence.SERVING:
            return self._by_beat(self._shared_status.read("sampling_beat"))
        return _STATES[presence]

    def _by_beat(self, beat: float) -> ProcessState:
        """Return ok or silent; also ok without any heartbeat, in a worker that runs without a supervisor."""
        return "silent" if beat and time.monotonic() - beat > SILENT_S else "ok"


def _presence(value: float) -> Presence:
    return Presence(int(value)) if 0 <= value < len(Presence) else Presence.STARTING
