"""The pixels that reach the model of pictures that are odd but valid."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from library.config.datasets import DatasetSettings, SubsetSettings
from library.data.dataset import TrainingDataset
from library.data.order import TrainingOrder
from library.data.sources import prepare_datasets
from library.types import Batch
from tests.bad_input.odd_pictures import ODD_PICTURES, SIDE


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """All of them in one batch, as the loop gets it."""
    folder = tmp_path_factory.mktemp("pictures")
    for odd in ODD_PICTURES:
        odd.save(folder / odd.name)
    subset = SubsetSettings(image_dir=folder, class_tokens="odd", where="subset")
    settings = DatasetSettings(resolution=(SIDE, SIDE), batch_size=len(ODD_PICTURES), subsets=(subset,), where="dataset")
    prepared = prepare_datasets([settings])
    (place,) = TrainingOrder(prepared, 1, 1, 0, 1).places(1, 1)
    return TrainingDataset(prepared, 1, 1, 1.0)[place]


@pytest.mark.parametrize("odd", ODD_PICTURES, ids=lambda odd: odd.name)
def test_pixels_that_reach_the_model(odd, batch):
    (index,) = (index for index, path in enumerate(batch.image_paths) if Path(path).name == odd.name)
    seen = batch.images[index].numpy().transpose(1, 2, 0).astype(np.float32)
    expected = np.array(odd.quarters, np.float32).reshape(2, 2, 3)
    middles = seen[SIDE // 4 :: SIDE // 2, SIDE // 4 :: SIDE // 2]
    assert seen.shape == (SIDE, SIDE, 3)
    assert np.abs(middles - expected).max() <= odd.tolerance + 1e-3, middles
