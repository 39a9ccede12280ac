"""Describes faults of simulated cameras: what each kind does to the rows from its start on.

The sizes are those of the docs (`docs/drift.md`): a tenth of the image, ten points of confidence, six hours
of dirt. Directions, and what else of a moved camera's view differs, are drawn for each fault.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from tests.helpers.drift_scene import LABELS, Effect, Scene
from tests.helpers.drift_series import HOUR_S, Floats, Series
from tests.helpers.drift_worlds import draw

COVERED, FOCUS, MOVED, MIX = "covered lens", "lost focus", "moved by 10 %", "object mix"
CONFIDENCE, DIRT, FROZEN, EXPOSURE = "confidence -.10", "dirt over 6 h", "frozen", "exposure"
KINDS = (COVERED, FOCUS, MOVED, MIX, CONFIDENCE, DIRT, FROZEN, EXPOSURE)
#: Time until dirt is as thick as it gets.
DIRT_S = 6 * HOUR_S


@dataclass(frozen=True, eq=False)
class SceneRecording:
    """Holds a simulated scene and its rows without and with faults."""

    scene: Scene
    #: When the reference ends, and the end of the recording.
    now: float
    end: float
    seed: int
    kinds: tuple[str, ...] = KINDS

    @functools.cached_property
    def series(self) -> Series:
        """The rows without a fault."""
        return self.scene.series(seed=self.seed)

    def faulty(self, kind: str, begin: float, end: float, seed: int) -> Series:
        """Return the rows from ``begin`` to ``end`` of a camera that has had a fault since ``begin``.

        Raises ValueError for an unknown kind.
        """
        part = self.scene.between(begin, end)
        rng = np.random.default_rng((seed, KINDS.index(kind)))
        return part.series(effect_of(kind, part, begin, rng), seed + 1)


def record_world(name: str, seed: int, days: float, reference_days: float) -> SceneRecording:
    """Draw a world of ``WORLDS``; the arguments are those of :func:`tests.helpers.drift_worlds.draw`."""
    timeline = draw(name, seed, days, reference_days)
    return SceneRecording(timeline.scene, timeline.now, timeline.end, seed)


def effect_of(kind: str, part: Scene, begin: float, rng: np.random.Generator) -> Effect:
    """Return what a fault of this kind does to a scene since ``begin``. Raises KeyError for other kinds."""
    thickness = np.clip((part.at - begin) / DIRT_S, 0, 1)
    signs = rng.choice([-1.0, 1.0], 6)
    size = rng.uniform(0.5, 1.5, 4)
    angle = rng.uniform(0, 2 * np.pi)
    effects = {
        # Some light passes a hand or a tape.
        COVERED: Effect(exposure=-2.5, contrast=-2.3, detail=-1.5, chroma=-1.5, confidence=0.3),
        FOCUS: Effect(contrast=-0.1, detail=-1.3),
        MOVED: Effect(
            exposure=signs[2] * 0.15 * size[0],
            contrast=signs[3] * 0.06 * size[1],
            detail=signs[4] * 0.12 * size[2],
            chroma=signs[5] * 0.10 * size[3],
            shift=(0.10 * float(np.cos(angle)), 0.10 * float(np.sin(angle))),
        ),
        MIX: Effect(mix=_other_mix(part, rng)),
        CONFIDENCE: Effect(confidence=0.10),
        DIRT: Effect(
            contrast=-0.5 * thickness,
            detail=-0.8 * thickness,
            exposure=0.1 * thickness,
            chroma=-0.2 * thickness,
        ),
        FROZEN: Effect(frozen=True),
        EXPOSURE: Effect(exposure=signs[0] * 0.8),
    }
    return effects[kind]


def _other_mix(part: Scene, rng: np.random.Generator) -> Floats:
    """Return class probabilities in which the two rarest of the three main classes dominate."""
    usual = np.bincount(part.objects.label, minlength=len(LABELS)) + 1.0
    order = np.argsort(-usual)
    mix = np.full(len(LABELS), 0.05)
    mix[order[2]] = rng.uniform(0.5, 0.7)
    mix[order[1]] = 0.85 - mix[order[2]]
    return np.asarray(mix / mix.sum(), np.float64)
