"""Tells others by MQTT or webhook what a camera shows: numbers of objects per class, when they change.

    python examples/forward.py SOURCE --to mqtt://broker/vision/front_door --classes person,car
    python examples/forward.py SOURCE --to http://homeassistant.local:8123/api/webhook/ID --classes person

SOURCE is what `streamer push` takes: a camera number, a file, `rtsp://…`. MQTT needs `pip install paho-mqtt`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import aiohttp

from streamer.client import ClientError, DetectStream, Options, Result, VideoSource


class Counts:
    """Counts the objects of each class: the maximum over the frames of the last ``hold_s`` seconds.

    So a number rises at once and falls late, and a box that is missing in one frame changes nothing.
    """

    def __init__(self, classes: Iterable[str], hold_s: float) -> None:
        self.current = dict.fromkeys(classes, 0)
        self._hold_s = hold_s
        #: Times and numbers of the frames within the last ``hold_s`` seconds, by class.
        self._seen: dict[str, list[tuple[float, int]]] = {name: [] for name in self.current}

    def update(self, labels: Iterable[str], now_s: float) -> dict[str, int]:
        """Count the labels of one frame; return the numbers that have changed."""
        found = Counter(labels)
        changed = {}
        for name, seen in self._seen.items():
            seen.append((now_s, found[name]))
            seen[:] = [(time_s, number) for time_s, number in seen if time_s > now_s - self._hold_s]
            most = max((number for _, number in seen), default=0)
            if most != self.current[name]:
                changed[name] = self.current[name] = most
        return changed


class Changes:
    """Keeps the numbers to deliver. If the receiver is slow, newer numbers replace waiting ones."""

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}
        self._filled = asyncio.Event()
        self._ended = False

    def add(self, changed: dict[str, int]) -> None:
        """Add numbers without waiting for the receiver."""
        if changed:
            self._waiting |= changed
            self._filled.set()

    def end(self) -> None:
        """Let `deliver` return once it has sent the waiting numbers."""
        self._ended = True
        self._filled.set()

    async def deliver(self, receiver: Receiver) -> None:
        """Send the numbers to the receiver until `end` is called."""
        while self._waiting or not self._ended:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                label = next(iter(self._waiting))
                await receiver.send(label, self._waiting.pop(label))


class Receiver(Protocol):
    """Delivers the numbers."""

    async def send(self, label: str, count: int) -> None:
        """Deliver one number."""

    async def close(self) -> None:
        """Disconnect."""


class Webhook:
    """POSTs ``{"camera": …, "label": …, "count": …}`` to an address."""

    def __init__(self, address: str, camera: str) -> None:
        self._address = address
        self._camera = camera
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))

    async def send(self, label: str, count: int) -> None:
        """POST one number; log a failure and do not try again."""
        body = {"camera": self._camera, "label": label, "count": count}
        try:
            async with self._session.post(self._address, json=body) as response:
                if response.status >= 400:
                    log(f"the webhook answered HTTP {response.status}")
        except (TimeoutError, aiohttp.ClientError) as error:
            log(f"the webhook cannot be reached: {error or type(error).__name__}")

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


class Mqtt:
    """Publishes ``PREFIX/LABEL`` with the number, and ``PREFIX/status`` with ``online`` or ``offline``.

    All messages are retained, so later subscribers receive the current state. With ``discover``, Home
    Assistant creates one sensor per class automatically.
    """

    def __init__(self, address: str, camera: str, classes: list[str], *, discover: bool) -> None:
        from paho.mqtt.client import Client  # noqa: PLC0415 - only for addresses that begin with mqtt
        from paho.mqtt.enums import CallbackAPIVersion  # noqa: PLC0415 - see above

        url = urlsplit(address)
        self._prefix = url.path.strip("/") or f"vision/{camera}"
        self._camera = camera
        self._classes = classes
        self._discover = discover
        self._counts = dict.fromkeys(classes, 0)
        self._client = Client(CallbackAPIVersion.VERSION2)
        if url.username:
            self._client.username_pw_set(unquote(url.username), unquote(url.password or ""))
        if url.scheme == "mqtts":
            self._client.tls_set()
        self._client.will_set(f"{self._prefix}/status", "offline", qos=1, retain=True)
        self._client.on_connect = self._connected
        self._client.connect_async(
            url.hostname or "127.0.0.1", url.port or (8883 if url.scheme == "mqtts" else 1883)
        )
        self._client.loop_start()

    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        """Publish everything, also on a reconnection, because the broker may have been restarted."""
        if reason.is_failure:
            log(f"the broker refuses: {reason}")
            return
        for label in self._classes:
            if self._discover:
                self._publish(*self._discovery(label))
            self._publish(f"{self._prefix}/{label}", str(self._counts[label]))
        self._publish(f"{self._prefix}/status", "online")

    def _discovery(self, label: str) -> tuple[str, str]:
        """Return topic and payload with which Home Assistant creates a sensor."""
        key = f"{self._camera}_{label}".replace(" ", "_")
        sensor = {
            "name": label,
            "unique_id": f"vision_{key}",
            "state_topic": f"{self._prefix}/{label}",
            "availability_topic": f"{self._prefix}/status",
            "state_class": "measurement",
            "device": {"identifiers": [f"vision_{self._camera}"], "name": self._camera},
        }
        return f"homeassistant/sensor/vision_{key}/config", json.dumps(sensor)

    def _publish(self, topic: str, payload: str) -> None:
        self._client.publish(topic, payload, qos=1, retain=True)

    async def send(self, label: str, count: int) -> None:
        """Publish one number; without a connection, `_connected` publishes it later."""
        self._counts[label] = count
        if self._client.is_connected():
            self._publish(f"{self._prefix}/{label}", str(count))

    async def close(self) -> None:
        """Publish that the numbers are no longer current, and disconnect."""
        if self._client.is_connected():
            told = self._client.publish(f"{self._prefix}/status", "offline", qos=1, retain=True)
            with contextlib.suppress(RuntimeError, ValueError):  # the connection was lost just now
                await asyncio.to_thread(told.wait_for_publish, 5)
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)


def log(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(text + "\n")


async def forward(options: argparse.Namespace) -> None:
    """Send frames until the source ends, and deliver the numbers that change."""
    classes = [name.strip() for name in options.classes.split(",") if name.strip()]
    counts, changes = Counts(classes, options.hold), Changes()
    receiver: Receiver
    if options.to.startswith(("mqtt://", "mqtts://")):
        receiver = Mqtt(options.to, options.camera, classes, discover=options.home_assistant)
    else:
        receiver = Webhook(options.to, options.camera)
    parameters = {"conf_threshold": options.conf, "classes": classes}
    # A camera runs for weeks, so the client tries to reconnect to the service without a time limit.
    settings = Options(stream=options.camera, give_up_after_s=None)
    token = os.environ.get("STREAMER_TOKEN")
    try:
        # In a thread, because a camera may take seconds to answer. One that is not there yet is waited for.
        source = await asyncio.to_thread(
            VideoSource, options.source, fps=options.fps, realtime=True, on_trouble=log
        )
        async with DetectStream(options.url, params=parameters, token=token, options=settings) as stream:

            async def read() -> None:
                async for outcome in stream:
                    if isinstance(outcome, Result):
                        changes.add(counts.update([found.label for found in outcome], time.monotonic()))
                changes.end()

            tasks = [asyncio.create_task(read()), asyncio.create_task(changes.deliver(receiver))]
            try:
                async for frame in source:
                    stream.offer(frame.image)
                await stream.finish()
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
    finally:
        await receiver.close()


def main() -> int:
    """Read the arguments, and forward until the source ends or the user presses Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument(
        "--to", required=True, help="mqtt://[user:password@]broker[:port]/prefix, or http(s)://…"
    )
    parser.add_argument("--classes", required=True, help="labels to count, separated by commas")
    parser.add_argument("--camera", default="camera", help="name of the camera (camera)")
    parser.add_argument("--url", default="ws://127.0.0.1:8000", help="the service (ws://127.0.0.1:8000)")
    parser.add_argument("--conf", type=float, default=0.5, help="lowest score (0.5)")
    parser.add_argument("--fps", type=float, default=5.0, help="frames per second (5)")
    parser.add_argument("--hold", type=float, default=5.0, help="seconds until a number falls (5)")
    parser.add_argument(
        "--home-assistant", action="store_true", help="announce the sensors by MQTT discovery"
    )
    try:
        asyncio.run(forward(parser.parse_args()))
    except KeyboardInterrupt:
        return 130
    except ClientError as error:
        log(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
