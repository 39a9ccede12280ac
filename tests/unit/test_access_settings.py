"""A service without keys starts only on a loopback address, unless a setting allows anonymous access."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.access.access_settings import AccessNotConfigured, check_access
from streamer.config.settings import SettingsError, load_settings
from tests.helpers.service import ROOT

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is tested


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_loopback_needs_no_key(host: str) -> None:
    check_access(load_settings(host=host))


@pytest.mark.parametrize(
    "host", [EVERYWHERE, "::", "::ffff:192.0.2.1", "192.0.2.1", "fd00::1", "no-such-host.invalid"]
)
def test_other_addresses_want_keys_or_a_word(host: str) -> None:
    with pytest.raises(AccessNotConfigured) as refused:
        check_access(load_settings(host=host))
    for word in ("HOST", host, "API_KEYS", "API_KEYS_FILE", "ALLOW_ANONYMOUS=1"):
        assert word in str(refused.value)
    check_access(load_settings(host=host, allow_anonymous=True))
    check_access(load_settings(host=host, api_keys="test-key"))


@pytest.mark.parametrize("keys", [",", " , ,", " "])
def test_a_setting_without_a_key_in_it_is_not_taken_for_no_keys(keys: str) -> None:
    with pytest.raises(AccessNotConfigured, match="API_KEYS"):
        check_access(load_settings(api_keys=keys, allow_anonymous=True))


def test_short_keys_are_counted() -> None:
    assert load_settings(api_keys="short,fifteen-of-them,sixteen-of-them!").guessable_keys == 2
    assert load_settings().guessable_keys == 0


def test_the_service_ends_with_code_2_and_says_why() -> None:
    environment = os.environ | {"HOST": EVERYWHERE, "PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "streamer", "serve"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "ALLOW_ANONYMOUS=1" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"jwt_audience": "a"}, "JWT_ISSUER is empty"),
        ({"jwt_issuer": "i"}, "JWT_AUDIENCE is empty"),
        ({"jwt_issuer": "i", "jwt_audience": "a"}, "no such file"),
    ],
)
def test_tokens_want_everything_that_pins_them(given: dict[str, str], words: str) -> None:
    with pytest.raises(AccessNotConfigured, match=words):
        check_access(load_settings(jwt_jwks="/nowhere/keys.json", **given))


@pytest.mark.parametrize(
    ("name", "value"),
    [("jwt_jwks", "http://issuer.example/keys"), ("jwt_algorithms", "HS256"), ("jwt_algorithms", "none")],
)
def test_tokens_are_verified_by_public_keys_of_a_pinned_place(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match="allowed are"):
        load_settings(**{name: value})


def test_a_key_file_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    with pytest.raises(AccessNotConfigured, match=r"API_KEYS_FILE=.*cannot be read"):
        check_access(load_settings(api_keys_file=file))
    file.write_text("keys = 5")
    with pytest.raises(AccessNotConfigured, match=r"API_KEYS_FILE=.*`keys`"):
        check_access(load_settings(api_keys_file=file))
    file.write_text("keys = []")
    check_access(load_settings(api_keys_file=file, host=EVERYWHERE))
