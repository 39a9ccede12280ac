"""Checks that a model file exists, is not another kind of file, and has the expected digest.

The service does this before onnxruntime reads the file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from inference.core.errors import ModelRefused
from inference.models.exporters import advice
from inference.models.manifest import Manifest, manifest_path

_ZIP = b"pk\x03\x04"
#: Files that people often have in place of a model, by their first bytes.
_OTHER_FORMATS = (
    (b"<!doctype html", "a web page", "Download the file itself, not the page that shows it."),
    (b"<html", "a web page", "Download the file itself, not the page that shows it."),
    (b"<?xml", "an XML document, perhaps an error of a file store", "Download the file again."),
    (
        b"version https://git-lfs",
        "a Git LFS pointer",
        "Run `git lfs pull` to get the file that it points to.",
    ),
    (
        _ZIP,
        "a zip archive, perhaps a PyTorch checkpoint",
        "Unpack it, or export the model if it is a checkpoint.",
    ),
)
_GET_AGAIN = "Copy or download the file again."


def check_file(path: Path, manifest: Manifest) -> str:
    """Return the sha256 of the model file.

    Raises ModelRefused when the file is missing, empty, obviously of another kind, or differs from the digest
    in the manifest.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
            _check_head(path, head)
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise ModelRefused(
            str(path), expected="an ONNX file", found="no such file", fix="Check the path and the mount."
        ) from error
    except OSError as error:
        raise ModelRefused(
            str(path),
            expected="a readable ONNX file",
            found=error.strerror or str(error),
            fix="Check what the path names and its permissions.",
        ) from error
    if manifest.sha256 is not None and digest != manifest.sha256:
        raise ModelRefused(
            str(path),
            expected=f"sha256 {manifest.sha256}, as {manifest_path(path).name} says",
            found=f"sha256 {digest}",
            fix=_GET_AGAIN + " Or correct `sha256` in the manifest if the new file is meant.",
        )
    return digest


def _check_head(path: Path, head: bytes) -> None:
    expected = "an ONNX file"
    if not head:
        raise ModelRefused(str(path), expected=expected, found="an empty file", fix=_GET_AGAIN)
    if not any(head):
        raise ModelRefused(
            str(path), expected=expected, found="zeros, as after an aborted copy", fix=_GET_AGAIN
        )
    for mark, what, fix in _OTHER_FORMATS:
        if head.lower().lstrip().startswith(mark):
            if mark == _ZIP:
                fix += f" {advice(str(path))}."
            raise ModelRefused(str(path), expected=expected, found=what, fix=fix)
