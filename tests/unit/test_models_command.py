"""Tests that ``streamer models`` names wrong options and has one exit code for each kind of failure."""

from __future__ import annotations

import pytest

from streamer.cli.exit_codes import exit_code
from streamer.cli.main import main
from streamer.model_zoo import download_url as errors
from streamer.model_zoo.download_url import ModelFileError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "x", "--batch-max", "0"], "--batch-max: expected a whole number from 1 to 64; found '0'"),
        (["check", "x", "--batch-max", "many"], "from 1 to 64; found 'many'"),
        (["check", "x", "--device", "tpu"], "--device: expected one of 'auto', 'cpu', 'cuda', 'tensorrt', "),
        (["check", "x", "--device", "tpu"], "; found 'tpu'"),
        (["pull", "x", "--stall-timeout", "nan"], "--stall-timeout: expected a number from 0.1 to 3600"),
        (["pull", "x", "--tries", "1.5"], "--tries: expected a whole number from 1 to 100; found '1.5'"),
        (["pull"], "NAME: expected a value; found none"),
        (["optimize", "x", "--agreement", "95"], "--agreement: expected a number from 0 to 1; found '95'"),
        (["optimize", "x", "--max-images", "-1"], "--max-images: expected a whole number from 1"),
        (["optimize", "x", "--precision", "int4"], "'fp32', 'fp16', 'int8'; found 'int4'"),
    ],
)
def test_wrong_options_are_named_with_what_is_allowed(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_every_error_has_an_exit_code_of_its_own_kind(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ModelFileError) and kind is not ModelFileError
    ]
    codes = [exit_code("models", kind("why")) for kind in kinds]
    assert None not in codes
    assert len(set(codes)) == len(kinds) > 5
    main(["models", "--help"])
    listed = capsys.readouterr().out.partition("Exit codes:")[2]
    assert {str(code) for code in codes} <= set(listed.split())
