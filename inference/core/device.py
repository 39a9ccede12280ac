"""Maps each DEVICE to execution providers of onnxruntime; `onnx_session` checks which one a session uses."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Maps each device name to the name that onnxruntime gives its execution provider.
PROVIDERS: Mapping[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
AUTO = "auto"
CHOICES = (AUTO, *PROVIDERS)

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


def chain(
    device: str, *, engine_cache: Path | None = None, profile: tuple[str, str] | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Return providers with options, in order of preference, for one device.

    ``profile`` bounds the shapes that a TensorRT engine is built for, smallest and largest, each as
    ``name:batchx3xheightxwidth``; without it every new shape builds another engine.
    """
    cpu: tuple[str, dict[str, Any]] = (PROVIDERS["cpu"], {})
    cuda = (PROVIDERS["cuda"], dict(_CUDA_OPTIONS))
    if device == "cuda":
        return [cuda, cpu]
    if device == "tensorrt":
        return [(PROVIDERS["tensorrt"], _tensorrt_options(engine_cache, profile)), cuda, cpu]
    if device == "openvino":
        return [(PROVIDERS["openvino"], {"device_type": "CPU"}), cpu]
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
