"""Draws help pages of the commands: headings, options in groups and examples, for any terminal width.

The same page is written with colour to terminals and without colour to pipes.
"""

from __future__ import annotations

import inspect
import io
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TextIO

import typer
from rich.console import Console
from rich.text import Text

from streamer.core.redact import redact

#: Widest page. Longer lines are hard to read, so the page does not fill a wider terminal.
_MAX_COLUMNS = 100
#: Widest name of an option in one line with its help. The help of a longer name begins on the next line.
_NAME_COLUMNS = 24
_INDENT = "  "
_HEADING, _NAME, _VALUE, _EXAMPLE, _REMARK = "bold yellow", "bold cyan", "cyan", "green", "dim"


def help_page(command: Any, ctx: Any, stream: TextIO) -> str:
    """Return the page of a typer command, with colour if ``stream`` is a terminal and NO_COLOR is not set."""
    console = Console(file=stream, highlight=False)
    width = min(console.width, _MAX_COLUMNS)
    # typer writes the page, so draw it in memory, with the width and colours of `stream`.
    out = io.StringIO()
    colours: Literal["standard"] | None = "standard" if console.is_terminal else None
    page = Console(file=out, width=width, highlight=False, color_system=colours)
    for number, part in enumerate(_parts(command, ctx, width)):
        if number:
            page.print()
        for line in part:
            page.print(line, soft_wrap=True)
    return out.getvalue().rstrip("\n")


def show_help(ctx: Any, stream: TextIO) -> None:
    """Write the help page of the command of ``ctx``."""
    stream.write(help_page(ctx.command, ctx, stream) + "\n")


def show_usage_error(error: typer.TyperException, stream: TextIO) -> None:
    """Write how to use the command and what is wrong: the option, the value found, and what is allowed."""
    console = Console(file=stream, highlight=False)
    ctx: Any = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "streamer"
    if ctx is not None:
        console.print(_usage_line(ctx), soft_wrap=True)
        console.print(Text(f"Try '{path} --help' for help.", _REMARK), soft_wrap=True)
    text = redact(_explained(error))  # a surplus word may be an address with a password
    console.print(Text.assemble((f"{path}: error:", "bold red"), " ", text), soft_wrap=True)


def _explained(error: typer.TyperException) -> str:
    if not isinstance(error, typer.BadParameter):
        return error.format_message()
    param = error.param
    hint = error.param_hint
    if hint is None and param is not None:
        hint = param.opts[-1] if param.param_type_name == "option" else param.metavar
    if not error.message:
        return f"{hint}: expected a value; found none"
    # typer reads values with pydantic, whose messages begin with these words.
    message = error.message.removeprefix("Value error, ")
    found, is_choice, allowed = message.partition(" is not one of ")
    if is_choice:
        message = f"expected one of {allowed.rstrip('.')}; found {found}"
    return f"{hint}: {message}"


def _usage_line(ctx: Any) -> Text:
    """Return the line that shows how to call the command."""
    pieces = " ".join([ctx.command_path, *ctx.command.collect_usage_pieces(ctx)])
    return Text.assemble(("Usage:", _HEADING), " ", pieces.replace("{", "").replace("}", ""))


def _parts(command: Any, ctx: Any, width: int) -> Iterator[Iterable[Text]]:
    yield [_usage_line(ctx)]
    for paragraph in inspect.cleandoc(command.help or "").partition("\f")[0].strip().split("\n\n"):
        yield _paragraph(paragraph, width)
    groups: dict[str, list[tuple[Text, str]]] = {}
    for param in command.get_params(ctx):
        if not param.hidden:
            default = "Arguments" if param.param_type_name == "argument" else "Options"
            groups.setdefault(param.rich_help_panel or default, []).append(_described(param))
    if hasattr(command, "list_commands"):
        named = [(name, command.get_command(ctx, name)) for name in command.list_commands(ctx)]
        groups = {
            "Commands": [(Text(name, _NAME), found.get_short_help_str(200)) for name, found in named]
        } | groups
    names = [len(name) for rows in groups.values() for name, _ in rows]
    name_width = max((length for length in names if length <= _NAME_COLUMNS), default=0)
    for title, rows in groups.items():
        yield [Text(f"{title}:", _HEADING), *_rows(rows, name_width, width)]
    for paragraph in (command.epilog or "").split("\n\n"):
        if paragraph:
            yield _paragraph(paragraph, width)


def _described(param: Any) -> tuple[Text, str]:
    """Return the spellings of a parameter with its kind of value, and its help."""
    text = param.help or ""
    if text.endswith("."):  # typer added this option
        text = text[0].lower() + text[1:-1]
    if param.param_type_name == "argument":
        name = Text(param.metavar or param.name.upper(), _NAME)
        if param.nargs != 1:
            name.append("...")
        return name, text
    spellings = ", ".join(sorted((*param.opts, *param.secondary_opts), key=len))
    name = Text(spellings, _NAME)
    if not param.is_flag:
        choices = param.type_descriptor.choices
        name.append(f" {param.metavar or '|'.join(map(str, choices or ['TEXT']))}", _VALUE)
    return name, text


def _rows(rows: list[tuple[Text, str]], name_width: int, width: int) -> Iterator[Text]:
    for name, text in rows:
        lines = _wrap(text, max(20, width - name_width - 4)) or [""]
        if len(name) > name_width:
            yield Text(_INDENT) + name
            name = Text()
        for number, line in enumerate(lines):
            shown = name if number == 0 else Text()
            yield (Text(_INDENT) + shown).append(" " * (name_width - len(shown) + 2) + line)


def _paragraph(paragraph: str, width: int) -> Iterator[Text]:
    """Yield the lines of a paragraph. Keep the breaks of indented lines, and wrap other text."""
    prose: list[str] = []
    for line in paragraph.split("\n"):
        if not line.startswith(_INDENT):
            prose.append(line)
            continue
        yield from _wrapped(prose, width)
        prose = []
        yield from _indented(line, width)
    yield from _wrapped(prose, width)


def _wrapped(prose: list[str], width: int) -> Iterator[Text]:
    for line in _wrap(" ".join(prose), width):
        is_heading = line.endswith(":") and len(prose) == 1 and len(line) < _NAME_COLUMNS
        yield Text(line, _HEADING if is_heading else "")


def _indented(line: str, width: int) -> Iterator[Text]:
    """Yield a row of two columns, such as an exit code, or an example with its remark after `#`."""
    first, gap, rest = line.strip().partition("  ")
    if gap and not rest.startswith("#"):
        yield from _rows([(Text(first, _NAME), rest.strip())], max(4, len(first)), width)
    else:
        yield Text.assemble((_INDENT + first, _EXAMPLE), (gap + rest, _REMARK))


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
