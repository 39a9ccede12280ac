"""Implements ``streamer versions``: lists what a running service serves, and changes it."""

from __future__ import annotations

import sys
from json import dumps
from typing import Annotated, Any, Literal

import typer

from streamer.cli.command import (
    CONNECTION,
    Command,
    Group,
    Json,
    Quiet,
    Token,
    epilog,
    option,
    read_token,
    terminal_of,
)
from streamer.cli.exit_codes import EXIT_USAGE
from streamer.core.signals import EXIT_INTERRUPTED

DEFAULT_URL = "http://127.0.0.1:8000"
_EXIT_CODES = {
    0: "done",
    1: "the service refuses the change and serves what it did before",
    EXIT_USAGE: "wrong option",
    3: "the service cannot be reached",
    EXIT_INTERRUPTED: "Ctrl-C; a change that has begun goes on",
}
_NOTES = """
The key of an administrator is read from --token or STREAMER_TOKEN. A service without keys of administrators
(ADMIN_API_KEYS) takes changes only from programs on its own machine.
"""

app = typer.Typer(
    cls=Group,
    add_completion=False,
    help="Show and change the models of a running service (docs/versions.md).",
    epilog=epilog(
        """
        streamer versions list
        streamer versions load v2 candidate.onnx
        streamer versions promote
        streamer versions rollback
        """,
        notes=_NOTES,
        exit_codes=_EXIT_CODES,
    ),
)

Url = Annotated[
    str, option("--url", f"address of the service ({DEFAULT_URL})", value="URL", group=CONNECTION)
]
LabelsMayChange = Annotated[
    bool, option("--labels-may-change", "allow other classes than the version has now")
]


@app.command(
    "list",
    cls=Command,
    short_help="which model is served as which version?",
    epilog=epilog("streamer versions list --url http://gpu-7:8000", notes=_NOTES, exit_codes=_EXIT_CODES),
)
def list_versions(
    ctx: typer.Context, url: Url = DEFAULT_URL, token: Token = None, json: Json = False, quiet: Quiet = False
) -> int:
    """List the files that a service serves, with the device and the time since when."""
    found = _request(ctx, "GET", "/versions", url, token)
    if json:
        sys.stdout.write(dumps(found, indent=2) + "\n")
        return 0
    for version, entry in found["versions"].items():
        model = entry["model"]
        since = f", since {model['loaded_at']}" if "loaded_at" in model else ""
        sys.stdout.write(
            f"{version}  {model['file']}  sha256 {model['sha256'][:12]}…  "
            f"{model['labels']['count']} classes, {model['device']}{since}\n"
        )
    return 0


@app.command(
    cls=Command,
    short_help="serve another file as a version",
    epilog=epilog(
        """
        streamer versions load v2 candidate.onnx
        streamer versions load v1 2026-11/own.onnx --sha256 9f2c…
        """,
        notes=_NOTES,
        exit_codes=_EXIT_CODES,
    ),
)
def load(
    ctx: typer.Context,
    version: Annotated[Literal["v1", "v2"], typer.Argument(metavar="VERSION", help="v1 or v2")],
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="name of the file below MODELS_DIR of the service")
    ],
    sha256: Annotated[str | None, option("--sha256", "digest that the file must have", value="HEX")] = None,
    labels_may_change: LabelsMayChange = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Load a model beside the one that is served, check it, and change over without closing a stream.

    The file must lie below the folder of models of the service. It is refused if it has other classes than
    the version has now, unless --labels-may-change is given.
    """
    body: dict[str, Any] = {"path": path, "labels_may_change": labels_may_change}
    if sha256 is not None:
        body["sha256"] = sha256
    return _show(_request(ctx, "POST", f"/versions/{version}/load", url, token, body), json=json)


@app.command(
    cls=Command,
    short_help="serve the model of v2 as v1, too",
    epilog=epilog("streamer versions promote", notes=_NOTES, exit_codes=_EXIT_CODES),
)
def promote(
    ctx: typer.Context,
    labels_may_change: LabelsMayChange = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Serve the model of v2 as v1, too. What v1 was stays loaded for a while, for `rollback`."""
    body = {"labels_may_change": labels_may_change}
    return _show(_request(ctx, "POST", "/versions/promote", url, token, body), json=json)


@app.command(
    cls=Command,
    short_help="serve what was served before the last change",
    epilog=epilog("streamer versions rollback", notes=_NOTES, exit_codes=_EXIT_CODES),
)
def rollback(
    ctx: typer.Context, url: Url = DEFAULT_URL, token: Token = None, json: Json = False, quiet: Quiet = False
) -> int:
    """Serve the files again that were served before the last change."""
    return _show(_request(ctx, "POST", "/versions/rollback", url, token), json=json)


def _request(
    ctx: typer.Context,
    method: str,
    path: str,
    url: str,
    token: str | None,
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    from streamer.client.administration import ask  # noqa: PLC0415 - loads aiohttp

    terminal = terminal_of(ctx)
    if method == "POST":
        terminal.status("the service loads, warms up and checks the model")
    found = ask(method, path, url, read_token(token), body)
    terminal.close()
    return found


def _show(found: dict[str, Any], *, json: bool) -> int:
    if json:
        sys.stdout.write(dumps(found, indent=2) + "\n")
        return 0
    for version, model in found["versions"].items():
        sys.stdout.write(f"{version}  {model['file']}  sha256 {model['sha256'][:12]}…\n")
    back = found["rollback"]
    if back is not None:
        files = ", ".join(f"{version} {model['file']}" for version, model in back.items())
        warm = ", which is still loaded" if found["rollback_is_warm"] else ""
        sys.stdout.write(f"rollback: {files}{warm}\n")
    return 0
