"""Tests in simulated time that POSTs under overload are either refused at once or served soon."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from streamer.scheduling.clients import Client
from streamer.scheduling.post_wait import WaitMargin
from streamer.scheduling.service_rate import most_per_s
from tests.unit.simulated_posts import LARGE, QUEUE_S, RUN_S, Image, Seen, Simulation

#: Number of 640x480 images that the simulated machine serves per second.
CAPACITY = 50.0
LENGTH_S = 12.0


def uneven(seed: int, spread: float) -> Callable[[float], float]:
    """Return the slowness over time of a shared machine, drawn anew every half second."""
    return lambda now: math.exp(random.Random(seed * 1000 + int(now * 2)).gauss(0.0, spread))


def refused_late(*clients: Seen) -> float:
    """Return the fraction of the refused images that were admitted and waited before their refusal."""
    late = sum(len(seen.evicted_s) for seen in clients)
    return late / max(1, late + sum(seen.refused_at_once for seen in clients))


def p99_s(times_s: list[float]) -> float:
    return sorted(times_s)[int(0.99 * len(times_s))]


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_at_twice_the_load_images_are_refused_at_once_or_served_in_time(spread: float) -> None:
    machine = Simulation(uneven(7, spread))
    machine.poisson(Client("open loop", 1), 2 * CAPACITY)
    machine.run(LENGTH_S)
    seen = machine.seen["open loop"]
    assert seen.refused_at_once > 0.3 * LENGTH_S * CAPACITY
    assert refused_late(seen) <= 0.01
    assert p99_s(seen.served_s) <= QUEUE_S + 2 * RUN_S * math.exp(2 * spread)
    assert len(seen.served_s) >= 0.93 * LENGTH_S * CAPACITY


@pytest.mark.parametrize("clients", [1, 10])
def test_clients_that_never_stop_are_refused_at_once_and_a_polite_one_never(clients: int) -> None:
    machine = Simulation(uneven(7, 0.2))
    for number in range(clients):
        machine.closed_loop(Client(f"greedy {number}", number), 60 // clients)
    machine.steady(Client("polite", 99), 3.0)
    machine.run(LENGTH_S)
    polite = machine.seen.pop("polite")
    assert polite.refused_at_once == len(polite.evicted_s) == 0
    assert p99_s(polite.served_s) < 0.4
    assert refused_late(*machine.seen.values()) <= 0.02


def test_an_expensive_image_is_refused_when_cheap_ones_of_its_client_will_pass_it() -> None:
    """The cheap images arrive after the decision, but their connections never pause, so they are expected."""
    machine, client = Simulation(), Client("one", 1)
    machine.closed_loop(client, 30)
    machine.closed_loop(client, 2, Image((4000, 2500)))
    machine.run(LENGTH_S)
    assert refused_late(machine.seen["one"]) <= 0.02


@pytest.mark.parametrize("clients", [1, 10])
def test_expensive_clients_are_refused_at_once_and_take_nothing_from_a_polite_one(clients: int) -> None:
    machine = Simulation()
    for number in range(clients):
        machine.closed_loop(Client(f"expensive {number}", number), 10 // clients, LARGE)
    machine.steady(Client("polite", 99), 5.0)
    machine.run(LENGTH_S)
    polite = machine.seen.pop("polite")
    assert polite.refused_at_once == len(polite.evicted_s) == 0
    assert p99_s(polite.served_s) < 0.5
    assert refused_late(*machine.seen.values()) <= 0.02
    assert sum(len(seen.served_s) for seen in machine.seen.values()) > LENGTH_S


def test_when_the_machine_becomes_four_times_slower_what_was_let_in_is_sent_away() -> None:
    machine = Simulation(lambda now: 1.0 if now < 10.0 else 4.0)
    machine.poisson(Client("open loop", 1), 2 * CAPACITY)
    machine.run(10.0)
    seen = machine.seen["open loop"]
    before = len(seen.evicted_s)
    machine.run(13.0)
    assert len(seen.evicted_s) > before
    assert max(seen.evicted_s) == pytest.approx(QUEUE_S)
    at_once, late = seen.refused_at_once, len(seen.evicted_s)
    machine.run(20.0)
    assert len(seen.evicted_s) - late <= 0.02 * (seen.refused_at_once - at_once)


def test_the_margin_grows_once_for_a_cause_and_shrinks_slowly() -> None:
    margin = WaitMargin()
    start = margin.factor
    for _ in range(40):
        margin.missed(1.0)
    raised = margin.factor
    assert start < raised < 1.2 * start
    margin.kept(0.0)
    assert margin.factor == raised, "one that did not wait says nothing"
    for _ in range(200):
        margin.kept(0.5)
    assert 0.9 * raised < margin.factor < raised
    for second in range(100):
        margin.missed(float(second))
    most = margin.factor
    for _ in range(100_000):
        margin.kept(0.5)
    assert 1.0 < margin.factor < most < 4.0


def test_what_is_scarcer_sets_the_pace_of_an_image() -> None:
    assert most_per_s(0.005, 0.040, decoders=2, inference_threads=2) == pytest.approx(2.25)
    assert most_per_s(0.700, 0.040, decoders=2, inference_threads=2) == pytest.approx(2.0 * 0.74 / 0.7)


@pytest.mark.parametrize("connections", [1, 2])
def test_a_polite_client_has_its_turn_at_once_beside_ten_that_post_all_the_time(connections: int) -> None:
    """Greedy clients get no frame above the in-flight bound, even while they have nothing in flight."""
    machine = Simulation()
    for number in range(10):
        machine.closed_loop(Client(f"greedy {number}", number), connections)
    machine.steady(Client("polite", 99), 1.5)  # each greedy client gets 5 images per second
    machine.run(4 * LENGTH_S)
    polite = machine.seen.pop("polite")
    waited = sorted(polite.turn_s)
    assert waited[int(0.95 * len(waited))] < 0.1 * RUN_S
    served = sum(len(seen.served_s) for seen in machine.seen.values())
    assert served >= 0.93 * 4 * LENGTH_S * CAPACITY
