"""Options that several commands share, the parsers of their values, and groups of commands."""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streamer.client.options import Params
from streamer.core.redact import secrets_of
from streamer.core.signals import EXIT_INTERRUPTED
from streamer.core.terminal import Terminal


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of whole numbers in a range, both ends included."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}; found {text!r}")
        return value

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """Return a parser of numbers in a range, both ends included."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:  # false for NaN
            raise argparse.ArgumentTypeError(f"expected a number from {low:g} to {high:g}; found {text!r}")
        return value

    return parse


TOKEN_VARIABLE = "STREAMER_TOKEN"  # noqa: S105 - the name of a variable


def add_server_arguments(parser: argparse.ArgumentParser, default_url: str) -> None:
    """Add the options for the address of the service, the API key and the certificate."""
    parser.add_argument("--url", default=default_url, help=f"address of the service ({default_url})")
    parser.add_argument(
        "--token", help=f"API key; safer in {TOKEN_VARIABLE}, because other users can see arguments"
    )
    parser.add_argument("--ca-file", metavar="PEM", help="certificate authority to trust")
    parser.add_argument("--insecure", action="store_true", help="do not check the certificate of the server")


def add_parameter_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for detection parameters."""
    group = parser.add_argument_group("detection")
    group.add_argument(
        "--conf",
        type=float,
        metavar="0..1",
        help="lowest score of a box (as the model recommends, else 0.25)",
    )
    group.add_argument(
        "--iou", type=float, metavar="0..1", help="overlap above which a weaker box goes (0.45)"
    )
    group.add_argument("--classes", metavar="A,B", help="labels or class ids to detect, comma-separated")
    group.add_argument("--max-detections", type=int, metavar="N", help="most boxes per image (300)")


def add_registry_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--catalogue``."""
    parser.add_argument(
        "--catalogue", type=Path, metavar="FILE", help="registry of known models (models/catalogue.json)"
    )


def read_parameters(arguments: argparse.Namespace, *, track: bool | None = None) -> Params:
    """Return the detection parameters. Raises BadInput."""
    classes: list[str | int] | None = None
    if arguments.classes is not None:
        names = [name.strip() for name in arguments.classes.split(",") if name.strip()]
        classes = [int(name) if name.isdecimal() else name for name in names]
    return Params(arguments.conf, arguments.iou, classes, arguments.max_detections, track)


def read_token(arguments: argparse.Namespace) -> str | None:
    """Return the API key of ``--token``, or else of the environment variable."""
    return arguments.token or os.environ.get(TOKEN_VARIABLE) or None


def secrets_in(arguments: argparse.Namespace, *addresses: str) -> tuple[str, ...]:
    """Return the credentials in the arguments and addresses, which must not be shown."""
    token = read_token(arguments)
    found = [secret for address in addresses for secret in secrets_of(address)]
    return (*found, token) if token else tuple(found)


def positive(text: str) -> float:
    """Parse a number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def seconds(text: str) -> float:
    """Parse a number of seconds, 0 or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds, 0 or more")
    return value


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a group. ``run`` returns the exit code and raises the errors of the group."""

    name: str
    #: Short description in the list of commands.
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Terminal], int]


@dataclass(frozen=True, slots=True)
class CommandGroup:
    """The commands of a group, and the exit code for each kind of error."""

    #: Name on the command line.
    name: str
    commands: tuple[Command, ...]
    #: Error class to exit code; the first match counts. Any other error is a bug and is raised.
    exit_codes: tuple[tuple[type[Exception], int], ...]

    def add_arguments(self, parser: argparse.ArgumentParser, description: str, examples: str) -> None:
        """Add the commands to ``parser``."""
        parser.description, parser.epilog = description, examples
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        commands = parser.add_subparsers(dest=f"{self.name}_command", required=True, metavar="COMMAND")
        for command in self.commands:
            command_parser = commands.add_parser(
                command.name, help=command.help, formatter_class=argparse.RawDescriptionHelpFormatter
            )
            command.add_arguments(command_parser)
            command_parser.set_defaults(run=functools.partial(self._run, command))

    def _run(self, command: Command, arguments: argparse.Namespace) -> int:
        """Run one command and return its exit code. Errors of the group become one line on standard error."""
        terminal = Terminal(quiet=getattr(arguments, "quiet", False))
        try:
            return command.run(arguments, terminal)
        except tuple(kind for kind, _ in self.exit_codes) as error:
            terminal.line(f"streamer {self.name} {command.name}: {error}", always=True)
            return next(code for kind, code in self.exit_codes if isinstance(error, kind))
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        finally:
            terminal.close()
