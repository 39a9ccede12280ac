"""Handles ``POST /v1/predict``, on whose images the dispatcher detects objects."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from typing import Protocol

from aiohttp import hdrs, web

from inference.core.detection_params import DetectionParams
from inference.core.detections import Boxes
from inference.core.errors import InferenceError, InferenceFailed
from inference.models.model import ModelInfo
from streamer.accounting.tracing import Trace, Traces, Value, sending_ends
from streamer.decoding.code_reader import CodeReader
from streamer.http.body import BUDGET
from streamer.http.caller import identity_of
from streamer.http.paced_response import large_answer
from streamer.http.problem_details import Problem, request_id
from streamer.http.trace_context import current_trace_context
from streamer.http.version_split import version_of
from streamer.imaging.image_header import ImageError, Limits
from streamer.predict.parameters import read_collect, read_parameters
from streamer.predict.refusals import problem_of, problem_of_image, raise_if_all_ours
from streamer.predict.request_body import LIMITS, Upload, expect_continue, read_upload
from streamer.predict.responses import (
    AnswerForm,
    FailedImage,
    PredictionDocument,
    choose_form,
    describe_prediction,
    encode_answer,
    encode_results,
)
from streamer.sampling.sampler import Observation, PostSampler, Sampler, boxes_above, with_low_threshold
from streamer.sampling.shadow import ShadowRuns
from streamer.scheduling.admission import Admission
from streamer.scheduling.clients import Caller, Client, Clients
from streamer.scheduling.decode_cost import Kind
from streamer.scheduling.errors import SchedulingError
from streamer.scheduling.job import Prediction

log = logging.getLogger("streamer.images")

#: Status under which requests of disconnected clients are counted; it is never sent.
_CLIENT_GONE = 499


class Predictor(Protocol):
    """Runs images through a model."""

    clients: Clients
    admission: Admission
    #: None if the service reads no codes.
    codes: CodeReader | None

    def model(self, version: str) -> ModelInfo:
        """Return the model of a version. Raises UnknownVersion, or Unavailable while it loads."""

    def check_post(
        self, version: str, caller: Caller, *, left_s: float, nbytes: int | None, kind: Kind | None = None
    ) -> None:
        """Raise OverLimit or Saturated if an image that arrived now would be refused."""

    async def predict(
        self,
        version: str,
        data: bytes | memoryview,
        params: DetectionParams,
        deadline: float,
        caller: Caller,
        kind: Kind | None = None,
    ) -> Prediction:
        """Detect objects on one image by ``deadline`` (monotonic seconds). ``kind`` is its kind if known.

        Raises SchedulingError, ImageError (not an image, too large, damaged) or InferenceError.
        """

    async def annotate(self, data: bytes | memoryview, found: Prediction, labels: tuple[str, ...]) -> bytes:
        """Return the image with the boxes that were found on it, and the texts of codes, drawn, as JPEG.

        Raises Unavailable or ImageError.
        """

    async def read_codes(
        self, version: str, data: bytes | memoryview, found: Prediction, client: Client, deadline: float
    ) -> None:
        """Add what codes contain to ``found``, as far as the time allows."""


class RequestMetrics(Protocol):
    """Counts finished requests."""

    #: Collects the traces of requests; None if traces are not exported.
    traces: Traces | None

    def observe(self, version: str, status: int, seconds: float) -> None:
        """Count a request. ``version`` is what the client sent; ``seconds`` run from headers to answer."""

    def count_boxes(self, version: str, labels: tuple[str, ...], boxes: Boxes) -> None:
        """Count the boxes of one image as its client gets them."""


PREDICTOR = web.AppKey("predictor", Predictor)
SAMPLER = web.AppKey("sampler", PostSampler)
#: Runs images on another version, too.
SHADOW = web.AppKey("shadow", ShadowRuns)
METRICS = web.AppKey("request_metrics", RequestMetrics)


def add_routes(app: web.Application) -> None:
    """Add the predict routes; the app must hold PREDICTOR, SAMPLER, METRICS and LIMITS before it starts."""
    for path in ("/predict", "/{version:v[0-9]+}/predict"):
        app.router.add_post(path, predict, expect_handler=expect_continue)


async def predict(request: web.Request) -> web.Response:
    """Answer one predict request, and count it whatever its outcome."""
    begun = time.monotonic()
    version = version_of(request)
    status = 500
    counters = request.app[METRICS]
    traces = counters.traces
    trace = None if traces is None else _trace_of(request, version, begun)
    try:
        response = await _answer(request, version, trace)
        status = response.status
    except Problem as problem:
        status = problem.status
        raise
    except SchedulingError as refusal:
        told = problem_of(refusal)
        status = told.status
        raise told from refusal
    except asyncio.CancelledError:
        status = _CLIENT_GONE
        raise
    finally:
        counters.observe(version, status, time.monotonic() - begun)
        if traces is not None and trace is not None and status != 200:
            trace.attributes["http.response.status_code"] = status
            traces.put(trace, time.monotonic(), f"answered with {status}")
    return response


def _trace_of(request: web.Request, version: str, begun: float) -> Trace:
    """Return the trace of a request; it continues the client's trace if the client sent its context."""
    attributes: dict[str, Value] = {
        "http.request.method": request.method,
        "http.route": request.path,
        "detect.version": version,
        "detect.request_id": request_id(request),
    }
    return Trace(f"POST {request.path}", begun, current_trace_context(), attributes)


