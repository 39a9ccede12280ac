"""A collector on loopback that receives OpenTelemetry spans as OTLP over HTTP and keeps them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """Holds a received span; ids are hexadecimal, times are in nanoseconds since 1970."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    begun_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    #: Attributes of the process that sent it.
    resource: dict[str, Any]
    is_error: bool

    @property
    def seconds(self) -> float:
        """Duration of the span."""
        return (self.ended_ns - self.begun_ns) / 1e9


class Collector:
    """Keeps the spans received so far. While ``hangs`` is set, it drops new spans and does not answer."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        #: Header fields of the last request.
        self.headers: dict[str, str] = {}
        self.hangs = threading.Event()
        self.requests = 0
        self.url = ""

    def take(self, body: bytes) -> None:
        """Keep the spans of a request."""
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = {each.key: each.value.string_value for each in group.resource.attributes}
            for span in (span for scope in group.scope_spans for span in scope.spans):
                self.spans.append(
                    ReceivedSpan(
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        {each.key: _value_of(each.value) for each in span.attributes},
                        resource,
                        span.status.code == span.status.STATUS_CODE_ERROR,
                    )
                )

    def roots(self, name: str) -> list[ReceivedSpan]:
        """Return the spans whose name begins with ``name``, such as those of requests or frames."""
        return [span for span in self.spans if span.name.startswith(name)]

    def below(self, root: ReceivedSpan) -> list[ReceivedSpan]:
        """Return the children of a span, sorted by start time."""
        found = [span for span in self.spans if span.parent_id == root.span_id]
        return sorted(found, key=lambda span: (span.begun_ns, span.ended_ns))


def _value_of(value: AnyValue) -> Any:
    return getattr(value, str(value.WhichOneof("value")))


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector on a free port; yield it."""
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.requests += 1
            found.headers = dict(self.headers)
            if found.hangs.is_set():
                ended.wait()
                return
            found.take(body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: object) -> None:
            """Suppress the log of the base class."""

    ended = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield found
        finally:
            ended.set()
            server.shutdown()
