"""Near-duplicates are copies of a picture, and never other objects before the same background."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from streamer.datasets.near_duplicates import Fingerprint, clusters, fingerprint, near_pairs
from streamer.datasets.parts import Balance, assign
from tests.helpers.duplicate_worlds import belt, ground, objects
from tests.unit.label_exports import picture

Image = npt.NDArray[np.uint8]
BOX = np.array([[40, 30, 90, 80]], np.float32)
NONE = np.zeros((0, 4), np.float32)


def _near(first: Fingerprint, second: Fingerprint) -> bool:
    return list(near_pairs([first, second])) == [(0, 1)]


def _recompressed(image: Image) -> Image:
    data = np.frombuffer(cv2.imencode(".jpg", image, [1, 60])[1].tobytes(), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def _noisy(image: Image) -> Image:
    noise = np.random.default_rng(5).normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "copy",
    [
        _recompressed,
        _noisy,
        lambda image: np.clip(image * 0.7 + 20, 0, 255).astype(np.uint8),
        lambda image: image[1:, 1:],
        lambda image: cv2.GaussianBlur(image, (0, 0), 1.5),
    ],
)
@pytest.mark.parametrize("boxes", [BOX, NONE])
def test_copies_are_near_duplicates_and_other_pictures_are_not(
    copy: Callable[[Image], Image], boxes: npt.NDArray[np.float32]
) -> None:
    for seed in range(10):
        original = fingerprint(picture(seed), boxes)
        assert _near(original, fingerprint(copy(picture(seed)), boxes))
        assert not _near(original, fingerprint(copy(picture(seed + 100)), boxes))


@pytest.mark.parametrize("copy", [_recompressed, _noisy, lambda image: image[1:, 1:]])
def test_copies_with_other_boxes_are_near_duplicates(copy: Callable[[Image], Image]) -> None:
    other = np.array([[40, 30, 90, 80], [5, 60, 35, 100]], np.float32)
    for seed in range(10):
        original = fingerprint(picture(seed), BOX)
        for boxes in (NONE, other, other[1:]):
            assert _near(original, fingerprint(copy(picture(seed)), boxes))
            assert not _near(original, fingerprint(copy(picture(seed + 100)), boxes))


def test_an_object_that_one_picture_lacks_is_seen_although_neither_count_nor_place_of_boxes_agree() -> None:
    shown = [
        (fingerprint(image, boxes[:, :4]), image)
        for image, boxes in belt(objects("textured disks", 30, 9), "textured", 9)
    ]
    prints = [print_ for print_, _ in shown]
    empty = fingerprint(_recompressed(ground("textured", 9)(0).clip(0, 255).astype(np.uint8)), NONE)
    missed = [fingerprint(_recompressed(image), NONE) for _, image in shown]
    assert list(near_pairs([*prints, empty])) == []
    for number, print_ in enumerate(prints):
        assert _near(print_, missed[number])
        assert not _near(print_, missed[number - 1])


def test_a_box_that_is_too_small_for_the_reduced_picture_tells_pictures_apart() -> None:
    tiny = np.array([[40, 30, 42, 32]], np.float32)
    assert not _near(fingerprint(picture(1), tiny), fingerprint(picture(1), NONE))


def test_a_smaller_copy_is_a_near_duplicate() -> None:
    small = cv2.resize(picture(1), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.uint8)
    assert _near(fingerprint(picture(1), BOX), fingerprint(small, BOX / 2))


def test_different_objects_before_one_background_are_different_pictures() -> None:
    prints = []
    for seed in range(20):
        image = picture(999).copy()
        patch = cv2.resize(picture(seed)[:60, :60], (20, 20), interpolation=cv2.INTER_AREA)
        image[50:70, 60:80] = patch
        prints.append(fingerprint(image, np.array([[60, 50, 80, 70]], np.float32)))
    assert list(near_pairs(prints)) == []
    empty = fingerprint(picture(999), NONE)
    assert not _near(prints[0], empty)


def test_plain_colours_tell_objects_apart_and_brightness_does_not() -> None:
    def painted(blue: int, green: int, red: int) -> Fingerprint:
        image = picture(7).copy()
        image[30:80, 40:90] = (blue, green, red)
        return fingerprint(image, BOX)

    assert _near(painted(40, 40, 200), painted(45, 45, 205))
    assert not _near(painted(40, 40, 200), painted(40, 200, 40))


def test_frames_of_an_empty_noisy_wall_are_near_duplicates() -> None:
    rng = np.random.default_rng(1)
    prints = [
        fingerprint(np.clip(rng.normal(25, 9, (120, 160, 3)), 0, 255).astype(np.uint8), NONE)
        for _ in range(30)
    ]
    assert len(set(clusters(30, near_pairs(prints)))) == 1


def test_many_pictures_are_compared_in_blocks() -> None:
    prints = [fingerprint(picture(seed), NONE) for seed in range(300)] * 2
    assert sorted(near_pairs(prints)) == [(n, n + 300) for n in range(300)]


# -- parts ---------------------------------------------------------------------------------------------


def _assign(
    names: str, pairs: list[tuple[int, int]], known: dict[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    ids = list(names)
    found = assign(ids, pairs, clusters(len(ids), pairs), known, lambda new: "val" if "c" in new else "train")
    return found.parts, found.left_out


def test_a_cluster_of_new_pictures_gets_one_part() -> None:
    parts, left_out = _assign("abcd", [(0, 2), (2, 3)], {})
    assert parts == {"a": "val", "b": "train", "c": "val", "d": "val"}
    assert not left_out


def test_known_pictures_stay_and_take_near_duplicates_along() -> None:
    parts, left_out = _assign("abcd", [(0, 1), (1, 2)], {"c": "test"})
    assert parts == {"a": "test", "b": "test", "c": "test", "d": "train"}
    assert not left_out


def test_a_picture_between_two_parts_is_left_out_and_its_neighbours_are_not() -> None:
    # A chain: the first picture is in train, the last in test.
    parts, left_out = _assign("abcde", [(0, 1), (1, 2), (2, 3), (3, 4)], {"a": "train", "e": "test"})
    for first, second in ((0, 1), (1, 2), (2, 3), (3, 4)):
        pair = {parts.get("abcde"[first]), parts.get("abcde"[second])} - {None}
        assert len(pair) <= 1
    assert (parts["a"], parts["b"], parts["c"], parts["e"]) == ("train", "train", "train", "test")
    assert list(left_out) == ["d"]
    assert "train and test" in left_out["d"]


def test_each_part_gets_its_share_of_every_class() -> None:
    classes = {f"{n}": frozenset({("a", "b", "b", "c", "c", "c")[n % 6]}) for n in range(120)}
    balance = Balance((0.8, 0.1, 0.1), classes, {})
    parts = {name: balance.choose([name]) for name in sorted(classes, key=lambda n: (min(classes[n]), n))}
    for wanted, total in (("a", 20), ("b", 40), ("c", 60)):
        counts = [
            sum(1 for name, part in parts.items() if part == place and wanted in classes[name])
            for place in ("train", "val", "test")
        ]
        assert counts == [total * 0.8, total * 0.1, total * 0.1]


def test_what_an_export_says_is_kept_unless_near_duplicates_contradict() -> None:
    balance = Balance((1, 0, 0), {}, {})
    assert balance.choose(["a"], {"a": "val"}) == "val"
    assert balance.choose(["a", "b"], {"a": "train", "b": "test"}) == "test"
    assert balance.choose(["c"], {"a": "val"}) == "train"
