"""A service without keys is for its own machine, unless somebody says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from streamer.access_settings import CannotAdmit, check_access
from streamer.settings import load_settings
from tests.service import ROOT

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is tested


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_loopback_needs_no_key(host: str) -> None:
    check_access(load_settings(host=host))


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.0.2.1", "fd00::1", "no-such-host.invalid"])
def test_other_addresses_want_keys_or_a_word(host: str) -> None:
    with pytest.raises(CannotAdmit) as refused:
        check_access(load_settings(host=host))
    for word in ("HOST", host, "API_KEYS", "API_KEYS_FILE", "ALLOW_ANONYMOUS=1"):
        assert word in str(refused.value)
    check_access(load_settings(host=host, allow_anonymous=True))
    check_access(load_settings(host=host, api_keys="test-key"))


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
