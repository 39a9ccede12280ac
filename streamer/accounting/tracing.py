"""Sends spans of requests and frames to an OpenTelemetry collector, if the settings name one.

The event loop only appends a finished trace to a bounded queue. A thread turns traces into spans, and the SDK
sends these from a thread of its own, so a collector that is slow or unreachable delays nothing. A trace for
which the queue has no room is dropped, and the log says how many were. The SDK comes with the extra `otel`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from streamer.config.settings import Settings
from streamer.core.extras import install_command
from streamer.http.trace_context import TraceContext

log = logging.getLogger("streamer.tracing")

#: Traces that may wait to become spans; the trace of a frame takes about 1 kB.
MAX_WAITING = 1024
#: Longest time that `Traces` waits at the end for spans that are not sent yet.
FLUSH_S = 3.0
#: Shortest time between two log lines about dropped traces.
DROPS_LOGGED_S = 60.0
#: Longer texts in spans are cut off; the longest legitimate text of a client is its request id.
_MAX_TEXT_CHARS = 256
SERVICE_NAME = "real-time-vision-api"
Value = str | int | float | bool


class StageTimes(Protocol):
    """Holds the times of the stages of a prediction; `streamer.scheduling.job.Prediction` has them."""

    decode_ms: float
    queue_ms: float
    inference_ms: float
    postprocess_ms: float
    batch_size: int


@dataclass(slots=True)
class Trace:
    """Records one request or frame that is under way or finished. Times are monotonic seconds."""

    #: Name of the span of the whole request or frame, such as `POST /v1/predict`.
    name: str
    begun: float
    #: The trace of the client to which this one belongs; None if it is a trace of its own.
    parent: TraceContext | None = None
    attributes: dict[str, Value] = field(default_factory=dict)
    #: Name, begin, end and attributes of each stage.
    stages: list[tuple[str, float, float, dict[str, Value]]] = field(default_factory=list)
    #: When the whole body of a request had arrived.
    received: float = 0.0
    ended: float = 0.0
    #: Why the request or frame has failed; empty if it has not.
    error: str = ""

    def add(self, name: str, begun: float, ended: float, **attributes: Value) -> None:
        """Add a stage."""
        self.stages.append((name, begun, ended, attributes))

    def add_prediction(self, stages_ms: StageTimes, begun: float, ended: float, **attributes: Value) -> None:
        """Add the stages of one image between its arrival and its boxes.

        The times are measured in three processes, so the stages are laid out back to back before ``ended``.
        The time that no stage accounts for was spent waiting in the worker: it becomes the first `queue`.
        """
        spent = (
            ("decode", stages_ms.decode_ms),
            ("queue", stages_ms.queue_ms),
            ("infer", stages_ms.inference_ms),
            ("postprocess", stages_ms.postprocess_ms),
        )
        at = max(begun, ended - sum(each for _, each in spent) / 1e3)
        self.add("queue", begun, at, place="worker", **attributes)
        for name, each_ms in spent:
            until = min(ended, at + each_ms / 1e3)
            more: dict[str, Value] = {"place": "inference"} if name == "queue" else {}
            if name == "infer":
                more["batch_size"] = stages_ms.batch_size
            self.add(name, at, until, **more, **attributes)
            at = until


class Traces:
    """Takes finished traces and exports them. Any thread may call `put`; it never waits."""

    def __init__(self, write: Callable[[Trace], None], close: Callable[[], None]) -> None:
        """``write`` turns a trace into spans; ``close`` sends the spans that have not been sent."""
        self._write = write
        self._close = close
        self._waiting: deque[Trace] = deque()
        self._filled = threading.Event()
        self._ending = False
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def put(self, trace: Trace, ended: float, error: str = "") -> None:
        """Hand over a trace that has ended; drop it if too many wait."""
        trace.ended, trace.error = ended, error
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.append(trace)
        self._filled.set()

    def close(self) -> None:
        """Send the waiting traces, for at most `FLUSH_S`."""
        self._ending = True
        self._filled.set()
        self._thread.join(FLUSH_S)

    def _run(self) -> None:
        logged_at = 0.0
        while not (self._ending and not self._waiting):
            self._filled.wait()
            # Clear the event before reading the queue: a trace that is added from here on sets it again.
            self._filled.clear()
            while self._waiting:
                try:
                    self._write(self._waiting.popleft())
                except Exception:
                    log.exception("a trace cannot be written")
            if self._dropped and time.monotonic() - logged_at > DROPS_LOGGED_S:
                logged_at, dropped, self._dropped = time.monotonic(), self._dropped, 0
                log.warning("%d traces were dropped, because too many waited to be exported", dropped)
        self._close()


def sending_ends(traces: Traces, trace: Trace) -> Callable[[], None]:
    """Return a function that ends a request's trace with the stage ``send``, from encoding on."""
    begun = max(ended for _, _, ended, _ in trace.stages)

    def end() -> None:
        now = time.monotonic()
        trace.add("send", begun, now)
        trace.attributes["http.response.status_code"] = 200
        traces.put(trace, now)

    return end


