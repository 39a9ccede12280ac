"""`PUT /versions/shadow` changes the share for all workers, and refuses what is no share, by name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from inference.ipc.shared_status import SharedStatus
from streamer.access.identity import Identity
from streamer.core.byte_budget import ByteBudget
from streamer.http.body import BUDGET
from streamer.http.caller import IDENTITY
from streamer.http.problem_details import problem_middleware
from streamer.sampling.shadow import ShadowRuns
from streamer.server.sampling import read_share
from streamer.server.shadow_routes import add_shadow

Client = TestClient[web.Request, web.Application]


class Runs:
    """Stands for the shadow runs of a worker."""

    has_shadow = True
    noted = 0

    def note_share(self) -> None:
        self.noted += 1


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def status() -> SharedStatus:
    return SharedStatus()


@web.middleware
async def identify(request: web.Request, handler: Any) -> web.StreamResponse:
    request[IDENTITY] = Identity("admin", frozenset())
    answer: web.StreamResponse = await handler(request)
    return answer


@pytest.fixture
async def client(runs: Runs, status: SharedStatus) -> AsyncIterator[Client]:
    app = web.Application(middlewares=[problem_middleware, identify])
    app[BUDGET] = ByteBudget(1 << 20)
    add_shadow(app, cast("ShadowRuns", runs), status, 60.0)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_a_share_is_set_for_all_workers(client: Client, runs: Runs, status: SharedStatus) -> None:
    for share in (0.25, 1, 0):
        async with client.put("/versions/shadow", json={"v2": share}) as answer:
            assert (answer.status, await answer.json()) == (200, {"v2": share})
        assert read_share(status) == share
    assert runs.noted == 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"v2": 1.5}, "1.5"),
        ({"v2": -0.1}, "-0.1"),
        ({"v2": "half"}, "half"),
        ({"v2": True}, "True"),
        ({}, "v2"),
        ({"v2": 0.1, "v3": 0.1}, "v3"),
        ([0.1], "map"),
    ],
)
async def test_what_is_no_share_is_refused(
    client: Client, status: SharedStatus, body: Any, words: str
) -> None:
    async with client.put("/versions/shadow", json=body) as answer:
        assert answer.status == 400
        assert words in (await answer.json())["detail"]
    assert read_share(status) == 0


async def test_a_share_needs_a_v2_but_0_does_not(client: Client, runs: Runs, status: SharedStatus) -> None:
    runs.has_shadow = False
    async with client.put("/versions/shadow", json={"v2": 0.1}) as answer:
        assert answer.status == 409
        assert (await answer.json())["code"] == "not_loaded"
    async with client.put("/versions/shadow", json={"v2": 0}) as answer:
        assert answer.status == 200
    assert read_share(status) == 0


def test_a_share_that_another_process_damages_stays_in_range(status: SharedStatus) -> None:
    for damaged, share in ((7.0, 1.0), (-1.0, 0.0), (float("nan"), 0.0)):
        status.post("shadow_v2", damaged)
        assert read_share(status) == share
