"""--dry_run and --debug_dataset as whole runs: what they write and print, what stops them, and that no weight is read."""
from __future__ import annotations

import json
import signal

import pytest

from tests.train.runs import IMAGES, Strike, make_workshop, write_picture

NO_WEIGHTS = [
    Strike("library.families.loading.load_module", 1, "before"),
    Strike("library.train.run.train_by_plan", 1, "before"),
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return make_workshop(tmp_path_factory.mktemp("looking"), max_train_steps=4)


def written(workshop, name: str) -> list[str]:
    return sorted(path.relative_to(workshop.output(name)).as_posix() for path in workshop.output(name).rglob("*.*"))


def test_the_walk_of_a_run_that_nobody_watches(workshop):
    outcome = workshop.train("walk", "--debug_dataset", strikes=NO_WEIGHTS, max_data_loader_n_workers=2)
    assert outcome.code == 0, outcome.output
    picture = "debug_dataset/toad_e000001_s00000001_m00.png"
    assert written(workshop, "walk") == [picture, "toad_dataset_report.html", "toad_dataset_report.json"]
    assert "epoch 1, step 1 of 4, dataset 1, 1 picture\n" in outcome.output
    assert f"{workshop.output('walk') / picture}\n" in outcome.output
    assert "caption: toad " in outcome.output


def test_the_report_of_a_run(workshop):
    outcome = workshop.train("report", "--dry_run", output_name=None)
    assert outcome.code == 0, outcome.output
    assert written(workshop, "report") == ["dataset_report.html", "dataset_report.json"]
    found = json.loads((workshop.output("report") / "dataset_report.json").read_text(encoding="utf-8"))
    (dataset,) = found["datasets"]
    assert (dataset["images"], dataset["captions"]["files"], dataset["lookalikes"], found["advice"]) == (IMAGES, IMAGES, [], [])
    assert "look-alikes: 0 exact copies, 0 near-duplicates" in outcome.output
    assert "dataset report, nothing stands out: " in outcome.output


def test_a_class_of_the_users(workshop):
    outcome = workshop.train(
        "foreign", "--debug_dataset", strikes=NO_WEIGHTS, train_data_dir=None, caption_extension=None, cache_latents=None,
        dataset_class="tests.data.foreign_datasets.Full",
    )  # fmt: skip
    assert outcome.code == 0, outcome.output
    assert "these are latents, not a picture" in outcome.output
    assert len(written(workshop, "foreign")) == 3


def test_damage_that_only_decoding_finds(workshop):
    picture = workshop.folder / "data" / "1_toad" / "9.png"
    write_picture(picture, 9)
    content = bytearray(picture.read_bytes())
    middle = content.index(b"IDAT") + 30
    content[middle] ^= 0xFF
    picture.write_bytes(content)
    (picture.with_suffix(".txt")).write_text("toad 9", encoding="utf-8")
    few = {"library.data.scan.FULL_CHECK_PIXELS": 0}  # as if there were very many pictures
    try:
        outcome = workshop.train("damaged", "--debug_dataset", strikes=NO_WEIGHTS, constants=few)
    finally:
        picture.unlink()
        picture.with_suffix(".txt").unlink()
    assert outcome.code == 2
    assert f"error: {picture}: cannot be decoded: the checksum of its pixels is wrong" in outcome.output
    assert "--on_bad_image skip" in outcome.output
    assert "the checksum of its pixels is wrong" in (workshop.output("damaged") / "toad_dataset_report.html").read_text(encoding="utf-8")


def test_stopped_while_pictures_are_compared(workshop):
    strike = Strike("library.data.lookalikes.fingerprint", 2, "before", signal.SIGTERM)
    outcome = workshop.train("stopped", "--dry_run", strikes=[strike])
    assert outcome.code == 143
    assert "SIGTERM: stopping. A further SIGINT (Ctrl-C) leaves at once." in outcome.output
    assert written(workshop, "stopped") == []
