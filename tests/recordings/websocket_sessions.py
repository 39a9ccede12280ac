"""Scripts of the recorded `detect.v1` sessions: valid ones in both encodings, and each kind of refusal."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

from tests.helpers.service import Service
from tests.helpers.wire_client import WireClient, frame_message
from tests.recordings.http_exchanges import Exchanges
from tests.recordings.requests import CUT_JPEG, GIF, HUGE_JPEG, IMAGE, NOISE, PNG, Request, key_text
from tests.recordings.websocket_log import WebsocketLog, frames, packed

_JSON, _MSGPACK = "detect.v1.json", "detect.v1.msgpack"
_TOKEN = {"token": key_text("stream")}
_ALL = {"streams": [{"id": 0, "codec": "jpeg", "mode": "all"}]}
_BAD_MESSAGES = (
    *("{", "[1, 2]", '"hello"', "\x00", '{"no": "type"}', '{"type": "teleport"}', '{"type": "hello"}'),
    *('{"type": "pause", "stream": 4}', '{"type": "resume", "stream": "0"}', '{"type": "ping", "t0": {}}'),
    *('{"type": "bye", "code": "now"}', '{"type": "frame", "seq": 1, "data": "%%%"}'),
    '{"type": "configure", "cfg": 1, "params": {"conf_threshold": NaN}}',
    '{"type": "configure", "cfg": 1, "params": {"conf_threshold": -0.5}}',
    '{"type": "configure", "cfg": 1, "params": {"conf_threshold": "high"}}',
    '{"type": "configure", "cfg": 1, "params": {"iou_threshold": 1e999}}',
    '{"type": "configure", "cfg": 1, "params": {"max_detections": 0}}',
    '{"type": "configure", "cfg": 1, "params": {"classes": ["unicorn"]}}',
    '{"type": "configure", "cfg": 18446744073709551616, "params": {}}',
)
_BAD_FRAMES = (
    b"\x01short",
    frame_message(0, b"x"),
    b"\x01\x09" + frame_message(1, b"x")[2:],
    frame_message(1, b"x", stream=9),
    frame_message(1, b"x", rotation=7),
)
_BAD_HELLOS: tuple[dict[str, Any], ...] = (
    {"streams": "x"},
    {"streams": [{"id": 0}, {"id": 0}]},
    {"streams": [{"id": 0, "codec": "gif"}]},
    {"streams": [{"id": 8}]},
    {"params": {"conf_threshold": 7}},
    {"params": {"classes": ["unicorn"]}},
    {"params": []},
)
Script = Callable[[WebsocketLog], Awaitable[None]]


async def _good(log: WebsocketLog) -> None:
    """Open one stream of each mode, and send every kind of message that a client may send."""
    streams = [
        {"id": 0, "codec": "jpeg", "mode": "live", "fps": 5, "name": "gate"},
        {"id": 3, "codec": "png", "mode": "all", "collect": False},
    ]
    client = {"name": "recording", "version": "1"}
    await log.hello(**_TOKEN, client=client, streams=streams, params={"conf_threshold": 0.5})
    await log.say({"type": "report", "stream": 0}, "error", "reported")
    await log.frame(1, IMAGE, ts=123456789, epoch=7)
    await log.frame(2, PNG.content, codec="png", rotation=1, epoch=7)
    await log.frame(1, PNG.content, codec="png", stream=3)
    await log.say({"type": "configure", "cfg": 3, "params": {"classes": [0], "track": True}}, "configured")
    await log.frame(3, IMAGE, flags=2)
    await log.say({"type": "configure", "cfg": 4, "params": {"max_detections": 1}}, "configured")
    await log.frame(4, IMAGE)
    await log.say({"type": "ping", "t0": 42}, "flow")
    await log.hear("flow")
    await log.say({"type": "report", "stream": 0, "note": "look"}, "error", "reported")
    await log.say({"type": "report", "stream": 3}, "error", "reported")
    await log.say({"type": "pause", "stream": 0})
    await log.frame(5, IMAGE, "drop")
    await log.say({"type": "resume", "stream": 0}, "flow")
    await log.frame(6, b"\xff\xd8nonsense", "drop")
    await log.frame(2, NOISE[: len(NOISE) // 2], "error", "drop", "result", stream=3)
    await log.frame(7, b"\x00\x00\x00\x01", "error", codec="h264")
    await log.frame(4, IMAGE, "error")
    await log.frame(1, IMAGE, "error", stream=5)
    await log.frame(8, IMAGE)
    await log.say({"type": "bye"})
    await log.closed()


async def _bad_messages(log: WebsocketLog) -> None:
    await log.hello(**_TOKEN)
    for message in (*_BAD_MESSAGES, *_BAD_FRAMES):
        await log.say(message, "error")
    await log.frame(1, IMAGE)


async def _bad_images(log: WebsocketLog) -> None:
    await log.hello(**_TOKEN)
    for seq, payload in enumerate((b"", GIF.content, HUGE_JPEG.content, CUT_JPEG.content), start=1):
        await log.frame(seq, payload, "drop", "error", "result")


async def _bad_messagepack(log: WebsocketLog) -> None:
    await log.hello(**_TOKEN)
    for message in (b"\xc1", b"\x93\x01\x02\x03", b"\x81\xa4type\x01", b"\x81\x91\x01\x02", _BAD_MESSAGES[0]):
        await log.say(message, "error")


async def _text_frame(log: WebsocketLog) -> None:
    data = base64.b64encode(IMAGE).decode()
    await log.hello(**_TOKEN)
    await log.say(
        packed({"type": "frame", "seq": 1, "ts": 9, "codec": "jpeg", "data": data}, _JSON), "result"
    )


async def _unknown_fields(log: WebsocketLog) -> None:
    await log.hello(**_TOKEN, params={"conf_treshold": 0.5}, colour="red")
    await log.hear("error")
    await log.hear("error")
    await log.say({"type": "configure", "cfg": 1, "params": {"treshold": 0.5}}, "error")


async def _mended_hello(log: WebsocketLog) -> None:
    await log.hello("error", **_TOKEN, **_BAD_HELLOS[0])
    await log.hello("error", **_TOKEN, params={"conf_threshold": 7})
    await log.hello(**_TOKEN)


async def _three_bad_hellos(log: WebsocketLog) -> None:
    for hello in _BAD_HELLOS[1:4]:
        await log.hello("error", **_TOKEN, **hello)
    await log.closed()


async def _three_others(log: WebsocketLog) -> None:
    for hello in _BAD_HELLOS[4:]:
        await log.hello("error", **_TOKEN, **hello)
    await log.closed()


def _first(message: str | bytes) -> Script:
    """Return the script of a session that the client's first message closes."""

    async def script(log: WebsocketLog) -> None:
        await log.say(message)
        await log.closed()

    return script


