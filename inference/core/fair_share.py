"""Start-time fair queueing: clients of a few classes share a resource by weight and pay in seconds. Pure.

The planner uses it for the device and the worker's queues for decoding. After Goyal, Vin and Cheng,
"Start-time Fair Queueing" (SIGCOMM 1996), on two levels: between the classes, and within each between its
clients. Each has a tag, the virtual time at which its next item may start; the smallest tag is next. An item
is charged its expected cost when it starts and corrected when its real cost is known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Set
from dataclasses import dataclass

#: Flows that are remembered. Beyond this, those that owe nothing are forgotten first.
MAX_FLOWS = 4096
#: What a client owes at the most for work outside of its turns, so that it is served again soon after that.
_MOST_DEBT_S = 2.0
#: Flows examined for one to forget; bounds the time of a lookup.
_EXAMINED = 8


@dataclass(slots=True, eq=False)
class Flow:
    """One client within one class. Only `FairShare` writes to it."""

    kind: str
    client: Hashable
    weight: float
    #: Virtual time of its class at which the next item may start.
    tag: float = 0.0
    #: Number of the last pick, which breaks ties: who was served longest ago goes first.
    turn: int = 0
    #: Items that were started and are not settled yet.
    running: int = 0
    #: Number of the pick of its class at which it waited last.
    seen: int = 0
    #: Seconds of the resource that the flow was charged in all.
    charged_s: float = 0.0
    #: Fraction of the resource that the flow was due at its last pick, 0 to 1.
    fraction: float = 1.0


@dataclass(slots=True)
class _Class:
    """The clients of one class together."""

    weight: float
    tag: float = 0.0
    turn: int = 0
    #: Tag of its flow that was picked last, and the largest tag of its flows.
    virtual_s: float = 0.0
    latest_s: float = 0.0
    #: Picks of one of its flows, items that run, and the pick of all at which it waited last.
    picks: int = 0
    running: int = 0
    seen: int = 0


class FairShare:
    """Who goes next. ``classes`` maps each class to its share where all classes want the resource.

    Within a class its clients share by weight, so no number of clients of one class takes anything from
    another class. A client that had nothing to do saves nothing up: it
    starts level with the client that is served at that moment. A client that cost more than expected pays
    before it is served again.
    """

    def __init__(self, classes: Mapping[str, float]) -> None:
        self._classes = {kind: _Class(weight) for kind, weight in classes.items()}
        self._flows: OrderedDict[tuple[str, Hashable], Flow] = OrderedDict()
        #: Tag of the class that was picked last.
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
        """Return the next of the waiting flows. Raises ValueError when empty."""
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
            # Nothing is saved up while there was nothing to do; who was there all the time keeps what a
            # cost below the expected one gave back.
            if flow.seen != chosen.picks and not flow.running:
                flow.tag = max(flow.tag, chosen.virtual_s)
            flow.seen = chosen.picks + 1
            if best is None or flow.tag < best.tag or (flow.tag == best.tag and flow.turn < best.turn):
                best = flow
        if best is None:  # never: its class was chosen for it
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
        # In the order of the classes, so that ties are decided the same way every time.
        waiting = [kind for kind in self._classes if kind in kinds]
        return min(waiting, key=lambda kind: (self._classes[kind].tag, self._classes[kind].turn))

    def fraction(self, flow: Flow, waiting: Iterable[Flow]) -> float:
        """Return the part of the resource, 0 to 1, that is due to ``flow`` beside those that want it now."""
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
        """Return the seconds of work that are done, for all together, before ``flow`` is next."""
        ahead = max(0.0, flow.tag - self._classes[flow.kind].virtual_s)
        return ahead * flow.weight / flow.fraction

    def lead_s(self, flow: Flow, other: Flow) -> float:
        """Return the seconds of ``other``, which waits, that are done before ``flow`` is next.

        Of a client of another class these are the seconds of its whole class.
        """
        if flow.kind == other.kind:
            since = max(other.tag, self._classes[flow.kind].virtual_s)
            return max(0.0, flow.tag - since) * other.weight
        own, rival = self._classes[flow.kind], self._classes[other.kind]
        return max(0.0, own.tag - max(rival.tag, self._virtual_s)) * rival.weight

    def class_ratio(self, kind: str, other: str) -> float:
        """Return the seconds that class ``other`` may have while ``kind`` has one."""
        return self._classes[other].weight / self._classes[kind].weight

    def start(self, flow: Flow, expected_s: float) -> None:
        """Charge one item that starts now; :meth:`settle` follows exactly once."""
        flow.running += 1
        self._classes[flow.kind].running += 1
        self._running.add(flow)
        self._charge(flow, expected_s)

    def settle(self, flow: Flow, expected_s: float, actual_s: float) -> None:
        """One item has ended: replace the expected cost that was charged by the actual one."""
        flow.running -= 1
        self._classes[flow.kind].running -= 1
        if not flow.running:
            self._running.discard(flow)
        self._charge(flow, actual_s - expected_s)

    def charge(self, flow: Flow, cost_s: float) -> None:
        """Charge work that is done whoever's turn it is, as decoding a video.

        Its class is not charged: that would be paid by the other clients of the class.
        """
        kind = self._classes[flow.kind]
        if flow.seen != kind.picks and not flow.running:
            flow.tag = max(flow.tag, kind.virtual_s)
        owed_s = (flow.tag - kind.virtual_s) * flow.weight
        flow.charged_s += cost_s
        flow.tag += max(0.0, min(cost_s, _MOST_DEBT_S - owed_s)) / flow.weight
        kind.latest_s = max(kind.latest_s, flow.tag)

    def rest(self) -> None:
        """Nothing runs and nothing waits: what was used does not count against anybody later."""
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
        """Forget the least recently used flow, one that owes nothing if there is one among the oldest."""
        oldest = [flow for _, flow in zip(range(_EXAMINED), self._flows.values(), strict=False)]
        idle = [flow for flow in oldest if not flow.running] or oldest
        flow = next((each for each in idle if self.debt_s(each) == 0.0), idle[0])
        del self._flows[flow.kind, flow.client]
