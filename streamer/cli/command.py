"""Provides what the commands share: options, parsing of words, and one exit code for each kind of error."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from streamer.cli.exit_codes import COMMAND_EXTRAS, EXIT_USAGE, SERVER_COMMANDS, exit_code
from streamer.core.extras import explain_missing
from streamer.core.redact import secrets_of
from streamer.core.terminal import Terminal

if TYPE_CHECKING:
    from streamer.client.options import Params

#: Headings of groups of options in help pages.
CONNECTION, DETECTION = "Connection", "Detection"
Number = TypeVar("Number", int, float)
#: Environment variable with the API key.
TOKEN_VARIABLE = "STREAMER_TOKEN"  # noqa: S105 - the name of a variable


class NoCommand(typer.TyperException):
    """Raised for a group without a command, to show its help; ``ctx`` is the context of the group."""

    exit_code = EXIT_USAGE

    def __init__(self, ctx: Any) -> None:
        super().__init__("no command given")
        self.ctx = ctx


class Group(TyperGroup):
    """Groups commands under one name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Split the words of the group from those of its command. Raises NoCommand if there are no words."""
        if not args and not ctx.resilient_parsing:
            raise NoCommand(ctx)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the named command. Raises BadParameter for another word."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing and args[0][:1] != "-":
            allowed = ", ".join(self.list_commands(ctx))
            raise typer.BadParameter(
                f"expected one of {allowed}; found {args[0]!r}", ctx, param_hint="COMMAND"
            )
        return super().resolve_command(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options and arguments."""
        return _quick(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        _write_help(self, ctx, formatter)


class Command(TyperCommand):
    """Runs one command, whose function returns the exit code and may raise the errors in `EXIT_CODES`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words. Raises an error that names the option, what was found and what is allowed."""
        try:
            if not ctx.resilient_parsing:  # for completion, words may be missing
                params = [param for param in self.get_params(ctx) if isinstance(param, TyperOption)]
                names = {name: param for param in params for name in (*param.opts, *param.secondary_opts)}
                args = _spelled_out(args, names)
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            if getattr(error, "ctx", None) is None:
                error.ctx = ctx  # type: ignore[attr-defined]  # the error shows how this command is used
            raise

    def invoke(self, ctx: Any) -> int:
        """Run the command with a terminal (`terminal_of`), and return its exit code."""
        terminal = Terminal(quiet=ctx.params.get("quiet", False), secrets=_secrets(ctx.params))
        ctx.obj = terminal
        name = ctx.command_path.split()[1]
        try:
            return int(super().invoke(ctx) or 0)
        except ModuleNotFoundError as error:
            text = explain_missing(
                error, COMMAND_EXTRAS.get(name, "server" if name in SERVER_COMMANDS else "")
            )
            if text is None:
                raise
            terminal.error(f"{ctx.command_path}: {text}")
            return SERVER_COMMANDS.get(name, EXIT_USAGE)
        except Exception as error:
            code = exit_code(name, error)
            if code is None:
                raise
            terminal.error(f"{ctx.command_path}: {error}")
            return code
        finally:
            terminal.close()

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options and arguments."""
        return _quick(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        _write_help(self, ctx, formatter)


def epilog(examples: str, *, notes: str = "", exit_codes: Mapping[int, str] | None = None) -> str:
    """Return the end of a help page: examples, notes, and the meaning of each exit code."""
    codes = "\n".join(f"  {code:<4} {meaning}" for code, meaning in (exit_codes or {}).items())
    parts = [
        f"Examples:\n{textwrap.indent(inspect.cleandoc(examples), '  ')}",
        inspect.cleandoc(notes),
        f"Exit codes:\n{codes}" if codes else "",
    ]
    return "\n\n".join(part for part in parts if part)


def terminal_of(ctx: typer.Context) -> Terminal:
    """Return the terminal of a running command."""
    return cast(Terminal, ctx.obj)


def read_token(token: str | None) -> str | None:
    """Return the API key in ``--token``, or else in the environment variable."""
    return token or os.environ.get(TOKEN_VARIABLE) or None


def _write_help(command: Any, ctx: Any, formatter: Any) -> None:
    from streamer.core.help_page import help_page  # noqa: PLC0415 - loads rich

    ctx.color = True  # typer must not remove colours: the page has them only if stdout is a terminal
    formatter.write(help_page(command, ctx, sys.stdout))


def _quick(params: list[Any]) -> list[Any]:
    """Return the parameters, with False for flags that are None: typer would load pydantic to read None.

    Flags with a negation, such as ``--no-agnostic-nms``, stay None if the user does not decide.
    """
    for param in params:
        if getattr(param, "is_flag", False) and param.default is None and not param.secondary_opts:
            param.default = False
    return params


def _secrets(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the credentials in the values of options, which must not be shown."""
    token = read_token(params.get("token"))
    found = [secret for value in params.values() if isinstance(value, str) for secret in secrets_of(value)]
    return (*found, token) if token else tuple(found)


def _spelled_out(words: list[str], options: Mapping[str, TyperOption]) -> list[str]:
    """Return the words with abbreviated options in full, such as ``--max-f`` for ``--max-frames``.

    Raises BadParameter for an option whose value is missing because another option follows.
    """
    out: list[str] = []
    expects_value: TyperOption | None = None
    for position, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name.startswith("--") and name not in options:
            meant = [option for option in options if option.startswith(name)]
            name = meant[0] if len(meant) == 1 else name
        if expects_value is not None and (name in options or word == "--"):
            raise typer.BadParameter(f"expected a value; found {word!r}", param=expects_value)
        if word == "--":
            return out + words[position:]
        out.append(name + equals + value)
        takes_value = name in options and not options[name].is_flag and not equals
        expects_value = options[name] if takes_value else None
    if expects_value is not None:
        raise typer.BadParameter("expected a value; found none", param=expects_value)
    return out


def _parser(
    read: Callable[[str], Number], expected: str, is_allowed: Callable[[Number], bool] = lambda _: True
) -> Callable[[str], Number]:
    """Return a parser that raises BadParameter, with what was expected and found, for text not allowed."""

    def parse(text: str) -> Number:
        with contextlib.suppress(ValueError):
            value = read(text)
            if is_allowed(value):
                return value
        raise typer.BadParameter(f"expected {expected}; found {str(text)!r}")

    return parse


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of whole numbers in a range, both ends included."""
    return _parser(int, f"a whole number from {low} to {high}", lambda value: low <= value <= high)


def number(low: float, high: float) -> Callable[[str], float]:
    """Return a parser of numbers in a range, both ends included."""
    return _parser(float, f"a number from {low:g} to {high:g}", lambda value: low <= value <= high)


positive = _parser(float, "a number above 0", lambda value: 0 < value < float("inf"))
seconds = _parser(float, "a number of seconds, 0 or more", lambda value: 0 <= value < float("inf"))
#: Numbers whose range the client library or the settings check.
any_number = _parser(float, "a number")
any_whole_number = _parser(int, "a whole number")


def option(
    name: str,
    text: str,
    *,
    value: str | None = None,
    group: str | None = None,
    parser: Callable[[str], Any] | None = None,
) -> Any:
    """Return an option. In the help, ``value`` stands for its value, and ``group`` is its heading."""
    return typer.Option(name, help=text, metavar=value, rich_help_panel=group, parser=parser)


_TOKEN_HELP = f"API key; safer in {TOKEN_VARIABLE}, because other users can see arguments"
Token = Annotated[str | None, option("--token", _TOKEN_HELP, value="TOKEN", group=CONNECTION)]
CaFile = Annotated[
    str | None, option("--ca-file", "certificate authority to trust", value="PEM", group=CONNECTION)
]
Insecure = Annotated[
    bool, option("--insecure", "do not check the certificate of the server", group=CONNECTION)
]
Conf = Annotated[
    float | None,
    option(
        "--conf",
        "lowest score of a box (as the model recommends, else 0.25)",
        value="0..1",
        group=DETECTION,
        parser=any_number,
    ),
]
Iou = Annotated[
    float | None,
    option(
        "--iou",
        "overlap above which a weaker box goes (0.45)",
        value="0..1",
        group=DETECTION,
        parser=any_number,
    ),
]
Classes = Annotated[
    str | None,
    option("--classes", "labels or class ids to detect, comma-separated", value="A,B", group=DETECTION),
]
MaxDetections = Annotated[
    int | None,
    option(
        "--max-detections",
        "most boxes per image (300)",
        value="N",
        group=DETECTION,
        parser=any_whole_number,
    ),
]
AgnosticNms = Annotated[
    bool | None,
    option(
        "--agnostic-nms/--no-agnostic-nms",
        "whether boxes of different classes suppress each other (as the model recommends, else no)",
        group=DETECTION,
    ),
]
Json = Annotated[bool, option("--json", "print one JSON object")]
Quiet = Annotated[bool, option("--quiet", "print no progress")]
Catalogue = Annotated[
    Path | None,
    option("--catalogue", "registry of known models (models/catalogue.json)", value="FILE", parser=Path),
]


def read_parameters(
    conf: float | None,
    iou: float | None,
    classes: str | None,
    max_detections: int | None,
    *,
    agnostic_nms: bool | None = None,
    track: bool | None = None,
) -> Params:
    """Return the detection parameters of the options. Raises BadInput."""
    from streamer.client.options import Params  # noqa: PLC0415 - loads NumPy, which no help page needs

    wanted: list[str | int] | None = None
    if classes is not None:
        names = [name.strip() for name in classes.split(",") if name.strip()]
        wanted = [int(name) if name.isdecimal() else name for name in names]
    return Params(conf, iou, wanted, max_detections, track, agnostic_nms)
