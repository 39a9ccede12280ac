"""The exception that checking and decoding images raise, with the reason why an image is refused."""

from __future__ import annotations

from enum import StrEnum

ALLOWED = "JPEG, PNG and WebP"


class ImageErrorCode(StrEnum):
    """Reasons why an image is refused."""

    EMPTY = "empty"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    DAMAGED = "damaged"


class ImageError(Exception):
    """An image is refused; the text says what was found and what is allowed."""

    def __init__(self, code: ImageErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def damaged(what: str) -> ImageError:
    """Return the error for a file that breaks the rules of its format."""
    return ImageError(ImageErrorCode.DAMAGED, f"the image is damaged: {what}")


def unsupported(what: str) -> ImageError:
    """Return the error for a file in an unsupported format."""
    return ImageError(ImageErrorCode.UNSUPPORTED, f"found {what}; allowed are {ALLOWED}")


def too_large(what: str) -> ImageError:
    """Return the error for an image that exceeds a limit; ``what`` names the limit."""
    return ImageError(ImageErrorCode.TOO_LARGE, what)
