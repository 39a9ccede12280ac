"""Wrong keys are rate-limited by address; keys that were accepted before never are."""

from __future__ import annotations

from collections import Counter

import pytest

from streamer.access.failed_keys import BURST, MOST_ADDRESSES, FailedKeys, TooManyWrongKeys


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def guess(failed: FailedKeys, address: str, count: int) -> None:
    for number in range(count):
        failed.begin(address, f"guess-{number}")
        failed.end(address, f"guess-{number}", good=False, again=True)


def show(failed: FailedKeys, address: str, token: str, *, again: bool = True) -> None:
    failed.begin(address, token)
    failed.end(address, token, good=True, again=again)


def test_an_address_has_so_many_wrong_keys_at_once_and_then_one_a_second() -> None:
    clock, counted = Clock(), Counter[str]()
    failed = FailedKeys(lambda reason: counted.update([reason]), clock)
    guess(failed, "addr:1", BURST)
    with pytest.raises(TooManyWrongKeys, match=r"in 1 s") as refusal:
        failed.begin("addr:1", "one more")
    assert refusal.value.retry_after_s == 1
    guess(failed, "addr:2", 1)
    clock.now += 1.0
    guess(failed, "addr:1", 1)
    with pytest.raises(TooManyWrongKeys):
        failed.begin("addr:1", "and one more")
    assert counted == {"wrong": BURST + 2, "limited": 2}


def test_good_keys_take_nothing_and_those_that_were_good_before_pass_whatever_others_show() -> None:
    failed = FailedKeys(clock=Clock())
    for number in range(3 * BURST):
        show(failed, "addr:1", f"good-{number}")
    guess(failed, "addr:1", BURST)
    show(failed, "addr:1", "good-0")
    show(failed, "addr:2", "another place")
    show(failed, "addr:1", "another place")
    with pytest.raises(TooManyWrongKeys):
        failed.begin("addr:1", "never seen")


def test_a_key_that_was_withdrawn_is_a_wrong_one_from_then_on() -> None:
    failed = FailedKeys(clock=Clock())
    show(failed, "addr:1", "key")
    guess(failed, "addr:1", BURST)
    failed.begin("addr:1", "key")
    failed.end("addr:1", "key", good=False, again=True)
    with pytest.raises(TooManyWrongKeys):
        failed.begin("addr:1", "key")


def test_a_ticket_is_good_once() -> None:
    failed = FailedKeys(clock=Clock())
    show(failed, "addr:1", "ticket", again=False)
    guess(failed, "addr:1", BURST)
    with pytest.raises(TooManyWrongKeys):
        failed.begin("addr:1", "ticket")


def test_any_number_of_addresses_takes_bounded_memory() -> None:
    failed = FailedKeys(clock=Clock())
    for number in range(MOST_ADDRESSES + 10):
        failed.begin(f"addr:{number}", "x")
    assert len(failed._buckets) == MOST_ADDRESSES
