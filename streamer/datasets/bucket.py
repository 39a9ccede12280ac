"""Samples in a bucket, read with a key that may list and get; the service itself needs neither."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any

from streamer.datasets.errors import BadRequest, CannotRead
from streamer.sampling.s3 import Bucket, open_client
from streamer.sampling.s3_errors import meaning_of

SCHEME = "s3://"


def parse_bucket(address: str, defaults: Bucket) -> Bucket:
    """Return the bucket of ``s3://NAME/PREFIX``; all else is as in ``defaults``. Raises BadRequest."""
    name, _, prefix = address.removeprefix(SCHEME).partition("/")
    if not name:
        raise BadRequest(f"--in is {address!r}; it is a folder, or s3://BUCKET/PREFIX")
    return dataclasses.replace(defaults, name=name, prefix=prefix.strip("/"))


class BucketSource:
    """A context manager; reads one object at a time, on an event loop of its own."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        #: None until entered.
        self._client: Any = None

    def __enter__(self) -> BucketSource:
        self._client = self._run(self._stack.enter_async_context(open_client(self._bucket)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def keys(self, prefix: str) -> Iterator[str]:
        """Return the keys that begin with ``prefix``, in order. Raises CannotRead."""
        whole, start = self._bucket.key(prefix), len(self._bucket.key(""))
        token: dict[str, str] = {}
        while True:
            page = self._run(self._client.list_objects_v2(Bucket=self._bucket.name, Prefix=whole, **token))
            for entry in page.get("Contents", ()):
                yield entry["Key"][start:]
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, key: str) -> bytes:
        """Return one object. Raises CannotRead, FileNotFoundError when there is none."""

        async def get() -> bytes:
            answer = await self._client.get_object(Bucket=self._bucket.name, Key=self._bucket.key(key))
            async with answer["Body"] as body:
                data: bytes = await body.read()
            return data

        result: bytes = self._run(get())
        return result

    def _run(self, work: Any) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(self._bucket.timeout_s):
                return await work

        try:
            return self._runner.run(bounded())
        except Exception as error:
            response = getattr(error, "response", None) or {}
            if response.get("Error", {}).get("Code") == "NoSuchKey":
                raise FileNotFoundError(str(error)) from error
            raise CannotRead(f"{SCHEME}{self._bucket.name}: {meaning_of(error)}") from error
