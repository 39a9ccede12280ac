"""Provides two fair schedulers without I/O: start-time fair queueing, and stride scheduling.

Clients of a few classes share a resource by weight and are charged for the seconds that they use it. The
planner uses this for the device, and workers use it for decoding. The algorithm is that of Goyal, Vin and
Cheng, "Start-time Fair Queueing" (SIGCOMM 1996), applied on two levels: between the classes, and between the
clients of each class. Each class and client has a tag, the virtual time at which its next item may start; the
one with the smallest tag is next. A client is charged the expected cost of an item when the item starts, and
the charge is corrected when the real cost is known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Generic, TypeVar

Party = TypeVar("Party", bound=Hashable)

#: Number of flows that `FairShare` remembers. Beyond it, `FairShare` prefers to forget a flow without debt.
MAX_FLOWS = 4096
#: Largest debt of a client for work outside of its turns; the limit lets the client be served again soon.
_MOST_DEBT_S = 2.0
#: Number of flows that `FairShare` examines to find one to forget, which bounds the time of a lookup.
_EXAMINED = 8


@dataclass(slots=True, eq=False)
class Flow:
    """Holds the state of one client within one class. Only `FairShare` writes to it."""

    kind: str
    client: Hashable
    weight: float
    #: Virtual time of its class at which the next item may start.
    tag: float = 0.0
    #: Number of the pick that last chose this flow. Among equal tags, the flow served longest ago goes first.
    turn: int = 0
    #: Items that were started and are not settled yet.
    running: int = 0
    #: Number of the last pick within its class during which this flow was waiting.
    seen: int = 0
    #: Total seconds of the resource that the flow was charged.
    charged_s: float = 0.0
    #: Fraction of the resource, 0 to 1, that the flow was entitled to at its last pick.
    fraction: float = 1.0


@dataclass(slots=True)
class _Class:
    """Holds the state of one class, which is that of all its clients together."""

    weight: float
    tag: float = 0.0
    turn: int = 0
    #: Virtual time of the class, which is the largest tag of a picked flow, and the largest tag of any flow.
    virtual_s: float = 0.0
    latest_s: float = 0.0
    #: Number of picks within the class, number of its running items, and number of the last pick among all
    #: classes during which this class was waiting.
    picks: int = 0
    running: int = 0
    seen: int = 0


class FairShare:
    """Decides which client is served next.

    ``classes`` maps each class to the share that it gets while all classes have work. Within a class, clients
    share by weight, so more clients in one class take nothing from another class. An idle client does not
    save up time: when it returns, it is level with the client that is being served. A client that cost more
    than expected pays the difference before it is served again.
    """

    def __init__(self, classes: Mapping[str, float]) -> None:
        self._classes = {kind: _Class(weight) for kind, weight in classes.items()}
        self._flows: OrderedDict[tuple[str, Hashable], Flow] = OrderedDict()
        #: Virtual time between the classes, which is the largest tag of a picked class.
        self._virtual_s = 0.0
        self._turn = 0
        #: Flows with items that were started and are not settled.
        self._running: set[Flow] = set()

    def __len__(self) -> int:
        return len(self._flows)

    @property
    def running(self) -> Set[Flow]:
        """Flows with items that were started and are not settled."""
        return self._running

    def flow(self, kind: str, client: Hashable, weight: float = 1.0) -> Flow:
        """Return the flow of a client in a class. Raises KeyError for an unknown class."""
        key = (kind, client)
        found = self._flows.get(key)
        if found is None:
            if kind not in self._classes:
                raise KeyError(kind)
            if len(self._flows) >= MAX_FLOWS:
                self._forget_one()
            found = self._flows[key] = Flow(kind, client, weight)
        else:
            self._flows.move_to_end(key)
        found.weight = weight
        return found

    def pick(self, waiting: Iterable[Flow]) -> Flow:
        """Return the waiting flow that is served next. Raises ValueError when none waits."""
        flows = waiting if isinstance(waiting, list) else list(waiting)
        if not flows:
            raise ValueError("no flow waits")
        kinds = {flows[0].kind} if len(flows) == 1 else {flow.kind for flow in flows}
        kind = self._pick_class(kinds)
        chosen = self._classes[kind]
        self._virtual_s = max(self._virtual_s, chosen.tag)
        best: Flow | None = None
        for flow in flows:
            if flow.kind != kind:
                continue
            # A flow that was idle does not save up time. A flow that was always waiting or running keeps its
            # refunds for items that cost less than expected.
            if flow.seen != chosen.picks and not flow.running:
                flow.tag = max(flow.tag, chosen.virtual_s)
            flow.seen = chosen.picks + 1
            if best is None or flow.tag < best.tag or (flow.tag == best.tag and flow.turn < best.turn):
                best = flow
        if best is None:  # cannot happen: the class was chosen because one of its flows waits
            raise ValueError("no flow waits")
        self._turn += 1
        best.turn = chosen.turn = self._turn
        chosen.picks += 1
        best.fraction = self.fraction(best, flows)
        chosen.virtual_s = max(chosen.virtual_s, best.tag)
        return best

    def _pick_class(self, kinds: Set[str]) -> str:
        for kind in kinds:
            each = self._classes[kind]
            if each.seen != self._turn and not each.running:
                each.tag = max(each.tag, self._virtual_s)
            each.seen = self._turn + 1
        if len(kinds) == 1:
            return next(iter(kinds))
        # Iterate in the order of the classes, so that ties are always decided the same way.
        waiting = [kind for kind in self._classes if kind in kinds]
        return min(waiting, key=lambda kind: (self._classes[kind].tag, self._classes[kind].turn))

    def fraction(self, flow: Flow, waiting: Iterable[Flow]) -> float:
        """Return the part of the resource, 0 to 1, that ``flow`` is entitled to beside all busy flows."""
        running = self._running
        wanting = running.union(waiting) if running else set(waiting)
        wanting.add(flow)
        if len(wanting) == 1:
            return 1.0
        kinds = {other.kind for other in wanting}
        rivals = sum(other.weight for other in wanting if other.kind == flow.kind)
        part = self._classes[flow.kind].weight / sum(self._classes[kind].weight for kind in kinds)
        return part * flow.weight / rivals

    def debt_s(self, flow: Flow) -> float:
        """Return how many seconds of work, for all flows together, come before ``flow`` is next."""
        before_s = max(0.0, flow.tag - self._classes[flow.kind].virtual_s)
        return before_s * flow.weight / flow.fraction

    def lead_s(self, flow: Flow, other: Flow) -> float:
        """Return how many seconds of work the waiting flow ``other`` gets before ``flow`` is next.

        If ``other`` belongs to another class, the seconds are those of that whole class.
        """
        if flow.kind == other.kind:
            since = max(other.tag, self._classes[flow.kind].virtual_s)
            return max(0.0, flow.tag - since) * other.weight
        own, rival = self._classes[flow.kind], self._classes[other.kind]
        return max(0.0, own.tag - max(rival.tag, self._virtual_s)) * rival.weight

    def class_ratio(self, kind: str, other: str) -> float:
        """Return the seconds that class ``other`` may use while class ``kind`` uses one."""
        return self._classes[other].weight / self._classes[kind].weight

    def start(self, flow: Flow, expected_s: float) -> None:
        """Charge one item that starts now. The caller calls :meth:`settle` exactly once for it."""
        flow.running += 1
        self._classes[flow.kind].running += 1
        self._running.add(flow)
        self._charge(flow, expected_s)

    def settle(self, flow: Flow, expected_s: float, actual_s: float) -> None:
        """Replace the expected cost that was charged for an item by its actual cost, when it has ended."""
        flow.running -= 1
        self._classes[flow.kind].running -= 1
        if not flow.running:
            self._running.discard(flow)
        self._charge(flow, actual_s - expected_s)

    def charge(self, flow: Flow, cost_s: float) -> None:
        """Charge a flow for work outside of its turns, such as decoding a video.

        The class is not charged, because the other clients of the class would pay for it.
        """
        kind = self._classes[flow.kind]
        if flow.seen != kind.picks and not flow.running:
            flow.tag = max(flow.tag, kind.virtual_s)
        owed_s = (flow.tag - kind.virtual_s) * flow.weight
        flow.charged_s += cost_s
        flow.tag += max(0.0, min(cost_s, _MOST_DEBT_S - owed_s)) / flow.weight
        kind.latest_s = max(kind.latest_s, flow.tag)

    def rest(self) -> None:
        """Make all classes and flows equal again. Callers do so when nothing runs and nothing waits."""
        for each in self._classes.values():
            each.virtual_s = each.latest_s
            self._virtual_s = max(self._virtual_s, each.tag)

    def _charge(self, flow: Flow, cost_s: float) -> None:
        flow.charged_s += cost_s
        flow.tag += cost_s / flow.weight
        kind = self._classes[flow.kind]
        kind.tag += cost_s / kind.weight
        kind.latest_s = max(kind.latest_s, flow.tag)

    def _forget_one(self) -> None:
        """Forget one of the least recently used flows, preferably one without debt."""
        oldest = [flow for _, flow in zip(range(_EXAMINED), self._flows.values(), strict=False)]
        idle = [flow for flow in oldest if not flow.running] or oldest
        flow = next((each for each in idle if self.debt_s(each) == 0.0), idle[0])
        del self._flows[flow.kind, flow.client]


class Stride(Generic[Party]):
    """Picks the party that has used the least in proportion to its weight (stride scheduling).

    The planner shares the device between versions with it. An idle party does not save up time: when it
    returns, it starts level with the others. The algorithm is that of Waldspurger and Weihl, "Stride
    Scheduling" (MIT TM-528, 1995).
    """

    def __init__(self, weights: Mapping[Party, float]) -> None:
        self._weights = dict(weights)
        self._used: dict[Party, float] = dict.fromkeys(weights, 0.0)
        self._active: frozenset[Party] = frozenset()

    def pick(self, waiting: Iterable[Party]) -> Party:
        """Return the waiting party that is next, or the first of a tie. Raises ValueError if none waits."""
        parties = list(waiting)
        if not parties:
            raise ValueError("no party waits")
        if len(self._used) == 1:  # no other party has used anything
            return parties[0]
        staying = [self._used[party] for party in parties if party in self._active]
        floor = min(staying) if staying else max(self._used.values())
        for party in parties:
            if party not in self._active:
                self._used[party] = max(self._used[party], floor)
        self._active = frozenset(parties)
        return min(parties, key=self._used.__getitem__)

    def charge(self, party: Party, amount: float) -> None:
        """Charge ``party`` for ``amount`` of the resource, in seconds or items."""
        self._used[party] += amount / self._weights[party]
