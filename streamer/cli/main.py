"""The command line: dispatches ``streamer COMMAND`` and runs ``serve``.

Loads only the modules of that command.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import sys
from importlib.metadata import PackageNotFoundError, version

from streamer.core.extras import explain_missing

EXIT_USAGE = 2

#: Commands that need the extra `server`, and their exit codes when it is not installed.
_SERVER_COMMANDS = {"serve": 3, "models": 8, "keys": EXIT_USAGE, "samples": EXIT_USAGE}
#: Command, module with its ``add_arguments``, and its description in the list of commands.
_OTHER_COMMANDS = (
    ("predict", "streamer.cli.predict", "detect on images over HTTP"),
    ("push", "streamer.cli.push", "send a camera, video, folder or RTSP stream"),
    ("models", "streamer.cli.models", "list, pull, check and optimize models"),
    ("keys", "streamer.cli.keys", "make and check API keys"),
    ("samples", "streamer.cli.samples", "count, verify and export collected samples"),
)

_SERVE_EXAMPLES = """\
examples:
  streamer serve
  MODEL_V1_PATH=detector.onnx streamer serve --port 9000
  HOST=0.0.0.0 WORKERS=4 DEVICE=cuda streamer serve

Every setting is an environment variable (README, "Configuration"); these options override them.
exit codes: 0 stopped by a signal, 2 wrong setting, 3 cannot start (port in use, no model, no extra `server`),
4 model refused, 5 device unavailable, 6 a process keeps dying
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="streamer", description="Streaming object detection over HTTP and WebSocket."
    )
    parser.add_argument("--version", action="version", version=f"real-time-vision-api {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_serve(commands)
    given = sys.argv[1:] if arguments is None else arguments
    command = next((word for word in given if not word.startswith("-")), "")
    try:
        _add_other_commands(commands, command)
        parsed = parser.parse_args(arguments)
        result: int = parsed.run(parsed)
    except ModuleNotFoundError as error:
        text = explain_missing(error, "server" if command in _SERVER_COMMANDS else "")
        if text is None:
            raise
        sys.stderr.write(f"streamer {command}: {text}\n")
        return _SERVER_COMMANDS.get(command, EXIT_USAGE)
    return result


def _version() -> str:
    try:
        return version("real-time-vision-api")
    except PackageNotFoundError:  # run from a source tree
        return "(not installed)"


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="run the service",
        description="Run the service until SIGTERM or Ctrl-C, then drain.",
        epilog=_SERVE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("--host", help="address to listen on (HOST)")
    serve.add_argument("--port", type=int, help="TCP port, 0 for a free one (PORT)")
    serve.add_argument("--workers", type=int, help="front-end processes (WORKERS)")
    serve.add_argument("--log-level", help="debug, info, warning or error (LOG_LEVEL)")
    serve.set_defaults(run=_serve)


def _add_other_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], wanted: str) -> None:
    """Add all commands but ``serve``. Only the module of the wanted command is loaded, with its packages."""
    for name, module, help_text in _OTHER_COMMANDS:
        parser = commands.add_parser(name, help=help_text)
        if name == wanted:
            importlib.import_module(module).add_arguments(parser)


def _serve(arguments: argparse.Namespace) -> int:
    # Loaded here, because the other commands do not need the modules of the server.
    from streamer.access.access_settings import CannotAdmit, check_access  # noqa: PLC0415 - see above
    from streamer.config.child_environment import forbid_core_dumps, wipe_own_secrets  # noqa: PLC0415 - see above
    from streamer.config.settings import SettingsError, load_settings  # noqa: PLC0415 - see above
    from streamer.core.logs import secrets_of, wants_json  # noqa: PLC0415 - see above
    from streamer.supervisor.log_writer import LogWriter, supervisor_log  # noqa: PLC0415 - see above
    from streamer.supervisor.restart_policy import CannotStart  # noqa: PLC0415 - see above
    from streamer.supervisor.supervisor import Supervisor  # noqa: PLC0415 - see above

    async def supervise(writer: LogWriter) -> int:
        return await Supervisor(settings, writer).run()

    try:
        settings = load_settings(
            host=arguments.host,
            port=arguments.port,
            workers=arguments.workers,
            log_level=arguments.log_level,
        )
        check_access(settings)
    except (SettingsError, CannotAdmit) as error:
        # The settings could not be read, so LOG_FORMAT alone decides: text, unless it is json.
        as_json = os.environ.get("LOG_FORMAT", "").strip().lower() == "json"
        writer = supervisor_log("info", json_lines=as_json, secrets=())
        sys.stderr.write(f"streamer: {error}\n")
        writer.close()
        return EXIT_USAGE
    wipe_own_secrets()
    forbid_core_dumps()
    writer = supervisor_log(
        settings.log_level,
        json_lines=wants_json(settings.log_format),
        secrets=secrets_of([*settings.keys, settings.turn_secret]),
    )
    try:
        return asyncio.run(supervise(writer))
    except CannotStart as error:
        sys.stderr.write(f"streamer: {error}\n")
        return error.exit_code
    except Exception:
        logging.getLogger("streamer.supervisor").exception("the supervisor has failed")
        return 1
    finally:
        writer.close()
