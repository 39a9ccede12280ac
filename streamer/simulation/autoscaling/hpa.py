"""The algorithm of the HorizontalPodAutoscaler (HPA) of Kubernetes. Pure; the time is an argument.

Sources: "Horizontal Pod Autoscaling" in the documentation of Kubernetes
(https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/), sections "Algorithm
details" and "Configurable scaling behavior", and where that is not exact, the controller itself
(https://github.com/kubernetes/kubernetes, pkg/controller/podautoscaler). `behavior` beside it limits and
delays what is wanted here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

#: Relative deviation from the target up to which an HPA does nothing
#: (``--horizontal-pod-autoscaler-tolerance``).
TOLERANCE = 0.1
#: Kubernetes computes with thousandths of a unit, in whole numbers.
_MILLI = 1000


class NoMetrics(Exception):
    """Raised if no running pod has a metric; the HPA then leaves the number of replicas as it is."""


class Phase(Enum):
    """What the HPA distinguishes in the life of a pod. Readiness counts for processor metrics alone."""

    PENDING = "pending"
    RUNNING = "running"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class PodMetric:
    """Describes one pod to the HPA; ``value`` is None if Prometheus has none."""

    phase: Phase
    value: float | None


def for_pods_metric(current: int, target: float, pods: Sequence[PodMetric]) -> int:
    """Return the replicas wanted by a metric of the type Pods with the target AverageValue.

    The mean of the pods that have a value is compared with ``target``, in the same unit. Pods that are
    deleted do not count. If pods would be removed, running pods without a value count as ``target``. If pods
    would be added, they count as 0, and so do pending pods. If this turns the direction, or brings the mean
    within the tolerance, the result is ``current``. Raises NoMetrics.
    """
    goal = round(target * _MILLI)
    values = [
        round(pod.value * _MILLI) for pod in pods if pod.phase is Phase.RUNNING and pod.value is not None
    ]
    pending = sum(pod.phase is Phase.PENDING for pod in pods)
    missing = sum(pod.phase is Phase.RUNNING and pod.value is None for pod in pods)
    if not values:
        raise NoMetrics
    ratio = _ratio(values, goal)
    counts_pending = pending > 0 and ratio > 1
    if not counts_pending and not missing:
        return current if abs(1 - ratio) <= TOLERANCE else math.ceil(ratio * len(values))
    values += [goal if ratio < 1 else 0] * missing
    if counts_pending:
        values += [0] * pending
    cautious = _ratio(values, goal)
    turned = (ratio < 1 < cautious) or (cautious < 1 < ratio)
    if turned or abs(1 - cautious) <= TOLERANCE:
        return current
    wanted = math.ceil(cautious * len(values))
    # The pods that were left out must not turn the direction either.
    against = (cautious < 1 and wanted > current) or (cautious > 1 and wanted < current)
    return current if against else wanted


def for_external_average(pods: int, target: float, total: float) -> int:
    """Return the replicas wanted by an external metric with the target AverageValue, as KEDA creates it.

    ``total`` is divided by the number of ``pods`` that exist, ready or not. The HPA asks KEDA, and KEDA asks
    Prometheus, at each period of the HPA; pollingInterval only matters for scaling from zero and for
    useCachedMetrics (https://keda.sh/docs/latest/reference/scaledobject-spec/).
    """
    goal, usage = round(target * _MILLI), round(total * _MILLI)
    ratio = usage / (goal * pods)
    return pods if abs(1 - ratio) <= TOLERANCE else math.ceil(usage / goal)


def for_external_value(current: int, ready: int, target: float, value: float) -> int:
    """Return the replicas wanted by an external metric with the target Value.

    The number of ``ready`` pods is multiplied by the ratio of ``value`` and ``target``. If more replicas do
    not lower the value, such as a share that concerns streams that do not move, this grows without end.
    """
    ratio = round(value * _MILLI) / round(target * _MILLI)
    return current if abs(1 - ratio) <= TOLERANCE else math.ceil(ratio * ready)


def _ratio(values: Sequence[int], goal: int) -> float:
    return (sum(values) // len(values)) / goal
