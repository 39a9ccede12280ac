"""Prints how many GPUs models can run on, for the supervisor, which loads neither CUDA nor onnxruntime."""

from __future__ import annotations

import sys

from inference.core.device import gpu_count
from inference.engine.onnx_session import loading_fault


def main() -> int:
    """Run as ``python -m inference.engine.gpu_count``."""
    sys.stdout.write(f"{0 if loading_fault('cuda') else gpu_count()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