def _hello(**fields: Any) -> Script:
    return _first(packed({"type": "hello", **fields}, _JSON))


def _after_hello(message: str | bytes) -> Script:
    """Return the script of a session that the client's first message after the hello closes."""

    async def script(log: WebsocketLog) -> None:
        await log.hello(**_TOKEN)
        await log.say(message)
        await log.closed()

    return script


async def _too_many_messages(log: WebsocketLog) -> None:
    await log.hello(**_TOKEN)
    await log.flood(['{"type": "ping", "t0": 1}'] * 400, lambda message: message["type"] in ("pong", "error"))


async def _past_the_window(log: WebsocketLog) -> None:
    await log.hello(**_TOKEN, **_ALL)
    await log.flood(frames(60, NOISE), lambda message: message["type"] == "error")


async def _unknown_session(log: WebsocketLog) -> None:
    await log.hello(**_TOKEN, resume={"session": "0-aaaaaaaaaaaaaaaaaaaaaaaa", "acks": {"0": 3}})


SCRIPTS: dict[str, tuple[str, Script]] = {
    "good, JSON": (_JSON, _good),
    "good, msgpack": (_MSGPACK, _good),
    "no subprotocol": ("", _text_frame),
    "first known subprotocol": (f"detect.v9,{_MSGPACK}", _unknown_session),
    "text frame": (_JSON, _text_frame),
    "bad messages": (_JSON, _bad_messages),
    "bad images": (_JSON, _bad_images),
    "bad msgpack": (_MSGPACK, _bad_messagepack),
    "unknown fields": (_JSON, _unknown_fields),
    "hello mended": (_JSON, _mended_hello),
    "three bad hellos": (_JSON, _three_bad_hellos),
    "three other bad hellos": (_JSON, _three_others),
    "first: nonsense": (_JSON, _first("nonsense")),
    "first: a list": (_JSON, _first("[]")),
    "first: no hello": (_JSON, _first('{"type": "ping"}')),
    "first: a frame": (_JSON, _first(frame_message(1, b"x"))),
    "hello without a key": (_JSON, _hello()),
    "hello with a wrong key": (_JSON, _hello(token=key_text("wrong"))),
    "hello with a key for images": (_JSON, _hello(token=key_text("predict"))),
    "hello over quota": (_JSON, _hello(token=key_text("poor"))),
    "video in images": (_JSON, _hello(**_TOKEN, streams=[{"id": 0, "codec": "h264"}])),
    "message too large": (_JSON, _after_hello(bytes(2_200_000))),
    "control message too large": (_JSON, _after_hello('{"type": "ping", "t0": "' + "x" * 70_000 + '"}')),
    "too many messages": (_JSON, _too_many_messages),
    "past the window": (_JSON, _past_the_window),
}


