"""Reads images from a JSON body, such as `{"image": …}` or `{"images": […]}`, and the parameters beside them.

It scans the body as it arrives. It decodes long strings from base64 piece by piece, without keeping their
text; it keeps everything else, which is about 100 KiB at most, and parses it at the end. This bounds the work
between two turns of the event loop, and the body takes hardly more memory than its images.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, NoReturn

from streamer.http.problem_details import Problem
from streamer.imaging.image_header import Limits
from streamer.imaging.other_formats import name_kind
from streamer.imaging.pixel_limits import ANY_ALLOWED
from streamer.imaging.png import SIGNATURE as PNG_SIGNATURE
from streamer.predict.base64_image import Base64Image, NotBase64
from streamer.predict.image_url import ImageUrl
from streamer.protocol.client_messages import MAX_CLASSES

#: Most bytes of everything but images: names, parameters, white space.
OVERHEAD_BYTES = 64 << 10
#: Strings of more bytes are decoded as images; shorter ones may also be names, parameters and URLs.
SHORT_BYTES = 2 << 10
#: Bytes of a body that are scanned between two turns of the event loop.
STEP_BYTES = 16 << 10
#: Most fields besides the images, as in a form.
_MAX_FIELDS = 64
#: Fields of one image, and of a list of images. A form takes files under the same names.
SINGLE_FIELDS, LIST_FIELDS = ("image", "file"), ("images", "files")
#: Describes the allowed values of these fields in error messages.
IMAGE_TEXT = f"base64 of a {ANY_ALLOWED} file, a data URL of one, or its http(s) URL"
#: Kinds of images by the media types that data URLs state; other types state no kind.
_KINDS = {
    **dict.fromkeys(("image/jpeg", "image/jpg", "image/pjpeg"), "JPEG"),
    **dict.fromkeys(("image/png", "image/x-png"), "PNG"),
    "image/webp": "WebP",
    **dict.fromkeys(("image/heic", "image/heif"), "HEIC"),
    "image/avif": "AVIF",
}


class JsonBody:
    """Scans one body. ``images`` and ``fields`` are filled by :meth:`finish`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left_bytes = limits.total_bytes
        #: Prefix of the text that replaces each decoded string in the text to parse; no client can guess it.
        self._token = secrets.token_hex(8)
        self._skeleton = bytearray()
        self._skeleton_limit = OVERHEAD_BYTES + limits.max_images * SHORT_BYTES
        #: The string that is arriving, and its decoder once it is longer than `SHORT_BYTES`. Both are None
        #: outside of strings.
        self._string: bytearray | None = None
        self._decoder: Base64Image | None = None
        #: Whether the string so far ends with a backslash that escapes the next character.
        self._escaped = False
        #: The decoder of each long string, or the error that explains why it is not base64.
        self._decoded: list[Base64Image | NotBase64] = []
        self._decoded_bytes = 0
        #: Encoded images and URLs of images, in order.
        self.images: list[bytes | memoryview | ImageUrl] = []
        #: Names and texts of all other fields.
        self.fields: list[tuple[str, str]] = []

    @property
    def held_bytes(self) -> int:
        """Number of bytes in memory: text that is not parsed yet, and decoded images."""
        arriving = self._decoder.size if self._decoder is not None else len(self._string or b"")
        return len(self._skeleton) + self._decoded_bytes + arriving

    def feed(self, piece: bytes) -> None:
        """Scan a piece of the body. Raises Problem 400 or 413."""
        position = 0
        while position < len(piece):
            if self._string is None:
                stop = piece.find(b'"', position)
                self._keep(piece[position : stop if stop >= 0 else len(piece)])
                if stop < 0:
                    return
                self._string, self._escaped, position = bytearray(), False, stop + 1
                continue
            stop = self._end_of_string(piece, position)
            self._take(piece[position : stop if stop >= 0 else len(piece)])
            if stop < 0:
                return
            self._close()
            position = stop + 1

    def _keep(self, text: bytes | bytearray) -> None:
        if not self._skeleton:
            text = text.lstrip(b"\xef\xbb\xbf \t\r\n")
            if text[:1] not in (b"", b"{"):
                raise _malformed(
                    f"it begins with {bytes(text[:20]).decode(errors='replace')!r}, not with `{{`"
                )
        self._skeleton += text
        if len(self._skeleton) > self._skeleton_limit:
            raise Problem.too_large(
                f"The JSON body has more than {self._skeleton_limit} bytes besides its images."
            )

    def _end_of_string(self, piece: bytes, position: int) -> int:
        """Return the index of the quote that ends the string; -1 if it does not end in this piece."""
        start = position
        while True:
            stop = piece.find(b'"', start)
            end = stop if stop >= 0 else len(piece)
            run = end - start - len(piece[start:end].rstrip(b"\\"))
            # If this part consists only of backslashes, they continue those at the end of the previous part.
            odd = (run + (self._escaped if run == end - start else 0)) % 2 == 1
            self._escaped = odd
            if stop < 0 or not odd:
                return stop
            if self._decoder is not None:  # it is not base64, and finding all its quotes would take long
                raise _malformed("a long string holds a quotation mark, and is no base64")
            start, self._escaped = stop + 1, False

    def _take(self, text: bytes) -> None:
        """Add text to the string that is arriving."""
        if self._string is None:
            raise RuntimeError("text of a string outside of strings")
        if self._decoder is None:
            self._string += text
            if len(self._string) <= SHORT_BYTES:
                return
            if len(self._decoded) >= self._limits.max_images:
                raise Problem.too_large(
                    f"The body has more than {self._limits.max_images} images, which is the limit."
                )
            self._decoder = Base64Image(min(self._limits.image_bytes, self._left_bytes))
            self._decoded.append(self._decoder)
            text = bytes(self._string)
        if isinstance(self._decoded[-1], NotBase64):
            return
        try:
            self._decoder.feed(text)
        except NotBase64 as fault:
            self._fail(text, fault)

    def _fail(self, text: bytes, fault: NotBase64) -> None:
        """Keep the error of a string until the name of its field is known."""
        if text[:4].lower() == b"http":
            fault = NotBase64(f"is a URL of more than {SHORT_BYTES} characters")
        self._decoded[-1] = fault

    def _close(self) -> None:
        """End the string, which has arrived completely."""
        if self._decoder is None:
            text = bytes(self._string or b"")
        else:
            text = f"{self._token}{len(self._decoded) - 1}".encode()
            self._left_bytes -= self._decoder.size
            self._decoded_bytes += self._decoder.size
        self._string = self._decoder = None
        self._keep(b'"' + text + b'"')

    def finish(self) -> None:
        """Parse the body, whose last byte has arrived. Raises Problem 400, 413 or 415."""
        members = self._parse()
        sent = {name: members.pop(name, None) for name in (*SINGLE_FIELDS, *LIST_FIELDS)}
        names = [name for name, value in sent.items() if value is not None]
        if len(names) > 1:
            raise Problem.bad_request(
                f"The body has both `{names[0]}` and `{names[1]}`; send one of them.",
                code="invalid_parameter",
                field=names[1],
            )
        for name in names:
            if name in LIST_FIELDS:
                self._read_list(name, sent[name])
            else:
                self.images.append(self._image(name, sent[name]))
        if len(members) > _MAX_FIELDS:
            raise Problem.too_large(f"The JSON body has more than {_MAX_FIELDS} fields.")
        for name, value in members.items():
            if name.startswith(self._token):
                raise _malformed(f"a name in it has more than {SHORT_BYTES} characters")
            texts = value[: MAX_CLASSES + 1] if isinstance(value, list) else (value,)
            if any(isinstance(text, str) and text.startswith(self._token) for text in texts):
                raise Problem.bad_request(
                    f"Field `{name[:100]}` has a text of more than {SHORT_BYTES} characters; images are "
                    f"taken from the fields {', '.join((*SINGLE_FIELDS, *LIST_FIELDS))}.",
                    code="invalid_parameter",
                    field=name[:100],
                )
            self.fields += _pairs(name, value)
        if not self.images:
            raise Problem.bad_request(
                f"The JSON body has no image: `image` is {IMAGE_TEXT}; `images` is a list of such texts.",
                code="no_image",
                field="image",
            )

    def _read_list(self, name: str, images: Any) -> None:
        if not isinstance(images, list):
            raise Problem.invalid_parameter(name, _named(images), "a list; one image is `image`")
        if len(images) > self._limits.max_images:
            raise Problem.too_large(
                f"Field `{name}` has {len(images)} images; allowed are {self._limits.max_images}."
            )
        self.images += [self._image(f"{name}[{index}]", value) for index, value in enumerate(images)]

    def _parse(self) -> dict[str, Any]:
        if not self._skeleton:
            raise Problem.bad_request("The request holds no image: its JSON body is empty.", code="no_image")
        if self._string is not None:
            raise _malformed("it ends within a string")
        try:
            # Not strict, because a string that a shell makes of `"$(base64 photo.jpg)"` contains line breaks.
            members = json.JSONDecoder(
                object_pairs_hook=_unique, parse_constant=_refuse_constant, strict=False
            ).decode(self._skeleton.decode())
        except (ValueError, RecursionError) as error:
            # The parsed text is shorter than the body, so its positions would mislead clients.
            raise _malformed(
                error.msg if isinstance(error, json.JSONDecodeError) else str(error)[:120]
            ) from error
        if not isinstance(members, dict):
            raise _malformed("it is no object")
        return members

    def _image(self, name: str, value: Any) -> bytes | memoryview | ImageUrl:
        """Return the image, or its URL. Raises Problem 400, 413 or 415; 400 and 415 name the field."""
        if not isinstance(value, str):
            raise Problem.invalid_parameter(name, _named(value), IMAGE_TEXT)
        if value[:8].lower().startswith(("http://", "https://")):
            return ImageUrl(name, value)
        try:
            decoder = self._decoder_of(value)
            data = decoder.take()
        except NotBase64 as fault:
            raise Problem.bad_request(
                f"Field `{name}` {fault}; allowed: {IMAGE_TEXT}.", code="invalid_parameter", field=name
            ) from None
        if not data:
            raise Problem.bad_request(f"Field `{name}` is empty.", code="no_image", field=name)
        _check_kind(name, decoder.media_type, bytes(data[:512]))
        return data

    def _decoder_of(self, value: str) -> Base64Image:
        number = value.removeprefix(self._token)
        if number != value:
            decoded = self._decoded[int(number)]
            if isinstance(decoded, NotBase64):
                raise decoded
            return decoded
        if not value.isascii():
            raise NotBase64("is no base64: it has characters beside ASCII")
        decoder = Base64Image(min(self._limits.image_bytes, self._left_bytes))
        decoder.feed(value.encode())
        self._left_bytes -= decoder.size
        return decoder


