"""Dispatches ``streamer COMMAND``, and implements the command ``keys``.

It loads only the modules of the command that runs.
"""

from __future__ import annotations

import importlib
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.main import get_command

from streamer.access.identity import Scope
from streamer.cli.command import (
    Command,
    Group,
    NoCommand,
    any_number,
    any_whole_number,
    epilog,
    option,
)
from streamer.cli.exit_codes import EXIT_USAGE

#: Commands of other files: the module with the ``app``, and its description in the list of commands. A
#: module is loaded when its command runs, completes or shows its help.
_COMMANDS = {
    "serve": ("streamer.cli.serve", "run the service"),
    "predict": ("streamer.cli.predict", "detect on images over HTTP"),
    "push": ("streamer.cli.push", "send a camera, video, folder or RTSP stream"),
    "models": ("streamer.cli.models", "list, pull, check and optimize models"),
    "samples": ("streamer.cli.samples", "count, verify and export collected samples"),
    "labels": ("streamer.cli.labels", "import labels into a labelled set"),
    "train": ("streamer.cli.train", "train a detector on a labelled set"),
    "evaluate": ("streamer.cli.evaluate", "score models on a labelled set"),
    "versions": ("streamer.cli.versions", "show and change the models of a running service"),
    "promote": ("streamer.cli.promote", "put a model in the place of a served one, unless it is worse"),
    "drift": ("streamer.cli.drift", "judge the drift of all replicas"),
    "simulate": ("streamer.cli.simulate", "simulate streams, autoscaling and fleets with your own numbers"),
}


class _Streamer(Group):
    """Groups all commands, and loads those of `_COMMANDS` only when they are needed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        # The commands of other files come first, then those of this file: `keys`.
        return [*_COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command. Those of other files lack options, because a list needs only descriptions."""
        if cmd_name in _COMMANDS:
            return Command(cmd_name, short_help=_COMMANDS[cmd_name][1])
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Load and return the command with which ``args`` begin."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in _COMMANDS:
            command = get_command(importlib.import_module(_COMMANDS[name][0]).app)
            command.name = name
        return name, command, rest


app = typer.Typer(
    cls=_Streamer,
    help="Streaming object detection over HTTP and WebSocket.",
    epilog="`streamer COMMAND --help` explains a command, with examples.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        code = get_command(app).main(arguments, prog_name="streamer", standalone_mode=False)
    except typer.TyperException as error:
        from streamer.core.help_page import show_help, show_usage_error  # noqa: PLC0415 - loads rich

        if isinstance(error, NoCommand):
            show_help(error.ctx, sys.stderr)
        else:
            show_usage_error(error, sys.stderr)
        return EXIT_USAGE
    return int(code or 0)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        found = version("real-time-vision-api")
    except PackageNotFoundError:  # the package is not installed but run from a source tree
        found = "(not installed)"
    sys.stdout.write(f"real-time-vision-api {found}\n")
    raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", help="print the version", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


keys = typer.Typer(
    cls=Group,
    short_help="make and check API keys",
    help="Create API keys, and check the file of keys (API_KEYS_FILE; docs/operations/security.md).",
    epilog=epilog(
        """
        streamer keys new camera-7 --scopes predict,stream >> keys.toml
        streamer keys new dashboard --scopes admin --days 90 --format json
        streamer keys new line-4 --scopes stream --streams 4 --weight 2
        streamer keys check keys.toml
        """,
        notes="""
        The key itself is written to standard error, once; the entry for the file goes to standard output.
        """,
        exit_codes={0: "done", 2: "wrong option, a file that cannot be used, or a package is missing"},
    ),
)
app.add_typer(keys, name="keys")
_QUOTAS = "Quotas"


@keys.command("new", cls=Command, short_help="create a key; print it once, and the entry for the file")
def new_key(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="name of its owner: letters, digits, dots, dashes and underscores"
        ),
    ],
    scopes: Annotated[
        str,
        option(
            "--scopes",
            f"comma-separated, of {', '.join(Scope)} (predict,stream)",
            value="A,B",
        ),
    ] = "predict,stream",
    days: Annotated[
        float | None,
        option("--days", "days until it expires (default: never)", value="N", parser=any_number),
    ] = None,
    entry_format: Annotated[
        Literal["toml", "json"], option("--format", "format of the entry (toml)")
    ] = "toml",
    requests_per_s: Annotated[
        float | None,
        option("--requests-per-s", "POST requests per second", value="N", group=_QUOTAS, parser=any_number),
    ] = None,
    streams: Annotated[
        int | None,
        option(
            "--streams",
            "concurrent WebSocket connections",
            value="N",
            group=_QUOTAS,
            parser=any_whole_number,
        ),
    ] = None,
    sessions: Annotated[
        int | None,
        option(
            "--sessions",
            "concurrent WebRTC and WHIP sessions",
            value="N",
            group=_QUOTAS,
            parser=any_whole_number,
        ),
    ] = None,
    bytes_per_s: Annotated[
        float | None,
        option("--bytes-per-s", "bytes per second", value="N", group=_QUOTAS, parser=any_number),
    ] = None,
    weight: Annotated[
        float | None,
        option(
            "--weight",
            "share of the device relative to other keys (1)",
            value="N",
            group=_QUOTAS,
            parser=any_number,
        ),
    ] = None,
) -> int:
    """Create a key. It is printed once, on standard error; its entry for the file goes to standard output."""
    from streamer.access.key_ring import BadKeyFile, make_key  # noqa: PLC0415 - the extra `server`

    amounts = {
        "requests_per_s": requests_per_s,
        "streams": streams,
        "sessions": sessions,
        "bytes_per_s": bytes_per_s,
        "weight": weight,
    }
    quotas = {field: value for field, value in amounts.items() if value is not None}
    expires = None
    try:
        if days is not None:
            expires = (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)
        wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
        made = make_key(name, wanted, expires, quotas)
    except (OverflowError, ValueError) as error:
        raise BadKeyFile(str(error)) from error
    sys.stderr.write(f"The key, which is shown only now:\n{made.key}\n")
    sys.stdout.write(f"{made.line(entry_format)}\n")
    return 0


@keys.command("check", cls=Command, short_help="list the keys of a file, or report what is wrong with it")
def check_keys(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="file of keys, TOML or JSON", parser=Path)],
) -> int:
    """List the keys of a file, or report what is wrong with it."""
    from streamer.access.key_ring import BadKeyFile, parse_keys, read_key_file  # noqa: PLC0415 - see new_key

    try:
        found = parse_keys(read_key_file(file))
    except BadKeyFile as error:
        raise BadKeyFile(f"{file} {error}") from error
    now = datetime.now(UTC).timestamp()
    for identity in found.values():
        state = "" if identity.is_current(now) else "  expired"
        sys.stdout.write(f"{identity.name}: {', '.join(sorted(identity.scopes))}{state}\n")
    return 0
