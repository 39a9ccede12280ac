"""Gives inference a fixed model time and injects faults; every process of a stubbed service loads it.

It patches modules when they are imported, so that production code does not contain test code. The commands
come through a mapped file that `tests.faults.stub_engine` writes.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import mmap
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

#: Number of the fault, how often it will still happen, runs so far, model time in seconds, leak per frame in
#: bytes, and the colour (blue, green, red) of the frames that trigger the fault; a colour above 255 means any
#: frame.
ORDERS = struct.Struct("<IIQdIHHH")
FAULTS = (
    "none",
    "hang",
    "segv",
    "exit",
    "kill_at_read",
    "kill_at_run",
    "kill_at_reply",
    "oom",
    "cuda700",
    "nan",
    "slow",
    "bad_offset",
    "bad_length",
    "many_boxes",
    "bad_slot",
    "exit_at_start",
)
#: Seconds that the fault `slow` adds to the model time.
SLOW_S = 0.25
_TEXTS = {
    "oom": "[ONNXRuntimeError] : 1 : FAIL : BFCArena::AllocateRawInternal Failed to allocate memory for "
    "requested buffer of size 268435456",
    "cuda700": "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=test",
}


class _Orders:
    """Reads the mapped file with the commands in a process of the stubbed service."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), ORDERS.size)
        self._lock = threading.Lock()
        self.leaked: list[bytes] = []

    def read(self) -> tuple[Any, ...]:
        return ORDERS.unpack_from(self._memory)

    def take(self, *names: str, frames: Sequence[Any] = ()) -> str:
        """Return the fault that must happen now if it is one of ``names``; otherwise an empty string."""
        fault, left, *_, blue, green, red = self.read()
        name = FAULTS[fault]
        if not left or name not in names:
            return ""
        if blue <= 255 and not any(_shows(frame, (blue, green, red)) for frame in frames):
            return ""
        with self._lock:
            left = struct.unpack_from("<I", self._memory, 4)[0]
            if not left:
                return ""
            struct.pack_into("<I", self._memory, 4, left - 1)
        return name

    def count(self, frames: int) -> float:
        """Count a run and leak the requested memory; return the model time."""
        with self._lock:
            _, _, runs, model_s, leak_bytes, *_ = self.read()
            struct.pack_into("<Q", self._memory, 8, runs + frames)
        if leak_bytes:
            self.leaked += [os.urandom(leak_bytes) for _ in range(frames)]
        return float(model_s)


