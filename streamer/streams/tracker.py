"""Assigns track ids to the boxes of one stream by two-stage association with predicted boxes. Pure.

The association follows ByteTrack (Zhang et al., 2022, arXiv:2110.06864): confident boxes are matched to
tracks first. Doubtful boxes may then continue a track that is still unmatched, but never begin one. An
alpha-beta filter estimates motion in real time, because frames are dropped and their spacing varies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.core.detections import Boxes
from inference.core.overlap import greedy_pairs, iou

#: Boxes with at least this score are matched first and may begin a track; others only continue a track.
START_SCORE = 0.4
#: Minimum IoU with the predicted box in the first and in the second stage. The second stage requires more,
#: because its boxes are noise more often.
START_IOU = 0.2
DOUBTFUL_IOU = 0.4
#: A track that was seen once has no velocity yet, so a fast object may have left its box by the next frame.
#: The box of such a track and the box it is compared with are enlarged by this factor (buffered IoU: Yang et
#: al., WACV 2023).
FIRST_STEP_GROWTH = 1.6
#: A track without a matching box is kept for this time, so that an object behind a pillar keeps its id.
LOST_S = 1.0
#: Longest gap between two frames after which tracks that were seen in the first of them can be continued.
MAX_GAP_S = 3.0
#: Maximum number of tracks. When new ones need room, the tracks that were not seen for longest are removed.
#: If that is not enough, boxes get no track.
MAX_TRACKS = 1024
#: Ids are stored as float32 in the result, which is exact for whole numbers up to here. After this one, ids
#: begin at 1 again.
MAX_TRACK_ID = (1 << 24) - 1

#: Share of the residual that corrects position and size, and share that corrects velocity.
_ALPHA = 0.8
_BETA = 0.4
#: A movement is divided by at least this time to get a velocity, because with closer timestamps a pixel of
#: jitter would become a high velocity.
_MIN_STEP_S = 0.01

#: Arrays of track state and the number of columns of each; 0 means that the array is one-dimensional.
_COLUMNS = {"ids": 0, "classes": 0, "places": 4, "speeds": 2, "seen_s": 0, "hits": 0}

_Floats = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]


class Tracker:
    """Gives each box of one stream an id that stays the same for its object from frame to frame.

    Each stream has one tracker, which only one thread uses. Ids begin at 1. ``MAX_TRACKS`` bounds the state.
    """

    def __init__(self) -> None:
        self._next_id = 1
        self.reset()

    def reset(self) -> None:
        """Remove all tracks; ids continue, so that a new object does not get the id of an earlier one."""
        self._last_ts_us: int | None = None
        self._clock_s = 0.0
        self._ids = np.empty(0, dtype=np.int64)
        self._classes = np.empty(0, dtype=np.float32)
        #: Rows of centre x, centre y, width, height in px as of ``_seen_s``.
        self._places: _Floats = np.empty((0, 4))
        #: Rows of the velocity of the centre in px/s. Sizes have no velocity: they are smoothed, but never
        #: extrapolated.
        self._speeds: _Floats = np.empty((0, 2))
        self._seen_s: _Floats = np.empty(0)
        self._hits = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ids)

    def to_state(self) -> dict[str, Any]:
        """Return the whole state in a form for JSON."""
        return {"next_id": self._next_id, "last_ts_us": self._last_ts_us, "clock_s": self._clock_s} | {
            name: getattr(self, f"_{name}").tolist() for name in _COLUMNS
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Tracker:
        """Restore a tracker from the result of :meth:`to_state`.

        Raises KeyError, TypeError or ValueError if ``state`` has another form.
        """
        tracker = cls()
        last_ts_us = state["last_ts_us"]
        tracker._next_id = int(state["next_id"])
        tracker._last_ts_us = None if last_ts_us is None else int(last_ts_us)
        tracker._clock_s = float(state["clock_s"])
        count = len(state["ids"])
        if count > MAX_TRACKS:
            raise ValueError(f"{count} tracks; at most {MAX_TRACKS}")
        for name, width in _COLUMNS.items():
            empty = getattr(tracker, f"_{name}")
            values = np.array(state[name], dtype=empty.dtype)
            setattr(tracker, f"_{name}", values.reshape((count, width) if width else (count,)))
        return tracker

    def update(self, boxes: Boxes, ts_us: int) -> npt.NDArray[np.float32]:
        """Return ``boxes`` (N, 6) with a seventh column ``track_id``: (N, 7) with the rows in the same order.

        ``ts_us`` is the sender's clock in microseconds. If it does not advance, the tracker assumes that no
        time has passed. ``track_id`` is 0 for a row without a track: either its score is below
        ``START_SCORE`` and it continues no track, or there are ``MAX_TRACKS`` tracks already.
        """
        self._advance(ts_us)
        rows: _Floats = boxes.astype(np.float64)
        result = np.zeros((len(rows), 7), dtype=np.float32)
        result[:, :6] = boxes
        confident = rows[:, 4] >= START_SCORE
        row_of_track = np.full(len(self._ids), -1, dtype=np.intp)
        if len(self._ids) and len(rows):
            overlap = self._overlap(rows)
            first = np.where(confident[:, None], overlap, 0.0)
            row_of_track = _match(first, START_IOU, row_of_track)
            if not confident.all():
                doubtful = np.where(confident[:, None] | (row_of_track >= 0), 0.0, overlap)
                row_of_track = _match(doubtful, DOUBTFUL_IOU, row_of_track)
            tracks = np.flatnonzero(row_of_track >= 0)
            matched = row_of_track[tracks]
            self._correct(tracks, rows[matched])
            result[matched, 6] = self._ids[tracks]
        new = np.flatnonzero(confident & (result[:, 6] == 0))[:MAX_TRACKS]
        if len(new):
            new = new[np.argsort(-rows[new, 4], kind="stable")]
            begun = self._begin(rows[new])
            result[new[: len(begun)], 6] = begun
        return result

    def _advance(self, ts_us: int) -> None:
        """Move the clock to this frame and remove the tracks that are too old to be continued."""
        before_s = self._clock_s
        if self._last_ts_us is not None:
            self._clock_s += max(0, ts_us - self._last_ts_us) / 1e6
        self._last_ts_us = ts_us
        # Tracks that were seen in the previous frame may be older than lost ones, so that they survive a low
        # frame rate.
        limit_s = np.where(self._seen_s >= before_s, MAX_GAP_S, LOST_S)
        keep = self._clock_s - self._seen_s <= limit_s
        if not keep.all():
            self._keep(np.flatnonzero(keep))

    def _overlap(self, rows: _Floats) -> _Floats:
        """Return the IoU (N, K) of rows and predicted tracks; it is 0 where the class differs."""
        age_s = self._clock_s - self._seen_s
        growth = np.where(self._hits == 1, FIRST_STEP_GROWTH, 1.0)[:, None]
        centre = self._places[:, :2] + self._speeds * age_s[:, None]
        half = self._places[:, 2:] / 2 * growth
        found = _places(rows)
        # Shape (N, K, 2): the box of a row is enlarged by the same factor as the track with which it is
        # compared.
        row_centre, row_half = found[:, None, :2], found[:, None, 2:] / 2 * growth
        overlap = iou(row_centre - row_half, row_centre + row_half, centre - half, centre + half)
        result: _Floats = np.where(rows[:, 5, None] == self._classes, overlap, 0.0)
        return result

    def _correct(self, tracks: _Indices, rows: _Floats) -> None:
        age_s = (self._clock_s - self._seen_s[tracks])[:, None]
        speed = self._speeds[tracks]
        predicted = self._places[tracks]
        predicted[:, :2] += speed * age_s
        residual = _places(rows) - predicted
        # The second observation is the first that yields a velocity, so this velocity is taken over fully.
        beta = np.where(self._hits[tracks] == 1, 1.0, _BETA)[:, None]
        self._places[tracks] = predicted + _ALPHA * residual
        moved = np.where(age_s > 0, beta * residual[:, :2] / np.maximum(age_s, _MIN_STEP_S), 0.0)
        self._speeds[tracks] = speed + moved
        self._hits[tracks] += 1
        self._seen_s[tracks] = self._clock_s

    def _begin(self, rows: _Floats) -> npt.NDArray[np.int64]:
        """Begin a track for each row while there is room, and return their ids."""
        excess = len(self._ids) + len(rows) - MAX_TRACKS
        if excess > 0:
            unseen = np.flatnonzero(self._seen_s < self._clock_s)
            longest = unseen[np.argsort(self._seen_s[unseen], kind="stable")][:excess]
            self._keep(np.setdiff1d(np.arange(len(self._ids)), longest))
            rows = rows[: MAX_TRACKS - len(self._ids)]
        count = len(rows)
        ids = (self._next_id - 1 + np.arange(count)) % MAX_TRACK_ID + 1
        self._next_id = (self._next_id - 1 + count) % MAX_TRACK_ID + 1
        self._ids = np.concatenate((self._ids, ids))
        self._classes = np.concatenate((self._classes, rows[:, 5].astype(np.float32)))
        self._places = np.concatenate((self._places, _places(rows)))
        self._speeds = np.concatenate((self._speeds, np.zeros((count, 2))))
        self._seen_s = np.concatenate((self._seen_s, np.full(count, self._clock_s)))
        self._hits = np.concatenate((self._hits, np.ones(count, dtype=np.int64)))
        return ids

    def _keep(self, tracks: _Indices) -> None:
        self._ids = self._ids[tracks]
        self._classes = self._classes[tracks]
        self._places = self._places[tracks]
        self._speeds = self._speeds[tracks]
        self._seen_s = self._seen_s[tracks]
        self._hits = self._hits[tracks]


def _places(rows: _Floats) -> _Floats:
    """Return centre x, centre y, width and height of rows with x1, y1, x2, y2."""
    low, high = rows[:, :2], rows[:, 2:4]
    return np.concatenate(((low + high) / 2, high - low), axis=1)


def _match(overlap: _Floats, least: float, row_of_track: _Indices) -> _Indices:
    """Match rows to unmatched tracks greedily, the largest overlap first, and return ``row_of_track`` (K,).

    Only overlaps of at least ``least`` are matched. A row index of -1 means that the track is unmatched. The
    matching need not be optimal, because predicted motion already separates most competing boxes. With 20
    boxes it takes a tenth of the time budget.
    """
    result = row_of_track.copy()
    for row, track in greedy_pairs(overlap, least):
        result[track] = row
    return result
