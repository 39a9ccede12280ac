"""Tests the client with trusted and untrusted certificates, and with network sources that disconnect."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from streamer.client import ConnectionFailed, DetectStream, Options, Rejected, SourceFailed, Tls
from streamer.client.sources import SourceOptions, open_source
from tests.unit.images import encode, scene
from tests.unit.test_client_sources import write_video


def make_certificate(folder: Path, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """Write a self-signed certificate for an address and its key; return both paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(encoding))
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem", folder / "key.pem"


async def test_a_certificate_must_be_trusted_or_the_check_be_switched_off(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=503)

    app = web.Application()
    app.router.add_get("/v1/stream", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        with pytest.raises(Rejected, match=r"not trusted.*--ca-file"):
            async with DetectStream(url):
                pass
        for tls in (Tls(ca_file=str(certificate)), Tls(insecure=True)):
            # The 503 shows that the TLS handshake succeeded.
            with pytest.raises(ConnectionFailed, match="HTTP 503"):
                async with DetectStream(url, options=Options(tls=tls, give_up_after_s=0)):
                    pass
    finally:
        await runner.cleanup()


class Media(BaseHTTPRequestHandler):
    """Serves a video file, and an MJPEG camera that closes the connection after twelve frames."""

    video = b""
    jpeg = encode(scene())

    def do_GET(self) -> None:
        if self.path.startswith("/camera"):
            self._camera()
        elif self.path == "/v.mp4":
            self.send_response(200)
            self.send_header("Content-Type", "video/mp4")
            self.send_header("Content-Length", str(len(self.video)))
            self.end_headers()
            self.wfile.write(self.video)
        else:
            self.send_error(404)

    def _camera(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
        self.end_headers()
        for _ in range(12):
            self.wfile.write(b"--b\r\nContent-Type: image/jpeg\r\n")
            self.wfile.write(f"Content-Length: {len(self.jpeg)}\r\n\r\n".encode() + self.jpeg + b"\r\n")
            self.wfile.flush()
            time.sleep(0.01)

    def log_message(self, *_: object) -> None:
        """Suppress the log of the base class."""

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            return


@pytest.fixture
def media(tmp_path: Path) -> Iterator[str]:
    """Run a small media server; yield its base URL."""
    Media.video = write_video(tmp_path / "v.mp4", [0.0, 0.1, 0.4]).read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Media)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_recording_at_an_address_is_read_like_a_file(media: str) -> None:
    source = open_source(f"{media}/v.mp4")
    assert (source.live, source.total) == (False, 3)
    assert [round(frame.time_s, 3) for frame in source.frames(threading.Event())] == [0.0, 0.1, 0.4]


def test_a_network_camera_that_hangs_up_is_opened_again(media: str) -> None:
    trouble: list[str] = []
    source = open_source(f"{media}/camera?token=dummy", SourceOptions(on_trouble=trouble.append))
    assert source.live
    assert "dummy" not in source.shown
    stop, numbers = threading.Event(), []
    times = []
    for frame in source.frames(stop):
        numbers.append(frame.number)
        times.append(frame.time_s)
        assert frame.pixels().shape == (96, 160, 3)
        if len(numbers) == 20:
            stop.set()
    assert numbers == list(range(20))
    assert times == sorted(times)
    assert trouble
    assert "dummy" not in "".join(trouble)


def test_an_address_without_anything_is_named(media: str) -> None:
    with pytest.raises(SourceFailed, match="cannot be opened"):
        open_source(f"{media}/nothing")
