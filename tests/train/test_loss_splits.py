"""Losses split by folder and timestep: whose they are, what is counted, and sums over processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch

from library.config.datasets import DatasetSettings, SubsetSettings
from library.data.records import ImageRecord, PreparedDataset
from library.train.loss_splits import LossSplits, named_folders
from library.types import BatchPlace, SampleRef

PLACE = BatchPlace(epoch=1, step=1, micro_step=0, samples=(), first_position=0, ends_step=True, ends_epoch=False, share=1.0)
FOLDERS = [((0, 0), "frog"), ((0, 2), "toad"), ((1, 0), "frog (2)")]


def seen(splits: LossSplits, samples: list[tuple[int, int, int, float]], share: float = 1.0) -> None:
    """samples: (dataset, subset, timestep, loss) of each."""
    datasets, subsets, timesteps, losses = zip(*samples, strict=True)
    place = replace(PLACE, samples=tuple(SampleRef(dataset, 0) for dataset in datasets), share=share)
    batch = SimpleNamespace(place=place, subsets=list(subsets))
    splits.observe(batch, torch.tensor(timesteps), torch.tensor(losses, requires_grad=True))


def make_splits(folders=FOLDERS) -> LossSplits:
    return LossSplits(folders, lambda sums: sums)


def test_whose_losses_they_are():
    splits = make_splits()
    seen(splits, [(0, 0, 0, 1.0), (0, 2, 249, 2.0)])
    seen(splits, [(1, 0, 250, 3.0), (0, 0, 999, 5.0)])
    assert splits.end_step() == {
        "dataset/frog": 3.0,
        "dataset/toad": 2.0,
        "dataset/frog (2)": 3.0,
        "timesteps/0-249": 1.5,
        "timesteps/250-499": 3.0,
        "timesteps/750-999": 5.0,
    }


def test_a_step_begins_anew_and_an_epoch_sums_up():
    splits = make_splits()
    seen(splits, [(0, 0, 500, 1.0), (0, 0, 501, 2.0)])
    splits.end_step()
    seen(splits, [(0, 0, 502, 6.0)])
    assert splits.end_step() == {"dataset/frog": 6.0, "timesteps/500-749": 6.0}
    assert splits.end_epoch() == {"dataset/frog": 3.0, "timesteps/500-749": 3.0}  # of three samples, not of two steps
    assert splits.end_epoch() == {}


def test_a_filler_copy_is_counted_nowhere():
    splits = make_splits()
    seen(splits, [(0, 0, 500, 100.0)], share=0.0)
    assert splits.end_step() == {}


def test_one_folder_is_not_told_apart():
    splits = make_splits(FOLDERS[:1])
    seen(splits, [(0, 0, 500, 1.0)])
    assert splits.end_step() == {"timesteps/500-749": 1.0}


def test_sums_over_processes():
    """The other process has seen one sample of each row, of loss 10, in a step in which this one has seen nothing."""
    splits = LossSplits(FOLDERS, lambda sums: sums + torch.tensor([[10.0], [1.0]]))
    assert set(splits.end_step().values()) == {10.0}
    seen(splits, [(0, 0, 0, 4.0)])
    assert splits.end_step()["dataset/frog"] == 7.0
    assert splits.end_epoch()["dataset/frog"] == 8.0  # (10 + 10 + 4) / 3


def test_names_of_folders():
    """Of the folders that are trained on; of two of one name the second has a number."""
    names = ["frog", "judges", "toad"]
    settings = DatasetSettings(resolution=(64, 64), subsets=tuple(SubsetSettings(image_dir=Path("data") / name) for name in names))
    size = (64, 64)
    records = [ImageRecord(f"{subset}.png", size, "", True, subset, False, 1, size, size) for subset in (2, 0, 2)]
    prepared = [PreparedDataset(settings, records), PreparedDataset(settings, records[1:2])]
    assert named_folders(prepared) == FOLDERS
