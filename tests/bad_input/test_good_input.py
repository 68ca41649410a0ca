"""What looks like a mistake and is none, bad pictures that are skipped, and proof that the other tests would notice."""
from __future__ import annotations

import codecs
import io
import json
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bad_input import bad_files, config_cases, model_cases
from tests.bad_input.odd_pictures import ODD_PICTURES
from tests.bad_input.table import IMAGES, Case, make

WINDOWS_FILES = {
    "run.toml": 'dataset_config = "{here}/data.toml"\r\nsample_prompts = "{here}/prompts.txt"\r\nsample_every_n_steps = 1\r\n'
    'network_module = "networks.lora"\r\noutput_dir = "{here}/out"\r\n\r\n[model]\r\n'
    'pretrained_model_name_or_path = "{models}/diffusers"\r\n',
    "data.toml": f'[[datasets]]\r\nresolution = 64\r\n[[datasets.subsets]]\r\nimage_dir = "{{here}}/{IMAGES}"\r\n',
    "prompts.txt": "# frogs\r\na frog --w 64 --h 64\r\n",
    f"{IMAGES}/red.caption": "a red frog\r\n",
}


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["CRLF", "CRLF and BOM"])
def test_files_of_windows_editors(mark, tmp_path, models, processes):
    here, there = tmp_path.as_posix(), models.as_posix()
    files = {
        name: (mark + text.replace("{here}", here).replace("{models}", there)).encode() for name, text in WINDOWS_FILES.items()
    }
    assert all(content.startswith(codecs.BOM_UTF8) for content in files.values()) == bool(mark)
    flags = make(Case("files of Windows editors", (), files=files), tmp_path, models)
    outcome = processes.run(tmp_path, [*flags, "--dry_run", "--seed", "1"])
    assert outcome.code == 0, outcome.complained
    assert "captions: 1 from files" in outcome.said
    assert "steps: 1 to 1600" in outcome.said
    assert not outcome.weights_read


def train(case: Case, here: Path, models: Path, processes) -> tuple[str, list[dict]]:
    """What the run said, and its events."""
    outcome = processes.run(here, make(case, here, models))
    assert outcome.code == 0, outcome.complained
    assert "Traceback" not in outcome.complained
    assert outcome.weights_read  # so the watch does see what the tests of mistakes rule out
    assert (here / "out" / "frog.safetensors").is_file()
    (events,) = here.glob("out/**/events.jsonl")
    return outcome.said, [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]


BAD = {
    "empty.png": b"",
    "text.jpg": "no picture",
    "corrupt.png": bad_files.corrupt_png,
    "cut.jpg": bad_files.truncated,
    "cut_too.webp": bad_files.truncated,
    "nothing.png": bad_files.png_header(0, 0),
    "bomb.png": bad_files.png_header(50_000, 50_000),
    "gone.png": bad_files.dangling_link,
}
MANY = {f"{IMAGES}/{number:03}.png": bad_files.picture for number in range(62)} | {
    f"{IMAGES}/{name}": content for name, content in BAD.items()
}


def test_bad_pictures_of_a_big_set_are_skipped_by_name(tmp_path, models, processes):
    case = Case("skip", (), {"on_bad_image": "skip", "max_train_steps": None, "max_train_epochs": 1, "train_batch_size": 16}, MANY)
    said, events = train(case, tmp_path, models, processes)
    for name in BAD:
        assert f"left out: {tmp_path / IMAGES / name}: " in said
    assert "64 training images, 128 with repeats" in said
    assert sum(event["event"] == "step" for event in events) == 128 / 16


def test_bad_pictures_of_a_big_set_stop_the_run_before_it_begins(tmp_path, models, processes):
    outcome = processes.run(tmp_path, make(Case("stop", (), files=MANY), tmp_path, models))
    assert outcome.code == 2
    assert [name for name in BAD if f"error: {tmp_path / IMAGES / name}: " not in outcome.complained] == []
    assert "--on_bad_image skip" in outcome.complained
    assert not outcome.weights_read


@cache
def huge_png() -> bytes:
    """16 million pixels in 24 KB: ten are more than are decoded before training, unless bad ones are to be skipped."""
    ramp = np.arange(4000, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.add.outer(ramp, ramp)).save(file, "png")
    return file.getvalue()


def huge_picture(path: Path) -> None:
    path.write_bytes(huge_png())


def corrupt_huge_picture(path: Path) -> None:
    huge_picture(path)
    bad_files.spoil_middle(path)


HUGE = {f"huge/1_frog/{number}.png": huge_picture for number in range(9)} | {"huge/1_frog/bad.png": corrupt_huge_picture}


def huge(**config: object) -> Case:
    return Case("huge pictures", (), {"train_data_dir": "{here}/huge", "max_train_steps": 1, **config}, HUGE)


def test_pictures_too_many_to_decode_beforehand(tmp_path, models, processes):
    outcome = processes.run(tmp_path, make(huge(train_batch_size=10), tmp_path, models))
    assert outcome.code == 2, outcome.complained
    assert f"error: {tmp_path / 'huge' / '1_frog' / 'bad.png'}: cannot be decoded" in outcome.complained
    assert "Traceback" not in outcome.complained


def test_pictures_too_many_to_decode_beforehand_are_decoded_if_bad_ones_are_skipped(tmp_path, models, processes):
    said, _ = train(huge(train_batch_size=1, on_bad_image="skip"), tmp_path, models, processes)
    assert f"left out: {tmp_path / 'huge' / '1_frog' / 'bad.png'}: cannot be decoded" in said


def test_odd_pictures_train(tmp_path, models, processes):
    files = {f"{IMAGES}/{odd.name}": odd.save for odd in ODD_PICTURES}
    said, events = train(Case("odd", (), {"max_train_steps": 3, "train_batch_size": 8}, files), tmp_path, models, processes)
    assert f"{len(ODD_PICTURES) + 2} training images" in said
    assert sum(event["event"] == "step" for event in events) == 3


@pytest.mark.parametrize(
    ("name", "imported"), [("malicious checkpoint", "everything"), ("two mistakes at once", "all but torch")]
)
def test_a_fresh_process_says_the_same_as_a_forked_one(name, imported, tmp_path, models, processes):
    (case,) = (case for case in (*model_cases.CASES, *config_cases.CASES) if case.name == name)
    flags = make(case, tmp_path, models)
    fresh, forked = processes.run(tmp_path, flags, imported="nothing"), processes.run(tmp_path, flags, imported=imported)
    assert fresh.imported_torch == (imported == "everything")
    assert (fresh.code, fresh.said, fresh.complained) == (forked.code, forked.said, forked.complained)
    assert fresh.code == 2 and not (tmp_path / bad_files.PAYLOAD_RAN).exists()


def test_the_payload_of_the_malicious_pickles_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad_files.malicious_pickle(tmp_path / "a.ckpt")
    pickle.loads((tmp_path / "a.ckpt").read_bytes())
    assert (tmp_path / bad_files.PAYLOAD_RAN).exists()
