"""The files of a job, and the scripts that they are for: a training ends, and what is promised lies in the job's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from service.training import from_cerebrium, from_replicate
from service.training.class_pictures import ClassPictureCache
from service.training.job_files import Launch, write_run
from service.training.job_folder import JobFolder
from service.training.models import BaseModel, Models
from service.training.request import TrainingRequest
from service.training.resolved import Machine, resolve
from tests.as_script import become
from tests.service.training.small_pictures import write_picture
from tests.service.training.test_readers import CEREBRIUM, REPLICATE
from tests.train.runs import process_context

ROOT = Path(__file__).resolve().parents[3]
BASE = "runwayml/stable-diffusion-v1-5"  # what clients ask for; the operator says what it is
MODELS = Models({BASE: BaseModel(BASE, ROOT / "assets" / "base")}, {}, BASE)


@pytest.fixture
def job(tmp_path) -> JobFolder:
    folder = JobFolder(tmp_path / "job")
    for number in (1, 2):
        write_picture(folder.instance_pictures / f"0000{number}.png", number)
    return folder


def run(launch: Launch, folder: JobFolder) -> None:
    """As the service does, but in a process that has imported what is slow."""
    log = str(folder.root / "log")
    request = {
        "command": [str(ROOT / launch.script), *launch.arguments], "folder": str(folder.root),
        "environment": dict(launch.environment), "stdout": log, "stderr": log,
    }  # fmt: skip
    process = process_context().Process(target=become, kwargs=request)
    process.start()
    process.join()
    assert process.exitcode == 0, Path(log).read_text(encoding="utf-8")


def events(folder: JobFolder, kind: str) -> list[dict]:
    lines = [line for file in folder.events() for line in file.read_text(encoding="utf-8").splitlines()]
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def trained(request: TrainingRequest, folder: JobFolder) -> Launch:
    resolved = resolve(request, Machine(), MODELS)
    cache = ClassPictureCache(folder.root.parent / "cache")
    cache.fill(resolved, folder)
    launch = write_run(resolved, folder)
    run(launch, folder)
    cache.keep(resolved, folder)
    return launch


def test_a_dreambooth_of_replicates_inputs(job):
    inputs = REPLICATE | {
        "max_train_steps": 2, "resolution": 64, "num_class_images": 2, "n_save_sample": 1, "save_infer_steps": 2, "learning_rate": 1e-5,
        "save_sample_prompt": 'a "frog" --w 512',
    }  # fmt: skip
    request = from_replicate.read(inputs)
    assert trained(request, job).script == "train_db.py"
    assert (job.weights() / "model_index.json").is_file()
    assert sorted(path.name for path in job.class_pictures.iterdir()) == ["class_image_00001.png", "class_image_00002.png"]
    assert [event["step"] for event in events(job, "step")] == [1, 2]
    assert len([path for path in job.samples.glob("model_*.png") if "sheet" not in path.name]) == 1
    resolved = resolve(request, Machine(), MODELS)
    again = JobFolder(job.root.parent / "again")
    assert ClassPictureCache(job.root.parent / "cache").fill(resolved, again) == 2
    assert json.loads(job.arguments_file.read_text(encoding="utf-8"))["mixed_precision"] == "no"


def test_a_network_of_cerebriums_inputs(job):
    arguments = {"num_train_epochs": 2, "resolution": 64, "validation_epochs": 1, "num_validation_images": 0, "train_batch_size": 1}
    assert trained(from_cerebrium.read({**CEREBRIUM, "training_args": arguments}), job).script == "train_network.py"
    assert [event["step"] for event in events(job, "step")] == [1, 2, 3, 4]
    with safe_open(job.weights(), "pt") as file:
        modules = {name.split(".")[0] for name in list(file.keys())}
    assert modules and all("attn" in name and name.startswith("lora_unet_") for name in modules)
    assert job.has_state()
