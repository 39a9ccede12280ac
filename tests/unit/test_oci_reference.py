"""References of OCI artifacts, and logins of registries from Docker's config.json."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from streamer.model_zoo.docker_config import Login, read_config
from streamer.model_zoo.download_url import BadRequest, PullFailed
from streamer.model_zoo.oci_login import RegistryLogin
from streamer.model_zoo.oci_reference import OciReference, parse_reference

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "expected", "base_url"),
    [
        (
            "oci://registry.example.org/models/parcels:1.0",
            OciReference("registry.example.org", "models/parcels", "1.0"),
            "https://registry.example.org/v2/models/parcels",
        ),
        (
            f"oci://registry.example.org:5000/parcels@{DIGEST}",
            OciReference("registry.example.org:5000", "parcels", "", DIGEST),
            "https://registry.example.org:5000/v2/parcels",
        ),
        (
            f"oci://[fd00::7]:5000/a/b-c__d:V1_@{DIGEST}",
            OciReference("[fd00::7]:5000", "a/b-c__d", "V1_", DIGEST),
            "https://[fd00::7]:5000/v2/a/b-c__d",
        ),
        (
            "oci://localhost:5000/parcels:1",
            OciReference("localhost:5000", "parcels", "1"),
            "http://localhost:5000/v2/parcels",
        ),
        (
            "oci://docker.io/parcels:1",
            OciReference("docker.io", "library/parcels", "1"),
            "https://registry-1.docker.io/v2/library/parcels",
        ),
    ],
)
def test_a_reference_is_parsed(text: str, expected: OciReference, base_url: str) -> None:
    found = parse_reference(text)
    assert found == expected
    assert found.base_url(plain_http=False) == base_url
    assert found.base_url(plain_http=True) == base_url.replace("https:", "http:")
    assert parse_reference(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "oci://registry.example.org/parcels",
        "oci://registry.example.org/Parcels:1",
        "oci://registry.example.org/:1",
        "oci://registry.example.org:port/parcels:1",
        "oci:///parcels:1",
        "oci://user:dummy@registry.example.org/parcels:1",
        "oci://registry.example.org/parcels:1@sha256:00",
        "oci://registry.example.org/parcels:a b",
        "oci://registry.example.org/../parcels:1",
        "oci://registry.example.org/parcels:1?x",
    ],
)
def test_a_wrong_reference_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match=r"expected oci://REGISTRY/REPOSITORY:TAG"):
        parse_reference(text)


def write(folder: Path, values: object, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config.json").write_text(json.dumps(values))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


@pytest.fixture(autouse=True)
def _no_logins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_the_most_specific_login_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = base64.b64encode(b"team:dummy:with colon").decode()
    write(
        tmp_path,
        {
            "auths": {
                "https://registry.example.org/v2/": {"username": "all", "password": "dummy"},
                "registry.example.org/models": {"auth": encoded},
                "https://index.docker.io/v1/": {"identitytoken": "dummy-token"},
                "helped.example.org": {},
                "broken.example.org": {"auth": "%%%"},
            },
            "credHelpers": {"helped.example.org": "x"},
        },
        monkeypatch,
    )
    config = read_config()
    assert config.find("registry.example.org", "other/parcels") == Login("all", "dummy")
    assert config.find("registry.example.org", "models/parcels") == Login("team", "dummy:with colon")
    assert config.find("registry.example.org", "models-2/parcels") == Login("all", "dummy")
    assert config.find("docker.io", "library/parcels") == Login(identity_token="dummy-token")  # noqa: S106
    assert config.find("helped.example.org", "parcels") is None
    assert config.find("broken.example.org", "parcels") is None
    assert config.has_helpers
    assert "dummy" not in repr(config)


def test_without_a_file_there_are_no_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_config().logins == {}
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(BadRequest, match=r"config\.json: No such file"):
        read_config()
    for text in ("{", "[]", '{"auths": []}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(BadRequest, match="logins of registries"):
            read_config()


async def test_a_login_is_not_sent_over_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"auths": {"registry.example.org": {"username": "a", "password": "dummy"}}}, monkeypatch)
    reference = parse_reference("oci://registry.example.org/parcels:1")
    login = RegistryLogin(reference, reference.base_url(plain_http=True), 1)
    with pytest.raises(PullFailed, match="asks for a login over http"):
        await login.answer(None, ["Basic realm=x"])  # type: ignore[arg-type]  # it must send nothing
    assert login.headers == {}
    private = RegistryLogin(reference, reference.base_url(plain_http=False), 1)
    with pytest.raises(PullFailed, match=r"sends to http://token\.example for a token; allowed is https"):
        await private.answer(None, ['Bearer realm="http://token.example/",service="x"'])  # type: ignore[arg-type]
