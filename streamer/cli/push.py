"""Implements ``streamer push``: reads the options, opens source and stream, and starts a `PushRun`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    positive,
    read_parameters,
    read_token,
    seconds,
    terminal_of,
)
from streamer.core.signals import EXIT_INTERRUPTED, EXIT_TERMINATED, Signals
from streamer.core.terminal import Terminal

if TYPE_CHECKING:
    from streamer.cli.pusher import Plan
    from streamer.client.capture import Source
    from streamer.client.frame_stream import FrameStream, State

DEFAULT_URL = "ws://127.0.0.1:8000/v1/stream"
_INPUT, _OUTPUT = "Input", "Output"

app = typer.Typer(add_completion=False)


@app.command(
    cls=Command,
    epilog=epilog(
        """
        streamer push sample --show  # the clip that comes with this project
        streamer push 0 --show  # a camera, with a preview page
        streamer push video.mp4 --save boxes.mp4 --json out.jsonl
        streamer push video.mp4 --mode all --classes person --track
        streamer push 0 --transport webrtc --url http://host:8000
        streamer push photos/ --url ws://host/v2/stream  # version v2 of the model
        streamer push /dev/video0 --size 1280x720 --fps 30 --fourcc MJPG
        streamer push rtsp://user:secret@camera/1 --fps 5 --url wss://host/v1/stream
        streamer push http://camera/jpg --fps 2  # one image per request
        """,
        notes=f"""
        Modes: live (default) sends the newest frame whenever the server has room, and plays files in real
        time; all (default for images) sends every frame, as fast as the server accepts them.

        With --transport webrtc the video goes over UDP, and the results come back on a data channel.

        In a password in an address, write @ as %40, # as %23, : as %3A, / as %2F, ? as %3F and % as %25.

        The token is read from {TOKEN_VARIABLE} when --token is not given; it is never shown.
        """,
        exit_codes={
            0: "done",
            2: "wrong option or address, or a package is missing",
            3: "refused or cannot connect",
            4: "source failed",
            5: "cannot write --save or --json",
            EXIT_INTERRUPTED: "Ctrl-C (files are complete and playable)",
            EXIT_TERMINATED: "SIGTERM",
        },
    ),
)
def push(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="`sample`, camera (0, /dev/video0), file, folder or address"),
    ],
    mode: Annotated[
        Literal["live", "all"] | None, option("--mode", "send the newest frame only, or every frame")
    ] = None,
    transport: Annotated[
        Literal["websocket", "webrtc"],
        option("--transport", "single images (default), or a video, for lossy networks and mode live only"),
    ] = "websocket",
    track: Annotated[bool, option("--track", "give boxes track ids")] = False,
    conf: Conf = None,
    iou: Iou = None,
    classes: Classes = None,
    max_detections: MaxDetections = None,
    agnostic_nms: AgnosticNms = None,
    stream: Annotated[
        str,
        option(
            "--stream", "name of the stream; the service stores samples under it", value="NAME", group=_INPUT
        ),
    ] = "",
    fps: Annotated[
        float | None,
        option(
            "--fps",
            "send at most N frames per second of source time; poll a snapshot address at this rate",
            value="N",
            group=_INPUT,
            parser=positive,
        ),
    ] = None,
    size: Annotated[
        str | None,
        option("--size", "size that a local camera is asked for", value="WxH", group=_INPUT),
    ] = None,
    fourcc: Annotated[
        str,
        option(
            "--fourcc",
            "pixel format that a local camera is asked for (MJPG where raw video overloads USB)",
            value="CODE",
            group=_INPUT,
        ),
    ] = "",
    max_side: Annotated[
        int | None,
        option(
            "--max-side",
            "reduce larger frames; boxes stay in original pixels",
            value="PX",
            group=_INPUT,
            parser=any_whole_number,
        ),
    ] = None,
    quality: Annotated[
        int, option("--quality", "JPEG quality (85)", value="1..100", group=_INPUT, parser=any_whole_number)
    ] = 85,
    loop: Annotated[bool, option("--loop", "repeat files", group=_INPUT)] = False,
    duration: Annotated[
        float | None,
        option("--duration", "stop after S seconds of source time", value="S", group=_INPUT, parser=positive),
    ] = None,
    max_frames: Annotated[
        int | None,
        option("--max-frames", "stop after N frames", value="N", group=_INPUT, parser=any_whole_number),
    ] = None,
    save: Annotated[
        Path | None,
        option(
            "--save",
            "record a video with boxes, timed as captured (.mp4)",
            value="FILE",
            group=_OUTPUT,
            parser=Path,
        ),
    ] = None,
    json: Annotated[
        str | None,
        option(
            "--json",
            "write one JSON line per sent frame, then a summary; - is stdout",
            value="FILE",
            group=_OUTPUT,
        ),
    ] = None,
    show: Annotated[
        bool, option("--show", "serve a preview page on this machine until Ctrl-C", group=_OUTPUT)
    ] = False,
    quiet: Annotated[bool, option("--quiet", "print only errors", group=_OUTPUT)] = False,
    url: Annotated[
        str, option("--url", f"address of the service ({DEFAULT_URL})", value="URL", group=CONNECTION)
    ] = DEFAULT_URL,
    token: Token = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
    no_reconnect: Annotated[
        bool, option("--no-reconnect", "end when connection or source is lost", group=CONNECTION)
    ] = False,
    give_up_after: Annotated[
        float | None,
        option(
            "--give-up-after",
            "end after S seconds without a connection",
            value="S",
            group=CONNECTION,
            parser=seconds,
        ),
    ] = None,
) -> int:
    """Send a camera, video, image folder or network stream to the service and report the detections.

    SOURCE is a camera (0, /dev/video0), a video file, an image, a folder of images (natural order), or an
    address: rtsp://, http://, https:// and others that FFmpeg reads. A lost connection or source is reopened.
    """
    from streamer.cli.pusher import Limits, Plan  # noqa: PLC0415 - loads the client library
    from streamer.client.options import Options, Tls  # noqa: PLC0415 - see above
    from streamer.client.sources import SourceOptions  # noqa: PLC0415 - see above

    terminal = terminal_of(ctx)
    plan = Plan(
        source=source,
        source_options=SourceOptions(
            fps=fps,
            loop=loop,
            reconnect=not no_reconnect,
            on_trouble=lambda text: terminal.line(text),
            size=_read_size(size),
            fourcc=fourcc,
        ),
        url=url,
        transport=transport,
        mode=mode,
        params=read_parameters(
            conf, iou, classes, max_detections, agnostic_nms=agnostic_nms, track=True if track else None
        ),
        token=read_token(token),
        options=Options(
            quality=quality,
            max_side=max_side,
            fps=fps,
            stream=stream,
            give_up_after_s=0.0 if no_reconnect else give_up_after,
            tls=Tls(ca_file, insecure),
        ),
        limits=Limits(fps, duration, max_frames),
        save=save,
        json=json,
        show=show,
    )
    # PyAV, OpenCV and aiortc are loaded only after the options were checked.
    _check(plan)
    return asyncio.run(_push(plan, terminal))


async def _push(plan: Plan, terminal: Terminal) -> int:
    from streamer.cli.pusher import PushRun  # noqa: PLC0415 - see push

    with Signals() as signals:
        stopped = threading.Event()
        opening = asyncio.ensure_future(_open_source(plan, stopped))
        try:
            if not await signals.unless_signalled(opening) or (source := opening.result()) is None:
                return signals.exit_code
        finally:
            stopped.set()
        stream = _make_stream(plan, terminal)
        if not await signals.unless_signalled(_connected(stream)):
            return signals.exit_code
        try:
            await PushRun(plan, terminal, source, stream, signals).run()
        finally:
            await stream.close()
    return signals.exit_code


def _check(plan: Plan) -> None:
    """Raise BadInput for options that cannot work, before anything is opened."""
    from streamer.client.errors import BadInput  # noqa: PLC0415 - see push

    if plan.transport == "webrtc" and plan.mode == "all":
        raise BadInput("--mode all needs --transport websocket, because a video may lose frames")
    if plan.limits.max_frames is not None and plan.limits.max_frames < 1:
        raise BadInput(f"--max-frames is {plan.limits.max_frames}; allowed are 1 and more")
    if plan.save is not None:
        from streamer.cli.recorder import check_path  # noqa: PLC0415 - loads OpenCV

        check_path(plan.save)
    if plan.show:
        import streamer.cli.preview  # noqa: F401, PLC0415 - reports a missing package first
    for name, output in (("--save", plan.save), ("--json", plan.json)):
        if output is not None and _same_file(Path(output), Path(plan.source)):
            raise BadInput(f"{name} {output} is the source itself")


def _same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


async def _open_source(plan: Plan, stop: threading.Event) -> Source | None:
    """Open the source in a thread of its own, which a signal abandons, because FFmpeg waits up to 10 s.

    Returns None after ``stop``.
    """
    from streamer.client.sources import SourceOpener  # noqa: PLC0415 - see push

    opened: concurrent.futures.Future[Source | None] = concurrent.futures.Future()
    opened.set_running_or_notify_cancel()

    def work() -> None:
        try:
            opened.set_result(SourceOpener(plan.source, plan.source_options).open(stop))
        except Exception as error:  # noqa: BLE001 - handed to the loop, which raises it
            opened.set_exception(error)

    threading.Thread(target=work, name="opening", daemon=True).start()
    return await asyncio.wrap_future(opened)


def _read_size(text: str | None) -> tuple[int, int] | None:
    """Return width and height. Raises BadInput."""
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        from streamer.client.errors import BadInput  # noqa: PLC0415 - see push

        raise BadInput(f"--size is {text!r}; write width and height as 1280x720")
    return int(width), int(height)


def _make_stream(plan: Plan, terminal: Terminal) -> FrameStream:
    """Return the stream, not yet connected."""
    from streamer.client.sources import is_image_source  # noqa: PLC0415 - see push
    from streamer.client.stream import DetectStream  # noqa: PLC0415 - see push

    settings: dict[str, Any] = {
        "params": plan.params,
        "token": plan.token,
        "options": plan.options,
        "on_state": lambda state: _report(state, terminal),
    }
    if plan.transport == "webrtc":
        from streamer.client.video_stream import VideoStream  # noqa: PLC0415 - loads aiortc

        return VideoStream(plan.url, **settings)
    mode = plan.mode or ("all" if is_image_source(plan.source) else "live")
    return DetectStream(plan.url, mode=mode, **settings)


async def _connected(stream: FrameStream) -> None:
    await stream.__aenter__()


def _report(state: State, terminal: Terminal) -> None:
    """Print the state of the connection. The progress line shows it too, but only while frames are sent."""
    if state.trouble:
        terminal.line(state.trouble)
    elif state.phase == "connected":
        terminal.line(f"connected to {state.detail}" + (", session resumed" if state.resumed else ""))
