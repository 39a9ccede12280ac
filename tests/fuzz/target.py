"""A parser under fuzzing: how to call it, which errors are its answers, and inputs to begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus"


@dataclass(frozen=True, slots=True)
class Target:
    """One parser. ``run`` returns nothing; what it raises beyond ``answers`` is a fault."""

    name: str
    run: Callable[[bytes], object]
    #: Exceptions that the parser documents.
    answers: tuple[type[Exception], ...]
    #: Makes the committed inputs: valid ones, and the rare shapes that mutation hardly finds.
    seeds: Callable[[], Iterator[bytes]]
    #: Longest input; what stands before the parser refuses longer ones.
    most_bytes: int = 4096

    def try_input(self, data: bytes) -> bool:
        """Run one input; returns whether it was accepted. Raises what is no answer."""
        try:
            self.run(data)
        except self.answers:
            return False
        return True

    def corpus(self) -> list[bytes]:
        """Return the committed inputs, in a fixed order."""
        return [path.read_bytes() for path in sorted((CORPUS / self.name).glob("*.bin"))]
