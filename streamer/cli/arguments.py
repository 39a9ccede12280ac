"""Options that ``push`` and ``predict`` have in common, and how they are read."""

from __future__ import annotations

import argparse
import os

from streamer.client.params import Params
from streamer.console.redact import secrets_of

TOKEN_VARIABLE = "STREAMER_TOKEN"  # noqa: S105 - a variable's name


def add_server_arguments(parser: argparse.ArgumentParser, default_url: str) -> None:
    """Add where the service is and how to be let in."""
    parser.add_argument("--url", default=default_url, help=f"address of the service ({default_url})")
    parser.add_argument("--token", help=f"API key; better in {TOKEN_VARIABLE}: other users see arguments")
    parser.add_argument("--ca-file", metavar="PEM", help="trust this certificate authority")
    parser.add_argument("--insecure", action="store_true", help="do not check the server's certificate")


def add_parameter_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the model is asked for."""
    group = parser.add_argument_group("detection")
    group.add_argument(
        "--conf", type=float, metavar="0..1", help="least score (server: as the model recommends, else 0.25)"
    )
    group.add_argument("--iou", type=float, metavar="0..1", help="overlap for suppression (server: 0.45)")
    group.add_argument("--classes", metavar="A,B", help="labels or class ids, comma-separated")
    group.add_argument("--max-detections", type=int, metavar="N", help="most boxes per picture (server: 300)")


def read_parameters(arguments: argparse.Namespace, *, track: bool | None = None) -> Params:
    """Return the detection parameters. Raises BadInput."""
    classes: list[str | int] | None = None
    if arguments.classes is not None:
        names = [name.strip() for name in arguments.classes.split(",") if name.strip()]
        classes = [int(name) if name.isdecimal() else name for name in names]
    return Params(arguments.conf, arguments.iou, classes, arguments.max_detections, track)


def read_token(arguments: argparse.Namespace) -> str | None:
    """Return the token of the option, else of the environment."""
    return arguments.token or os.environ.get(TOKEN_VARIABLE) or None


def secrets_in(arguments: argparse.Namespace, *addresses: str) -> tuple[str, ...]:
    """Return every text of the command line that must not be shown."""
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
    """Parse a number of seconds, 0 included."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value
