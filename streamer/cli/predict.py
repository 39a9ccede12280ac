"""Implements ``streamer predict``: sends images over HTTP and prints a table or JSON lines."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamer.cli.command import (
    CONNECTION,
    TOKEN_VARIABLE,
    AgnosticNms,
    CaFile,
    Classes,
    Command,
    Conf,
    Insecure,
    Iou,
    MaxDetections,
    Token,
    any_whole_number,
    epilog,
    option,
    read_parameters,
    read_token,
    terminal_of,
)
from streamer.cli.exit_codes import EXIT_USAGE
from streamer.client.errors import BadInput, ClientError, ConnectionFailed, PredictFailed, SaveFailed
from streamer.client.results import Prediction
from streamer.client.sources import list_images
from streamer.core.signals import EXIT_INTERRUPTED
from streamer.core.terminal import Table, Terminal, is_terminal, write_tables
from streamer.imaging.palette import score_text

if TYPE_CHECKING:
    from streamer.client.oneshot import Request

EXIT_SOME_FAILED = 1
EXIT_REFUSED = 3
DEFAULT_URL = "http://127.0.0.1:8000/v1/predict"
#: Most characters of a code's text in the table; --json has all of it.
_MAX_TEXT_CHARS = 60
#: Smallest number of images for which a progress bar is shown.
_BAR_FROM = 5
_NUMBERS = ("SCORE", "X1", "Y1", "X2", "Y2")
#: HTTP statuses with which the service refuses every image alike.
_REFUSED = frozenset({401, 403, 404})

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class _Output:
    """Options that say where and how the answers are written."""

    json: bool
    #: Folder for images with boxes.
    save: Path | None
    quiet: bool


@app.command(
    cls=Command,
    epilog=epilog(
        """
        streamer predict photo.jpg other.png
        streamer predict photos/ --conf 0.4 --classes person,dog --save boxes/
        streamer predict photo.jpg --json | jq .detections
        curl -s https://host/a.jpg | streamer predict - --url http://host/v2/predict
        """,
        notes=f"The token is read from {TOKEN_VARIABLE} when --token is not given; it is never shown.",
        exit_codes={
            0: "all images were answered",
            EXIT_SOME_FAILED: "some failed",
            EXIT_USAGE: "wrong option or address, or a package is missing",
            EXIT_REFUSED: "refused or cannot connect",
            5: "cannot write --save",
            EXIT_INTERRUPTED: "Ctrl-C",
        },
    ),
)
def predict(
    ctx: typer.Context,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="file, folder, or - for standard input")
    ],
    json: Annotated[bool, option("--json", "print one JSON line per image")] = False,
    save: Annotated[
        Path | None,
        option("--save", "write NAME-boxes.jpg for each image", value="DIR", parser=Path),
    ] = None,
    jobs: Annotated[int, option("--jobs", "concurrent requests (4)", value="N", parser=any_whole_number)] = 4,
    quiet: Annotated[bool, option("--quiet", "print only errors")] = False,
    conf: Conf = None,
    iou: Iou = None,
    classes: Classes = None,
    max_detections: MaxDetections = None,
    agnostic_nms: AgnosticNms = None,
    url: Annotated[
        str,
        option("--url", f"address of the service ({DEFAULT_URL})", value="URL", group=CONNECTION),
    ] = DEFAULT_URL,
    token: Token = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
) -> int:
    """Detect objects in images over HTTP.

    IMAGE is a file, a folder (images in natural order) or - for stdin.
    """
    from streamer.client.oneshot import Request  # noqa: PLC0415 - loads aiohttp
    from streamer.client.options import Tls  # noqa: PLC0415 - see above

    if jobs < 1:
        raise BadInput(f"--jobs is {jobs}; allowed are 1 and more")
    if save is not None:
        import streamer.imaging.draw  # noqa: F401, PLC0415 - reports a missing package before sending
    report = _Report(_Output(json, save, quiet), terminal_of(ctx), find_images(images))
    params = read_parameters(conf, iou, classes, max_detections, agnostic_nms=agnostic_nms)
    request = Request(params=params, tls=Tls(ca_file, insecure))
    return asyncio.run(_predict(report, url, read_token(token), request, jobs))


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


async def _predict(report: _Report, url: str, token: str | None, request: Request, jobs: int) -> int:
    from streamer.client.oneshot import predict_many  # noqa: PLC0415 - see predict

    async for position, answer in predict_many(
        report.images(), url=url, token=token, request=request, concurrency=jobs
    ):
        await report.answered(position, answer)
    return report.exit_code()


@dataclass(slots=True)
class _Report:
    """Prints the answers in the order of the arguments, each as soon as all before it are printed."""

    output: _Output
    terminal: Terminal
    names: list[str]
    failures: list[ClientError] = field(default_factory=list)
    _answers: dict[int, Prediction | ClientError] = field(default_factory=dict)
    #: Content of standard input, kept because boxes are drawn on it later; None until it is read.
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
        """Store an answer, and print the stored answers up to the first one that is still missing."""
        self._answers[position] = answer
        while self._printed in self._answers:
            await self._print_answer(self.names[self._printed], self._answers.pop(self._printed))
            self._printed += 1
        if len(self.names) >= _BAR_FROM:
            done, total = self._printed + len(self._answers), len(self.names)
            failed = f", {len(self.failures)} failed" if self.failures else ""
            self.terminal.status(f"{done}/{total}{failed}", done / total)

    async def _print_answer(self, name: str, answer: Prediction | ClientError) -> None:
        if isinstance(answer, ClientError):
            self.failures.append(answer)
            text = str(answer)
            self.terminal.line(text if text.startswith(f"{name}: ") else f"{name}: {text}", always=True)
            if self.output.json:
                self._print(dumps({"image": name, "error": _describe_error(answer)}, ensure_ascii=False))
            return
        if self.output.save is not None:
            await asyncio.to_thread(self._save, self.output.save, name, answer)
        if self.output.json:
            self._print(dumps(_describe(name, answer), ensure_ascii=False))
        elif not self.output.quiet:
            self.terminal.close()  # clears the progress bar
            if self._printed and is_terminal(sys.stdout):
                sys.stdout.write("\n")
            write_tables(lambda: [_table(name, answer)], lambda: _text(name, answer))

    def _print(self, text: str) -> None:
        self.terminal.close()  # clears the progress bar
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def _save(self, folder: Path, name: str, answer: Prediction) -> None:
        from streamer.client.encoder import (  # noqa: PLC0415 - see _predict
            decode,
            encode_jpeg,
            read_bytes,
        )
        from streamer.imaging.draw import draw_on_copy  # noqa: PLC0415 - loads OpenCV

        target = folder / self._free_name("stdin" if name == "-" else Path(name).stem)
        jpeg = encode_jpeg(draw_on_copy(decode(read_bytes(self._read(name))), answer.detections), 92)
        try:
            folder.mkdir(parents=True, exist_ok=True)
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
    from streamer.cli.push_report import describe_detections  # noqa: PLC0415 - see _predict

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


def _title(name: str, answer: Prediction) -> str:
    count = len(answer.detections)
    timings = ", ".join(f"{stage} {value:.1f}" for stage, value in answer.timings_ms.items())
    return (
        f"{name}  {answer.width}x{answer.height}  {count} {'box' if count == 1 else 'boxes'}  ms: {timings}"
    )


def _text(name: str, answer: Prediction) -> str:
    width = max((len(detection.label) for detection in answer.detections), default=0)
    lines = [
        f"  {detection.label:<{width}}  {score_text(detection.score):>4}  "
        + " ".join(f"{v:7.1f}" for v in detection.box)
        + (f"  {_code_text(detection.text)}" if detection.text else "")
        for detection in answer.detections
    ]
    return "\n".join([_title(name, answer), *lines])


def _table(name: str, answer: Prediction) -> Table:
    header, rows = ("LABEL", *_NUMBERS), []
    has_texts = any(detection.text for detection in answer.detections)
    for detection in answer.detections:
        row = (detection.label, score_text(detection.score), *(f"{v:.1f}" for v in detection.box))
        rows.append((*row, _code_text(detection.text)) if has_texts else row)
    return Table(
        _title(name, answer), (*header, "TEXT") if has_texts else header, tuple(rows), frozenset(_NUMBERS)
    )


def _code_text(text: str | None) -> str:
    """Return the beginning of what a code contains, in one line that cannot steer a terminal."""
    shown = "".join(char if char.isprintable() else " " for char in text or "")
    return shown if len(shown) <= _MAX_TEXT_CHARS else shown[: _MAX_TEXT_CHARS - 1] + "…"
