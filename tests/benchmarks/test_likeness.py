"""The measure behind "it learns", on synthetic pictures: it must be able to fail."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.learning import MODELS
from benchmarks.learning_claims import (
    ADDING_A_WORD,
    CHANGING_THE_MODEL,
    KEEPING_THE_CLASS,
    LEARNING,
    LEARNING_NOTHING,
    MOST_DRIFT,
    NO_DRIFT,
    Likeness,
    judge,
)  # fmt: skip
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


GAINED, NOT_GAINED = {"token_to_training": 0.9}, {"token_to_training": 1.4}
ZERO = {"token_to_training": 0.0, "other_drift": 0.0, "class_drift": 0.0, "token_drift": 0.0, "seconds": 0.0}
GOOD = {
    "base": NOT_GAINED,
    "LoRA": GAINED | {"other_drift": 0.3, "class_drift": 0.8},
    "LoRA at multiplier 0": NOT_GAINED,
    "LoRA of other pictures": NOT_GAINED | {"other_drift": 0.3, "class_drift": 0.8},
    "LoRA, class pictures": GAINED | {"other_drift": 0.2, "class_drift": 0.3},
    "DreamBooth": GAINED | {"other_drift": 0.4, "class_drift": 0.9},
    "DreamBooth, class pictures": GAINED | {"other_drift": 0.3, "class_drift": 0.3},
    "fine-tuning": GAINED | {"other_drift": 0.4, "class_drift": 0.9},
    "textual inversion": GAINED,
    "XTI": GAINED,
    "pivotal tuning": GAINED | {"other_drift": 0.2, "class_drift": 0.2},
}


def figures(**changed: dict[str, float]) -> list[Likeness]:
    """Three seeds of what good trainings give, except for what is changed, by model."""
    values = GOOD | {model: GOOD[model] | changes for model, changes in changed.items()}
    return [Likeness(model, seed, **(ZERO | measured)) for seed in (1, 2, 3) for model, measured in values.items()]


def failing(found: list[Likeness]) -> list[str]:
    return [claim.text for claim in judge(found) if not claim.holds]


def test_every_model_is_measured_and_judged() -> None:
    assert [*GOOD] == ["base", *MODELS]
    assert failing(figures()) == []
    assert {*MODELS} == {*LEARNING, *LEARNING_NOTHING}
    assert {*LEARNING} == {*CHANGING_THE_MODEL, *ADDING_A_WORD}


@pytest.mark.parametrize("model", LEARNING)
def test_a_method_that_does_not_learn_fails(model: str) -> None:
    assert failing(figures(**{model: NOT_GAINED})) == [f"{model} learns"]


@pytest.mark.parametrize("model", LEARNING_NOTHING)
def test_a_measure_that_any_training_passes_fails(model: str) -> None:
    assert failing(figures(**{model: GAINED})) == [f"{model} does not"]


@pytest.mark.parametrize(
    ("model", "drift"),
    [
        *((model, {"other_drift": MOST_DRIFT + 0.01}) for model in CHANGING_THE_MODEL),
        *((model, {"other_drift": NO_DRIFT + 0.01}) for model in ADDING_A_WORD),
        *((model, {"class_drift": NO_DRIFT + 0.01}) for model in ADDING_A_WORD),
        *((model, {"class_drift": 0.9}) for model, _ in KEEPING_THE_CLASS),
    ],
)
def test_too_much_drift_fails(model: str, drift: dict[str, float]) -> None:
    [text] = failing(figures(**{model: drift}))
    assert text.startswith(f"{model}: ")


def test_models_that_were_left_out_claim_nothing() -> None:
    assert [claim.text for claim in judge([likeness for likeness in figures() if likeness.model in ("base", "XTI")])] == [
        "XTI learns",
        "XTI: prompts without the token are drawn as before",
        "XTI: the class word is drawn as before",
    ]
