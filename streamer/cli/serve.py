"""Implements ``streamer serve``: reads the settings, downloads named models, and runs the supervisor."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from streamer.assets import MODELS_DIR
from streamer.cli.command import Command, epilog, option
from streamer.cli.exit_codes import EXIT_USAGE

_EXIT_CANNOT_START = 3
_MODELS, _ACCESS, _LOG = "Models", "Access", "Log"
#: Options whose names differ from those of their settings.
_OPTIONS = {"model_v1_path": "--model", "model_v2_path": "--model-v2", "sampling": "--no-sampling"}

app = typer.Typer(add_completion=False)


@app.command(
    cls=Command,
    epilog=epilog(
        """
        streamer serve
        streamer serve --model yolox_s --port 9000  # downloads it first
        streamer serve --model detector.onnx --device cuda --workers 4
        streamer serve --host 0.0.0.0 --api-keys-file keys.toml
        BATCH_MAX=1 streamer serve --no-sampling  # any other setting is a variable
        """,
        notes="""
        Every setting is an environment variable (docs/configuration.md); these options override them.
        """,
        exit_codes={
            0: "stopped by a signal",
            EXIT_USAGE: "wrong setting, or a model that is neither a file nor known",
            _EXIT_CANNOT_START: "cannot start: the port is in use, there is no model, its download failed, "
            "or the extra `server` is missing",
            4: "model refused",
            5: "device unavailable",
            6: "a process keeps dying",
        },
    ),
)
def serve(
    host: Annotated[
        str | None, option("--host", "address to listen on, 0.0.0.0 for all (HOST)", value="ADDRESS")
    ] = None,
    port: Annotated[str | None, option("--port", "TCP port, 0 for a free one (PORT)", value="N")] = None,
    workers: Annotated[
        str | None, option("--workers", "processes that talk to clients and decode (WORKERS)", value="N")
    ] = None,
    model: Annotated[
        str | None,
        option(
            "--model",
            "ONNX file of v1, or a name of `models list` to download (MODEL_V1_PATH)",
            value="FILE|NAME",
            group=_MODELS,
        ),
    ] = None,
    model_v2: Annotated[
        str | None,
        option("--model-v2", "the same for v2 (MODEL_V2_PATH)", value="FILE|NAME", group=_MODELS),
    ] = None,
    device: Annotated[
        str | None,
        option("--device", "auto, cpu, cuda, tensorrt or openvino (DEVICE)", value="NAME", group=_MODELS),
    ] = None,
    batch_max: Annotated[
        str | None, option("--batch-max", "largest batch (BATCH_MAX)", value="N", group=_MODELS)
    ] = None,
    api_keys_file: Annotated[
        str | None,
        option(
            "--api-keys-file", "file of keys, see `keys new` (API_KEYS_FILE)", value="FILE", group=_ACCESS
        ),
    ] = None,
    allow_anonymous: Annotated[
        bool, option("--allow-anonymous", "serve clients without a key (ALLOW_ANONYMOUS)", group=_ACCESS)
    ] = False,
    allowed_origins: Annotated[
        str | None,
        option(
            "--allowed-origins",
            "pages that may use the service (ALLOWED_ORIGINS)",
            value="A,B",
            group=_ACCESS,
        ),
    ] = None,
    no_sampling: Annotated[
        bool, option("--no-sampling", "never keep a frame as a sample (SAMPLING=0)", group=_MODELS)
    ] = False,
    log_level: Annotated[
        str | None,
        option("--log-level", "debug, info, warning or error (LOG_LEVEL)", value="LEVEL", group=_LOG),
    ] = None,
    log_format: Annotated[
        str | None, option("--log-format", "auto, text or json (LOG_FORMAT)", value="FORMAT", group=_LOG)
    ] = None,
) -> int:
    """Run the service until SIGTERM or Ctrl-C, then drain.

    The last line of the start says which address to open.
    """
    options = {
        "host": host,
        "port": port,
        "workers": workers,
        "model_v1_path": model,
        "model_v2_path": model_v2,
        "device": device,
        "batch_max": batch_max,
        "api_keys_file": api_keys_file,
        "allow_anonymous": allow_anonymous or None,
        "allowed_origins": allowed_origins,
        "sampling": False if no_sampling else None,
        "log_level": log_level,
        "log_format": log_format,
    }
    return _run({name: value for name, value in options.items() if value is not None})


def _run(options: Mapping[str, Any]) -> int:
    """Run the service with the settings in ``options``, and return the exit code."""
    # Loaded here, because help pages do not need the modules of the server.
    from streamer.access.access_settings import AccessNotConfigured, check_access  # noqa: PLC0415 - see above
    from streamer.config.child_environment import forbid_core_dumps, wipe_own_secrets  # noqa: PLC0415 - see above
    from streamer.config.settings import SettingsError, load_settings  # noqa: PLC0415 - see above
    from streamer.core.logs import secrets_of, uses_json  # noqa: PLC0415 - see above
    from streamer.model_zoo.download_url import BadRequest  # noqa: PLC0415 - see above
    from streamer.supervisor.log_writer import LogWriter, supervisor_log  # noqa: PLC0415 - see above
    from streamer.supervisor.restart_policy import CannotStart  # noqa: PLC0415 - see above
    from streamer.supervisor.supervisor import Supervisor  # noqa: PLC0415 - see above

    async def supervise(writer: LogWriter) -> int:
        return await Supervisor(settings, writer).run()

    try:
        names = _known_models(options)
        # Check the settings before the download, with an existing file in place of each model that is not
        # downloaded yet: otherwise a wrong setting would be reported only after the download.
        settings = load_settings(**{**options, **dict.fromkeys(names, __file__)})
        check_access(settings)
    except (SettingsError, AccessNotConfigured, BadRequest) as error:
        # The settings could not be read, so LOG_FORMAT alone decides: text, unless it is json.
        log_format = str(options.get("log_format", os.environ.get("LOG_FORMAT", "")))
        writer = supervisor_log("info", json_lines=log_format.strip().lower() == "json", secrets=())
        sys.stderr.write(f"streamer: {_option_of(error, options)}{error}\n")
        writer.close()
        return EXIT_USAGE
    for setting, name in names.items():
        code, path = _pull(name)
        if code:
            sys.stderr.write(f"streamer: {_OPTIONS[setting]} {name}: the download has failed (see above)\n")
            return _EXIT_CANNOT_START
        if path is None:
            return 0
        settings = settings.model_copy(update={setting: path})
    wipe_own_secrets()
    forbid_core_dumps()
    writer = supervisor_log(
        settings.log_level,
        json_lines=uses_json(settings.log_format),
        secrets=secrets_of([*settings.keys, *settings.admin_keys, settings.turn_secret]),
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


def _option_of(error: Exception, options: Mapping[str, Any]) -> str:
    """Return the option that caused an error, as the beginning of a message; empty if a variable did."""
    setting = getattr(error, "setting", "")
    return f"{_OPTIONS.get(setting, '--' + setting.replace('_', '-'))}: " if setting in options else ""


def _known_models(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of known models in the options, by the setting of their path.

    A value that exists as a file, or that looks like a path, is a path and not a name. Raises BadRequest for
    a name that is not known.
    """
    from streamer.model_zoo.download_url import BadRequest  # noqa: PLC0415 - the extra `server`
    from streamer.model_zoo.registry import read_registry  # noqa: PLC0415 - see above

    found = {}
    for setting in ("model_v1_path", "model_v2_path"):
        name = options.get(setting)
        if not name or "/" in name or name.lower().endswith(".onnx") or Path(name).exists():
            continue
        try:
            read_registry(MODELS_DIR / "catalogue.json").find(name)
        except BadRequest as error:
            raise BadRequest(f"{_OPTIONS[setting]} {name!r}: there is no such file, and {error}") from error
        found[setting] = name
    return found


def _pull(name: str) -> tuple[int, Path | None]:
    """Download a known model, and return the exit code of `models pull` and the path.

    A child process downloads it, because the supervisor should not keep the modules of an HTTP client. After
    Ctrl-C or SIGTERM the code is 0 and the path is None.
    """
    command = [sys.executable, "-m", "streamer", "models", "pull", name]
    # The child has a process group of its own, so that Ctrl-C reaches it only once, from this process.
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)  # noqa: S603 - ourselves
    signalled = False

    def forward(number: int, _: object) -> None:
        nonlocal signalled
        signalled = True
        child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    output = child.communicate()[0]
    for number, handler in before.items():
        signal.signal(number, handler)
    return (0, None) if signalled else (child.returncode, Path(output.strip()))
