"""``streamer models pull`` from ``https://`` and ``s3://`` addresses; the store is Ceph's gateway."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from inference.models.manifest import Manifest, read_manifest
from streamer.client.options import Tls
from streamer.model_zoo.download import UriOptions
from streamer.model_zoo.download_url import BadRequest, NotTrusted, PullFailed, WrongFile
from streamer.sampling.s3 import Bucket, open_client
from tests.helpers.model_pulls import Report, finish, get_uri, names, start
from tests.helpers.release_server import Fault, Server
from tests.helpers.stores import registry as registries
from tests.helpers.stores.ceph import ACCESS_KEY, PACKAGES, SECRET_KEY, Ceph, missing
from tests.integration.test_client_network import make_certificate

BODY = random.Random(3).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
BUCKET, KEY = "models", "team/Parcels.onnx"
KNOWN = UriOptions(sha256=SHA256)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    # Without credentials botocore asks the metadata address of clouds, which is slow where there is none.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


# -- https -------------------------------------------------------------------------------------------


async def test_an_https_address_needs_a_checksum(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    trusting = UriOptions(tls=Tls(ca_file=str(certificate)))
    async with Server(BODY, tls=context) as server:
        with pytest.raises(NotTrusted, match=r"no checksum is known.*--sha256.*--trust"):
            await get_uri(server.url, tmp_path / "models", trusting)
        assert server.seen == []
        url = server.url
        pulled = await get_uri(
            f"{server.url}?sig=dummy", tmp_path / "models", replace(trusting, sha256=SHA256)
        )
    assert pulled.path == tmp_path / "models" / "model.onnx"
    assert server.seen[0].target.endswith("?sig=dummy")
    assert read_manifest(pulled.path) == Manifest(source=url, sha256=SHA256)


async def test_a_signature_in_an_address_is_neither_stored_nor_shown(tmp_path: Path) -> None:
    async with Server(BODY) as server:
        server.faults = [Fault(cut_after=100_000), *[Fault(status=503)] * 5]
        report = Report()
        with pytest.raises(PullFailed) as failed:
            await get_uri(f"{server.url}?sig=dummy", tmp_path, KNOWN, report=report)
        written = (tmp_path / "model.onnx.part.json").read_text()
        assert "dummy" not in "".join([str(failed.value), written, *report.lines, *report.statuses])
        server.faults = []
        assert (await get_uri(f"{server.url}?sig=dummy", tmp_path, KNOWN)).sha256 == SHA256
        assert server.seen[-1].headers["range"] == "bytes=100000-"


async def test_a_login_comes_from_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server(BODY) as server:
        server.faults = [Fault(status=401)]
        with pytest.raises(PullFailed, match=r"401 .*; it asks for a login: write one .* into \.netrc"):
            await get_uri(server.url, tmp_path, KNOWN)
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password dummy\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        await get_uri(server.url, tmp_path, KNOWN)
        assert server.seen[-1].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("uri", "options", "found"),
    [
        ("http://host.example/x.onnx", KNOWN, "expected an https:// address"),
        ("ftp://host.example/x.onnx", KNOWN, "an address with https://, s3:// or oci://"),
        ("https://host.example/", KNOWN, "--name is needed"),
        ("https://host.example/x y.onnx", KNOWN, "expected an https:// address"),
        ("https://host.example/x.onnx", replace(KNOWN, name="../x"), "--name: expected 1 to 64 small"),
        ("s3://models", KNOWN, "expected s3://BUCKET/KEY"),
        ("s3://models/folder/", KNOWN, "expected s3://BUCKET/KEY"),
        ("oci://host.example/x", KNOWN, "without a tag and a digest"),
    ],
)
async def test_a_wrong_address_is_refused(uri: str, options: UriOptions, found: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=found):
        await get_uri(uri, tmp_path, options)


async def test_options_for_one_file_are_checked(tmp_path: Path) -> None:
    async def refused(*arguments: str) -> str:
        code, _, error = await finish(await start("pull", *arguments, "--to", str(tmp_path)))
        assert code == 2
        return error

    two, labels, sha256, known, broken = await asyncio.gather(
        refused("s3://b1b/x.onnx", "s3://b1b/y.onnx", "--name", "x"),
        refused("https://host.example/x.onnx", "--sha256", SHA256, "--manifest", '{"label": []}'),
        refused("https://host.example/x.onnx", "--manifest", '{"sha256": "' + SHA256 + '"}'),
        refused("yolox_nano", "--name", "x"),
        refused("https://host.example/x.onnx", "--manifest", str(tmp_path / "none.json")),
    )
    assert "--name describes one file; found 2 names" in two
    assert "--manifest: expected" in labels
    assert "label" in labels
    assert "without `sha256`" in sha256
    assert "found a known model, 'yolox_nano'" in known
    assert "none.json: No such file" in broken


# -- s3 ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    absent = missing()
    if absent:
        pytest.skip(f"needs a real S3; not found: {', '.join(absent)} (as root: apt-get install {PACKAGES})")
    with Ceph(tmp_path_factory.mktemp("ceph")) as running:
        yield running


@pytest.fixture
def store(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> Ceph:
    """Return the store with a model in it, and set its credentials in the environment."""
    monkeypatch.setenv("S3_ENDPOINT_URL", ceph.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    asyncio.run(_put(ceph.url))
    return ceph


async def _put(url: str) -> None:
    async with open_client(Bucket(BUCKET, endpoint=url)) as client:
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            await client.create_bucket(Bucket=BUCKET)
        await client.put_object(Bucket=BUCKET, Key=KEY, Body=BODY)


def test_the_command_pulls_from_a_bucket(store: Ceph, tmp_path: Path) -> None:
    arguments = ("pull", f"s3://{BUCKET}/{KEY}", "--to", str(tmp_path / "models"), "--sha256", SHA256)

    async def run() -> tuple[int, str, str]:
        return await finish(await start(*arguments, "--manifest", '{"labels": ["parcel"]}'))

    code, out, error = asyncio.run(run())
    assert (code, out) == (0, f"{tmp_path / 'models' / 'parcels.onnx'}\n"), error
    assert (tmp_path / "models" / "parcels.onnx").read_bytes() == BODY
    source = f"s3://{BUCKET}/{KEY}"
    expected = Manifest(labels=("parcel",), source=source, sha256=SHA256)
    assert read_manifest(tmp_path / "models" / "parcels.onnx") == expected
    written = (tmp_path / "models" / "parcels.json").read_text()
    assert "Signature" not in error + written


async def test_a_part_of_an_object_is_resumed(store: Ceph, tmp_path: Path) -> None:
    async with open_client(Bucket(BUCKET, endpoint=store.url)) as client:
        etag = (await client.head_object(Bucket=BUCKET, Key=KEY))["ETag"]
    (tmp_path / "parcels.onnx.part").write_bytes(BODY[:100_000])
    note = {"url": f"s3://{BUCKET}/{KEY}", "etag": etag, "total": len(BODY)}
    (tmp_path / "parcels.onnx.part.json").write_text(json.dumps(note))
    report = Report()
    pulled = await get_uri(f"s3://{BUCKET}/{KEY}", tmp_path, KNOWN, report=report)
    assert pulled.path.read_bytes() == BODY
    assert "parcels: 100000 of 300000" in report.statuses
    assert "parcels: 0 of 300000" not in report.statuses
    assert names(tmp_path) == ["parcels.json", "parcels.onnx"]


async def test_a_checksum_of_an_object_is_required_and_verified(store: Ceph, tmp_path: Path) -> None:
    with pytest.raises(NotTrusted, match="no checksum is known"):
        await get_uri(f"s3://{BUCKET}/{KEY}", tmp_path)
    with pytest.raises(WrongFile, match=f"expected sha256 {'0' * 64}; found {SHA256}"):
        await get_uri(f"s3://{BUCKET}/{KEY}", tmp_path, UriOptions(sha256="0" * 64))
    assert names(tmp_path) == []


async def test_a_store_that_refuses_is_explained(
    store: Ceph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        PullFailed, match=rf"s3://{BUCKET}/none at {store.url}: 404 NoSuchKey: the bucket has no"
    ):
        await get_uri(f"s3://{BUCKET}/none", tmp_path, KNOWN)
    with pytest.raises(PullFailed, match="NoSuchBucket: there is no bucket"):
        await get_uri("s3://no-such-bucket/x.onnx", tmp_path, KNOWN)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "dummy-wrong-key")
    with pytest.raises(PullFailed, match=r"SignatureDoesNotMatch.*AWS_SECRET_ACCESS_KEY does not belong"):
        await get_uri(f"s3://{BUCKET}/{KEY}", tmp_path, KNOWN)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "dummy-wrong-id")
    with pytest.raises(PullFailed, match="InvalidAccessKeyId"):
        await get_uri(f"s3://{BUCKET}/{KEY}", tmp_path, KNOWN)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(PullFailed, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or assign a role"):
        await get_uri(f"s3://{BUCKET}/{KEY}", tmp_path, KNOWN)


@registries.NEEDS_REGISTRY
async def test_a_registry_may_keep_its_files_in_a_bucket(
    store: Ceph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry redirects to a signed address, which the store refuses beside a second credential."""
    digest = registries.make_layout(tmp_path / "layout", {"parcels.onnx": BODY})
    storage = {
        "s3": {
            "accesskey": ACCESS_KEY,
            "secretkey": SECRET_KEY,
            "region": "us-east-1",
            "regionendpoint": store.url,
            "bucket": BUCKET,
            "secure": False,
            "v4auth": True,
        }
    }
    auth = registries.htpasswd(tmp_path / "auth")
    with registries.Registry(tmp_path / "registry", auth=auth, storage=storage) as running:
        login = f"{registries.USER}:{registries.PASSWORD}"
        await asyncio.to_thread(running.push, tmp_path / "layout", "models/parcels:1", login=login)
        config = registries.docker_config(tmp_path / "docker", running.address)
        monkeypatch.setenv("DOCKER_CONFIG", str(config))
        uri = f"oci://{running.address}/models/parcels@{digest}"
        assert (await get_uri(uri, tmp_path / "models")).sha256 == SHA256
