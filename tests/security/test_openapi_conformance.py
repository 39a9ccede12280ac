"""S12, S23: the service answers requests, valid or not, only as its OpenAPI document describes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.service import ROOT, Service

KEY = "test-key-0123456789abcdef"
HOOKS = "tests.security.schemathesis_hooks"
#: Two checks are left out: `positive_data_acceptance`, because random bytes are neither images nor SDP, and
#: `negative_data_rejection`, because a part of a form has no type of its own on the wire.
CHECKS = (
    "status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,ignored_auth,use_after_free,"
    "only_503_with_a_time,typed_and_silent"
)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("keys", ["", KEY], ids=["open", "with a key"])
def test_every_answer_is_what_the_document_says(keys: str, tmp_path: Path, full: bool) -> None:
    if importlib.util.find_spec("schemathesis") is None:
        pytest.skip("needs schemathesis: `make test` installs it")
    with Service({"API_KEYS": keys, "WEBRTC_CONNECT_TIMEOUT_S": "1"}) as service:
        program = Path(sys.executable).with_name("schemathesis")
        command = [str(program), "run", f"{service.http_url}/openapi.json", "--checks", CHECKS, "--no-color"]
        command += ["--phases", "examples,coverage,fuzzing,stateful" if full else "examples,coverage,fuzzing"]
        command += ["--max-examples", "200" if full else "4", "--max-time", "300" if full else "10"]
        command += ["--continue-on-failure", "--no-shrink", "--request-timeout", "20", "--warnings", "off"]
        command += ["--suppress-health-check", "all", "--seed", "1"]
        if keys:
            command += ["--header", f"Authorization: Bearer {keys}"]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | {"SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        assert service.get("/livez")[0] == 200
        assert "Traceback" not in service.log
