"""``streamer push``: its options and exit codes, and the outputs around a `Pusher`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer.cli.arguments import (
    TOKEN_VARIABLE,
    add_parameter_arguments,
    add_server_arguments,
    positive,
    read_parameters,
    read_token,
    seconds,
    secrets_in,
)
from streamer.client.errors import BadInput, ClientError, SaveFailed, SourceFailed
from streamer.core.signals import EXIT_INTERRUPTED, EXIT_TERMINATED, Signals
from streamer.core.terminal import Terminal

if TYPE_CHECKING:
    from streamer.client.capture import Source
    from streamer.client.frame_stream import FrameStream

EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_SOURCE = 4
EXIT_SAVE = 5
DEFAULT_URL = "ws://127.0.0.1:8000/v1/stream"
_STATUS_S = 0.2

DESCRIPTION = """\
Send a camera, video, image folder or network stream to the service and report the detections.

SOURCE is a camera number (0), a video file, an image, a folder of images (natural order), or an address:
rtsp://, http://, https:// and others that FFmpeg reads. A lost connection or source is reopened.
"""
EXAMPLES = f"""\
examples:
  streamer push sample --show                               the clip that comes with this project
  streamer push 0 --show                                    a camera, with a preview page on this machine
  streamer push video.mp4 --save boxes.mp4 --json out.jsonl
  streamer push video.mp4 --mode all --classes person --track
  streamer push 0 --transport webrtc --url http://host:8000 video over UDP, results on a data channel
  streamer push photos/ --url ws://host:8000/v2/stream      version v2 of the model
  streamer push rtsp://user:secret@camera/stream --fps 5 --url wss://host/v1/stream

modes: live (default) sends the newest frame whenever the server has room, and plays files in real time;
all (default for images) sends every frame, as fast as the server accepts them.
The token is read from {TOKEN_VARIABLE} when --token is not given; it is never shown.