def _shows(frame: Any, colour: tuple[int, int, int]) -> bool:
    middle = frame[frame.shape[0] // 2, frame.shape[1] // 2]
    return all(abs(int(found) - wanted) <= 4 for found, wanted in zip(middle, colour, strict=True))


def _end(fault: str) -> None:
    if fault == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "exit":
        os._exit(1)
    if fault.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    while fault == "hang":
        time.sleep(1)
    if fault in _TEXTS:
        raise RuntimeError(_TEXTS[fault])


def _change_detector(module: Any, orders: _Orders) -> None:
    real_infer, real_postprocess = module.Detector.infer, module.Detector.postprocess
    real_init = module.Detector.__init__

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        if orders.take("exit_at_start"):
            os._exit(1)
        real_init(self, *arguments, **options)

    def infer(self: Any, frames: Any, *, thread: int, **options: Any) -> Any:
        if self.model.buckets:  # the model has been warmed up
            faults = ["hang", "segv", "exit", "cuda700", "kill_at_run"]
            if len(frames) > 1:  # a device without memory for one frame could run nothing
                faults.append("oom")
            _end(orders.take(*faults, frames=frames))
            model_s = orders.count(len(frames))
            if orders.take("slow", frames=frames):
                model_s += SLOW_S
            time.sleep(model_s)
        else:
            # The warm-up must measure that a batch costs no more than a single frame.
            time.sleep(orders.read()[3])
        return real_infer(self, frames, thread=thread, **options)

    def postprocess(self: Any, raw: Any, index: int, params: Any) -> Any:
        boxes = real_postprocess(self, raw, index, params)
        if orders.take("nan"):
            boxes = boxes.copy()
            boxes[:, 0] = float("nan")
        return boxes

    module.Detector.__init__ = init
    module.Detector.infer, module.Detector.postprocess = infer, postprocess


def _change_detector_and_warm_up(module: Any, orders: _Orders) -> None:
    _change_detector(module, orders)
    real_warm = module.Detector._warm

    def warm(self: Any, *arguments: Any, **options: Any) -> None:
        time.sleep(orders.read()[3])
        real_warm(self, *arguments, **options)

    if os.environ.get("STUB_WARM_UP"):
        module.Detector._warm = warm


def _change_wire(module: Any, orders: _Orders) -> None:
    real_unpack, real_pack = module.unpack_submit, module.pack_result

    def unpack_submit(data: bytes) -> Any:
        _end(orders.take("kill_at_read"))
        return real_unpack(data)

    def pack_result(result: Any) -> bytes:
        message = bytearray(real_pack(result))
        fault = orders.take("kill_at_reply", "bad_offset", "bad_length", "many_boxes", "bad_slot")
        _end(fault if fault == "kill_at_reply" else "")
        if fault == "bad_offset":
            message = message[: len(message) // 2]
        elif fault == "bad_length":
            message += bytes(17)
        elif fault == "many_boxes":
            struct.pack_into("<I", message, 4, 1_000_000_000)
        elif fault == "bad_slot":
            struct.pack_into("<Q", message, 8, 1 << 63)
        return bytes(message)

    module.unpack_submit, module.pack_result = unpack_submit, pack_result


def _change_leaking_worker(module: Any, orders: _Orders) -> None:
    real_pack = module.pack_submit

    def pack_submit(item: Any) -> bytes:
        leak_bytes = orders.read()[4]
        if leak_bytes:
            orders.leaked.append(os.urandom(leak_bytes))
        return bytes(real_pack(item))

    module.pack_submit = pack_submit


def _forget_request_ids(module: Any, _orders: _Orders) -> None:
    """Make a worker give each answer to the frame that has waited longest, as if requests had no ids."""

    def resolve(self: Any, result: Any) -> None:
        if self._pending:
            ticket = self._pending.pop(next(iter(self._pending)))
            self._owner.ended(ticket)
            ticket.answered(result)

    if os.environ.get("STUB_MUTATION") == "forget_request_ids":
        module.EngineConnection._resolve = resolve


def _move_streams_sooner(module: Any, _orders: _Orders) -> None:
    """Divide the times after which streams move by five."""
    if os.environ.get("STUB_REBALANCING"):
        for name in {"ROUND_S", "HOLD_S", "LASTING_S"} & vars(module).keys():
            setattr(module, name, getattr(module, name) / 5)


_CHANGES: dict[str, dict[str, Callable[[Any, _Orders], None]]] = {
    "inference.engine.process": {
        "inference.engine.detector": _change_detector_and_warm_up,
        "inference.ipc.wire": _change_wire,
    },
    "streamer.server.worker": {
        "inference.ipc.wire": _change_leaking_worker,
        "inference.ipc.engine_connection": _forget_request_ids,
        "streamer.replicas.rebalance_policy": _move_streams_sooner,
        "streamer.replicas.rebalancer": _move_streams_sooner,
    },
}


class _Finder(importlib.abc.MetaPathFinder):
    """Patches modules right after they were executed."""

    def __init__(self, changes: dict[str, Callable[[Any, _Orders], None]], orders: _Orders) -> None:
        self._changes = changes
        self._orders = orders

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._changes:
            return None
        change = self._changes.pop(name)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute, orders = spec.loader.exec_module, self._orders

        def exec_module(module: ModuleType) -> None:
            execute(module)
            change(module, orders)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _install() -> None:
    path = os.environ.get("STUB_ENGINE", "")
    role = next((name for name in _CHANGES if name in sys.orig_argv), "")
    if path and role:
        orders = _Orders(path)
        sys.meta_path.insert(0, _Finder(dict(_CHANGES[role]), orders))


_install()
