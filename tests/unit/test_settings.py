"""Settings come from the environment, and an error names the variable, its value and what is allowed."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from streamer.assets import MODELS_DIR
from streamer.config.settings import Settings, SettingsError, load_settings

ROOT = Path(__file__).resolve().parents[2]

CONFIGURATION = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def test_defaults_are_those_of_the_readme() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.workers, settings.log_level) == (
        "127.0.0.1",
        8000,
        1,
        "info",
    )


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "99999", "65535"),
        ("PORT", "http", "integer"),
        ("WORKERS", "0", "greater than or equal to 1"),
        ("METRICS_PORT", "8000", "ports other than PORT"),
        ("ALLOWED_HOSTS", "https://a", "names without scheme"),
        ("ALLOWED_ORIGINS", "a.example", "scheme, host and port"),
        ("TRUSTED_PROXIES", "proxy", "networks and addresses"),
        ("LOG_LEVEL", "loud", "'debug', 'info'"),
        ("DEVICE", "gpu", "cuda"),
        ("DEVICE", "cpu,gpu", "openvino"),
        ("DEVICE", "auto,cpu", "stands alone"),
        ("INTERACTIVE_SHARE", "1.5", "less than 1"),
        ("MODEL_V1_PATH", "nowhere.onnx", "no such file"),
    ],
)
def test_a_wrong_value_names_variable_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert name in str(caught.value)
    assert value in str(caught.value)
    assert allowed in str(caught.value)


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1234")
    assert load_settings(port=4321, host=None).port == 4321


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_V1_PATH", "")
    assert load_settings().model_v1_path is None


def test_keys_are_separated_by_commas() -> None:
    assert load_settings(api_keys="a, b ,").keys == ("a", "b")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ICE_SERVERS", "turn:user:canary@turn.example:3478"),
        ("ICE_SERVERS", "stun:a:1,turns:user:canary@turn.example"),
        ("JWT_JWKS", "http://user:canary@issuer.example/keys"),
        ("S3_ENDPOINT_URL", "http://user:canary@store/a b"),
        ("TURN_TTL_S", "user:canary@x"),
    ],
)
def test_no_password_stands_in_an_error(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert name in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_version_without_a_file_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.config.settings.MODELS_DIR", tmp_path)
    (tmp_path / "yolov9_v2.onnx").write_bytes(b"x")
    assert set(load_settings().models()) == {"v2"}


@pytest.mark.parametrize(
    ("files", "named", "expected"),
    [
        (["codes_v1", "codes_v2"], None, {"v1": "codes_v1", "v2": "codes_v2"}),
        (["codes_v1", "codes_v2", "yolov9_v1"], None, {"v1": "yolov9_v1"}),
        (["codes_v1", "codes_v2", "yolov9_v2"], None, {"v1": "codes_v1", "v2": "yolov9_v2"}),
        (["codes_v1", "codes_v2", "own"], ("MODEL_V1_PATH", "own"), {"v1": "own"}),
        (["codes_v1", "codes_v2", "own"], ("MODEL_V2_PATH", "own"), {"v1": "codes_v1", "v2": "own"}),
        (["codes_v1"], None, {"v1": "codes_v1"}),
        (["codes_v2"], None, {}),
    ],
)
def test_the_bundled_models_stand_in_where_no_own_one_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: list[str],
    named: tuple[str, str] | None,
    expected: dict[str, str],
) -> None:
    monkeypatch.setattr("streamer.config.settings.MODELS_DIR", tmp_path)
    for name in files:
        (tmp_path / f"{name}.onnx").write_bytes(b"x")
    if named:
        monkeypatch.setenv(named[0], str(tmp_path / f"{named[1]}.onnx"))
    assert {version: path.stem for version, path in load_settings().models().items()} == expected


def test_reading_codes_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READ_CODES", "1")
    assert load_settings().read_codes
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"READ_CODES='1': .*zxing-cpp.*real-time-vision-api\[codes\]"):
        load_settings()
    monkeypatch.setenv("READ_CODES", "0")
    assert not load_settings().read_codes


def test_an_engine_that_must_be_evidently_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFT_ENGINE", "evidently")
    assert load_settings().drift_engine == "evidently"
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(
        SettingsError,
        match=r"DRIFT_ENGINE='evidently': .*not installed.*image.*real-time-vision-api\[drift\]",
    ):
        load_settings()
    for engine in ("auto", "builtin"):
        monkeypatch.setenv("DRIFT_ENGINE", engine)
        assert load_settings().drift_engine == engine


def test_the_classes_that_are_codes_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("v1", "v2"):
        manifest = json.loads((MODELS_DIR / f"codes_{version}.json").read_text())
        assert load_settings().code_classes == set(manifest["labels"])
    monkeypatch.setenv("READ_CODES_CLASSES", " QR, label ,,")
    assert load_settings().code_classes == {"qr", "label"}
    monkeypatch.setenv("READ_CODES_CLASSES", " , ")
    with pytest.raises(SettingsError, match=r"READ_CODES_CLASSES=' , '.*READ_CODES=0 reads no codes"):
        load_settings()


def test_the_table_of_settings_lists_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| ([^|]*) \|", CONFIGURATION.read_text(), re.MULTILINE))
    assert set(rows) == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "") else f"`{field.default}`"
        assert rows[name.upper()].strip() == default, name


def test_two_files_read_a_setting_besides_the_settings() -> None:
    names = {name.upper() for name in Settings.model_fields}
    readers = {
        (path.name, node.value)
        for path in (ROOT / "streamer").rglob("*.py")
        if "os.environ" in (text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert readers == {("healthcheck.py", "PORT"), ("serve.py", "LOG_FORMAT")}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://minio:9000",
        "http://minio:9000/",
        "HTTPS://store.example.com",
        "https://[2001:db8::1]:9000",
        "http://[fe80::1%25eth0]",
        "http://10.0.0.1",
        " http://minio:9000 ",
    ],
)
def test_addresses_of_stores_are_accepted(url: str) -> None:
    assert load_settings(s3_endpoint_url=url).s3_endpoint_url == url.strip()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("minio:9000", "not an http or https address with a host"),
        ("s3://bucket", "not an http or https address with a host"),
        ("http://", "not an http or https address with a host"),
        ("https://s3..example.com", "not an http or https address with a host"),
        ("http://::1:9000", "its port is no number of 1 to 65535, or its brackets are wrong"),
        ("http://minio:99999", "its port is no number"),
        ("http://minio:0", "not an http or https address"),
        ("https://store.example.com/prefix", "an address has no path: S3_BUCKET_NAME and S3_PREFIX"),
        ("https://store.example.com?a=b", "an address has no path"),
        ("https://key:canary@store.example.com", "credentials belong in AWS_ACCESS_KEY_ID"),
    ],
)
def test_what_is_no_address_of_a_store_is_refused_with_what_is_allowed(url: str, text: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings(s3_endpoint_url=url)
    assert text in str(refusal.value)
    assert "such as http://minio:9000 or https://[2001:db8::1]:9000" in str(refusal.value)
    assert "canary" not in str(refusal.value)
