"""The scheduler keeps one client for each identity, applies its quotas, and keeps memory bounded."""

from __future__ import annotations

from streamer.access.identity import ALL_SCOPES, Identity, Quotas
from streamer.scheduling.clients import MAX_CLIENTS, MAX_WEIGHT, Client, Clients


def identity(name: str, *, anonymous: bool = False, **quotas: float) -> Identity:
    return Identity(name, ALL_SCOPES, Quotas(**quotas), anonymous=anonymous)  # type: ignore[arg-type]


def test_an_identity_is_one_client_with_one_number_in_all_workers() -> None:
    here, there, elsewhere = Clients("secret"), Clients("secret"), Clients("other")
    client = here.of(identity("key"), 0.0)
    assert here.of(identity("key"), 1.0) is client
    assert there.of(identity("key"), 0.0).number == client.number
    assert elsewhere.of(identity("key"), 0.0).number != client.number
    assert here.of(identity("another"), 0.0).number != client.number


def test_quotas_come_from_the_identity() -> None:
    clients = Clients("secret")
    keyed = clients.of(identity("key", requests_per_s=5.0, weight=2.0), 0.0)
    assert keyed.weight == 2.0
    assert keyed.requests is not None
    assert keyed.requests.per_s == 5.0
    assert clients.of(identity("addr:127.0.0.1", anonymous=True), 0.0).requests is None


def test_no_weight_is_too_small_or_too_large_for_the_inference_process() -> None:
    clients = Clients("secret")
    assert clients.of(identity("small", weight=1e-300), 0.0).weight == 1 / MAX_WEIGHT
    assert clients.of(identity("large", weight=1e300), 0.0).weight == MAX_WEIGHT


def test_new_quotas_take_effect_and_the_same_ones_keep_what_was_used() -> None:
    clients = Clients("secret")
    client = clients.of(identity("key", requests_per_s=1.0), 0.0)
    assert client.requests is not None
    used = client.requests
    assert clients.of(identity("key", requests_per_s=1.0), 0.0).requests is used
    assert clients.of(identity("key", requests_per_s=2.0), 0.0).requests is not used
    assert clients.of(identity("key"), 0.0).requests is None


def test_memory_is_bounded_and_who_has_streams_is_kept() -> None:
    clients = Clients("secret")
    streaming = clients.of(identity("streaming"), 0.0)
    streaming.streams = 1
    for number in range(2 * MAX_CLIENTS):
        clients.of(identity(f"addr:{number}", anonymous=True), 0.0)
    assert len(clients) == MAX_CLIENTS
    assert clients.of(identity("streaming"), 0.0) is streaming


def test_surprises_are_remembered_and_forgotten() -> None:
    client = Client("liar")
    client.learn_cost_factor(expected_ms=5.0, actual_ms=500.0)
    assert client.cost_factor == 100.0
    client.learn_cost_factor(expected_ms=500.0, actual_ms=500.0)
    assert client.cost_factor == 100.0, "it was as expected of this client"
    for _ in range(60):
        client.learn_cost_factor(expected_ms=5.0 * client.cost_factor, actual_ms=5.0)
    assert client.cost_factor == 1.0
