"""A command that has commands of its own, such as ``streamer models``: help, errors and exit codes."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from dataclasses import dataclass

from streamer.console.signals import EXIT_INTERRUPTED
from streamer.console.terminal import Terminal


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a group. ``run`` returns the exit code and raises the errors of the group."""

    name: str
    #: What the group's list of commands says about it.
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Terminal], int]


@dataclass(frozen=True, slots=True)
class CommandGroup:
    """The commands of a group, and the exit code for each kind of error."""

    #: As it is typed, without ``streamer``.
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
        """Run one command; returns the exit code. Errors of the group become one line on standard error."""
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
