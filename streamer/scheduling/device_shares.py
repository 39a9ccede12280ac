"""Divides the device between the live streams of all versions and of all workers of a replica. Pure.

`stream_rates` grants rates to the streams of one version in one worker. All versions run on the same device,
and so do those of the other workers. Each worker posts what its streams want of the device, and derives the
part that it may grant from everyone's claims.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from streamer.scheduling.fair_rates import client_rates

#: Key of the own version among the claims.
_OWN = 0
#: A claim of another process is not trusted to be larger.
_MOST_STREAMS = 1_000_000.0


class ClaimTable(Protocol):
    """Describes the shared status, as far as it is used here."""

    def post_worker(self, number: int, field: str, value: float) -> None:
        """Write one field of a worker."""

    def read_worker(self, number: int, field: str) -> float:
        """Read one field of a worker."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What the live streams of one version, or of another worker, want of the device."""

    #: Wanted part of the device's time; 1 is the whole device, and at most that for one version.
    share: float = 0.0
    #: Number of the streams that send.
    streams: float = 0.0


class DeviceShares:
    """Keeps the claims of this worker's versions, and posts their sum for the other workers.

    ``number`` is that of this worker, and ``workers`` how many there are. Without ``status``, this worker is
    alone.
    """

    def __init__(self, status: ClaimTable | None = None, number: int = 0, workers: int = 1) -> None:
        self._status = status
        self._number = number
        self._others = [] if status is None else [each for each in range(workers) if each != number]
        self._claims: dict[str, Claim] = {}
        self._post()

    def claim(self, version: str, share: float, streams: int) -> None:
        """Set what the live streams of a version want; ``share`` may be infinite."""
        claim = Claim(min(share, 1.0), streams)
        if claim != self._claims.get(version, Claim()):
            self._claims[version] = claim
            self._post()

    def share(self, version: str, *, one_more: bool = False) -> float:
        """Return the part of the device that the live streams of a version may have, in (0, 1].

        Parties that want less than their share leave the rest to the others; every stream counts the same.
        With ``one_more``, it is the part that they may have with one more stream, which wants all that it can
        get.
        """
        others = [claim for name, claim in self._claims.items() if name != version and claim.streams]
        if self._status is not None:
            others += [
                claim for claim in (_read(self._status, each) for each in self._others) if claim.streams
            ]
        if not others:
            return 1.0
        own = self._claims.get(version, Claim())
        if one_more:
            own = Claim(1.0, own.streams + 1)
        demands = {_OWN: own.share} | {key: claim.share for key, claim in enumerate(others, _OWN + 1)}
        weights = {_OWN: max(1.0, own.streams)} | {
            key: claim.streams for key, claim in enumerate(others, _OWN + 1)
        }
        allowed = client_rates(demands, weights, 1.0)[_OWN]
        if math.isinf(allowed):
            return 1.0 - sum(claim.share for claim in others)
        return allowed

    def _post(self) -> None:
        if self._status is not None:
            claims = self._claims.values()
            self._status.post_worker(
                self._number, "stream_share", min(1.0, sum(each.share for each in claims))
            )
            self._status.post_worker(self._number, "streams", sum(each.streams for each in claims))


def _read(status: ClaimTable, number: int) -> Claim:
    """Return what another worker has posted; every process of the replica can write there."""
    share, streams = status.read_worker(number, "stream_share"), status.read_worker(number, "streams")
    return Claim(min(max(share, 0.0), 1.0), min(max(streams, 0.0), _MOST_STREAMS))