def _pairs(name: str, value: Any) -> list[tuple[str, str]]:
    """Return a parameter as names and texts, as in a query string; none for null. Raises Problem 400."""
    if value is None:
        return []
    if isinstance(value, bool | int | float | str):
        return [(name, _text(value))]
    if isinstance(value, list) and name == "classes":
        if len(value) > MAX_CLASSES:
            raise Problem.invalid_parameter(name, f"{len(value)} items", f"at most {MAX_CLASSES}")
        if not all(isinstance(item, str | int) and not isinstance(item, bool) for item in value):
            raise Problem.invalid_parameter(name, json.dumps(value)[:100], "a list of labels and class ids")
        return [(name, str(item)) for item in value]
    raise Problem.invalid_parameter(name[:100], _named(value), "a number or a text")


def _text(value: bool | float | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_kind(name: str, media_type: str, head: bytes) -> None:
    """Raise Problem 415 if a data URL states a type that is no image, or another kind than its data are."""
    if media_type and not media_type.startswith("image/") and media_type != "application/octet-stream":
        raise Problem.unsupported_media(f"Field `{name}` is a data URL of {media_type}; allowed is image/….")
    stated = _KINDS.get(media_type)
    found = _kind_of(head)
    if found == "HEIF" and stated in ("HEIC", "AVIF"):  # its first bytes do not say which
        return
    if stated is not None and found != stated:
        raise Problem.unsupported_media(
            f"Field `{name}` is a data URL of {media_type}, and its data are {found}; state what it is."
        )


def _kind_of(head: bytes) -> str:
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(PNG_SIGNATURE):
        return "PNG"
    return "WebP" if head.startswith(b"RIFF") and head[8:12] == b"WEBP" else name_kind(head)


def _named(value: object) -> str:
    """Return what kind of JSON value this is, for an error message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    for kind, name in ((dict, "an object"), (list, "a list"), (str, "a text")):
        if isinstance(value, kind):
            return name
    return "a number"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it has the name {name[:40]!r} twice in one object")
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no JSON")


def _malformed(reason: str) -> Problem:
    return Problem.bad_request(f"The body is not valid JSON: {reason}.", code="malformed_json")
