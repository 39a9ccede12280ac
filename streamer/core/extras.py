"""Finds the extra of the project that installs a missing package."""

from __future__ import annotations

from types import MappingProxyType

PROJECT = "real-time-vision-api"
#: Extra that installs a top-level module. Modules of the base installation are not listed.
EXTRAS = MappingProxyType(
    {
        "aiobotocore": "server",
        "aiohttp_swagger3": "server",
        "aioice": "webrtc",
        "aiortc": "webrtc",
        "botocore": "server",
        "cv2": "view",
        "evidently": "drift",
        "jwt": "jwt",
        "multipart": "server",
        "onnx": "optimize",
        "onnxruntime": "server",
        "opentelemetry": "otel",
        "pandas": "drift",
        "prometheus_client": "server",
        "pycocotools": "evaluate",
        "pydantic_settings": "server",
        "torch": "train",
        "yaml": "server",
        "zxingcpp": "codes",
    }
)


def install_command(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install '{PROJECT}[{extra}]'"


def image_command(extra: str) -> str:
    """Return how an extra gets into an installation, for a package that not every image contains."""
    return f"use an image that is built with it (docs/deployment.md), or: {install_command(extra)}"


def explain_missing(error: ModuleNotFoundError, extra: str = "") -> str | None:
    """Return a sentence that says what to install; None if the module is not from one of the extras.

    The sentence names ``extra``, if given, instead of the module's extra: a command may need more than the
    module.
    """
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        return None
    return (
        f"the package {module} is not installed; install it with: {install_command(extra or EXTRAS[module])}"
    )
