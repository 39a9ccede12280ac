"""One-shot detection over HTTP: one picture, or many with a few requests at a time. Asynchronous and not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp

from streamer.client.address import Address, predict_address
from streamer.client.encoder import Encoded, ImageLimits, Picture, encode
from streamer.client.errors import BadInput, ClientError, ConnectionFailed, PredictFailed
from streamer.client.http import client_version, connect_error_text, cookies, retry_after_s
from streamer.client.options import Tls
from streamer.client.params import Params
from streamer.client.pixels import DEFAULT_QUALITY
from streamer.client.results import Detections, Prediction
from streamer.core.backoff import Backoff

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000/v1/predict"
#: The service's own defaults; a POST may be larger than a stream's frame.
_LIMITS = ImageLimits(bytes=8 << 20, pixels=33_554_432, side_px=8192)
#: Requests of one call that are under way at once: enough to fill a batch, few enough to be polite.
CONCURRENCY = 4
#: Times a request is made when the server says that it is busy or restarting.
TRIES = 5
_BUSY = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Request:
    """How to ask; shared by all pictures of a call."""

    params: Params | None = None
    quality: int = DEFAULT_QUALITY
    #: For one try, connecting included.
    timeout_s: float = 30.0
    tries: int = TRIES
    tls: Tls = field(default_factory=Tls)


def predict(
    picture: Picture, *, url: str = DEFAULT_URL, token: str | None = None, request: Request | None = None
) -> Prediction:
    """Return the detections of one picture: BGR array, encoded bytes, or a path.

    Raises BadInput, PredictFailed (the server's answer) or ConnectionFailed.
    """
    return _run(predict_async(picture, url=url, token=token, request=request))


async def predict_async(
    picture: Picture, *, url: str = DEFAULT_URL, token: str | None = None, request: Request | None = None
) -> Prediction:
    """As :func:`predict`, awaited."""
    address = predict_address(url, token)
    asked = request or Request()
    async with _session(asked) as session:
        return await _predict(session, address, picture, asked)


async def predict_many(
    pictures: Iterable[Picture],
    *,
    url: str = DEFAULT_URL,
    token: str | None = None,
    request: Request | None = None,
    concurrency: int = CONCURRENCY,
) -> AsyncIterator[tuple[int, Prediction | ClientError]]:
    """Yield (position, prediction or error) as answers come in; an error ends only its own picture.

    Reads ``pictures`` no further ahead than ``concurrency``.
    """
    address = predict_address(url, token)
    asked = request or Request()
    async with _session(asked) as session:

        async def one(position: int, picture: Picture) -> tuple[int, Prediction | ClientError]:
            try:
                return position, await _predict(session, address, picture, asked)
            except ClientError as error:
                return position, error

        running: set[asyncio.Task[tuple[int, Prediction | ClientError]]] = set()
        try:
            for position, picture in enumerate(pictures):
                running.add(asyncio.create_task(one(position, picture)))
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


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise ClientError("an event loop is running here: await predict_async() instead")


def _session(asked: Request) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=asked.timeout_s),
        connector=aiohttp.TCPConnector(ssl=asked.tls.context()),
        cookie_jar=cookies(),
        headers={"User-Agent": f"streamer-client/{client_version()}"},
    )


async def _predict(
    session: aiohttp.ClientSession, address: Address, picture: Picture, asked: Request
) -> Prediction:
    encoded = await asyncio.to_thread(encode, picture, _LIMITS, quality=asked.quality)
    backoff = Backoff()
    for left in reversed(range(asked.tries)):
        try:
            return await _post(session, address, encoded, asked)
        except PredictFailed as error:
            if error.status not in _BUSY or not left:
                raise
            await asyncio.sleep(backoff.next_s(error.retry_after_s))
    raise ConnectionFailed(f"no try was made: tries is {asked.tries}")


async def _post(
    session: aiohttp.ClientSession, address: Address, encoded: Encoded, asked: Request
) -> Prediction:
    try:
        async with session.post(
            address.url,
            data=encoded.payload,
            params=(asked.params or Params()).to_query(),
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
        raise ConnectionFailed(f"{address.shown} did not answer within {asked.timeout_s:g} s") from None
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
    return _read(body, encoded, address)


def _failed(response: aiohttp.ClientResponse, body: object, address: Address) -> PredictFailed:
    """Make an error of a problem document (RFC 9457), or of whatever came instead."""
    problem = body if isinstance(body, Mapping) else {}
    return PredictFailed(
        address.clean(problem.get("detail") or response.reason or "refused"),
        status=response.status,
        code=str(problem.get("code", "")),
        request_id=str(problem.get("request_id", "")),
        retry_after_s=retry_after_s(response.headers),
    )


def _read(body: Any, encoded: Encoded, address: Address) -> Prediction:
    try:
        image = body["image"]
        width, height = encoded.size if encoded.size != (0, 0) else (image["width"], image["height"])
        return Prediction(
            detections=Detections.from_json(body["detections"]).scaled(*encoded.scale),
            width=int(width),
            height=int(height),
            model=dict(body["model"]),
            timings_ms=dict(body["timings_ms"]),
            request_id=str(body.get("request_id", "")),
            damaged=image.get("damaged") is True,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PredictFailed(
            f"{address.shown} gave an answer of another kind: {error!r}", status=200
        ) from None