async def _answer(request: web.Request, version: str, trace: Trace | None) -> web.Response:
    app = request.app
    predictor, limits = app[PREDICTOR], app[LIMITS]
    model = predictor.model(version)
    form = choose_form(request.headers.get(hdrs.ACCEPT, ""))
    query = tuple(request.query.items()) if request.query_string else ()
    # Report errors in the query before megabytes of body are read.
    params = read_parameters(query, model.labels, model.default_params)
    collect = read_collect(query)
    identity = identity_of(request)
    client = predictor.clients.of(identity, time.monotonic())
    caller = Caller(client, id(request.protocol))
    left_s, nbytes = limits.request_timeout_s, request.content_length
    try:
        predictor.admission.charge_request(client, nbytes)
        predictor.check_post(version, caller, left_s=left_s, nbytes=nbytes)
    except SchedulingError as refusal:
        predictor.admission.count_refused(version, refusal)
        raise
    with app[BUDGET].hold(identity.name, "body") as holding:
        upload = await read_upload(request, limits, holding)
        if trace is not None:
            trace.received = time.monotonic()
            trace.add("receive", trace.begun, trace.received, bytes=sum(map(len, upload.images)))
        kind = client.hint.of(upload.images[0])
        try:  # the queue may have filled up while the body arrived
            predictor.check_post(version, caller, left_s=left_s, nbytes=len(upload.images[0]), kind=kind)
        except SchedulingError as refusal:
            predictor.admission.count_refused(version, refusal)
            raise
        uncharged = upload.fetched_bytes if nbytes is not None else sum(map(len, upload.images))
        if uncharged and client.image_bytes is not None:
            client.image_bytes.spend(time.monotonic(), uncharged)
        if len(upload.images) > 1:
            caller = dataclasses.replace(caller, may_wait_long=True)
        if upload.fields:
            both = (*query, *upload.fields)
            params = read_parameters(both, model.labels, model.default_params)
            collect = read_collect(both)
        if form is AnswerForm.JPEG and len(upload.images) > 1:
            raise Problem.not_acceptable(
                f"Accept is image/jpeg, which can show one image, and {len(upload.images)} were sent; "
                "ask for application/json."
            )
        sampler = app[SAMPLER].sampler_of(version, model) if collect else None
        job = _Job(predictor, limits, version, model, params, request_id(request), sampler, caller)
        job.trace, job.metrics, job.shadow = trace, app[METRICS], app.get(SHADOW)
        if form is AnswerForm.JPEG:
            body = await job.annotate(upload.images[0], kind)
        else:
            body = await job.describe(upload, kind, form)
    traces = app[METRICS].traces
    on_sent = None if traces is None or trace is None else sending_ends(traces, trace)
    return large_answer(request, body, form.value, on_sent=on_sent)


