"""Names, cadence and retention."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from library.checkpoint.naming import (
    RunLength,
    SavePoint,
    due_points,
    epoch_interval,
    planned_bytes,
    planned_files,
    retention_bound,
    state_name,
    weights_name,
)
from library.config.options import SavingOptions

STEP, EPOCH, FINAL = SavePoint("step", 1200, 3), SavePoint("epoch", 1500, 3), SavePoint("final", 4000, 8)
BEST = SavePoint("best", 1200, 3)


@pytest.mark.parametrize(
    ("output_name", "point", "weights", "state"),
    [
        ("frog", STEP, "frog-step00001200.safetensors", "frog-step00001200-state"),
        ("frog", EPOCH, "frog-000003.safetensors", "frog-000003-state"),
        ("frog", FINAL, "frog.safetensors", "frog-state"),
        ("frog", BEST, "frog-best.safetensors", "frog-best-state"),
        (None, STEP, "at-step00001200.safetensors", "at-step00001200-state"),
        (None, EPOCH, "epoch-000003.safetensors", "epoch-000003-state"),
        (None, FINAL, "last.safetensors", "last-state"),
        (None, BEST, "last-best.safetensors", "last-best-state"),
    ],
)
def test_names(output_name: str | None, point: SavePoint, weights: str, state: str) -> None:
    options = SavingOptions(output_name=output_name)
    assert weights_name(options, point) == weights
    assert state_name(options, point) == state


def test_room_for_the_best_weights() -> None:
    """Beside the final ones, and once more while the new ones are written."""
    planned = planned_files(SavingOptions(output_name="frog"), RunLength(1, 30, 10), with_best=True)
    assert [(file.name, file.stays) for file in planned] == [("frog.safetensors", True), ("frog-best.safetensors", True)]
    assert planned_bytes(planned, {"weights": 10, "state": 100}) == 30


def test_extension() -> None:
    assert weights_name(SavingOptions(save_model_as="pt"), FINAL) == "last.pt"


def test_epochs_that_the_metadata_counts() -> None:
    length = RunLength(first_step=1, last_step=4000, steps_per_epoch=500)
    points = (SavePoint("step", 5, 1), STEP, EPOCH, FINAL, BEST, SavePoint("best", 1500, 3))
    assert [length.finished_epochs(point) for point in points] == [0, 2, 3, 8, 2, 3]


def test_epochs_of_steps() -> None:
    length = RunLength(first_step=1, last_step=25, steps_per_epoch=10)
    assert [length.epoch_of(step) for step in (0, 1, 10, 11, 20, 21, 25)] == [1, 1, 1, 2, 2, 3, 3]
    assert length.epochs == 3


def due(options: SavingOptions, length: RunLength) -> list[str]:
    points = (point for step in range(length.first_step, length.last_step + 1) for point in due_points(options, length, step))
    return [f"{point.moment} {point.number}" for point in points]


def test_cadence_and_no_epoch_file_for_the_last_epoch() -> None:
    options = SavingOptions(save_every_n_steps=15, save_every_n_epochs=2)
    assert due(options, RunLength(1, 60, 10)) == ["step 15", "epoch 2", "step 30", "epoch 4", "step 45", "step 60", "final 6"]
    assert due(options, RunLength(31, 45, 10)) == ["epoch 4", "step 45", "final 5"]  # a resumed run, its last epoch cut short
    assert due(SavingOptions(), RunLength(1, 60, 10)) == ["final 6"]


@pytest.mark.parametrize(("ratio", "epochs", "interval"), [(4, 10, 2), (3, 10, 3), (20, 10, 1), (1, 10, 10)])
def test_ratio_of_epochs(ratio: int, epochs: int, interval: int) -> None:
    assert epoch_interval(SavingOptions(save_n_epoch_ratio=ratio, save_every_n_epochs=5), epochs) == interval


LONG = RunLength(1, 100_000, 1000)


@pytest.mark.parametrize(
    ("options", "step", "bound"),
    [
        ({"save_every_n_steps": 100, "save_last_n_steps": 250}, 600, 349),
        ({"save_every_n_steps": 100, "save_last_n_steps": 200}, 600, 399),
        ({"save_every_n_steps": 100, "save_last_n_steps": 199}, 600, 400),
        ({"save_every_n_steps": 100, "save_last_n_steps": 50}, 600, 549),
        ({"save_every_n_steps": 100, "save_last_n_steps": 5000}, 600, 0),
        ({"save_every_n_steps": 100}, 600, 0),
    ],
)
def test_bound_of_steps(options: dict[str, int], step: int, bound: int) -> None:
    assert retention_bound(SavingOptions(**options), LONG, "weights", SavePoint("step", step, 1)) == bound


def test_bound_of_epochs_and_states_of_their_own() -> None:
    options = SavingOptions(save_every_n_epochs=2, save_last_n_epochs=3, save_last_n_epochs_state=1)
    point = SavePoint("epoch", 10_000, 10)
    assert retention_bound(options, LONG, "weights", point) == 4
    assert retention_bound(options, LONG, "state", point) == 8
    assert retention_bound(SavingOptions(save_every_n_epochs=2, save_last_n_epochs=3), LONG, "state", point) == 4
    assert retention_bound(options, LONG, "weights", FINAL) == 0


@pytest.mark.parametrize("every", [1, 7, 100])
@pytest.mark.parametrize("last", [1, 6, 7, 8, 250])
def test_a_run_keeps_what_one_removal_per_save_keeps(every: int, last: int) -> None:
    """Removing only the one file that the old arithmetic names, at every save of an unbroken run, leaves the same files."""
    options = SavingOptions(save_every_n_steps=every, save_last_n_steps=last)
    kept: set[int] = set()
    for step in range(every, 1001, every):
        kept.add(step)
        candidate = step - last - 1
        kept.discard(candidate - candidate % every)
    planned = planned_files(options, RunLength(1, 1000, 1000))
    assert {file.point.step for file in planned if file.point.moment == "step" and file.stays} == kept


def test_the_plan_names_every_file_in_order() -> None:
    cadence = {"save_every_n_epochs": 1, "save_last_n_epochs": 1, "save_every_n_steps": 15}
    options = SavingOptions(output_name="frog", save_state=True, **cadence)
    planned = planned_files(options, RunLength(1, 30, 10))
    assert [(file.name, file.stays) for file in planned] == [
        ("frog-000001.safetensors", False),
        ("frog-000001-state", False),
        ("frog-step00000015.safetensors", True),
        ("frog-step00000015-state", True),
        ("frog-000002.safetensors", True),
        ("frog-000002-state", True),
        ("frog-step00000030.safetensors", True),
        ("frog-step00000030-state", True),
        ("frog.safetensors", True),
        ("frog-state", True),
    ]
    assert planned_bytes(planned, {"weights": 1, "state": 100}) == 4 * 101 + 101


def test_a_state_at_the_end_only() -> None:
    options = SavingOptions(save_every_n_steps=5, save_state_on_train_end=True)
    assert [file.name for file in planned_files(options, RunLength(1, 8, 10)) if file.kind == "state"] == ["last-state"]


def test_what_is_checked_before_a_model_loads_needs_no_torch() -> None:
    modules = "ledger, identity, resume, naming, hashes, metadata, saver"
    code = f"import sys; from library.checkpoint import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_words_beside_the_weights_are_planned_too() -> None:
    options = SavingOptions(output_name="frog", save_every_n_steps=4, save_last_n_steps=3, save_state_on_train_end=True)
    planned = planned_files(options, RunLength(1, 8, 10), with_best=True, trained=("weights", "words"))
    assert [(file.name, file.kind, file.stays) for file in planned] == [
        ("frog-step00000004.safetensors", "weights", False),
        ("frog-step00000004-words.safetensors", "words", False),
        ("frog-step00000008.safetensors", "weights", True),
        ("frog-step00000008-words.safetensors", "words", True),
        ("frog.safetensors", "weights", True),
        ("frog-words.safetensors", "words", True),
        ("frog-state", "state", True),
        ("frog-best.safetensors", "weights", True),
        ("frog-best-words.safetensors", "words", True),
    ]
