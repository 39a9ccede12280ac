"""Runs nginx or HAProxy on a free port with the sample configuration from the documentation."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

import pytest

from tests.helpers.service import ROOT

SAMPLES = ROOT / "docs" / "operations"
_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/rtva.conf;
}}
"""


class BalancingProxy:
    """Runs a proxy in front of the replicas that listen on ``ports``; ``kind`` is `nginx` or `haproxy`.

    ``nginx_text`` is used instead of the sample `nginx.conf`; its addresses are replaced in the same way.
    """

    def __init__(self, kind: str, folder: Path, ports: list[int], port: int, *, nginx_text: str = "") -> None:
        self.kind = kind
        self.port = port
        program = shutil.which(kind, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin:/usr/local/sbin")
        if program is None:
            pytest.skip(f"needs {kind}, which is not installed")
        if kind == "nginx":
            text = nginx_text or (SAMPLES / "nginx.conf").read_text()
            sample = _place(text, "listen 80;", f"listen 127.0.0.1:{port};", ports)
            (folder / "rtva.conf").write_text(sample)
            (folder / "nginx.conf").write_text(_NGINX.format(folder=folder))
            command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        else:
            text = (SAMPLES / "haproxy.cfg").read_text()
            sample = _place(text, "bind :80", f"bind 127.0.0.1:{port}", ports)
            (folder / "haproxy.cfg").write_text(sample)
            command = [program, "-f", str(folder / "haproxy.cfg"), "-db"]
        self._output = (folder / "output.log").open("w")
        self._process = subprocess.Popen(command, stdout=self._output, stderr=subprocess.STDOUT)

    @property
    def http_url(self) -> str:
        """Base address for HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Base address for WebSockets."""
        return f"ws://127.0.0.1:{self.port}"

    def __enter__(self) -> BalancingProxy:
        deadline = time.monotonic() + 60
        while True:
            assert self._process.poll() is None, Path(self._output.name).read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert time.monotonic() < deadline, f"{self.kind} does not listen"
                time.sleep(0.05)
            else:
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()


def _place(text: str, listen: str, ours: str, ports: list[int]) -> str:
    """Return the sample with its listen directive and the replicas' addresses replaced by ours."""
    changes = {listen: ours} | {f"10.0.0.1{n}:8000": f"127.0.0.1:{port}" for n, port in enumerate(ports, 1)}
    for old, new in changes.items():
        assert text.count(old) == 1, f"the sample has no {old}"
        text = text.replace(old, new)
    return text
