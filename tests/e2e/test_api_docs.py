"""Tests Swagger UI in a real browser: "Try it out" sends the chosen image and each parameter only once."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.sync_api import Locator, Page, Playwright

from tests.conftest import shared
from tests.e2e.browser import WAIT_S, DemoPage, chromium
from tests.helpers.service import Service

pytestmark = pytest.mark.browser


def execute(page: Page, operation: Locator) -> Any:
    """Press Execute, check the request, wait until the page shows the answer, and return the answer."""
    with page.expect_response(lambda answer: "/predict" in answer.url, timeout=WAIT_S * 1e3) as waiting:
        operation.locator(".execute").click()
    names = [name for name, _ in parse_qsl(urlsplit(waiting.value.url).query)]
    assert len(names) == len(set(names)), names
    assert waiting.value.status == 200
    shown = operation.locator(".live-responses-table")
    shown.filter(has_text=waiting.value.headers["x-request-id"]).wait_for()
    return json.loads(shown.locator(".response-col_description code").first.inner_text())


def test_try_it_out_works_for_images(service: Service, playwright: Playwright) -> None:
    photo = shared("data/images/bus.jpg")
    with chromium(playwright) as browser:
        tab = DemoPage(browser, service.http_url)
        page = tab.page
        page.goto(f"{service.http_url}/docs")
        operation = page.locator("#operations-predict-predict_v1")
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
        kinds = operation.locator(".opblock-section-request-body .content-type")
        picker = operation.locator(".opblock-section-request-body input[type=file]")

        assert kinds.input_value() == "multipart/form-data", "a form with a file picker is the first choice"
        picker.set_input_files(photo)
        chosen = execute(page, operation)
        assert {each["label"] for each in chosen["detections"]} >= {"bus", "person"}
        operation.locator(".opblock-section-request-body").get_by_role(
            "button", name="Add string item"
        ).click()
        picker.nth(1).set_input_files(photo)
        several = execute(page, operation)
        assert [each["detections"] for each in several["results"]] == [chosen["detections"]] * 2

        kinds.select_option("application/json")
        text = operation.locator(".opblock-section-request-body textarea")
        tab.wait(lambda: text.input_value().strip() != "")  # Swagger UI fills in the example after the field
        assert set(json.loads(text.input_value())) == {"image"}
        assert execute(page, operation)["image"] == {"width": 32, "height": 32}

        kinds.select_option("image/jpeg")
        picker.set_input_files(photo)
        assert execute(page, operation)["detections"] == chosen["detections"]

        # Swagger UI itself causes warnings; errors and blocked scripts are not expected.
        assert page.evaluate("window.violations") == []
        assert [
            text for text in tab.errors if "Warning" not in text and "Could not find component" not in text
        ] == []
        tab.close()
