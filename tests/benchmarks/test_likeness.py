"""The measure behind "it learns", on synthetic pictures: it must be able to fail."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.learning_claims import MOST_DRIFT, Likeness, judge
from benchmarks.likeness import Gain, distances, nearest_distances, paired_distances, typical_distance


@pytest.fixture
def training() -> np.ndarray:
    """Features of six pictures, [6, 48]."""
    return np.random.default_rng(1).normal(size=(6, 48))


def test_the_training_pictures_themselves_are_at_distance_0(training: np.ndarray) -> None:
    assert nearest_distances(training[::-1], training).tolist() == [0.0] * 6


def test_the_nearest_picture_counts_in_root_mean_square(training: np.ndarray) -> None:
    drawn = training[[2, 4]] + 0.25
    np.testing.assert_allclose(nearest_distances(drawn, training), 0.25)


def test_pictures_on_the_way_to_the_training_are_nearer_the_further_they_are(training: np.ndarray) -> None:
    start = np.full((1, 48), 3.0)
    way = [start + share * (training[:1] - start) for share in (0, 0.25, 0.5, 0.75, 1)]
    found = [float(nearest_distances(picture, training)[0]) for picture in way]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(0)


def test_paired_distances_compare_place_by_place(training: np.ndarray) -> None:
    moved = training.copy()
    moved[3] += 2
    assert paired_distances(moved, training).tolist() == [0, 0, 0, 2, 0, 0]
    assert paired_distances(training[::-1], training).min() > 0


def test_the_typical_distance_counts_every_pair_once_and_none_with_itself() -> None:
    pictures = np.array([[0.0], [1.0], [3.0]])
    assert distances(pictures, pictures).diagonal().tolist() == [0, 0, 0]
    assert typical_distance(pictures) == pytest.approx((1 + 3 + 2) / 3)


@pytest.mark.parametrize(
    ("before", "after", "holds"),
    [
        ((1.0, 1.0, 1.0), (0.5, 0.5, 0.5), True),
        ((1.0, 1.1, 1.2), (0.5, 0.6, 0.6), True),  # gains 0.5 to 0.6
        ((1.0, 1.0, 1.0), (0.7, 0.5, 0.3), False),  # 0.5 on average, but 0.4 between the seeds
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), False),  # nothing happened, and the same for every seed
        ((1.0, 1.0, 1.0), (1.2, 1.2, 1.2), False),  # further away
        ((1.0, 1.0, 1.0), (0.9, 1.1, 1.0), False),
    ],
)
def test_a_gain_holds_if_it_is_twice_the_spread_over_the_seeds(before: tuple, after: tuple, holds: bool) -> None:
    assert Gain.between(before, after).holds is holds


def figures(**changed: dict[str, float]) -> list[Likeness]:
    """Three seeds of what a good training gives, except for what is changed, by model."""
    good = {
        "base": {"token_to_training": 1.4},
        "frog": {"token_to_training": 0.9, "other_drift": 0.3, "class_drift": 0.6},
        "frog at multiplier 0": {"token_to_training": 1.4},
        "other pictures": {"token_to_training": 1.5, "other_drift": 0.3, "class_drift": 0.6},
        "regularised": {"token_to_training": 1.0, "other_drift": 0.2, "class_drift": 0.3},
    }
    zero = {"token_to_training": 0.0, "other_drift": 0.0, "class_drift": 0.0, "token_drift": 0.0}
    return [
        Likeness(model, seed, **(zero | values | changed.get(model.replace(" ", "_"), {})))
        for seed in (1, 2, 3)
        for model, values in good.items()
    ]


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        ({}, []),
        ({"frog": {"token_to_training": 1.4, "other_drift": 0.3, "class_drift": 0.6}}, [0]),
        ({"frog_at_multiplier_0": {"token_to_training": 0.9}}, [1]),
        ({"other_pictures": {"token_to_training": 0.9}}, [2]),
        ({"frog": {"token_to_training": 0.9, "other_drift": MOST_DRIFT + 0.01, "class_drift": 0.6}}, [3]),
        ({"regularised": {"token_to_training": 1.0, "class_drift": 0.6}}, [4]),
        ({"regularised": {"token_to_training": 1.4, "class_drift": 0.3}}, [5]),
    ],
)
def test_each_claim_can_fail(changed: dict[str, dict[str, float]], failing: list[int]) -> None:
    assert [index for index, claim in enumerate(judge(figures(**changed))) if not claim.holds] == failing
