"""Controls a stubbed inference process: a test sets how long the model takes and which fault happens."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.faults.engine_site.sitecustomize import FAULTS, ORDERS

SITE = Path(__file__).resolve().parent / "engine_site"
_ANY_COLOUR = (999, 999, 999)


class StubEngine:
    """Controls the stub: pass ``settings`` to a `Service`, then ``arm`` faults while the service runs.

    With ``slow_warm_up``, the warm-up measures ``model_s``, too, and the service knows its capacity by it.
    With ``quick_rebalancing``, an overloaded replica moves streams after a fifth of the usual time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model_s: float = 0.0,
        slow_warm_up: bool = False,
        quick_rebalancing: bool = False,
    ) -> None:
        self._changes = {"STUB_WARM_UP": slow_warm_up, "STUB_REBALANCING": quick_rebalancing}
        self._path = folder / "orders"
        self._path.write_bytes(bytes(ORDERS.size))
        with self._path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), ORDERS.size)
        self.disarm()
        self.model_s = model_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._memory.close()

    @property
    def settings(self) -> dict[str, str]:
        """Environment variables that turn a service's inference process into a stub."""
        changes = {name: "1" for name, wanted in self._changes.items() if wanted}
        return {"PYTHONPATH": str(SITE), "STUB_ENGINE": str(self._path)} | changes

    @property
    def runs(self) -> int:
        """Number of frames that the model was given since the start, in all processes."""
        return int(struct.unpack_from("<Q", self._memory, 8)[0])

    @property
    def left(self) -> int:
        """How often the armed fault will still happen."""
        return int(struct.unpack_from("<I", self._memory, 4)[0])

    @property
    def model_s(self) -> float:
        """Seconds that each run takes in addition to the model itself."""
        return float(struct.unpack_from("<d", self._memory, 16)[0])

    @model_s.setter
    def model_s(self, seconds: float) -> None:
        struct.pack_into("<d", self._memory, 16, seconds)

    def leak(self, size_bytes: int) -> None:
        """Let the inference process and the workers leak this many bytes with every frame."""
        struct.pack_into("<I", self._memory, 24, size_bytes)

    def arm(self, fault: str, times: int = 1, *, colour: tuple[int, int, int] = _ANY_COLOUR) -> None:
        """Let a fault happen ``times`` times; with ``colour`` (BGR) only for frames of that colour."""
        self.disarm()
        struct.pack_into("<HHH", self._memory, 28, *colour)
        struct.pack_into("<I", self._memory, 0, FAULTS.index(fault))
        struct.pack_into("<I", self._memory, 4, times)

    def disarm(self) -> None:
        """Disable all faults."""
        struct.pack_into("<I", self._memory, 4, 0)
