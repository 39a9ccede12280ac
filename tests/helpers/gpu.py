"""Marks tests that need a GPU; pytest skips them without one and shows the reason."""

from __future__ import annotations

import pytest

from inference.core.device import driver_fault

_FAULT = driver_fault()

#: Value of ``pytestmark`` for a module whose tests need a GPU.
NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(bool(_FAULT), reason=f"needs a CUDA device: {_FAULT}")]