#: Scripts that take seconds because one side waits; they run concurrently with everything else.
SLOW_SCRIPTS: dict[str, tuple[str, Script]] = {
    "silence": (_JSON, WebsocketLog.closed),
    "hello too long": (_JSON, _hello(**_TOKEN, client={"name": "x" * 5000})),
}


async def record_slow_sessions(service: Service) -> dict[str, Any]:
    """Run the slow scripts concurrently, and return the log of each by its name."""
    logs = await asyncio.gather(*(_run(service, *script) for script in SLOW_SCRIPTS.values()))
    return dict(zip(SLOW_SCRIPTS, logs, strict=True))


async def record_sessions(service: Service) -> dict[str, Any]:
    """Run the other scripts one after the other, and return the log of each by its name."""
    logs = {name: await _run(service, subprotocol, script) for name, (subprotocol, script) in SCRIPTS.items()}
    return logs | await _taken_over(service)


async def _run(service: Service, subprotocol: str, script: Script) -> list[dict[str, Any]]:
    async with WireClient(f"{service.ws_url}/v1/stream", subprotocol=subprotocol) as client:
        log = WebsocketLog(client)
        log.entries.append({"subprotocol": client.socket.subprotocol})
        await script(log)
        return log.entries


async def _taken_over(service: Service) -> dict[str, Any]:
    """Resume a session while its first connection is open, hand it over by POST, and return the logs."""
    url = f"{service.ws_url}/v1/stream"
    async with WireClient(url) as first, WireClient(url) as second:
        older, newer = WebsocketLog(first), WebsocketLog(second)
        welcome = await older.hello(**_TOKEN, params={"track": True})
        await older.frame(1, IMAGE)
        await newer.hello(**_TOKEN, resume={"session": welcome["session"], "acks": {"0": 1}})
        await older.closed()
        await newer.frame(2, IMAGE)
        request = Request("hand over", "POST", f"/v1/stream/{welcome['session']}", "stream")
        state = await asyncio.to_thread(Exchanges(service.port).exchange, request)
        await newer.closed()
    return {
        "taken over": older.entries,
        "resumed": newer.entries,
        "handed over": state | {"request": "POST /v1/stream/<session>"},
    }


async def record_shutdown(service: Service, stop: Callable[[], None]) -> list[dict[str, Any]]:
    """Return the log of a session during which ``stop`` ends the service."""

    async def script(log: WebsocketLog) -> None:
        await log.hello(**_TOKEN)
        stop()
        await log.closed()

    return await _run(service, _JSON, script)
