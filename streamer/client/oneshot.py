"""Detects objects in one image or many over HTTP, a few requests at a time, with or without asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import aiohttp

from streamer.client.address import Address, predict_address
from streamer.client.detections import Detections
from streamer.client.encoder import DEFAULT_QUALITY, Encoded, ImageInput, ImageLimits, encode
from streamer.client.errors import BadInput, ClientError, ConnectionFailed, PredictFailed
from streamer.client.http import client_version, connect_error_text, cookies, retry_after_s
from streamer.client.options import Params, Tls, check_share
from streamer.client.results import Prediction
from streamer.core.backoff import Backoff

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000/v1/predict"
#: Default limits of the service for an image of a POST, which may be larger than a frame of a stream.
_LIMITS = ImageLimits(bytes=8 << 20, pixels=33_554_432, side_px=8192)
#: Concurrent requests of one call: enough to fill a batch of the model, few enough to leave room for others.
CONCURRENCY = 4
#: Attempts for one image while the server answers that it is busy or restarting.
TRIES = 5
_BUSY = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Request:
    """Holds the options of a call, which apply to each of its images."""

    params: Params | None = None
    quality: int = DEFAULT_QUALITY
    #: Time limit of one attempt, including the time to connect.
    timeout_s: float = 30.0
    tries: int = TRIES
    tls: Tls = field(default_factory=Tls)


def predict(
    image: ImageInput,
    *,
    conf: float | None = None,
    classes: Sequence[str | int] | None = None,
    url: str = DEFAULT_URL,
    token: str | None = None,
    request: Request | None = None,
) -> Prediction:
    """Return the detections of one image: a BGR array, the bytes of an image file, or its path.

    ``conf`` is the lowest score of a box (0..1), and ``classes`` lists labels or class ids of the boxes to
    keep. ``request`` can set all parameters and options.

    Raises BadInput, PredictFailed (the server answered with an error) or ConnectionFailed.
    """
    return _run(predict_async(image, conf=conf, classes=classes, url=url, token=token, request=request))


async def predict_async(
    image: ImageInput,
    *,
    conf: float | None = None,
    classes: Sequence[str | int] | None = None,
    url: str = DEFAULT_URL,
    token: str | None = None,
    request: Request | None = None,
) -> Prediction:
    """Do the same as :func:`predict` in the running event loop."""
    address = predict_address(url, token)
    options = _with_parameters(request or Request(), conf, classes)
    async with _session(options) as session:
        return await _predict(session, address, image, options)


async def predict_many(
    images: Iterable[ImageInput],
    *,
    conf: float | None = None,
    classes: Sequence[str | int] | None = None,
    url: str = DEFAULT_URL,
    token: str | None = None,
    request: Request | None = None,
    concurrency: int = CONCURRENCY,
) -> AsyncIterator[tuple[int, Prediction | ClientError]]:
    """Yield (position, prediction or error) in the order of the answers.

    An error concerns only its own image. The next image is taken from ``images`` only while fewer than
    ``concurrency`` answers are outstanding. ``conf`` and ``classes`` are those of :func:`predict`.
    """
    address = predict_address(url, token)
    options = _with_parameters(request or Request(), conf, classes)
    async with _session(options) as session:

        async def one(position: int, image: ImageInput) -> tuple[int, Prediction | ClientError]:
            try:
                return position, await _predict(session, address, image, options)
            except ClientError as error:
                return position, error

        running: set[asyncio.Task[tuple[int, Prediction | ClientError]]] = set()
        try:
            for position, image in enumerate(images):
                running.add(asyncio.create_task(one(position, image)))
                if len(running) >= concurrency:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        yield task.result()
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


def _with_parameters(request: Request, conf: float | None, classes: Sequence[str | int] | None) -> Request:
    """Return ``request`` with ``conf`` and ``classes`` added. Raises BadInput if it already states one."""
    check_share("conf", conf)
    params = request.params or Params()
    for name, value, stated in (
        ("conf", conf, params.conf_threshold),
        ("classes", classes, params.classes),
    ):
        if value is not None and stated is not None:
            raise BadInput(f"{name} is {value!r}, and request.params states {stated!r}; give one of the two")
    return replace(request, params=params.merged(Params(conf_threshold=conf, classes=classes)))


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise ClientError("an event loop is running here: await predict_async() instead")


def _session(options: Request) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=options.timeout_s),
        connector=aiohttp.TCPConnector(ssl=options.tls.context()),
        cookie_jar=cookies(),
        headers={"User-Agent": f"streamer-client/{client_version()}"},
    )


async def _predict(
    session: aiohttp.ClientSession, address: Address, image: ImageInput, options: Request
) -> Prediction:
    encoded = await asyncio.to_thread(encode, image, _LIMITS, quality=options.quality)
    backoff = Backoff()
    for attempts_left in reversed(range(options.tries)):
        try:
            return await _post(session, address, image, encoded, options)
        except PredictFailed as error:
            if error.status not in _BUSY or not attempts_left:
                raise
            await asyncio.sleep(backoff.next_s(error.retry_after_s))
    raise ConnectionFailed(f"no attempt was made: tries is {options.tries}")


async def _post(
    session: aiohttp.ClientSession, address: Address, image: ImageInput, encoded: Encoded, options: Request
) -> Prediction:
    try:
        async with session.post(
            address.url,
            data=encoded.payload,
            params=(options.params or Params()).to_query(),
            headers={
                **address.headers,
                "Content-Type": f"image/{encoded.codec.name.lower()}",
                "Accept": "application/json",
            },
        ) as response:
            body = await response.json(content_type=None)
            if response.status != 200:
                raise _failed(response, body, address)
    except TimeoutError:
        raise ConnectionFailed(f"{address.shown} did not answer within {options.timeout_s:g} s") from None
    except aiohttp.InvalidURL as error:
        raise BadInput(f"address {address.shown!r} cannot be used: {address.clean(error)}") from None
    except aiohttp.ClientConnectorError as error:
        raise ConnectionFailed(f"cannot connect to {address.shown}: {connect_error_text(error)}") from None
    except (aiohttp.ClientError, OSError) as error:
        raise ConnectionFailed(f"cannot reach {address.shown}: {address.clean(error)}") from None
    except ValueError:
        raise PredictFailed(
            f"{address.shown} answered HTTP {response.status} with something that is not JSON",
            status=response.status,
        ) from None
    return _read(body, image, encoded, address)


def _failed(response: aiohttp.ClientResponse, body: object, address: Address) -> PredictFailed:
    """Return the error for a problem document (RFC 9457), or for the status alone if there is none."""
    problem = body if isinstance(body, Mapping) else {}
    return PredictFailed(
        address.clean(problem.get("detail") or response.reason or "refused"),
        status=response.status,
        code=str(problem.get("code", "")),
        request_id=str(problem.get("request_id", "")),
        retry_after_s=retry_after_s(response.headers),
    )


def _read(body: Any, sent: ImageInput, encoded: Encoded, address: Address) -> Prediction:
    try:
        facts = body["image"]
        width, height = encoded.size if encoded.size != (0, 0) else (facts["width"], facts["height"])
        return Prediction(
            detections=Detections.from_json(body["detections"]).scaled(*encoded.scale),
            width=int(width),
            height=int(height),
            model=dict(body["model"]),
            timings_ms=dict(body["timings_ms"]),
            request_id=str(body.get("request_id", "")),
            damaged=facts.get("damaged") is True,
            image=sent,
            reduced=int(facts.get("reduced", 1)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PredictFailed(
            f"{address.shown} gave an answer that is not a prediction: {error!r}", status=200
        ) from None
