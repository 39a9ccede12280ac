"""``streamer keys``: makes API keys and checks the file that holds their digests."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from streamer.access.identity import Scope
from streamer.access.key_file import BadKeyFile, make_key, parse_keys, read_key_file

EXIT_USAGE = 2

DESCRIPTION = "Make API keys and check the file of them (API_KEYS_FILE; docs/operations/security.md)."
EXAMPLES = """\
examples:
  streamer keys new camera-7 --scopes predict,stream >> keys.toml
  streamer keys new dashboard --scopes admin --days 90 --format json
  streamer keys new line-4 --scopes stream --streams 4 --bytes-per-s 4000000 --weight 2
  streamer keys check keys.toml

The key itself goes to standard error, once; the entry for the file goes to standard output.
exit codes: 0 done, 2 wrong option, a file that cannot be used, or a package is missing
"""
#: Option to field of the file's quotas.
_QUOTAS: dict[str, tuple[str, Callable[[str], float], str]] = {
    "--requests-per-s": ("requests_per_s", float, "POSTs a second"),
    "--streams": ("streams", int, "WebSocket connections at a time"),
    "--sessions": ("sessions", int, "WebRTC and WHIP sessions at a time"),
    "--bytes-per-s": ("bytes_per_s", float, "bytes a second"),
    "--weight": ("weight", float, "share of the device beside other keys; they have 1"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="keys_command", required=True, metavar="COMMAND")
    new = commands.add_parser("new", help="make a key and print it once, with the entry for the file")
    new.add_argument("name", help="whose key it is; letters, digits, dots, dashes and underscores")
    new.add_argument(
        "--scopes", default="predict,stream", help=f"comma-separated, of {', '.join(Scope)} (predict,stream)"
    )
    new.add_argument("--days", type=float, help="days until it expires; it never does without")
    new.add_argument("--format", choices=("toml", "json"), default="toml", help="of the entry (toml)")
    for option, (field, kind, text) in _QUOTAS.items():
        new.add_argument(option, type=kind, dest=field, help=text)
    new.set_defaults(run=_new)
    check = commands.add_parser("check", help="say what a file of keys holds, or what is wrong with it")
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
