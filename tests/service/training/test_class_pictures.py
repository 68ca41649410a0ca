"""The cache of class pictures: what makes two jobs share them, and that neither disturbs the other."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import service.training.class_pictures as cache_module
from service.training.class_pictures import DRAWN, ClassPictureCache, cache_key
from service.training.job_folder import JobFolder
from service.training.models import BaseModel, Models
from service.training.request import TrainingRequest
from service.training.resolved import Machine, ResolvedRequest, resolve

REQUEST = TrainingRequest(
    method="dreambooth", instance_prompt="a sks dog", class_prompt="a dog", with_prior_preservation=True, num_class_images=4
)


@pytest.fixture
def cache(tmp_path) -> ClassPictureCache:
    return ClassPictureCache(tmp_path / "cache")


@pytest.fixture
def models(tmp_path) -> Models:
    for name in ("sd15", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(name.encode())
    return Models({name: BaseModel(name, tmp_path / name) for name in ("sd15", "other")}, {}, "sd15")


def resolved(models: Models, **changes) -> ResolvedRequest:
    return resolve(replace(REQUEST, **changes), Machine(has_cuda=True, has_bf16=True), models)


def draw(folder: JobFolder, *numbers: int, content: str = "drawn") -> None:
    """As the trainer leaves them."""
    folder.class_pictures.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder.class_pictures / f"class_image_{number:05d}.png").write_text(f"{content} {number}", encoding="utf-8")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_next_job_of_the_class_gets_them(cache, models, tmp_path):
    first, second = JobFolder(tmp_path / "1"), JobFolder(tmp_path / "2")
    assert cache.fill(resolved(models), first) == 0
    draw(first, 1, 2, 3, 4)
    assert cache.keep(resolved(models), first) == 4
    assert cache.fill(resolved(models, instance_prompt="a zwx dog", learning_rate=0.1), second) == 4
    assert names(second.class_pictures) == names(first.class_pictures)
    assert cache.keep(resolved(models), second) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"class_prompt": "a cat"}, {"resolution": 256}, {"seed": 2}, {"model": "other"}, {"mixed_precision": "bf16"}, {"train_batch_size": 2},
        {"pad_tokens": True},
    ],
)  # fmt: skip
def test_what_makes_other_pictures_makes_another_key(models, changes):
    assert cache_key(resolved(models, **changes)) != cache_key(resolved(models))
    assert len(cache_key(resolved(models))) == 64


def test_another_model_under_the_same_name_makes_another_key(models, tmp_path):
    before = cache_key(resolved(models))
    (tmp_path / "sd15" / "model.safetensors").write_bytes(b"trained further")
    assert cache_key(resolved(models)) != before


def test_how_the_trainer_draws_is_what_the_key_says():
    from library.train import class_images

    assert (DRAWN["sampler"], DRAWN["steps"], DRAWN["guidance"]) == (class_images.SAMPLER, class_images.STEPS, class_images.GUIDANCE)


def test_a_job_gets_no_more_than_it_misses(cache, models, tmp_path):
    source, job = JobFolder(tmp_path / "1"), JobFolder(tmp_path / "2")
    draw(source, *range(1, 9))
    cache.keep(resolved(models), source)
    job.class_pictures.mkdir(parents=True)
    (job.class_pictures / "00001.png").write_text("the client's own", encoding="utf-8")
    assert cache.fill(resolved(models), job) == 3
    assert names(job.class_pictures) == ["00001.png", "class_image_00001.png", "class_image_00002.png", "class_image_00003.png"]
    assert cache.fill(resolved(models), job) == 0  # again, after a break


def test_the_clients_own_pictures_are_not_kept(cache, models, tmp_path):
    job = JobFolder(tmp_path / "1")
    draw(job, 1)
    (job.class_pictures / "00001.png").write_text("the client's own", encoding="utf-8")
    (job.class_pictures / ".class_image_00002.png.tmp").write_text("half", encoding="utf-8")
    assert cache.keep(resolved(models), job) == 1
    assert names(cache.root / cache_key(resolved(models))) == ["class_image_00001.png"]


def test_what_is_there_stays_as_it_is(cache, models, tmp_path):
    first, second = JobFolder(tmp_path / "1"), JobFolder(tmp_path / "2")
    draw(first, 1, content="first")
    draw(second, 1, 2, content="second")
    cache.keep(resolved(models), first)
    assert cache.keep(resolved(models), second) == 1
    entry = cache.root / cache_key(resolved(models))
    assert [(entry / name).read_text(encoding="utf-8") for name in names(entry)] == ["first 1", "second 2"]


@pytest.mark.parametrize("links", [True, False])
def test_many_jobs_at_once(cache, models, tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(cache_module.os, "link", _no_links)
    jobs = [JobFolder(tmp_path / str(number)) for number in range(8)]
    for job in jobs:
        draw(job, 1, 2, 3)

    def both(job: JobFolder) -> None:
        cache.keep(resolved(models), job)
        cache.fill(resolved(models, num_class_images=6), job)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(both, jobs))
    entry = cache.root / cache_key(resolved(models))
    assert [(entry / name).read_text(encoding="utf-8") for name in names(entry)] == ["drawn 1", "drawn 2", "drawn 3"]
    assert all(names(job.class_pictures) == names(entry) for job in jobs)


def _no_links(*_):
    raise OSError("this disk has no links")


def test_without_the_class_nothing_is_touched(cache, models, tmp_path):
    job = JobFolder(tmp_path / "1")
    plain = resolved(models, with_prior_preservation=False)
    assert (cache.fill(plain, job), cache.keep(plain, job)) == (0, 0)
    assert not job.root.exists() and not cache.root.exists()


def test_what_was_not_used_for_longest_goes_first(cache, models, tmp_path):
    for number, prompt in enumerate(("a dog", "a cat", "a cow")):
        job = JobFolder(tmp_path / str(number))
        draw(job, 1, content="x" * 100)
        cache.keep(resolved(models, class_prompt=prompt), job)
        os.utime(cache.root / cache_key(resolved(models, class_prompt=prompt)), (number, number))
    used = JobFolder(tmp_path / "used")
    cache.fill(resolved(models, class_prompt="a dog"), used)
    assert cache.shrink(250) == 1
    left = {cache_key(resolved(models, class_prompt=prompt)) for prompt in ("a dog", "a cow")}
    assert {path.name for path in cache.root.iterdir()} == left
    assert names(used.class_pictures) == ["class_image_00001.png"]
