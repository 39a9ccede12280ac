"""Finds the model file that a request names, below one folder. The supervisor imports this: without NumPy.

The right to change models is not the right to read other files, so names cannot lead out of the folder.
`model_check` looks into the file.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from streamer.versions.errors import ChangeRefused

#: Longest name of a file in a request, in characters.
MAX_NAME_CHARS = 1000
_SHA256 = re.compile(r"[0-9a-f]{64}")


def model_folders(configured: Mapping[str, Path], folder: Path | None) -> dict[str, Path]:
    """Return the folder below which the models of each version lie.

    It is ``folder`` (`MODELS_DIR`), or that of the model that the settings name for the version, or for v1.
    """
    first = next(iter(configured.values()))
    return {version: folder or configured.get(version, first).parent for version in ("v1", "v2")}


def find_model(folder: Path, name: str) -> Path:
    """Return the regular file ``name`` below ``folder``, without links. Raises ChangeRefused."""
    shown = repr(name[:200])
    if not name or len(name) > MAX_NAME_CHARS or "\0" in name:
        raise ChangeRefused(
            "invalid_path",
            f"field `path` is {shown}; it is the name of an ONNX file in the folder of the models, "
            f"of at most {MAX_NAME_CHARS} characters",
        )
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise _path_outside(shown)
    try:
        root = folder.resolve(strict=True)
        path = (root / name).resolve(strict=True)
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ChangeRefused(
            "no_such_file", f"field `path` is {shown}; the folder of the models has no such file"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a link that leads to itself
        reason = getattr(error, "strerror", None) or str(error)
        raise ChangeRefused(
            "unreadable_file", f"field `path` is {shown}; it cannot be read: {reason}"
        ) from error
    if not path.is_relative_to(root):
        raise _path_outside(shown)
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise ChangeRefused("not_a_file", f"field `path` is {shown}, which is {what}; name an ONNX file")
    return path


def digest_of(path: Path) -> str:
    """Return the sha256 of a file; empty if it cannot be read. Call this in a thread."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def check_digest(name: str, found: str, wanted: str | None) -> None:
    """Raise ChangeRefused if the file ``name`` has another sha256 than the request says, if it says one."""
    if wanted is None:
        return
    if _SHA256.fullmatch(wanted) is None:
        raise ChangeRefused(
            "invalid_digest",
            f"field `sha256` is {wanted[:80]!r}; it has 64 hexadecimal digits, in lower case",
        )
    if found != wanted:
        raise ChangeRefused(
            "wrong_digest",
            f"{name} has sha256 {found}, and the request says {wanted}: it is another file, or not complete",
        )


def _path_outside(shown: str) -> ChangeRefused:
    """Return the refusal of a name that leads out of the folder of the models."""
    return ChangeRefused(
        "path_outside",
        f"field `path` is {shown}; only files in the folder of the models (MODELS_DIR) may be loaded",
    )
