"""``streamer predict``: sends images over HTTP and prints a table or JSON lines."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamer.cli.arguments import (
    TOKEN_VARIABLE,
    add_parameter_arguments,
    add_server_arguments,
    read_parameters,
    read_token,
    secrets_in,
)
from streamer.client.errors import (
    BadInput,
    ClientError,
    ConnectionFailed,
    PredictFailed,
    SaveFailed,
    SourceFailed,
)
from streamer.client.results import Prediction
from streamer.client.sources import list_images
from streamer.core.signals import EXIT_INTERRUPTED
from streamer.core.terminal import Terminal

EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_SAVE = 5
DEFAULT_URL = "http://127.0.0.1:8000/v1/predict"
#: Smallest number of images for which a progress bar is shown.
_BAR_FROM = 5
_BAR_CHARS = 24
#: HTTP statuses that do not depend on the image.
_REFUSED = frozenset({401, 403, 404})

DESCRIPTION = (
    "Detect objects in images over HTTP. IMAGE is a file, a folder (images in natural order) or - for stdin."
)
EXAMPLES = f"""\
examples:
  streamer predict photo.jpg other.png
  streamer predict photos/ --conf 0.4 --classes person,dog --save boxes/
  streamer predict photo.jpg --json | jq .detections
  curl -s https://host/photo.jpg | streamer predict - --url http://host:8000/v2/predict

The token is read from {TOKEN_VARIABLE} when --token is not given; it is never shown.

exit codes: 0 all images were answered, {EXIT_SOME_FAILED} some failed, {EXIT_USAGE} wrong option or address,
or a package is missing, {EXIT_REFUSED} refused or cannot connect, {EXIT_SAVE} cannot write --save,
{EXIT_INTERRUPTED} Ctrl-C
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer predict`` and what runs it."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="file, folder, or - for standard input")
    add_server_arguments(parser, DEFAULT_URL)
    add_parameter_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON line per image")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write NAME-boxes.jpg for each image")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="concurrent requests (4)")
    parser.add_argument("--quiet", action="store_true", help="print only errors")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    terminal = Terminal(quiet=arguments.quiet, secrets=secrets_in(arguments, arguments.url))
    try:
        return asyncio.run(_predict(arguments, terminal))
    except (BadInput, SourceFailed) as error:
        return _fail(terminal, error, EXIT_USAGE)
    except SaveFailed as error:
        return _fail(terminal, error, EXIT_SAVE)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        terminal.close()


def _fail(terminal: Terminal, error: Exception, code: int) -> int:
    terminal.line(f"streamer predict: {error}", always=True)
    return code


def find_images(names: list[str]) -> list[str]:
    """Return the files that the arguments name, and those in folders.

    Raises SourceFailed for an empty folder.
    """
    found: list[str] = []
    for name in names:
        if name != "-" and Path(name).is_dir():
            found.extend(str(path) for path in list_images(Path(name)))
        else:
            found.append(name)
    return found


