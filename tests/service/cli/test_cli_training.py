"""Trainings sent by the command line: both generations of its commands, what is sent, what is checked before."""
from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli.parcel import pack, pictures_in
from service.database.tables import Job
from service.jobs.states import BUILDING, PREPARING, PUBLISHING, QUEUED, SUCCEEDED, TRAINING
from service.services import Services
from tests.service.training.small_pictures import write_picture

BASE = "runwayml/stable-diffusion-v1-5"
PROMPT = 'a photo of a "sks" frog, näive'
Diffuser = Callable[..., Any]


@pytest.fixture
def diffuser(tadpole, server: str, key: str, pictures: Path) -> Diffuser:
    """train-diffuser as its document writes it, and more options."""
    def run(*more: str):  # type: ignore[no-untyped-def]
        return tadpole("train-diffuser", "my-frog", key, BASE, str(pictures), PROMPT, "--server", server, *more)

    return run


def job_of(services: Services, job_id: str) -> Job:
    return services.board.get(services.keys.project("default"), job_id)


def parcel_of(services: Services, job: Job) -> zipfile.ZipFile:
    with services.store.open(str(job.input_key)) as file:
        return zipfile.ZipFile(io.BytesIO(file.read()))


def test_the_documented_command(diffuser: Diffuser, services: Services, key: str) -> None:
    ended = diffuser("--training-args", '{"num_train_epochs": 5, "learning_rate": 1e-4}', "--json")
    assert (ended.code, ended.err) == (0, "")
    job = job_of(services, json.loads(ended.out)["jobId"])
    assert (job.state, job.name, job.api) == (QUEUED, "my-frog", "cerebrium")
    resolved = job.resolved or {}
    assert (resolved["instance_prompt"], resolved["num_train_epochs"], resolved["learning_rate"]) == (PROMPT, 5, 1e-4)
    with parcel_of(services, job) as parcel:
        assert sorted(parcel.namelist()) == ["dataset.json", "dataset/trainingData/1.png", "dataset/trainingData/2.png", "finetune_config.yaml"]
        assert json.loads(parcel.read("dataset.json")) == {"num_images": 2, "image_names": ["1.png", "2.png"]}
        config = yaml.safe_load(parcel.read("finetune_config.yaml"))
        assert key.encode() not in b"".join(parcel.read(name) for name in parcel.namelist())
    assert config == {
        "training_type": "diffuser", "name": "my-frog", "hf_model_path": BASE, "train_prompt": PROMPT, "revision": "main", "log_level": "INFO",
        "training_args": {"num_train_epochs": 5, "learning_rate": 1e-4},
    }  # fmt: skip


def test_class_pictures_go_along(diffuser: Diffuser, services: Services, tmp_path: Path) -> None:
    write_picture(tmp_path / "classes" / "frog.jpg", 3)
    words = ("--prior-class-image-dir", str(tmp_path / "classes"), "--prior-class-prompt", "a frog", "--num-prior-class-images", "4")
    ended = diffuser(*words, "--json")
    job = job_of(services, json.loads(ended.out)["jobId"])
    assert (job.resolved or {})["class_prompt"] == "a frog" and (job.resolved or {})["num_class_images"] == 4
    with parcel_of(services, job) as parcel:
        assert json.loads(parcel.read("dataset.json"))["class_image_names"] == ["frog.jpg"]
        assert "dataset/classData/frog.jpg" in parcel.namelist()
        assert str(tmp_path) not in parcel.read("finetune_config.yaml").decode()


def test_for_people_it_says_how_to_go_on(diffuser: Diffuser) -> None:
    ended = diffuser()
    job_id = ended.out.split()[1]
    assert ended.code == 0 and f"tadpole get-training-logs {job_id}" in ended.err


@pytest.mark.parametrize("as_text", [True, False])
def test_the_later_generation(as_text: bool, tadpole, server: str, key: str, pictures: Path, services: Services, tmp_path: Path) -> None:
    text = (
        f"training_type: diffuser\nname: my-frog\napi_key: {key}\nhf_model_path: {BASE}\ntrain_prompt: a sks frog\n"
        f"train_image_dir: {json.dumps(str(pictures))}\nrevision: main\ntraining_args: {{learning_rate: 5e-4, num_validation_images: 1}}\n"
    )
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    given = ("--config-string", text) if as_text else ("--config-file", str(tmp_path / "config.yaml"))
    ended = tadpole("train", *given, "--server", server, "--json")
    assert (ended.code, ended.err) == (0, "")
    job = job_of(services, json.loads(ended.out)["jobId"])
    assert (job.resolved or {})["learning_rate"] == 5e-4
    with parcel_of(services, job) as parcel:
        assert "api_key" not in yaml.safe_load(parcel.read("finetune_config.yaml"))


def test_references_in_a_config_are_written_out(pictures: Path, tmp_path: Path) -> None:
    config = yaml.safe_load("a: &many [1, 2]\nb: *many\n")
    pack(config, pictures_in(pictures, "x"), None, tmp_path / "parcel.zip")
    with zipfile.ZipFile(tmp_path / "parcel.zip") as parcel:
        text = parcel.read("finetune_config.yaml").decode()
    assert yaml.safe_load(text) == {"a": [1, 2], "b": [1, 2]} and "&" not in text and "*" not in text


