"""Trainer packages of the operator: found, selected, checked, and started for real."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from library.errors import UserError
from service.trainers import OUR_VERSION, OURS, Trainers, read_trainers
from service.training.fields import BadInput
from service.training.job_folder import JobFolder

MANIFEST = """
name = "me/small-trainer"
versions = ["1.1", "1.0"]
description = "Counts the pictures."
command = [PYTHON, "{package}/train.py", "--inputs={inputs}", "{instance}", "{output}"]

[inputs.instance_prompt]
type = "text"
least = 1
help = "What they show."
[inputs.steps]
type = "integer"
least = 1
most = 10
default = 3
[inputs.size]
type = "choice"
choices = ["small", "large"]
default = "small"
[inputs.instance_data]
type = "url"
"""
SCRIPT = """
import json, sys, zipfile
from pathlib import Path
inputs = json.loads(Path(sys.argv[1].partition("=")[2]).read_text(encoding="utf-8"))
with zipfile.ZipFile(Path(sys.argv[3]) / "output.zip", "w") as archive:
    archive.writestr("told.json", json.dumps([inputs, len(list(Path(sys.argv[2]).iterdir()))]))
"""
INPUTS = {"instance_prompt": "a sks dog; rm -rf {output}", "instance_data": "https://example.com/dog.zip"}


@pytest.fixture
def folder(tmp_path) -> Path:
    package = tmp_path / "trainers" / "small"
    package.mkdir(parents=True)
    (package / "trainer.toml").write_text(MANIFEST.replace("PYTHON", json.dumps(sys.executable)), encoding="utf-8")
    (package / "train.py").write_text(SCRIPT, encoding="utf-8")
    return tmp_path / "trainers"


def test_ours_is_there_without_any(tmp_path):
    trainers = read_trainers(tmp_path / "none")
    assert trainers == Trainers()
    assert trainers.select(None) is trainers.select(OUR_VERSION) is trainers.select(f"tadpole/dreambooth:{OUR_VERSION}") is OURS
    assert OURS.is_ours and len(OUR_VERSION) == 64


def test_versions_select(folder):
    trainers = read_trainers(folder)
    assert trainers.select("1.0").name == trainers.select("me/small-trainer:1.1").name == "me/small-trainer"
    assert not trainers.select("1.0").is_ours
    for version in ("2.0", "you/small-trainer:1.0", "", "x" * 5000):
        with pytest.raises(BadInput) as caught:
            trainers.select(version)
        (problem,) = caught.value.problems
        assert problem.field == "trainer_version"
        assert problem.message.endswith(f"is not installed here; there are {OUR_VERSION}, 1.1")
        assert len(problem.message) < 400


def test_other_versions_of_ours(folder):
    (folder / "aliases").mkdir()
    (folder / "aliases" / "trainer.toml").write_text('versions = ["cd3f925f7ab21afa"]\n', encoding="utf-8")
    assert read_trainers(folder).select("cd3f925f7ab21afa").is_ours


def test_inputs_are_checked_by_the_manifest(folder):
    trainer = read_trainers(folder).select("1.0")
    assert trainer.read(INPUTS) == {**INPUTS, "steps": 3, "size": "small"}
    with pytest.raises(BadInput) as caught:
        trainer.read({"steps": 11, "size": "huge", "speed": 1})
    assert {problem.field for problem in caught.value.problems} == {"instance_prompt", "instance_data", "steps", "size", "speed"}
    assert trainer.schema()["properties"]["steps"] == {"type": "integer", "minimum": 1, "maximum": 10, "default": 3, "x-order": 1}


def test_it_leaves_its_zip(folder, tmp_path):
    trainer, job = read_trainers(folder).select("1.0"), JobFolder(tmp_path / "job")
    job.instance_pictures.mkdir(parents=True)
    (job.instance_pictures / "00001.png").write_bytes(b"")
    command = trainer.prepare(trainer.read(INPUTS), job)
    subprocess.run(command.words, cwd=job.root, check=True, timeout=60)
    with zipfile.ZipFile(command.output) as archive:
        inputs, pictures = json.loads(archive.read("told.json"))
    assert (inputs["instance_prompt"], pictures) == (INPUTS["instance_prompt"], 1)


def test_a_trainer_that_starts_reads_whole_inputs_while_they_are_written_again(folder, tmp_path):
    """The service that started it was killed, and the next one does not know yet that it runs."""
    trainer, job = read_trainers(folder).select("1.0"), JobFolder(tmp_path / "job")
    trainer.prepare(trainer.read(INPUTS), job)
    with (job.root / "inputs.json").open(encoding="utf-8") as reading:
        trainer.prepare(trainer.read({**INPUTS, "steps": 7}), job)
        assert json.load(reading)["steps"] == 3
    assert json.loads((job.root / "inputs.json").read_text(encoding="utf-8"))["steps"] == 7


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ('versions = []\ncommand = ["x"]', "versions: write a list of ids"),
        ('versions = ["../1"]\ncommand = ["x"]', "versions: write a list of ids"),
        ('command = ["x"]', "versions: write a list of ids"),
        ('versions = ["1"]\ncommand = "x y"', "command: write a list of words"),
        ('versions = ["1"]\ncommand = ["{python}"]', "command: there is no {python}; there are {package}"),
        ('versions = ["1"]\ncommand = ["x"]\nname = "a b"', "name: write owner/name"),
        ('versions = ["1"]\ncommand = ["x"]\ngpu = 1', "unknown key gpu"),
        ('versions = ["1"]\ncommand = ["x"]\n[inputs.a]\ntype = "file"', "[inputs.a] type: this is one of text, url"),
        ('versions = ["1"]\ncommand = ["x"]\n[inputs.a]\ntype = "integer"\nleast = "1"', "[inputs.a] least: this is a number"),
        ('versions = ["1"]\ncommand = ["x"]\n[inputs.a]\ntype = "choice"\nchoices = "a"', "[inputs.a] choices: write a list of names"),
        ('versions = ["1"]\ncommand = ["x"]\n[inputs.a]\ntype = "integer"\nmost = 3\ndefault = 4', "[inputs.a] default: 4 is not between"),
        ('versions = ["1"]\ncommand = ["x"]\n[inputs.a]\nsort = "integer"', "[inputs.a]: unknown key sort"),
        ('versions = ["1"]\n[inputs.a]\ntype = "text"', "without a command this names versions of ours"),
        (f'versions = ["{OUR_VERSION}"]\ncommand = ["x"]', "is that of ours; give each trainer versions of its own"),
    ],
)
def test_mistakes_in_a_manifest(tmp_path, manifest, message):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "trainer.toml").write_text(manifest, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_trainers(tmp_path)
    assert message in "\n".join(caught.value.messages)
