"""``streamer models``: help with examples for every command, and one exit code for each kind of failure."""

from __future__ import annotations

import pytest

from streamer.cli import models
from streamer.cli.main import main
from streamer.model_zoo import download_url as errors
from streamer.model_zoo.download_url import ModelFileError


@pytest.mark.parametrize("command", [[], ["list"], ["pull"], ["check"], ["optimize"]])
def test_help_shows_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["models", *command, "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "examples:\n" in text
    assert f"streamer models {command[0] if command else 'list'}" in text.partition("examples:")[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "x", "--batch-max", "0"], "--batch-max: expected a whole number from 1 to 64; found '0'"),
        (["check", "x", "--batch-max", "many"], "from 1 to 64; found 'many'"),
        (["check", "x", "--device", "tpu"], "--device: invalid choice: 'tpu'"),
        (["pull", "x", "--stall-timeout", "nan"], "--stall-timeout: expected a number from 0.1 to 3600"),
        (["pull", "x", "--tries", "1.5"], "--tries: expected a whole number from 1 to 100; found '1.5'"),
        (["pull"], "NAME"),
        (["optimize", "x", "--agreement", "95"], "--agreement: expected a number from 0 to 1; found '95'"),
        (["optimize", "x", "--max-images", "-1"], "--max-images: expected a whole number from 1"),
        (["optimize", "x", "--precision", "int4"], "--precision: invalid choice: 'int4'"),
    ],
)
def test_wrong_options_are_named_with_what_is_allowed(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["models", *arguments])
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def test_a_command_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["models"])
    assert left.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_every_error_has_an_exit_code_of_its_own_kind() -> None:
    kinds = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ModelFileError) and kind is not ModelFileError
    }
    codes = {kind: code for kind, code in models._EXIT_CODES if kind in kinds}
    assert set(codes) == kinds
    assert len(set(codes.values())) == len(kinds)
    for code in codes.values():
        assert f" {code} " in models.EXAMPLES or f"\n{code} " in models.EXAMPLES