def test_captions_go_along_and_the_rest_stays(pictures: Path) -> None:
    for name in ("1.txt", "lonely.txt", "notes.pdf", ".DS_Store", "Thumbs.db"):
        (pictures / name).write_text("x", encoding="utf-8")
    (pictures / "folder.png").mkdir()
    found = pictures_in(pictures, "x")
    assert (list(found.files), list(found.captions), found.others) == (["1.png", "2.png"], ["1.txt"], ["lonely.txt", "notes.pdf"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--training-args", "{"), "--training-args: this is no JSON"),
        (("--training-args", "[1]"), "training_args: this is a table"),
        (("--training-args", '{"learning_rate": 7, "speed": 1}'), "training_args.learning_rate"),
        (("--log-level", "LOUD"), "--log-level: write DEBUG or INFO, not LOUD"),
        (("--prior-class-prompt", "a frog"), "num_prior_class_images"),
        (("--prior-class-image-dir", "nowhere", "--prior-class-prompt", "a frog"), "prior_class_image_dir: nowhere does not exist"),
        (("--num-prior-class-images", "many"), "'--num-prior-class-images'"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(more: tuple[str, ...], said: str, diffuser: Diffuser, services: Services) -> None:
    ended = diffuser(*more)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err and all(line.startswith("error: ") for line in ended.err.splitlines())
    assert services.board.page(services.keys.project("default")).rows == []


def test_all_mistakes_of_the_inputs_are_told_at_once(diffuser: Diffuser) -> None:
    assert len(diffuser("--training-args", '{"learning_rate": 7, "speed": 1}').err.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("my-frog", "tadpole_a_b", BASE, "PICTURES"), "TRAINING_PROMPT is missing"),
        (("my-frog", BASE, "PICTURES"), "TRAINING_PROMPT is missing"),
        (("my-frog", "private-key", BASE, "PICTURES", "a frog"), "the second word is no API key"),
        (("my-frog", BASE, "PICTURES", "a", "green", "frog"), "6 words are too many"),
        (("my-frog", "tadpole_a_b", BASE, "PICTURES", "a frog", "--api-key", "tadpole_c_d"), "two different API keys"),
        (("my-frog", "tadpole_a_b", BASE, "nowhere", "a frog"), "nowhere does not exist"),
        (("my-frog", "tadpole_a_b", BASE, "EMPTY", "a frog"), "there are no pictures in"),
        ((), "Missing argument"),
    ],
)
def test_words_that_do_not_fit(words: tuple[str, ...], said: str, tadpole, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    places = {"PICTURES": str(pictures), "EMPTY": str(tmp_path / "empty")}
    ended = tadpole("train-diffuser", *(places.get(word, word) for word in words), "--server", "http://127.0.0.1:1")
    assert (ended.code, ended.out) == (2, "") and said in ended.err and ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "write names and values"),
        ("a: [", "this is no YAML"),
        ("name: a\n", "train_image_dir is missing"),
        ("train_image_dir: .\n", "name is missing"),
        ("1: a\n", "write names and values"),
    ],
)
def test_configs_that_cannot_be_read(text: str, said: str, tadpole) -> None:
    ended = tadpole("train", "tadpole_a_b", "--config-string", text)
    assert ended.code == 2 and said in ended.err


def test_one_config_is_needed(tadpole) -> None:
    for words in ((), ("--config-file", "a", "--config-string", "b")):
        assert "one of the two" in tadpole("train", *words).err
    assert "cannot be read" in tadpole("train", "--config-file", "nowhere.yaml").err


def finish(services: Services, job_id: str, content: bytes, folder: Path) -> None:
    """As a worker does, with this as what was trained."""
    (folder / "output.zip").write_bytes(content)
    stored = services.store.save(f"jobs/{job_id}/output.zip", folder / "output.zip")
    done = {SUCCEEDED: {"output": {"files": [{"name": "output.zip", "key": stored.key}]}}}
    state = QUEUED
    for following in (PREPARING, TRAINING, BUILDING, PUBLISHING, SUCCEEDED):
        assert services.board.advance(job_id, state, following, **done.get(following, {}))
        state = following


def test_a_model_is_fetched_whole(diffuser: Diffuser, tadpole, server: str, key: str, services: Services, tmp_path: Path) -> None:
    job_id = json.loads(diffuser("--json").out)["jobId"]
    early = tadpole("download-model", job_id, key, "--server", server, "-o", str(tmp_path / "model.zip"))
    assert early.code == 1 and "when it has succeeded" in early.err and not (tmp_path / "model.zip").exists()
    finish(services, job_id, b"PK weights" * 100_000, tmp_path)
    words = ("download-model", job_id, key, "--server", server, "-o", str(tmp_path / "model.zip"))
    assert tadpole(*words, "--json").code == 0
    assert (tmp_path / "model.zip").read_bytes() == b"PK weights" * 100_000
    again = tadpole(*words)
    assert again.code == 2 and "--overwrite" in again.err
    assert tadpole(*words, "--overwrite").code == 0
    assert not list(tmp_path.glob(".*.part"))


def test_a_model_goes_into_a_folder_by_its_id(diffuser: Diffuser, tadpole, server: str, key: str, services: Services, tmp_path: Path) -> None:
    job_id = json.loads(diffuser("--json").out)["jobId"]
    finish(services, job_id, b"PK", tmp_path)
    assert tadpole("download-model", job_id, key, "--server", server, "-o", str(tmp_path)).code == 0
    assert (tmp_path / f"{job_id}.zip").read_bytes() == b"PK"
    assert "there is no folder" in tadpole("download-model", job_id, key, "--server", server, "-o", str(tmp_path / "a" / "b.zip")).err
