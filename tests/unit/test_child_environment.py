"""Child processes read their settings from an inherited descriptor; their environment holds no secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.config.child_environment import ChildEnvironment, inherited_settings, without_secrets
from streamer.config.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]


def test_a_child_gets_the_supervisors_settings_whatever_its_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load_settings(port=4321, api_keys="a,b")
    given = ChildEnvironment(settings, settings)
    for name, value in given.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PORT", "1")
    read = inherited_settings()
    assert (read.port, sorted(read.keys)) == (4321, ["a", "b"])
    assert os.environ["PORT"] == "1"


def test_a_child_that_starts_again_reads_the_same_settings() -> None:
    settings = load_settings(port=4321)
    given = ChildEnvironment(settings, settings)
    code = (
        "from streamer.config.child_environment import inherited_settings; print(inherited_settings().port)"
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=given.variables,
            pass_fds=given.descriptors,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "4321\n"
    given.close()


def test_settings_cannot_be_changed_by_a_child() -> None:
    settings = load_settings()
    given = ChildEnvironment(settings, settings)
    (fd,) = given.descriptors
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    given.close()


def test_what_needs_no_settings_inherits_none() -> None:
    given = ChildEnvironment(load_settings(), None)
    assert given.descriptors == ()
    assert "STREAMER_SETTINGS_FD" not in given.variables
    given.close()


def test_the_settings_without_secrets_keep_everything_else() -> None:
    settings = load_settings(api_keys="test-key", turn_secret="test-key", port=4321)  # noqa: S106 - a dummy
    assert "test-" not in settings.public.model_dump_json()
    assert settings.public.port == 4321


def test_settings_and_secrets_are_not_passed_on() -> None:
    environment = {
        "PATH": "/bin",
        "API_KEYS": "canary",
        "turn_secret": "canary",
        "PORT": "1",
        "GITHUB_TOKEN": "canary",
        "DB_PASSWORD": "canary",
        "SENTRY_DSN": "https://canary@host/1",
        "DB_PASS": "canary",
        "MYSQL_PWD": "canary",
        "GITHUB_PAT": "canary",
        "DOCKER_AUTH_CONFIG": "canary",
        "STORAGE_CONNECTION_STRING": "canary",
        "ALERT_WEBHOOK": "https://host/canary",
        "REDIS_URL": "redis://:canary@host/0",
        "BROKER_URL": "amqp://user:canary/with-slash@host//",
        "GIT_URL": "https://canary@host/x",
        "PWD": "/srv",
        "SOME_URL": "https://host/path?x=1",
        "HTTPS_PROXY": "http://proxy:3128",
        "AWS_SECRET_ACCESS_KEY": "canary",
        "AWS_REGION": "eu-west-1",
        "LD_LIBRARY_PATH": "/cuda",
    }
    plain = {"PATH", "LD_LIBRARY_PATH", "PWD", "SOME_URL"}
    assert set(without_secrets(environment)) == plain
    kept = without_secrets(environment, credentials=True)
    assert set(kept) == plain | {"HTTPS_PROXY", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"}


def test_secrets_are_wiped_from_what_other_processes_can_read() -> None:
    code = (
        "import os; from pathlib import Path; from streamer.config.child_environment import wipe_own_secrets;"
        "wipe_own_secrets(); print(os.environ['API_KEYS']); print(Path('/proc/self/environ').read_bytes())"
    )
    environment = {"PATH": "/bin", "API_KEYS": "canary-ä", "PLAIN": "kept", "LAST_TOKEN": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    own, shown = done.stdout.splitlines()
    assert own == "canary-ä"
    assert "canary" not in shown
    assert "API_KEYS=*********" in shown
    assert "PLAIN=kept" in shown
