"""Downloads a model file from an S3 bucket, with the credentials and the endpoint of the sample store.

Each attempt gets a presigned address, so that `transfer` resumes and checks it like any other download.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy

from streamer.config.settings import SettingsError, load_settings
from streamer.model_zoo.download_url import BadRequest, Interrupted, PullFailed
from streamer.model_zoo.origin import FileRequest
from streamer.sampling.errors import StoreMisconfigured
from streamer.sampling.s3 import Bucket, meaning_of, open_client
from streamer.sampling.store import bucket_of

SCHEME = "s3://"
#: Lifetime of a presigned address, seconds. It must cover the start of one attempt, not the whole download.
_EXPIRES_S = 900
_FIELD = re.compile(r"<(Code|Message|Region|Endpoint|BucketName)>([^<]*)</\1>")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
#: Hints by S3 error code for what differs between reading and the writing of samples.
_HINTS: Mapping[str, str] = {
    "NoSuchKey": "the bucket has no object of this key",
    "NoSuchBucket": "there is no bucket of this name",
    "AccessDenied": "the access key needs s3:GetObject on this object; without s3:ListBucket an object that "
    "does not exist is denied too",
}


@dataclass(frozen=True, slots=True)
class _ErrorAnswer(Exception):
    """Carries an error answer in the form in which botocore has it."""

    response: Mapping[str, Any]


class S3Origin:
    """One object in a bucket."""

    uses_netrc = False

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket = bucket
        self._key = key
        self.identity = f"{SCHEME}{bucket.name}/{key}"

    @classmethod
    def of(cls, uri: str) -> S3Origin:
        """Return the object of ``s3://BUCKET/KEY``, at the endpoint in the settings. Raises BadRequest."""
        name, _, key = uri.removeprefix(SCHEME).partition("/")
        if not _BUCKET.fullmatch(name) or not key or key.endswith("/"):
            raise BadRequest(f"expected s3://BUCKET/KEY, such as s3://models/parcels.onnx; found {uri!r}")
        try:
            defaults = bucket_of(load_settings())
        except SettingsError as error:
            raise BadRequest(str(error)) from error
        return cls(
            Bucket(
                name,
                endpoint=defaults.endpoint,
                region=defaults.region,
                timeout_s=defaults.timeout_s,
                addressing=defaults.addressing,
            ),
            key,
        )

    async def request(self, session: aiohttp.ClientSession) -> FileRequest:
        """Return a presigned address. Raises PullFailed or Interrupted if there are no credentials."""
        try:
            async with open_client(self._bucket, signature_version="s3v4") as client:
                url: str = await client.generate_presigned_url(
                    "get_object", Params={"Bucket": self._bucket.name, "Key": self._key}, ExpiresIn=_EXPIRES_S
                )
        except Exception as error:
            meaning = meaning_of(error, self._bucket)
            if isinstance(meaning, StoreMisconfigured):
                raise PullFailed(f"{self.identity}: {meaning}") from error
            raise Interrupted(f"{self.identity}: {meaning}") from error
        return FileRequest(url)

    def rejection(self, status: int, headers: CIMultiDictProxy[str], body: str) -> Exception | str:
        """Return the error that the store states in its answer."""
        fields = dict(_FIELD.findall(body))
        code = fields.get("Code", "")
        if code in _HINTS:
            elsewhere = f" at {self._bucket.endpoint}" if self._bucket.endpoint else ""
            return PullFailed(f"{self.identity}{elsewhere}: {status} {code}: {_HINTS[code]}")
        answer = {
            "Error": fields,
            "ResponseMetadata": {
                "HTTPStatusCode": status,
                "HTTPHeaders": {name.lower(): value for name, value in headers.items()},
            },
        }
        return PullFailed(f"{self.identity}: {meaning_of(_ErrorAnswer(answer), self._bucket)}")