async def _predict(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from streamer.client.oneshot import Request, predict_many  # noqa: PLC0415 - loads aiohttp
    from streamer.client.options import Tls  # noqa: PLC0415 - see above

    if arguments.jobs < 1:
        raise BadInput(f"--jobs is {arguments.jobs}; allowed are 1 and more")
    if arguments.save is not None:
        import streamer.imaging.draw  # noqa: F401, PLC0415 - reports a missing package before sending
    names = find_images(arguments.images)
    report = _Report(arguments, terminal, names)
    request = Request(params=read_parameters(arguments), tls=Tls(arguments.ca_file, arguments.insecure))
    answers = predict_many(
        report.images(),
        url=arguments.url,
        token=read_token(arguments),
        request=request,
        concurrency=arguments.jobs,
    )
    async for position, answer in answers:
        await report.answered(position, answer)
    return report.exit_code()


@dataclass(slots=True)
class _Report:
    """Prints the answers in the order of the arguments, each as soon as all before it are printed."""

    arguments: argparse.Namespace
    terminal: Terminal
    names: list[str]
    failures: list[ClientError] = field(default_factory=list)
    _answers: dict[int, Prediction | ClientError] = field(default_factory=dict)
    #: Content of standard input, which is sent and also drawn on; None before it is read.
    _stdin: bytes | None = None
    _printed: int = 0
    _used_names: set[str] = field(default_factory=set)

    def images(self) -> Iterator[str | bytes]:
        """Yield the images to send."""
        for name in self.names:
            yield self._read(name)

    def _read(self, name: str) -> str | bytes:
        if name != "-":
            return name
        if self._stdin is None:
            self._stdin = sys.stdin.buffer.read()
        return self._stdin

    async def answered(self, position: int, answer: Prediction | ClientError) -> None:
        """Store an answer, and print all answers whose turn it is."""
        self._answers[position] = answer
        while self._printed in self._answers:
            await self._print_answer(self.names[self._printed], self._answers.pop(self._printed))
            self._printed += 1
        if len(self.names) >= _BAR_FROM:
            self.terminal.status(self._bar())

    def _bar(self) -> str:
        done, total = self._printed + len(self._answers), len(self.names)
        filled = _BAR_CHARS * done // total
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"[{'#' * filled}{'.' * (_BAR_CHARS - filled)}] {done}/{total}{failed}"

    async def _print_answer(self, name: str, answer: Prediction | ClientError) -> None:
        if isinstance(answer, ClientError):
            self.failures.append(answer)
            text = str(answer)
            self.terminal.line(text if text.startswith(f"{name}: ") else f"{name}: {text}", always=True)
            if self.arguments.json:
                self._print(json.dumps({"image": name, "error": _describe_error(answer)}, ensure_ascii=False))
            return
        if self.arguments.save is not None:
            await asyncio.to_thread(self._save, name, answer)
        if self.arguments.json:
            self._print(json.dumps(_describe(name, answer), ensure_ascii=False))
        elif not self.arguments.quiet:
            self._print(_table(name, answer))

    def _print(self, text: str) -> None:
        self.terminal.close()  # clears the progress bar
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def _save(self, name: str, answer: Prediction) -> None:
        from streamer.client.encoder import (  # noqa: PLC0415 - see _predict
            decode,
            encode_jpeg,
            read_bytes,
        )
        from streamer.imaging.draw import draw_on_copy  # noqa: PLC0415 - loads OpenCV

        target = self.arguments.save / self._free_name("stdin" if name == "-" else Path(name).stem)
        jpeg = encode_jpeg(draw_on_copy(decode(read_bytes(self._read(name))), answer.detections), 92)
        try:
            self.arguments.save.mkdir(parents=True, exist_ok=True)
            target.write_bytes(jpeg)
        except OSError as error:
            raise SaveFailed(f"--save {target}: {error.strerror or error}") from error

    def _free_name(self, stem: str) -> str:
        """Return an unused file name, because two folders may contain images of the same name."""
        candidate, count = f"{stem}-boxes.jpg", 1
        while candidate in self._used_names:
            count += 1
            candidate = f"{stem}-boxes-{count}.jpg"
        self._used_names.add(candidate)
        return candidate

    def exit_code(self) -> int:
        """Return the exit code for all images."""
        if not self.failures:
            return 0
        if len(self.failures) == len(self.names) and all(_is_refusal(error) for error in self.failures):
            return EXIT_REFUSED
        return EXIT_SOME_FAILED


def _is_refusal(error: ClientError) -> bool:
    return isinstance(error, ConnectionFailed) or (
        isinstance(error, PredictFailed) and error.status in _REFUSED
    )


def _describe(name: str, answer: Prediction) -> dict[str, Any]:
    from streamer.cli.journal import describe_detections  # noqa: PLC0415 - see _predict

    return {
        "image": name,
        "width": answer.width,
        "height": answer.height,
        "detections": describe_detections(answer.detections),
        "model": dict(answer.model),
        "timings_ms": dict(answer.timings_ms),
        "request_id": answer.request_id,
    }


def _describe_error(error: ClientError) -> dict[str, Any]:
    if isinstance(error, PredictFailed):
        return {
            "status": error.status,
            "code": error.code,
            "message": str(error),
            "request_id": error.request_id,
        }
    return {"message": str(error)}


def _table(name: str, answer: Prediction) -> str:
    count = len(answer.detections)
    timings = ", ".join(f"{stage} {value:.1f}" for stage, value in answer.timings_ms.items())
    lines = [
        f"{name}  {answer.width}x{answer.height}  {count} {'box' if count == 1 else 'boxes'}  ms: {timings}"
    ]
    width = max((len(detection.label) for detection in answer.detections), default=0)
    lines += [
        f"  {detection.label:<{width}}  {detection.score:.2f}  "
        + " ".join(f"{v:7.1f}" for v in detection.box)
        for detection in answer.detections
    ]
    return "\n".join(lines)
