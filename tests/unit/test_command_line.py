"""Tests what commands print, and how they read their options: help, usage errors, exit codes."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from streamer.access.identity import Scope
from streamer.cli import predict
from streamer.cli.exit_codes import EXIT_CODES, exit_code
from streamer.cli.main import main
from streamer.cli.pusher import Plan
from streamer.client.detections import Detections
from streamer.client.errors import Rejected, SourceFailed
from streamer.client.oneshot import Request
from streamer.client.results import Prediction
from streamer.datasets.export import DatasetFormat
from tests.recordings.command_line import COMMANDS

#: Matches characters that draw boxes and bars, and the first byte of escape sequences.
DRAWN = re.compile(r"[\x1b\u2500-\u259f]")


@pytest.fixture(params=list(COMMANDS))
def page(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Return the words of a command, and its help page as written to a pipe with 80 columns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        patch.delenv("FORCE_COLOR", raising=False)
        assert main([*request.param.split(), "--help"]) == 0
    return request.param, capsys.readouterr().out


def test_a_help_page_fits_80_columns_without_colour_and_boxes(page: tuple[str, str]) -> None:
    command, text = page
    assert text.startswith(f"Usage: streamer {command}".rstrip())
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert DRAWN.search(text) is None


def test_a_help_page_explains_every_option(page: tuple[str, str]) -> None:
    _, text = page
    for name, _, explanation in re.findall(r"^  (--[\w-]+)( \S+)?(?:\n)?  +(.*)$", text, re.MULTILINE):
        assert explanation, name


def test_commands_show_examples_of_themselves(page: tuple[str, str]) -> None:
    command, text = page
    examples = text.partition("\nExamples:\n")[2]
    if command not in ("", "keys new", "keys check", "samples stats", "samples verify"):
        assert f"streamer {command}" in examples


def test_every_exit_code_of_an_error_is_listed(page: tuple[str, str]) -> None:
    command, text = page
    if command in EXIT_CODES:
        listed = re.findall(r"^  (\d+) ", text.partition("\nExit codes:\n")[2], re.MULTILINE)
        assert {str(code) for code in EXIT_CODES[command].values()} <= set(listed)


def test_the_table_of_exit_codes_names_errors_that_exist() -> None:
    for codes in EXIT_CODES.values():
        for name in codes:
            module, _, kind = name.rpartition(".")
            assert issubclass(getattr(importlib.import_module(module), kind), Exception)


def test_the_most_specific_class_of_an_error_decides() -> None:
    assert exit_code("push", SourceFailed("gone")) == 4
    assert exit_code("push", Rejected("no", code=4401)) == 3
    assert exit_code("push", ValueError("a bug")) is None


@pytest.mark.parametrize("group", ["", "models", "keys", "samples", "simulate"])
def test_a_group_alone_shows_its_help_as_an_error(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(group.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"Usage: streamer {group}".rstrip())
    assert "\nCommands:\n" in shown.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "nonsense",
            "COMMAND: expected one of serve, predict, push, models, samples, labels, train, evaluate, ",
        ),
        ("models nonsense", "expected one of list, check, pull, optimize; found 'nonsense'"),
        ("push", "SOURCE: expected a value; found none"),
        ("push 0 --mode sometimes", "--mode: expected one of 'live', 'all'; found 'sometimes'"),
        ("push 0 --fps -1", "--fps: expected a number above 0; found '-1'"),
        ("push 0 --fps", "--fps: expected a value; found none"),
        ("push 0 --token --insecure", "--token: expected a value; found '--insecure'"),
        ("push 0 --save -- x", "--save: expected a value; found '--'"),
        ("push 0 --quality high", "--quality: expected a whole number; found 'high'"),
        ("push 0 --conf high", "--conf: expected a number; found 'high'"),
        ("push 0 --give-up-after -1", "--give-up-after: expected a number of seconds, 0 or more; found '-1'"),
        ("push 0 --loop=yes", "--loop"),
        ("push 0 --max 5", "--max"),
        ("push 0 --nonsense", "--nonsense"),
        ("push 0 1", "(1)"),
        ("samples export --format pdf --out x", "'coco', 'yolo', 'label-studio'; found 'pdf'"),
        ("samples export --format coco", "--out: expected a value; found none"),
        ("simulate autoscaling --capacity 7,x", "--capacity: expected a number; found 'x'"),
        ("simulate fleet --cameras 10", "--replica-fps: expected a value; found none"),
        ("simulate autoscaling --method x", "--method: expected some of hpa, keda, keda-value"),
        ("simulate streams 2x10", "--run-times"),
        ("simulate streams 2x10 --run-times 1:5 --stalls 5", "--stalls: expected EVERY:LENGTH in seconds"),
        ("simulate streams 2x10 --run-times 1:5 --size 640", "--size: expected WIDTHxHEIGHT"),
        ("simulate streams 2x10 --run-times 1:5 --workers 0", "--workers: expected a whole number from 1"),
        ("simulate streams 2x10 --run-times 1:5 --seconds 0", "--seconds: expected a number above 0"),
    ],
)
def test_a_usage_error_names_the_option_and_what_is_allowed(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.startswith("Usage: streamer")
    assert shown.out == ""
    assert DRAWN.search(shown.err) is None


def test_a_usage_error_shows_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "0", "rtsp://user:dummy-password@camera/1"]) == 2
    shown = capsys.readouterr().err
    assert "rtsp://***@camera/1" in shown
    assert "dummy" not in shown


def test_options_can_be_abbreviated_repeated_and_joined_with_their_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--catal", str(tmp_path / "first"), f"--catalogue={tmp_path / 'last'}"]
    assert main(["models", "list", *words]) == 2
    assert str(tmp_path / "last") in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "push"])
@pytest.mark.parametrize(
    ("words", "chosen"),
    [("", None), ("--agnostic-nms", True), ("--no-agnostic-nms", False), ("--no-a", False)],
)
def test_the_model_decides_on_agnostic_nms_unless_the_user_does(
    command: str, words: str, chosen: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    async def record(*arguments: object) -> int:
        given.extend(arguments)
        return 0

    monkeypatch.setattr(importlib.import_module(f"streamer.cli.{command}"), f"_{command}", record)
    assert main([command, "a.png", *words.split()]) == 0
    (params,) = [argument.params for argument in given if isinstance(argument, Plan | Request)]
    assert params is not None
    assert params.agnostic_nms is chosen


def test_words_after_two_dashes_are_no_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--quiet", "--url", "http://127.0.0.1:1/v1/predict", "--", "--json"]) in (1, 3)
    assert "--json" in capsys.readouterr().err


def test_the_options_offer_all_formats_and_scopes(capsys: pytest.CaptureFixture[str]) -> None:
    for words, offered in (("samples export", DatasetFormat), ("keys new", Scope)):
        main([*words.split(), "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert any(joint.join(name.value for name in offered) in text for joint in ("|", ", "))


def test_texts_of_codes_are_a_column_that_cannot_steer_a_terminal() -> None:
    items = [
        {"box": [1, 2, 3, 4], "score": 0.9, "class_id": 0, "label": "qr_code", "text": text}
        for text in ("\x1b[2Jgone\nnext", "x" * 100, None)
    ]
    answer = Prediction(Detections.from_json(items), 640, 480, {}, {}, "id")
    table = predict._table("a.jpg", answer)
    assert table.head[-1] == "TEXT"
    assert [row[-1] for row in table.rows] == [" [2Jgone next", "x" * 59 + "…", ""]
    assert predict._text("a.jpg", answer).splitlines()[1].endswith("  [2Jgone next")


def test_an_unknown_error_is_a_bug_and_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("streamer.model_zoo.registry.read_registry", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["models", "list"])
