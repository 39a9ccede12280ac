"""Tells which photographs show nearly the same, by a perceptual hash and by features of a network.

Either alone misses copies: the hash those that were cropped or turned, the features those whose light is
different. Embeddings are comparable only if the same network made them.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from models.training.textures import Image
from streamer.training.network import Detector

#: Photographs are near-copies if both hold: at most so many of 63 bits differ, and at least this cosine.
_HASH_BITS, _HASH_COSINE = 10, 0.94
#: Above this cosine they are near-copies whatever the hash says. On the photographs of the test suites,
#: pairs above it are the same code or carpet again, or another code from the same encoder and of the same
#: size; pictures of different things begin at .975.
_COSINE = 0.98
_HASH_SIDE, _HASH_KEPT = 32, 8
_NETWORK_SIDE, _CELLS = 256, 3

Hashes = npt.NDArray[np.bool_]
Embedding = npt.NDArray[np.float32]


def hashes(image: Image) -> Hashes:
    """Return the hashes (8, 63) of an image (h, w, 3) BGR, turned by quarters and mirrored.

    A bit says whether a low frequency of the reduced grey image is stronger than the median one
    (pHash; Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions").
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    rows = []
    for quarters in range(4):
        turned = np.rot90(small, quarters)
        for view in (turned, turned[:, ::-1]):
            low = cv2.dct(np.ascontiguousarray(view))[:_HASH_KEPT, :_HASH_KEPT].ravel()[1:]
            rows.append(low > np.median(low))
    return np.stack(rows)


@torch.no_grad()
def embedding(network: Detector, image: Image) -> Embedding:
    """Return the features of an image (h, w, 3) BGR, as a vector of length 1.

    These are the two deepest stages of the backbone, averaged over a grid of 3 x 3 cells.
    """
    square = cv2.resize(image, (_NETWORK_SIDE, _NETWORK_SIDE), interpolation=cv2.INTER_AREA)
    planes = np.ascontiguousarray(square[..., ::-1].transpose(2, 0, 1))
    inputs = torch.from_numpy(planes)[None].float() / 255
    deep = network.stage16(network.stage8(network.stage4(network.stem(inputs))))
    parts = [
        torch.nn.functional.adaptive_avg_pool2d(features, _CELLS).flatten()
        for features in (deep, network.stage32(deep))
    ]
    joined = torch.cat([part / part.norm().clamp(min=1e-6) for part in parts]).numpy()
    result: Embedding = joined / max(1e-6, float(np.linalg.norm(joined)))
    return result


def near_copies(all_hashes: Sequence[Hashes], embeddings: Sequence[Embedding]) -> list[tuple[int, int]]:
    """Return the pairs of indices (i, j), i < j, of near-copies."""
    if not len(all_hashes):
        return []
    bits = np.stack(all_hashes)
    vectors = np.stack(embeddings)
    pairs = []
    for index in range(len(bits)):
        rest = slice(index + 1, None)
        differing = (
            (bits[index][:, None] != bits[rest, 0]).sum(2).min(0) if index + 1 < len(bits) else np.zeros(0)
        )
        cosine = vectors[rest] @ vectors[index]
        near = ((differing <= _HASH_BITS) & (cosine >= _HASH_COSINE)) | (cosine >= _COSINE)
        pairs += [(index, index + 1 + int(offset)) for offset in np.nonzero(near)[0]]
    return pairs