class _Job:
    """Runs the images of one request through the model and encodes the answer."""

    def __init__(
        self,
        predictor: Predictor,
        limits: Limits,
        version: str,
        model: ModelInfo,
        params: DetectionParams,
        identifier: str,
        sampler: Sampler | None,
        caller: Caller,
    ) -> None:
        self._caller = caller
        self._predictor = predictor
        self._limits = limits
        self._version = version
        self._model = model
        self._params = params
        self._id = identifier
        self._sampler = sampler
        #: None if traces are not exported.
        self.trace: Trace | None = None
        #: Counts boxes; None until set.
        self.metrics: RequestMetrics | None = None
        #: Runs images of v1 on v2, too; None until set.
        self.shadow: ShadowRuns | None = None
        self._begun = time.monotonic()
        self._deadline = self._begun + limits.request_timeout_s

    async def describe(self, upload: Upload, kind: Kind, form: AnswerForm) -> bytes:
        """Return the answer encoded as ``form``, with one entry for each image if there are several.

        ``kind`` applies to a single image. If one of several images fails, its entry contains the problem.
        Raises Problem if a single image fails, and if all of several fail through errors of the server.
        """
        if len(upload.images) == 1:
            return encode_answer(self._entry(await self._predict(upload.images[0], kind)), form)
        async with asyncio.TaskGroup() as group:
            # `_try` returns problems instead of raising them, because one must not cancel the other images.
            tasks = [group.create_task(self._try(upload, number)) for number in range(len(upload.images))]
        outcomes = [task.result() for task in tasks]
        raise_if_all_ours(outcomes)
        entries: list[bytes] = []
        for outcome in outcomes:
            entries.append(encode_answer(self._entry(outcome), form))
            # Encoding a thousand boxes takes milliseconds: let other tasks run in between.
            await asyncio.sleep(0)
        return encode_results(entries, self._id, form)

    async def annotate(self, data: bytes | memoryview, kind: Kind) -> bytes:
        """Return the image with its boxes drawn, as a JPEG; ``kind`` is the kind of the image."""
        found = await self._predict(data, kind)
        try:
            return await self._predictor.annotate(data, found, (found.model or self._model).labels)
        except ImageError as error:
            raise problem_of_image(error) from error

    def _entry(self, outcome: Prediction | Problem) -> PredictionDocument | FailedImage:
        if isinstance(outcome, Problem):
            return {"error": outcome.members(self._id), "request_id": self._id}
        total_ms = (time.monotonic() - self._begun) * 1e3
        # The version may have got another model since the request came.
        model = outcome.model or self._model
        return describe_prediction(outcome, self._version, model, total_ms, self._id)

    async def _try(self, upload: Upload, number: int) -> Prediction | Problem:
        if number in upload.failed:
            return upload.failed[number]
        try:
            return await self._predict(upload.images[number])
        except Problem as problem:
            return problem
        except Exception:
            log.exception("request %s failed on one of its images", self._id)
            return Problem.internal()

    async def _read_codes(self, data: bytes | memoryview, found: Prediction) -> None:
        begun, client = time.monotonic(), self._caller.client
        await self._predictor.read_codes(self._version, data, found, client, self._deadline)
        if self.trace is not None and found.codes:
            self.trace.add("read", begun, time.monotonic())

    async def _predict(self, data: bytes | memoryview, kind: Kind | None = None) -> Prediction:
        """Detect objects on one image, and read the codes among them if the service does so.

        Raises every expected error as a Problem.
        """
        try:
            now = time.monotonic()
            if self._sampler is None or not self._sampler.wants(now):
                found = await self._predictor.predict(
                    self._version, data, self._params, self._deadline, self._caller, kind
                )
            else:
                found = await self._predict_candidate(self._sampler, data, now)
            if self.trace is not None:
                # Begin where the previous stage ended, so that the trace has no gap.
                self.trace.add_prediction(found, self.trace.received, time.monotonic(), bytes=len(data))
        except SchedulingError as refusal:
            raise problem_of(refusal) from refusal
        except ImageError as error:
            raise problem_of_image(error) from error
        except InferenceFailed as error:
            log.error("request %s: the model failed: %s", self._id, error)  # noqa: TRY400 - raised elsewhere
            raise Problem.internal("The model failed on this image.") from error
        except InferenceError as error:
            raise Problem.unavailable(
                "The inference process is not available at the moment; try again.", retry_after_s=2
            ) from error
        if self.metrics is not None:
            self.metrics.count_boxes(self._version, self._model.labels, found.boxes)
        if self._predictor.codes is not None:
            await self._read_codes(data, found)
        if self.shadow is not None:
            number = self._caller.client.number
            self.shadow.offer_post(self._version, number, data, now, self._params, found, self._sampler)
        return found

    async def _predict_candidate(
        self, sampler: Sampler, data: bytes | memoryview, arrived: float
    ) -> Prediction:
        """Detect with a low threshold, pass all boxes to the sampler, and return only the requested ones."""
        params, unix_s = self._params, time.time()
        found = await self._predictor.predict(
            self._version, data, with_low_threshold(params), self._deadline, self._caller
        )
        asked = dataclasses.replace(found, boxes=boxes_above(found.boxes, params.conf_threshold))
        if found.damaged or (found.model or self._model).sha256 != self._model.sha256:
            return asked  # a damaged image is not useful as a sample, and the sampler knows one model only
        observation = Observation(data, 0, 0, arrived, unix_s, found.width, found.height, params, asked.boxes)
        sampler.add(observation, found.boxes)
        return asked