def open_traces(settings: Settings, environment: Mapping[str, str] = os.environ) -> Traces | None:
    """Return the exporter that the settings and the standard variables ask for; None if they ask for none.

    If a variable asks for something that this service cannot do, log that and return None.
    """
    endpoint = settings.otel_exporter_otlp_traces_endpoint
    if not endpoint and settings.otel_exporter_otlp_endpoint:
        endpoint = f"{settings.otel_exporter_otlp_endpoint.rstrip('/')}/v1/traces"
    if not endpoint or environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    kind = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    if kind == "none":
        return None
    general = environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", general).strip().lower()
    for name, found, allowed in (
        ("OTEL_TRACES_EXPORTER", kind, "otlp"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol or "http/protobuf", "http/protobuf"),
    ):
        if found != allowed:
            log.warning("no spans are exported: %s is %r, and allowed is %s", name, found, allowed)
            return None
    headers = settings.otel_exporter_otlp_traces_headers or settings.otel_exporter_otlp_headers
    try:
        return _open(endpoint, headers)
    except ModuleNotFoundError as error:
        missing = error.name
    log.warning("no spans are exported: the package %s is missing: %s", missing, install_command("otel"))
    return None


def _open(endpoint: str, headers: str) -> Traces:
    """Return an exporter to ``endpoint``. The SDK reads further variables: sampler, limits, attributes."""
    from opentelemetry import trace as api  # noqa: PLC0415 - the extra `otel`
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - see above
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - see above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - see above
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - see above
    from opentelemetry.util.re import parse_env_headers  # noqa: PLC0415 - see above

    variables = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name" in variables
    resource = Resource.create({} if named else {"service.name": SERVICE_NAME})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint, headers=parse_env_headers(headers, liberal=True) or None)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("streamer")

    def write(trace: Trace) -> None:
        # Convert monotonic times to Unix times, by the present difference between the two clocks.
        offset_ns = time.time_ns() - time.monotonic_ns()

        def at(monotonic_s: float) -> int:
            return offset_ns + int(monotonic_s * 1e9)

        context = None if trace.parent is None else _context_of(trace.parent)
        root = tracer.start_span(
            _text(trace.name),
            context=context,
            kind=api.SpanKind.SERVER,
            attributes={
                name: _text(value) if isinstance(value, str) else value
                for name, value in trace.attributes.items()
            },
            start_time=at(trace.begun),
        )
        if root.is_recording():
            inside = api.set_span_in_context(root)
            for name, begun, ended, attributes in trace.stages:
                stage = tracer.start_span(name, context=inside, attributes=attributes, start_time=at(begun))
                stage.end(at(ended))
            if trace.error:
                root.set_status(api.Status(api.StatusCode.ERROR, trace.error))
        root.end(at(trace.ended))

    return Traces(write, provider.shutdown)


def _text(sent: str) -> str:
    """Return a text, which a client may have sent, in a form that a span can contain.

    Header bytes that are not UTF-8 would make the exporter drop all spans of a batch.
    """
    return sent[:_MAX_TEXT_CHARS].encode(errors="replace").decode()


def _context_of(parent: TraceContext) -> Any:
    """Return the client's trace context as an object of the SDK."""
    from opentelemetry import trace as api  # noqa: PLC0415 - see above

    state = api.TraceState.from_header([parent.state]) if parent.state else None
    span = api.SpanContext(
        int(parent.trace_id, 16),
        int(parent.parent_id, 16),
        is_remote=True,
        trace_flags=api.TraceFlags(parent.flags),
        trace_state=state,
    )
    return api.set_span_in_context(api.NonRecordingSpan(span))
