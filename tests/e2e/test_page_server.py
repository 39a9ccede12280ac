"""The demo page while its server asks for a key, loses its model, or goes away and comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Playwright

from tests.e2e.browser import DemoPage, chromium
from tests.helpers.ports import free_port
from tests.helpers.service import Service

pytestmark = pytest.mark.browser

KEY = "dummy-key-for-tests"
#: Messages that Chromium itself writes to the console while the server is down or answers 503.
GONE = ("net::ERR_", "WebSocket connection to", "status of 503")


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    with chromium(playwright) as running:
        yield running


@pytest.fixture(scope="module")
def settings(yolox_nano: Path) -> dict[str, str]:
    """Return settings of a service whose port stays the same after a restart."""
    port = free_port()
    # Admission of streams is off, because it depends on the speed of the machine.
    admission = {"STREAM_MIN_FPS": "0"}
    return {"MODEL_V1_PATH": str(yolox_nano), "PORT": str(port), "API_KEYS": KEY} | admission


@pytest.fixture(scope="module")
def guarded(settings: dict[str, str]) -> Iterator[Service]:
    """Start a service for this module only, which requires a key; tests may break it."""
    with Service(settings) as running:
        yield running


def kill_all(service: Service) -> None:
    """Kill a service and its children with SIGKILL, so that none of them can send `bye`."""
    processes = [*service.supervisor.children(recursive=True), service.supervisor]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    service.wait()
    psutil.wait_procs(processes[:-1], timeout=10)


def open_with_key(demo: DemoPage) -> None:
    """Store the key in the tab, start the sample clip, and wait for results."""
    demo.page.add_init_script(f"sessionStorage.setItem('demo.key', '{KEY}')")
    demo.open("?source=sample&autostart=1")
    demo.wait_for_results(2)


def test_before_the_start_the_page_says_what_the_server_waits_for(guarded: Service, browser: Browser) -> None:
    demo = DemoPage(browser, guarded.http_url)
    warming = {"status": "warming", "models": {}, "reasons": ["models are being warmed up"]}
    demo.page.route("**/health", lambda route: route.fulfill(status=503, json=warming))
    demo.page.goto(f"{demo.base_url}/")
    demo.wait("document.getElementById('server-hint').textContent === 'Models are being warmed up'")
    demo.wait_text("#connection", "Server not ready")
    demo.page.unroute("**/health")
    demo.wait("document.getElementById('server-hint').textContent.startsWith('Server ready')")
    demo.assert_clean(but=GONE)
    demo.close()


def test_a_key_is_asked_for_and_never_leaves_by_the_address(guarded: Service, browser: Browser) -> None:
    demo = DemoPage(browser, guarded.http_url)
    demo.open("?source=sample&autostart=1")
    demo.wait("demo.error === 'key'")
    demo.wait_text("#error", "requires an API key")
    demo.page.get_by_role("button", name="Enter API key").click()
    demo.page.fill("#key", "wrong")
    demo.page.keyboard.press("Enter")
    demo.wait_text(".error-title", "not valid")
    demo.page.fill("#key", KEY)
    demo.page.click("#key-form button")
    demo.wait_for_results()
    demo.wait_hidden("#error")
    assert KEY not in " ".join([*demo.sockets, demo.page.url])
    assert KEY not in demo.evaluate("JSON.stringify(localStorage)")
    # The server has one model version only, so the page disables the other.
    assert demo.page.is_disabled("[name=version][value=v2]")
    assert demo.page.locator("label:has([value=v2])").get_attribute("title") == "This server has no v2 model"
    # The browser itself logs the 401 that the wrong key causes.
    demo.assert_clean(but=("401 (Unauthorized)",))
    hellos = [message for message in demo.sent if message.get("type") == "hello"]
    tokens = [hello.get("token", "") for hello in hellos]
    assert tokens[0] == ""
    assert tokens[-1].startswith("tkt_"), "the key itself is in no message"
    assert KEY not in str(demo.sent)
    demo.close()


def test_the_inference_process_dies_and_the_stream_goes_on(guarded: Service, browser: Browser) -> None:
    demo = DemoPage(browser, guarded.http_url)
    open_with_key(demo)
    guarded.inference.kill()
    demo.wait(lambda: any(m["type"] == "flow" and m["win"] == 0 for m in demo.received))
    demo.wait(lambda: any(m["type"] == "flow" and m["reason"] == "ready" for m in demo.received))
    demo.wait_for_results(2)
    demo.wait_hidden("#banner")
    assert demo.evaluate("demo.connection.sessionsOpened") == 1
    # The page asks for `/health` every ten seconds, perhaps while the process is missing.
    demo.assert_clean(but=GONE)
    demo.close()


def test_when_results_stop_everything_shows_it(guarded: Service, browser: Browser) -> None:
    demo = DemoPage(browser, guarded.http_url)
    open_with_key(demo)
    # Each condition is one expression: on a busy machine results may be late for a moment between two.
    brightness = "getComputedStyle(document.getElementById('overlay')).filter"
    current = f"""demo.results === 'current' && {brightness} === 'none'
        && document.getElementById('connection').textContent.includes('Live · ')
        && document.getElementById('stale-note').hidden && document.getElementById('stale-label').hidden"""
    demo.wait(current)
    # Otherwise the supervisor would replace the inference process, and results would soon come back.
    stopped = [guarded.supervisor, guarded.inference]
    for process in stopped:
        process.suspend()
    try:
        demo.wait(f"demo.results === 'stale' && {brightness}.includes('brightness(0.4)')")
        demo.wait_text("#connection", "No results")
        demo.wait_text("#stale-note", "not current")
        demo.wait_visible("#stale-label")
    finally:
        for process in reversed(stopped):
            process.resume()
    demo.wait(current)
    demo.assert_clean(but=GONE)
    demo.close()


def test_a_lost_server_is_said_and_the_page_comes_back_by_itself(
    guarded: Service, settings: dict[str, str], browser: Browser
) -> None:
    demo = DemoPage(browser, guarded.http_url)
    open_with_key(demo)
    kill_all(guarded)
    # Between two attempts the page connects for a moment, and its texts change.
    demo.wait_text("#connection", "Reconnecting")
    demo.wait_visible("#banner")
    demo.wait("document.getElementById('banner-text').textContent === 'The server does not respond'")
    demo.wait_text("#banner-countdown", "Retrying in")
    with Service(settings) as again:
        demo.wait("demo.connection.sessionsOpened === 2")
        demo.wait_for_results(2)
        demo.wait_hidden("#banner")
        seqs = [frame.seq for frame in demo.frames]
        assert seqs == sorted(set(seqs))
        hellos = [message for message in demo.sent if message["type"] == "hello"]
        assert "resume" not in hellos[0]
        assert hellos[-1]["resume"]["session"]
        # This time the server stops in order: it sends `bye`, and the page waits for a new server.
        again.stop()
        demo.wait(lambda: any(message["type"] == "bye" for message in demo.received))
        demo.wait("demo.connection.name === 'waiting'")
        demo.assert_clean(but=GONE)
        demo.page.click("#stop")
        demo.close()


def test_a_refused_stream_is_explained_although_browsers_hide_the_answer(
    yolox_nano: Path, browser: Browser
) -> None:
    with Service({"MODEL_V1_PATH": str(yolox_nano), "STREAM_MIN_FPS": "100000"}) as full:
        demo = DemoPage(browser, full.http_url)
        demo.open("?source=sample&autostart=1")
        demo.wait("document.getElementById('banner-text').textContent.includes('too few frames')")
        demo.page.get_by_role("button", name="Retry now").wait_for()
        demo.page.click("#stop")
        demo.wait("demo.connection.name === 'idle'")
        demo.wait_hidden("#banner")
        demo.assert_clean(but=GONE)
        demo.close()
