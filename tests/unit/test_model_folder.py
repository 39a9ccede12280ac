"""Tests what ``streamer models list`` finds out about the files in a folder, and how it prints it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from inference.models.model import Family
from streamer.cli.main import main
from streamer.model_zoo.download_url import BadRequest
from streamer.model_zoo.model_folder import InstalledModel, find_installed, list_json, list_text
from streamer.model_zoo.registry import Registry, RegistryEntry
from tests.helpers import model_factory as factory
from tests.helpers.model_factory import Input

ENTRY = RegistryEntry(
    name="known",
    title="Known",
    family=Family.YOLO,
    input=(64, 64),
    classes=80,
    trained_on="COCO",
    licence="MIT",
    url="https://host/known.onnx",
    source="https://host/page",
    sha256="ab" * 32,
    size=None,
)
REGISTRY = Registry(Path("catalogue.json"), (ENTRY, replace(ENTRY, name="doubtful", sha256=None)))


def only(folder: Path, serving: dict[str, Path] | None = None) -> InstalledModel:
    (found,) = find_installed(folder, REGISTRY, serving or {})
    return found


def test_the_manifest_comes_first_then_the_metadata(tmp_path: Path) -> None:
    image = Input(metadata={"names": "{0: 'a'}", "license": "AGPL-3.0 License (x)"})
    path = factory.blob_model(tmp_path / "mine.onnx", image)
    found = only(tmp_path)
    assert (found.name, found.licence, found.labels, found.classes) == ("mine", "AGPL-3.0", ("a",), 1)
    assert (found.input, found.size, found.trouble) == ((64, 64), path.stat().st_size, None)
    (tmp_path / "mine.json").write_text('{"licence": "MIT", "labels": ["b", "c"]}')
    found = only(tmp_path)
    assert (found.licence, found.labels, found.classes) == ("MIT", ("b", "c"), 2)
    (tmp_path / "mine.json").write_text('{"labels": ["b", "b"]}')
    assert only(tmp_path).labels == ("b", "b_2")


def test_the_registry_fills_in_if_the_file_may_be_the_one_it_describes(tmp_path: Path) -> None:
    path = factory.null_model(tmp_path / "known.onnx", size=64)
    found = only(tmp_path)
    assert (found.known, found.licence, found.classes, found.differs) == (ENTRY, "MIT", 80, False)
    (tmp_path / "known.json").write_text(json.dumps({"sha256": "cd" * 32}))
    found = only(tmp_path)
    assert (found.known, found.licence, found.classes, found.differs) == (None, None, None, True)
    other = Registry(Path("c.json"), (replace(ENTRY, size=path.stat().st_size + 1),))
    (tmp_path / "known.json").unlink()
    assert find_installed(tmp_path, other, {})[0].differs


def test_what_is_served_from_elsewhere_is_listed_too(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    ours = factory.null_model(here / "b.onnx", size=64)
    theirs = factory.null_model(there / "a.onnx", size=64)
    found = find_installed(here, REGISTRY, {"v1": theirs, "v2": ours})
    assert [(model.name, model.serves) for model in found] == [("b", ("v2",)), ("a", ("v1",))]
    assert str(theirs) in list_text(here, found, REGISTRY)


def test_damaged_files_and_manifests_are_listed_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"<html>")
    assert "not ONNX" in str(only(tmp_path).trouble)
    factory.null_model(tmp_path / "broken.onnx", size=64)
    (tmp_path / "broken.json").write_text('{"colour": "pink"}')
    assert "field `colour`" in str(only(tmp_path).trouble)


def test_partial_downloads_hidden_files_and_others_are_not_listed(tmp_path: Path) -> None:
    for name in ("a.onnx.part", ".hidden.onnx", "a.json", "README.md"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.onnx").mkdir()
    assert find_installed(tmp_path, REGISTRY, {}) == []
    assert find_installed(tmp_path / "nowhere", REGISTRY, {}) == []
    with pytest.raises(BadRequest, match=r"README\.md: Not a directory"):
        find_installed(tmp_path / "README.md", REGISTRY, {})


def test_the_table_says_what_is_known_and_what_needs_trust(tmp_path: Path) -> None:
    labels = "{0: 'one\\x1b[2J', 1: 'two', 2: 'three', 3: 'four'}"
    factory.null_model(tmp_path / "plain.onnx", size=64)
    factory.blob_model(tmp_path / "named.onnx", Input(metadata={"names": labels}))
    factory.null_model(tmp_path / "known.onnx", size=64)
    text = list_text(tmp_path, find_installed(tmp_path, REGISTRY, {}), REGISTRY)
    assert f"Installed in {tmp_path}" in text
    assert "4: one?[2J, two, three, …" in text
    assert "80 (COCO)" in text
    assert "\x1b" not in text
    rows = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert rows["doubtful"].endswith("no known checksum: needs --trust")
    known = [line for line in text.splitlines() if line.startswith("  known")]
    assert known[1].endswith("installed")


def test_json_has_the_same_content(tmp_path: Path) -> None:
    factory.null_model(tmp_path / "known.onnx", size=64)
    answer = json.loads(json.dumps(list_json(tmp_path, find_installed(tmp_path, REGISTRY, {}), REGISTRY)))
    assert answer["installed"][0]["known_as"] == "known"
    assert answer["installed"][0]["input"] == {"width": 64, "height": 64}
    assert [(entry["name"], entry["installed"]) for entry in answer["known"]] == [
        ("known", True),
        ("doubtful", False),
    ]
    assert answer["known"][1]["sha256"] is None


def test_the_command_lists_the_bundled_registry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = factory.null_model(tmp_path / "mine.onnx", size=64)
    monkeypatch.setenv("MODEL_V1_PATH", str(path))
    assert main(["models", "list", "--in", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "  mine  v1 " in out
    assert "yolox_nano" in out
    assert main(["models", "list", "--in", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["installed"][0]["serves"] == ["v1"]
    monkeypatch.setenv("MODEL_V1_PATH", "nowhere.onnx")
    assert main(["models", "list", "--in", str(tmp_path)]) == 0
    assert "MODEL_V1_PATH='nowhere.onnx': no such file" in capsys.readouterr().err
    assert main(["models", "list", "--catalogue", str(tmp_path / "none.json")]) == 2
    assert "\nstreamer models list: registry " in capsys.readouterr().err
