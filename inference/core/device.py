"""Parses values of DEVICE, and maps each to execution providers of onnxruntime.

`onnx_session` checks which provider a session uses.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.core.errors import DeviceUnavailable

#: Maps each device name to the name that onnxruntime gives its execution provider.
PROVIDERS: Mapping[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
AUTO = "auto"
#: Most engines of a generation, so that the slots of the shared status suffice for a new one beside the
#: old one.
MAX_DEVICES = 16
#: Pattern of one device; DEVICE is a list of them, separated by commas.
PATTERN = r"(cpu|(auto|cuda|tensorrt)(:[0-9]{1,2})?|openvino(:(CPU|GPU|NPU))?)"
ALLOWED = "auto, cpu, cuda, tensorrt, a GPU such as cuda:1, openvino, and openvino:CPU, :GPU or :NPU"

#: What each device needs. A missing part is the most likely reason why its provider does not load.
NEEDS: Mapping[str, str] = {
    "cuda": "It needs an NVIDIA driver, and CUDA 13 with cuDNN 9: the extra `gpu` of this package, or an "
    "image that has them; in a container also `--gpus all`.",
    "tensorrt": "It needs what `cuda` needs, and TensorRT 10 (libnvinfer.so.10).",
    "openvino": "It needs the package onnxruntime-openvino in place of onnxruntime.",
    "cpu": "",
}

_CUDA_OPTIONS = {
    # The default search tries every algorithm for every new shape, which takes hundreds of ms per shape.
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
    # Compute a float32 model in float32: rounding to TF32 moved a box of YOLOX-nano so far that its IoU with
    # the exact box was 0.973. Users who prefer speed to accuracy can load a file in half precision.
    "use_tf32": "0",
}


@dataclass(frozen=True, slots=True)
class Device:
    """Holds one device, such as ``cuda:1``."""

    #: `AUTO`, or a key of `PROVIDERS`.
    kind: str
    #: Number of a GPU, or a device of OpenVINO in capitals; empty for the first GPU, and for OpenVINO's CPU.
    target: str = ""

    @classmethod
    def parse(cls, text: str) -> Device:
        """Return the device that ``text`` names. Raises ValueError for any other text."""
        if re.fullmatch(PATTERN, text) is None:
            raise ValueError(f"{text!r} is no device; allowed are {ALLOWED}")
        kind, _, target = text.partition(":")
        return cls(kind, target)

    def __str__(self) -> str:
        return f"{self.kind}:{self.target}" if self.target else self.kind

    def make_visible(self) -> Device:
        """Hide all other GPUs from CUDA in this process, and return the device by which this one is known
        then.

        Call it before CUDA is initialised. Numbers count the GPUs that were visible at the start. Raises
        ValueError if the process has chosen another GPU before.
        """
        global _chosen
        if self.kind not in (AUTO, "cuda", "tensorrt") or not self.target:
            return self
        if _chosen not in ("", self.target):
            raise ValueError(f"this process uses GPU {_chosen} already, and cannot use {self} too")
        if not _chosen:
            names = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",") if name.strip()]
            number = int(self.target)
            os.environ[_VISIBLE] = names[number] if number < len(names) else self.target
            _chosen = self.target
        return Device(self.kind)


#: Environment variable with the GPUs that CUDA may use.
_VISIBLE = "CUDA_VISIBLE_DEVICES"
#: Number of the GPU that this process has chosen; empty before.
_chosen = ""


def select(text: str) -> str:
    """Return the name of the device ``text`` in this process, for `chain`. Raises DeviceUnavailable.

    Other GPUs become invisible to the process.
    """
    try:
        return str(Device.parse(text).make_visible())
    except ValueError as error:
        raise DeviceUnavailable(f"DEVICE: {error}") from error


def parse_devices(text: str) -> tuple[str, ...]:
    """Return the devices of a list that is separated by commas. Raises ValueError for a wrong one."""
    found = tuple(part.strip() for part in text.split(","))
    for part in found:
        Device.parse(part)
    if len(found) > 1 and any(part.startswith(AUTO) for part in found):
        raise ValueError(f"{text!r}: `auto` stands alone, because it takes every GPU")
    if len(found) > MAX_DEVICES:
        raise ValueError(f"{len(found)} devices; at most {MAX_DEVICES} are allowed")
    return found


def chain(
    device: str, *, engine_cache: Path | None = None, profile: tuple[str, str] | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Return providers with options, in order of preference, for one device.

    ``profile`` bounds the shapes that a TensorRT engine is built for, smallest and largest, each as
    ``name:batchx3xheightxwidth``; without it every new shape builds another engine.
    """
    found = Device.parse(device)
    cpu: tuple[str, dict[str, Any]] = (PROVIDERS["cpu"], {})
    cuda = (PROVIDERS["cuda"], dict(_CUDA_OPTIONS))
    if found.kind == "cuda":
        return [cuda, cpu]
    if found.kind == "tensorrt":
        return [(PROVIDERS["tensorrt"], _tensorrt_options(engine_cache, profile)), cuda, cpu]
    if found.kind == "openvino":
        return [(PROVIDERS["openvino"], {"device_type": found.target or "CPU"}), cpu]
    return [cpu]


def _tensorrt_options(engine_cache: Path | None, profile: tuple[str, str] | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if engine_cache is not None:
        options |= {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(engine_cache),
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": str(engine_cache),
        }
    if profile is not None:
        smallest, largest = profile
        options |= {
            "trt_profile_min_shapes": smallest,
            "trt_profile_opt_shapes": largest,
            "trt_profile_max_shapes": largest,
        }
    return options


def has_driver() -> bool:
    """Return whether an NVIDIA driver is installed or mounted into this container, even a broken one."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def gpu_count() -> int:
    """Return how many GPUs the driver reports; 0 without a driver. It initialises CUDA in this process."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return 0
    return 0 if failed else count.value


def driver_fault() -> str:
    """Return why there is no usable NVIDIA GPU; an empty text when the driver reports one.

    `onnx_session` calls this before onnxruntime tries the GPU, because that attempt loads hundreds of MB and
    writes to stderr.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1)"
    count = ctypes.c_int(0)
    try:
        status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except AttributeError:
        return "libcuda.so.1 is not an NVIDIA driver"
    if status:
        return f"the NVIDIA driver reports error {status}"
    return "" if count.value > 0 else "the NVIDIA driver reports no GPU"
