"""``streamer keys``: creates API keys and checks the file of their digests."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from streamer.access.identity import Scope
from streamer.access.key_ring import BadKeyFile, make_key, parse_keys, read_key_file

EXIT_USAGE = 2

DESCRIPTION = "Create API keys, and check the file of keys (API_KEYS_FILE; docs/operations/security.md)."
EXAMPLES = """\
examples:
  streamer keys new camera-7 --scopes predict,stream >> keys.toml
  streamer keys new dashboard --scopes admin --days 90 --format json
  streamer keys new line-4 --scopes stream --streams 4 --bytes-per-s 4000000 --weight 2
  streamer keys check keys.toml

The key itself is written to standard error, once; the entry for the file is written to standard output.
exit codes: 0 done, 2 wrong option, a file that cannot be used, or a package is missing
"""
#: For each option: quota in the file, type, and help text.
_QUOTAS: dict[str, tuple[str, Callable[[str], float], str]] = {
    "--requests-per-s": ("requests_per_s", float, "POST requests per second"),
    "--streams": ("streams", int, "concurrent WebSocket connections"),
    "--sessions": ("sessions", int, "concurrent WebRTC and WHIP sessions"),
    "--bytes-per-s": ("bytes_per_s", float, "bytes per second"),
    "--weight": ("weight", float, "share of the device relative to other keys (1)"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="keys_command", required=True, metavar="COMMAND")
    new = commands.add_parser("new", help="create a key; print it once, and the entry for the file")
    new.add_argument("name", help="name of its owner: letters, digits, dots, dashes and underscores")
    new.add_argument(
        "--scopes", default="predict,stream", help=f"comma-separated, of {', '.join(Scope)} (predict,stream)"
    )
    new.add_argument("--days", type=float, help="days until it expires (default: never)")
    new.add_argument("--format", choices=("toml", "json"), default="toml", help="format of the entry (toml)")
    for option, (field, kind, text) in _QUOTAS.items():
        new.add_argument(option, type=kind, dest=field, help=text)
    new.set_defaults(run=_new)
    check = commands.add_parser("check", help="list the keys of a file, or report what is wrong with it")
    check.add_argument("file", type=Path)
    check.set_defaults(run=_check)


def _new(arguments: argparse.Namespace) -> int:
    given = {field: getattr(arguments, field) for field, _, _ in _QUOTAS.values()}
    quotas = {field: value for field, value in given.items() if value is not None}
    expires = None
    try:
        if arguments.days is not None:
            expires = (datetime.now(UTC) + timedelta(days=arguments.days)).replace(microsecond=0)
        scopes = [scope.strip() for scope in arguments.scopes.split(",") if scope.strip()]
        made = make_key(arguments.name, scopes, expires, quotas)
    except (BadKeyFile, OverflowError, ValueError) as error:
        sys.stderr.write(f"streamer keys new: {error}\n")
        return EXIT_USAGE
    sys.stderr.write(f"The key, which is shown only now:\n{made.key}\n")
    sys.stdout.write(f"{made.line(arguments.format)}\n")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    try:
        found = parse_keys(read_key_file(arguments.file))
    except BadKeyFile as error:
        sys.stderr.write(f"streamer keys check: {arguments.file} {error}\n")
        return EXIT_USAGE
    now = datetime.now(UTC).timestamp()
    for identity in found.values():
        state = "" if identity.is_current(now) else "  expired"
        sys.stdout.write(f"{identity.name}: {', '.join(sorted(identity.scopes))}{state}\n")
    return 0
