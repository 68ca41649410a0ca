"""What benchmarks/dataset.py measures, each in a process of its own: python -m benchmarks.dataset_runs NAME FOLDER."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from PIL import Image

import library.train.run  # noqa: F401  (so that what a run imports is there when the clock starts)
from benchmarks.dataset_folders import FEW
from library.config.datasets import DatasetSettings, SubsetSettings
from library.config.load import load_settings
from library.data.cache import CacheSettings
from library.data.cache_fill import fill_cache
from library.data.dataset import TrainingDataset
from library.data.loader import make_loader, worker_count
from library.data.order import TrainingOrder
from library.data.sources import prepare_datasets
from library.train.plan import make_plan
from library.types import Posterior

ROOT = Path(__file__).resolve().parent.parent
BATCH_SIZE = 8
SIDE = 512  # of what the model sees, in pixels
CORES = 2
ENCODER_SECONDS = 0.02  # per image
WARM_UP_BATCHES, COUNTED_BATCHES = 6, 30


def start(folder: Path) -> dict[str, Any]:
    """From the options to the first batch, as train_network.py goes that way, but without loading a model."""
    memory = psutil.Process().memory_info
    small, settings = (load_settings("train_network.py", _flags(pictures)) for pictures in (folder.parent / FEW, folder))
    assert small is not None and settings is not None
    make_plan(small)  # brings in what is imported late
    before, before_s = memory().rss, time.time() - psutil.Process().create_time()
    marks = {"imports": time.perf_counter()}
    plan = make_plan(settings)
    marks["plan"] = time.perf_counter()
    dataset = TrainingDataset(plan.prepared, plan.seed, plan.length.last_step, 1.0)
    order = TrainingOrder(plan.prepared, plan.seed, 1, 0, 1)
    workers = worker_count(settings.data.max_data_loader_n_workers, False, dataset)
    batches = make_loader(dataset, order.places(plan.length.first_step, plan.length.last_step), workers)
    first = next(batches)
    marks["first batch"] = time.perf_counter()
    used = memory().rss - before
    batches.close()
    assert first.images is not None and len(first.captions) == BATCH_SIZE
    images = sum(len(prepared.records) for prepared in plan.prepared)
    return {
        "images": images,
        "before_s": before_s,  # the interpreter, imports and a plan of a few pictures
        "plan_s": marks["plan"] - marks["imports"],
        "first_batch_s": marks["first batch"] - marks["plan"],
        "seconds": marks["first batch"] - marks["imports"],
        "bytes_per_image": used / images,
    }


def _flags(folder: Path) -> list[str]:
    """A LoRA on one folder of pictures that keeps an index."""
    file = folder.parent / f"{folder.name}.toml"
    file.write_text(
        f'[[datasets]]\nresolution = {SIDE}\nbatch_size = {BATCH_SIZE}\nenable_bucket = true\n[[datasets.subsets]]\n'
        f"image_dir = '{folder}'\ncaption_extension = \".txt\"\ncache_info = true\n",
        encoding="utf-8",
    )
    flags: dict[str, Any] = {
        "pretrained_model_name_or_path": ROOT / "assets" / "base", "dataset_config": file, "output_dir": folder.parent / "output",
        "network_module": "networks.lora", "max_train_steps": 100, "seed": 1,
    }  # fmt: skip
    return [part for name, value in flags.items() for part in (f"--{name}", str(value))]


def caching(folder: Path) -> dict[str, Any]:
    """Latents cached on disk by a stand-in for a VAE, which takes its time on a device of its own."""
    busy = 0.0

    def encode(images: torch.Tensor, paths: Sequence[str]) -> Posterior:
        nonlocal busy
        started = time.perf_counter()
        time.sleep(ENCODER_SECONDS * len(images))
        busy += time.perf_counter() - started
        latents = torch.zeros(len(images), 4, SIDE // 8, SIDE // 8)
        return Posterior(latents, latents + 1)

    prepared = _prepare(folder)
    for path in folder.glob("*.npz"):
        path.unlink()
    settings = CacheSettings(on_disk=True, vae_batch_size=1, skip_cache_check=False, vae_fingerprint="stand-in")
    started = time.perf_counter()
    fill_cache(prepared, encode, settings)
    seconds = time.perf_counter() - started
    return {"images": len(prepared[0].records), "seconds": seconds, "busy_share": busy / seconds}


def loading(folder: Path) -> dict[str, Any]:
    """Batches from workers on all cores, and in turn the same images by the libraries' own calls in threads on all cores."""
    prepared = _prepare(folder)
    paths = [record.path for record in prepared[0].records]
    rounds = []
    for number in range(3):
        dataset = TrainingDataset(prepared, number, 1000, 1.0)
        batches = make_loader(dataset, TrainingOrder(prepared, number, 1, 0, 1).places(1, 1000), CORES)
        ours = _seconds_each(lambda batches=batches: next(batches))  # type: ignore[misc]
        batches.close()
        cv2.setNumThreads(0)  # as in the workers
        with ThreadPoolExecutor(CORES) as pool:
            groups = _groups(paths)
            bare = _seconds_each(lambda groups=groups, pool=pool: list(pool.map(_decode_and_resize, next(groups))))  # type: ignore[misc]
        rounds.append((ours, bare))
    return {
        "loader_s": min(ours for ours, _ in rounds),
        "bare_s": min(bare for _, bare in rounds),
        "ratio": median(ours / bare for ours, bare in rounds),
        "rounds_s": rounds,
    }


def _prepare(folder: Path) -> list[Any]:
    subset = SubsetSettings(image_dir=folder, caption_extension=".txt", where="the benchmark")
    return prepare_datasets([DatasetSettings(resolution=(SIDE, SIDE), batch_size=BATCH_SIZE, subsets=(subset,))])


def _seconds_each(step: Callable[[], Any]) -> float:
    """Of the steps after the warm-up, the mean; what is made ahead of time makes single ones look short."""
    for _ in range(WARM_UP_BATCHES):
        step()
    started = time.perf_counter()
    for _ in range(COUNTED_BATCHES):
        step()
    return (time.perf_counter() - started) / COUNTED_BATCHES


def _groups(paths: list[str]) -> Iterator[list[str]]:
    while True:
        for start in range(0, len(paths) - BATCH_SIZE + 1, BATCH_SIZE):
            yield paths[start : start + BATCH_SIZE]


def _decode_and_resize(path: str) -> Any:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    runs = {"start": start, "caching": caching, "loading": loading}
    print(json.dumps(runs[sys.argv[1]](Path(sys.argv[2]))))
