"""The same batches in the same order whoever makes them, and mistakes that arrive as themselves."""
from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch

from library.data import loader
from library.data.cache_fill import fill_cache
from library.data.dataset import TrainingDataset
from library.data.image_files import BadImage
from library.data.loader import make_loader, worker_count
from library.data.order import TrainingOrder
from tests.data.tiny_datasets import cache_settings, encode, prepare, subset_of, write_images

STEPS = 9  # more than two epochs


@pytest.fixture
def prepared(tmp_path):
    folder = write_images(tmp_path / "images", alpha=True)
    caption = {"shuffle_caption": True, "caption_tag_dropout_rate": 0.3, "caption_dropout_every_n_epochs": 2}
    return prepare(subset_of(folder, flip_aug=True, alpha_mask=True, caption=caption))


def load(prepared, workers, cache=None, start_method=None):
    dataset = TrainingDataset(prepared, 5, STEPS, 1.0, cache)
    return list(make_loader(dataset, TrainingOrder(prepared, 5, 2, 0, 1).places(1, STEPS), workers, start_method))


def assert_same(batches, others):
    assert len(batches) == len(others) > STEPS
    for batch, other in zip(batches, others, strict=True):
        for field in dataclasses.fields(batch):
            one, two = getattr(batch, field.name), getattr(other, field.name)
            if field.name == "posterior" and one is not None:
                assert torch.equal(one.mean, two.mean) and torch.equal(one.std, two.std)
            else:
                assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two


@pytest.mark.parametrize("cached", ["not", "on disk", "in memory"])
def test_any_number_of_workers_gives_the_same_batches(prepared, cached):
    cache = None if cached == "not" else fill_cache(prepared, encode, cache_settings(on_disk=cached == "on disk"))
    batches = load(prepared, 0, cache)
    assert {batch.place.epoch for batch in batches} >= {1, 2, 3}
    assert all((batch.images is None) == (cache is not None) != (batch.posterior is None) for batch in batches)
    for workers in (1, 2):
        assert_same(batches, load(prepared, workers, cache))


def test_workers_that_start_afresh(prepared):
    cache = fill_cache(prepared, encode, cache_settings(on_disk=False))
    assert_same(load(prepared, 0, cache), load(prepared, 2, cache, start_method="spawn"))


def test_latents_in_memory_are_not_sent_to_workers(prepared):
    cache = fill_cache(prepared, encode, cache_settings(on_disk=False))
    arrays = sum(cache.read((0, index), flipped).mean.nbytes for index in range(6) for flipped in (False, True))
    assert len(pickle.dumps(TrainingDataset(prepared, 5, STEPS, 1.0, cache))) < arrays / 4


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_arrives_as_itself(prepared, workers, tmp_path):
    (tmp_path / "images" / "3.png").write_bytes((tmp_path / "images" / "3.png").read_bytes()[:200])
    with pytest.raises(BadImage, match=r"3\.png: ") as caught:
        load(prepared, workers)
    assert caught.value.path.endswith("3.png")
    assert "Traceback" not in str(caught.value) and len(caught.value.messages) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_random_generator_is_left_alone(prepared, workers):
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    load(prepared, workers)
    assert torch.equal(torch.rand(4), expected)


def test_leaving_early_ends_the_workers(prepared):
    dataset = TrainingDataset(prepared, 5, STEPS, 1.0)
    batches = make_loader(dataset, TrainingOrder(prepared, 5, 1, 0, 1).places(1, 10**9), 2)
    next(batches)
    children = torch.multiprocessing.active_children()
    assert len(children) == 2
    batches.close()
    assert not any(child.is_alive() for child in children)


def test_worker_count(prepared, monkeypatch):
    monkeypatch.setattr(loader, "_cpu_threads", lambda: 4)
    plain = TrainingDataset(prepared, 5, STEPS, 1.0)
    in_memory = TrainingDataset(prepared, 5, STEPS, 1.0, fill_cache(prepared, encode, cache_settings(on_disk=False)))
    assert worker_count(8, False, plain) == 3
    assert worker_count(2, True, plain) == 2
    assert worker_count(8, False, in_memory) == 0
    assert worker_count(8, True, in_memory) == 3
    monkeypatch.setattr(loader, "_cpu_threads", lambda: 1)
    assert worker_count(8, True, plain) == 0
