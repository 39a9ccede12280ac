"""Describes a parser for fuzzing: how to call it, which errors it may raise, and which inputs come first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus"


@dataclass(frozen=True, slots=True)
class Target:
    """Describes one parser; an exception of ``run`` that is not in ``answers`` is a fault."""

    name: str
    run: Callable[[bytes], object]
    #: Exceptions that the parser documents.
    answers: tuple[type[Exception], ...]
    #: Yields inputs for the committed corpus: valid ones, and rare shapes that mutation hardly finds.
    seeds: Callable[[], Iterator[bytes]]
    #: Length of the longest input. In the service, the code before the parser refuses longer ones.
    most_bytes: int = 4096

    def try_input(self, data: bytes) -> bool:
        """Run one input; return whether the parser accepted it.

        Exceptions that are not in ``answers`` pass through.
        """
        try:
            self.run(data)
        except self.answers:
            return False
        return True

    def corpus(self) -> list[bytes]:
        """Return the committed inputs, in a fixed order."""
        return [path.read_bytes() for path in sorted((CORPUS / self.name).glob("*.bin"))]
