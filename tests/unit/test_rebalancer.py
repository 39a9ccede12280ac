"""New sessions go elsewhere while a replica moves streams, and not before or after."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from streamer.config.replica_addresses import Address, Replicas
from streamer.replicas.load_report import LoadReport
from streamer.replicas.rebalance_policy import STOP_LOAD, RebalancePolicy
from streamer.replicas.rebalancer import Rebalancer

OWN, OTHER = Address("10.0.0.1", 8000), Address("10.0.0.2", 8000)


class Shared:
    """The fields that the processes of a replica share."""

    def __init__(self, moving_until: float) -> None:
        self.moving_until = moving_until

    def post(self, field: str, value: float) -> None:
        raise AssertionError(f"{field} is written")

    def read(self, field: str) -> float:
        assert field == "moving_until"
        return self.moving_until


class Places:
    """A policy that finds room at the other replica."""

    def place(self, *_: Any) -> str:
        return OTHER.name


@pytest.mark.parametrize(
    ("moving_s", "load", "expected"),
    [
        (60.0, STOP_LOAD + 0.1, OTHER.name),
        (-60.0, STOP_LOAD + 0.1, None),
        (60.0, STOP_LOAD, None),
    ],
)
def test_offers_are_passed_on_while_streams_move_and_the_replica_is_full(
    moving_s: float, load: float, expected: str | None
) -> None:
    rebalancer = Rebalancer(
        Replicas(OWN, (OTHER,)),
        lambda: LoadReport(load, 5, 10.0, available=True, can_move=True),
        cast("RebalancePolicy", Places()),
        Shared(time.monotonic() + moving_s),
        lambda _: None,
        resume_s=30.0,
    )
    assert rebalancer.place_while_moving() == expected
