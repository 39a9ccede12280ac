"""Fixtures of the fault tests: short or long form, recorded figures, and a service with a stubbed model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.faults.nonce import nonce_model
from tests.faults.results import Result
from tests.faults.stub_engine import StubEngine
from tests.helpers.service import Service

T = TypeVar("T")
_RESULT = pytest.StashKey[Result]()

#: Settings of the services in these tests, so that an earlier test cannot influence them.
QUIET = {"WORKERS": "1", "STREAM_MIN_FPS": "0", "SAMPLING": "False"}


@dataclass(frozen=True, slots=True)
class Tier:
    """Chooses between the parameters of the short form and of the long one (``make soak``)."""

    full: bool

    def pick(self, short: T, long: T) -> T:
        """Return the parameter for this run."""
        return long if self.full else short


@dataclass(frozen=True, slots=True)
class Stubbed:
    """A service whose inference process is a stub, with the model that tells frames apart."""

    service: Service
    engine: StubEngine


@pytest.fixture
def tier(full: bool) -> Tier:
    return Tier(full)


@pytest.fixture
def figures(request: pytest.FixtureRequest, full: bool) -> Result:
    """Return an object for the figures that the test measures; a hook writes it when the test has ended."""
    result = Result(request.node.nodeid, full)
    request.node.stash[_RESULT] = result
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write the figures of a test, and whether it passed, when the test has ended."""
    report = yield
    result = item.stash.get(_RESULT, None)
    if report.when == "call" and result is not None:
        result.passed = report.passed
        result.write()
    return report


@pytest.fixture
def stubbed(tmp_path: Path) -> Iterator[Callable[..., Stubbed]]:
    """Return a function that starts a stubbed service with the given settings; all are stopped at the end."""
    model = nonce_model(tmp_path / "nonce.onnx")
    with contextlib.ExitStack() as stack:

        def start(*, model_s: float = 0.0, log_level: str = "info", **settings: str) -> Stubbed:
            engine = stack.enter_context(StubEngine(tmp_path, model_s=model_s))
            variables = QUIET | {"MODEL_V1_PATH": str(model)} | engine.settings | settings
            service = stack.enter_context(Service(variables, log_level=log_level))
            return Stubbed(service, engine)

        yield start
