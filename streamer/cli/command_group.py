"""A command that has commands of its own, such as ``streamer models``. Loads what a command needs."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from streamer.console.signals import EXIT_INTERRUPTED
from streamer.console.terminal import Terminal


@dataclass(frozen=True, slots=True)
class CommandGroup:
    """What its commands are, and with which code each of their errors ends."""

    #: As it is typed, without ``streamer``.
    name: str
    #: Command, its module with `add_arguments` and `run`, and what the list of commands says of it.
    commands: tuple[tuple[str, str, str], ...]
    #: Error to exit code; the first that fits. Errors of other types are faults of ours and are raised.
    exit_codes: tuple[tuple[type[Exception], int], ...]

    def add_arguments(self, parser: argparse.ArgumentParser, description: str, examples: str) -> None:
        """Add the commands. Their modules load heavy packages only when they run."""
        parser.description, parser.epilog = description, examples
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        commands = parser.add_subparsers(dest=f"{self.name}_command", required=True, metavar="COMMAND")
        for name, module, help_text in self.commands:
            command = commands.add_parser(
                name, help=help_text, formatter_class=argparse.RawDescriptionHelpFormatter
            )
            loaded = import_module(module)
            loaded.add_arguments(command)
            command.set_defaults(run=functools.partial(self._run, name, loaded.run))

    def _run(
        self, name: str, run: Callable[[argparse.Namespace, Terminal], int], arguments: argparse.Namespace
    ) -> int:
        """Run one command; returns the exit code. What it cannot do is one line on standard error."""
        terminal = Terminal(quiet=getattr(arguments, "quiet", False))
        try:
            return run(arguments, terminal)
        except tuple(kind for kind, _ in self.exit_codes) as error:
            terminal.line(f"streamer {self.name} {name}: {error}", always=True)
            return next(code for kind, code in self.exit_codes if isinstance(error, kind))
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        finally:
            terminal.close()
