"""``streamer models pull oci://…`` against the registry of the distribution project, filled by skopeo."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from inference.models.manifest import Manifest, read_manifest
from streamer.model_zoo.download import UriOptions
from streamer.model_zoo.download_url import NotTrusted, PullFailed, WrongFile
from tests.helpers.model_pulls import BODY, SHA256, finish, get_uri, start
from tests.helpers.stores.registry import (
    NEEDS_REGISTRY,
    Registry,
    make_layout,
)

pytestmark = [
    pytest.mark.usefixtures("no_logins"),
    NEEDS_REGISTRY,
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, layout: tuple[Path, str]) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        running.push(layout[0], "models/parcels:1.0")
        yield running


async def test_the_command_pulls_what_skopeo_has_pushed(
    registry: Registry, layout: tuple[Path, str], tmp_path: Path
) -> None:
    uri = f"oci://{registry.address}/models/parcels@{layout[1]}"
    manifest = '{"labels": ["parcel"], "licence": "MIT"}'
    arguments = ("pull", uri, "--to", str(tmp_path / "models"), "--manifest", manifest)
    code, out, error = await finish(await start(*arguments))
    assert (code, out) == (0, f"{tmp_path / 'models' / 'parcels.onnx'}\n"), error
    assert "parcels: sha256 is as expected" in error
    assert (tmp_path / "models" / "parcels.onnx").read_bytes() == BODY
    assert read_manifest(tmp_path / "models" / "parcels.onnx") == Manifest(
        labels=("parcel",), licence="MIT", source=uri, sha256=SHA256
    )
    code, _, error = await finish(await start(*arguments))
    assert (code, "is installed already, its sha256 is as expected" in error) == (0, True)


async def test_two_pulls_of_an_artifact_share_one_download(
    registry: Registry, layout: tuple[Path, str], tmp_path: Path
) -> None:
    uri = f"oci://{registry.address}/models/parcels@{layout[1]}"
    arguments = ("pull", uri, "--to", str(tmp_path / "cache"), "--name", "parcels")
    outcomes = await asyncio.gather(*[finish(each) for each in [await start(*arguments) for _ in range(3)]])
    assert [outcome[:2] for outcome in outcomes] == [(0, f"{tmp_path / 'cache' / 'parcels.onnx'}\n")] * 3
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["parcels.json", "parcels.onnx"]


async def test_a_tag_alone_is_refused_and_its_digest_is_named(
    registry: Registry, layout: tuple[Path, str], tmp_path: Path
) -> None:
    tag = f"oci://{registry.address}/models/parcels:1.0"
    pinned = f"oci://{registry.address}/models/parcels@{layout[1]}"
    with pytest.raises(NotTrusted, match=rf"the tag 1\.0 may name another file.*{pinned}.*--sha256 {SHA256}"):
        await get_uri(tag, tmp_path)
    assert (await get_uri(tag, tmp_path / "one", trust=True)).sha256 == SHA256
    assert (await get_uri(tag, tmp_path / "two", UriOptions(sha256=SHA256))).sha256 == SHA256
    with pytest.raises(NotTrusted, match=r"the artifact says .*; one of them belongs to another file"):
        await get_uri(pinned, tmp_path / "three", UriOptions(sha256="0" * 64))
    assert read_manifest(tmp_path / "one" / "parcels.onnx").source == pinned


async def test_what_does_not_exist_is_named(registry: Registry, tmp_path: Path) -> None:
    for name in ("models/parcels:2.0", "models/other:1.0", f"models/parcels@sha256:{'0' * 64}"):
        with pytest.raises(
            PullFailed, match=r"answers 404 Not Found; the repository, tag or digest does not"
        ):
            await get_uri(f"oci://{registry.address}/{name}", tmp_path)


async def test_an_artifact_must_have_one_model(registry: Registry, tmp_path: Path) -> None:
    for name, files, found in (
        ("two", {"a.onnx": b"a", "b.onnx": b"b"}, "found 2 files: a.onnx, b.onnx"),
        ("none", {"notes.txt": b"a"}, "found 1 files: notes.txt"),
    ):
        make_layout(tmp_path / name, files)
        registry.push(tmp_path / name, f"models/{name}:1")
        with pytest.raises(
            WrongFile, match=rf"expected an artifact with one file that ends in \.onnx; {found}"
        ):
            await get_uri(f"oci://{registry.address}/models/{name}:1", tmp_path / "models", trust=True)
    make_layout(tmp_path / "bare", {"": BODY})  # one layer without a title
    registry.push(tmp_path / "bare", "models/bare:1")
    pulled = await get_uri(f"oci://{registry.address}/models/bare:1", tmp_path / "models", trust=True)
    assert (pulled.path.name, pulled.sha256) == ("bare.onnx", SHA256)


async def test_an_installed_artifact_needs_no_registry(layout: tuple[Path, str], tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as short_lived:
        short_lived.push(layout[0], "models/parcels:1.0")
        base = f"oci://{short_lived.address}/models/parcels"
        named = UriOptions(name="parcels")
        await get_uri(f"{base}@{layout[1]}", tmp_path / "models", named)
    assert (await get_uri(f"{base}@{layout[1]}", tmp_path / "models", named)).was_installed
    assert (await get_uri(f"{base}:1.0", tmp_path / "models", replace(named, sha256=SHA256))).was_installed
    with pytest.raises(PullFailed, match="cannot be reached: Connection refused; given up after 2 attempts"):
        await get_uri(f"{base}:1.0", tmp_path / "models", named)
    other = f"{base}@sha256:{'0' * 64}"
    with pytest.raises(PullFailed, match="cannot be reached"):
        await get_uri(other, tmp_path / "models", named)