exit codes: 0 done, {EXIT_USAGE} wrong option or address, or a package is missing,
{EXIT_REFUSED} refused or cannot connect,
{EXIT_SOURCE} source failed, {EXIT_SAVE} cannot write --save or --json, {EXIT_INTERRUPTED} Ctrl-C \
(files are complete and playable), {EXIT_TERMINATED} SIGTERM
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer push`` and what runs it."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", metavar="SOURCE", help="`sample`, camera number, file, folder or address")
    parser.add_argument("--mode", choices=("live", "all"), help="send the newest frame only, or every frame")
    parser.add_argument(
        "--transport",
        choices=("websocket", "webrtc"),
        default="websocket",
        help="single images (default), or a video, for lossy networks and mode live only",
    )
    add_server_arguments(parser, DEFAULT_URL)
    add_parameter_arguments(parser)
    parser.add_argument("--track", action="store_true", help="give boxes track ids")
    source = parser.add_argument_group("input")
    source.add_argument(
        "--stream",
        default="",
        metavar="NAME",
        help="name of the stream; the service stores samples under it",
    )
    source.add_argument(
        "--fps", type=positive, metavar="N", help="send at most N frames per second of source time"
    )
    source.add_argument(
        "--max-side",
        type=int,
        metavar="PX",
        help="reduce larger frames; boxes stay in original pixels",
    )
    source.add_argument("--quality", type=int, default=85, metavar="1..100", help="JPEG quality (85)")
    source.add_argument("--loop", action="store_true", help="repeat files")
    source.add_argument("--duration", type=positive, metavar="S", help="stop after S seconds of source time")
    source.add_argument("--max-frames", type=int, metavar="N", help="stop after N frames")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--save", type=Path, metavar="FILE", help="record a video with boxes, timed as captured (.mp4)"
    )
    output.add_argument(
        "--json", metavar="FILE", help="write one JSON line per sent frame, then a summary; - is stdout"
    )
    output.add_argument("--show", action="store_true", help="serve a preview page on this machine")
    output.add_argument("--quiet", action="store_true", help="print only errors")
    connection = parser.add_argument_group("connection")
    connection.add_argument(
        "--no-reconnect", action="store_true", help="end when connection or source is lost"
    )
    connection.add_argument(
        "--give-up-after", type=seconds, metavar="S", help="end after S seconds without a connection"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    terminal = Terminal(quiet=arguments.quiet, secrets=secrets_in(arguments, arguments.url, arguments.source))
    try:
        return asyncio.run(_push(arguments, terminal))
    except BadInput as error:
        return _fail(terminal, error, EXIT_USAGE)
    except SourceFailed as error:
        return _fail(terminal, error, EXIT_SOURCE)
    except SaveFailed as error:
        return _fail(terminal, error, EXIT_SAVE)
    except ClientError as error:
        return _fail(terminal, error, EXIT_REFUSED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        terminal.close()


def _fail(terminal: Terminal, error: Exception, code: int) -> int:
    terminal.line(f"streamer push: {error}", always=True)
    return code


async def _push(arguments: argparse.Namespace, terminal: Terminal) -> int:
    # aiohttp, PyAV, OpenCV and aiortc are loaded only after the arguments were checked.
    _check(arguments)
    with Signals() as signals:
        source = await _open_source(arguments, terminal)
        stream = _make_stream(arguments, terminal)
        if not await signals.unless_signalled(_connected(stream)):
            return signals.exit_code
        try:
            await _Run(arguments, terminal, source, stream, signals).run()
        finally:
            await stream.close()
    return signals.exit_code


def _make_stream(arguments: argparse.Namespace, terminal: Terminal) -> FrameStream:
    """Return the stream, not yet connected."""
    from streamer.client.sources import is_image_source  # noqa: PLC0415 - see _push
    from streamer.client.stream import DetectStream  # noqa: PLC0415 - see _push

    settings: dict[str, Any] = {
        "params": read_parameters(arguments, track=True if arguments.track else None),
        "token": read_token(arguments),
        "options": _options(arguments),
        "on_state": lambda state: _report(state, terminal),
    }
    if arguments.transport == "webrtc":
        from streamer.client.video_stream import VideoStream  # noqa: PLC0415 - loads aiortc

        return VideoStream(arguments.url, **settings)
    mode = arguments.mode or ("all" if is_image_source(arguments.source) else "live")
    return DetectStream(arguments.url, mode=mode, **settings)


def _options(arguments: argparse.Namespace) -> Any:
    from streamer.client.options import Options, Tls  # noqa: PLC0415 - see _push

    return Options(
        quality=arguments.quality,
        max_side=arguments.max_side,
        fps=arguments.fps,
        stream=arguments.stream,
        give_up_after_s=0.0 if arguments.no_reconnect else arguments.give_up_after,
        tls=Tls(arguments.ca_file, arguments.insecure),
    )


def _check(arguments: argparse.Namespace) -> None:
    """Raise BadInput for options that cannot work, before anything is opened."""
    if arguments.transport == "webrtc" and arguments.mode == "all":
        raise BadInput("--mode all needs --transport websocket, because a video may lose frames")
    if arguments.max_frames is not None and arguments.max_frames < 1:
        raise BadInput(f"--max-frames is {arguments.max_frames}; allowed are 1 and more")
    if arguments.save is not None:
        from streamer.cli.recorder import check_path  # noqa: PLC0415 - loads OpenCV

        check_path(arguments.save)
    if arguments.show:
        import streamer.cli.preview  # noqa: F401, PLC0415 - reports a missing package first
    for name, output in (("--save", arguments.save), ("--json", arguments.json)):
        if output is not None and _same_file(Path(output), Path(arguments.source)):
            raise BadInput(f"{name} {output} is the source itself")


def _same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


async def _open_source(arguments: argparse.Namespace, terminal: Terminal) -> Any:
    from streamer.client.sources import SourceOptions, open_source  # noqa: PLC0415 - see _push

    options = SourceOptions(
        fps=arguments.fps,
        loop=arguments.loop,
        reconnect=not arguments.no_reconnect,
        on_trouble=lambda text: terminal.line(text),
    )
    return await asyncio.to_thread(open_source, arguments.source, options)


async def _connected(stream: FrameStream) -> None:
    await stream.__aenter__()


def _report(state: Any, terminal: Terminal) -> None:
    """Print the state of the connection. The progress line shows it too, but only while frames are sent."""
    if state.phase == "waiting":
        terminal.line(f"{state.detail}; next try in {state.retry_s:.1f} s")
    elif state.phase == "connected":
        terminal.line(f"connected to {state.detail}" + (", session resumed" if state.resumed else ""))


class _Run:
    """One push with its outputs, which are opened before it and closed after it."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        terminal: Terminal,
        source: Source,
        stream: FrameStream,
        signals: Signals,
    ) -> None:
        from streamer.cli.pusher import Limits, Pusher  # noqa: PLC0415 - loads aiohttp

        self._arguments = arguments
        self._terminal = terminal
        self._stream = stream
        self._signals = signals
        self._pusher = Pusher(
            source,
            stream,
            limits=Limits(arguments.fps, arguments.duration, arguments.max_frames),
            # In mode all, files are read as fast as the server accepts frames.
            realtime=stream.mode == "live",
        )

    async def run(self) -> None:
        from streamer.cli.journal import Journal  # noqa: PLC0415 - see _push
        from streamer.cli.pusher import Sinks  # noqa: PLC0415 - see _push

        arguments, saved = self._arguments, ""
        async with contextlib.AsyncExitStack() as stack:
            journal = Journal(arguments.json) if arguments.json else None
            if journal is not None:
                stack.callback(journal.close)
            preview = await self._start_preview(stack) if arguments.show else None
            recorder: Any = None
            if arguments.save is not None:
                from streamer.cli.recorder import Recorder  # noqa: PLC0415 - loads PyAV

                recorder = Recorder(arguments.save)
            self._pusher.sinks = Sinks(recorder, journal, preview)
            try:
                await self._push()
            finally:
                if recorder is not None:
                    # In a thread: the encoder may have seconds of work left.
                    await asyncio.to_thread(recorder.close)
                    missed = f", {recorder.missed} missed" if recorder.missed else ""
                    saved = (
                        f"{recorder.path} ({recorder.duration_s:.1f} s, {recorder.written} frames{missed})"
                    )
                if journal is not None:
                    journal.summary(self._pusher.tally.captured, self._stream.ledger)
                self._print_summary(saved)

    def _print_summary(self, saved: str) -> None:
        from streamer.cli.progress import summary  # noqa: PLC0415 - see _push

        self._terminal.line(summary(self._pusher.tally, self._stream.ledger, saved))

    async def _start_preview(self, stack: contextlib.AsyncExitStack) -> Any:
        from streamer.cli.preview import Preview  # noqa: PLC0415 - loads aiohttp's server

        preview = Preview(self._status)
        await preview.start()
        stack.push_async_callback(preview.close)
        self._terminal.line(f"preview: {preview.url}", always=True)
        preview.open_browser()
        return preview

    def _status(self) -> str:
        from streamer.cli.progress import progress_line  # noqa: PLC0415 - see _push

        return progress_line(self._pusher.tally, self._stream.ledger, self._stream.state, time.monotonic())

    async def _push(self) -> None:
        self._signals.on_first(self._pusher.stop)
        ticker = asyncio.create_task(self._tick())
        try:
            await self._pusher.run()
        finally:
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_STATUS_S)
            self._terminal.status(self._status())
