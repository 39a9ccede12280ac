"""The demo page sends video through a real TURN server (coturn) only, and says why where that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.e2e.browser import DemoPage, chromium, write_camera
from tests.e2e.webrtc_tools import free_udp_port, turn_server
from tests.helpers.service import Service

pytestmark = pytest.mark.browser

SECRET = "dummy-turn-secret"  # noqa: S105 - a dummy
#: Type of the local candidate in the selected pair. The browser reports it and the page shows it.
RELAY = "relay"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start a Chromium whose camera shows moving grey images."""
    images = (np.roll(np.tile(np.arange(320, dtype=np.uint8), (240, 1)), 8 * n, 1) for n in range(40))
    camera = write_camera(
        tmp_path_factory.mktemp("camera") / "grey.mjpeg", (np.dstack([p, p, p]) for p in images)
    )
    with sync_playwright() as playwright, chromium(playwright, camera=camera) as running:
        yield running


def settings(turn_port: int, secret: str) -> dict[str, str]:
    """Return the settings of a service with one TURN server."""
    return {
        "STREAM_MIN_FPS": "0",
        "ICE_SERVERS": f"turn:127.0.0.1:{turn_port}?transport=udp",
        "TURN_SECRET": secret,
        # A busy machine may need longer to connect than users would wait.
        "WEBRTC_CONNECT_TIMEOUT_S": "30",
    }


def test_with_the_right_credentials_the_video_goes_by_the_relay(browser: Browser, tmp_path: Path) -> None:
    with (
        turn_server(tmp_path, SECRET) as port,
        Service(settings(port, SECRET)) as service,
    ):
        demo = DemoPage(browser, service.http_url)
        demo.open("?transport=webrtc&ice=relay")
        demo.start("camera")
        demo.wait("demo.transport.active === 'webrtc' && demo.connection.name === 'open'")
        demo.wait_for_results(5)
        demo.wait("demo.transport.quality && demo.transport.quality.path !== ''")
        # The page takes the candidate type of the selected pair from the browser's statistics.
        demo.wait_value("demo.transport.quality?.path", RELAY)
        assert demo.evaluate("demo.transport.fallbackReason") == ""
        demo.assert_clean()
        demo.close()


def test_with_wrong_credentials_the_page_says_so_and_goes_on_over_websocket(
    browser: Browser, tmp_path: Path
) -> None:
    # This mistake happens in practice: the service and the TURN server have different secrets.
    with (
        turn_server(tmp_path, SECRET) as port,
        Service(settings(port, "dummy-other-secret")) as service,
    ):
        demo = DemoPage(browser, service.http_url)
        demo.open("?transport=webrtc&ice=relay")
        demo.start("camera")
        demo.wait("demo.transport.active === 'websocket' && demo.connection.name === 'open'")
        demo.wait_for_results(2)
        demo.wait_text(
            "#transport-hint",
            f"Using WebSocket instead of WebRTC: the TURN server 127.0.0.1:{port} rejects the credentials "
            "(401: check that TURN_SECRET is the secret of this server).",
        )
        demo.page.screenshot(path=tmp_path / "credentials.png")
        # The page sends no offer without candidates, so the server holds no session.
        assert service.metric("object_detection_webrtc_sessions") == 0
        demo.assert_clean()
        demo.close()


def test_where_no_turn_server_answers_the_page_says_that(browser: Browser) -> None:
    with Service(settings(free_udp_port(), SECRET)) as service:
        demo = DemoPage(browser, service.http_url)
        demo.open("?transport=webrtc&ice=relay")
        demo.start("camera")
        demo.wait("demo.transport.active === 'websocket' && demo.connection.name === 'open'")
        # Browsers try a TURN server for ten seconds; the page switches to WebSocket after eight.
        demo.wait_text("#transport-hint", "found no network path: no TURN server responded")
        demo.assert_clean()
        demo.close()
