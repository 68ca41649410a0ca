"""Class pictures: drawn with the base model before training, each once, the same ones however often the run was broken off."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image

from library.seeding import seed_from
from tests.train.runs import IMAGES, Outcome, Strike, Workshop, make_workshop, tensors_hash, write_picture

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the processes of these tests are forked")

WANTED, PROMPT, BATCH = 5, "a toad: größer", 2  # the last batch is short
STEPS = 4  # instead of many, where processes are made here
FOLDER = "1_a toad_ größer"
KEEP = "library.train.class_images.keep_picture"
DREW = re.compile(r"note: .*: (\d+) of (\d+) class pictures will be drawn")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    folder = tmp_path_factory.mktemp("class images")
    return make_workshop(
        folder, max_train_steps=4, train_batch_size=BATCH, num_class_images=WANTED, class_prompt=PROMPT, learning_rate=0.1
    )  # so large that a trained network would draw something else


def reg(workshop: Workshop, name: str) -> Path:
    return workshop.folder / f"{name} reg"


def train(workshop: Workshop, name: str, *flags: str, strikes: tuple[Strike, ...] = (), **options) -> Outcome:
    constants = {"library.train.class_images.STEPS": STEPS}
    options = {"reg_data_dir": str(reg(workshop, name)), **options}
    return workshop.train(name, *flags, strikes=strikes, constants=constants, **options)


def pictures(workshop: Workshop, name: str) -> dict[str, bytes]:
    """What the class folder holds, caches and half-written files too."""
    return {path.name: path.read_bytes() for path in (reg(workshop, name) / FOLDER).iterdir()}


def drawn(workshop: Workshop, name: str) -> list[int]:
    return [event["count"] for event in workshop.events(name) if event["event"] == "class_images_drawn"]


def weights(workshop: Workshop, name: str) -> str:
    return tensors_hash(workshop.output(name) / "toad.safetensors")


def plan_of(output: str) -> list[str]:
    """The lines of the plan, without notes, the name of the run, and what only a dry run looks for."""
    lines = output[: output.index("files kept")].splitlines()
    return [line for line in lines if "note:" not in line and "look-alikes:" not in line]


@pytest.fixture(scope="module")
def unbroken(workshop) -> Outcome:
    outcome = train(workshop, "unbroken")
    assert outcome.code == 0, outcome.output
    return outcome


def test_all_are_drawn_with_their_prompt_and_seed(workshop, unbroken):
    found = reg(workshop, "unbroken") / FOLDER
    assert sorted(path.name for path in found.iterdir()) == [f"class_image_{number:05d}.png" for number in range(1, WANTED + 1)]
    assert drawn(workshop, "unbroken") == [WANTED]
    assert f"class pictures {WANTED}/{WANTED}" in unbroken.output
    for number, path in enumerate(sorted(found.iterdir()), 1):
        with Image.open(path) as image:
            prompt, facts = image.info["parameters"].split("\n")
            assert (prompt, image.size) == (PROMPT, (64, 64))
        seed = seed_from(1, "class image", PROMPT, number)
        assert facts == f"Steps: {STEPS}, Sampler: dpmsolver++, CFG scale: 7.5, Seed: {seed}, Size: 64x64, Model: model"
    assert len(set(pictures(workshop, "unbroken").values())) == WANTED


def test_the_plan_is_exact_and_a_dry_run_draws_nothing(workshop, unbroken):
    dry = train(workshop, "dry", "--dry_run")
    assert dry.code == 0, dry.output
    assert not reg(workshop, "dry").exists()
    assert DREW.search(dry.output).groups() == DREW.search(unbroken.output).groups() == (str(WANTED), str(WANTED))
    after = train(workshop, "unbroken", "--dry_run")
    assert not DREW.search(after.output)
    assert plan_of(dry.output) == plan_of(unbroken.output) == plan_of(after.output)
    assert f"  {WANTED} regularisation images, in turn, {IMAGES} an epoch" in dry.output
    assert f"     64x64    {IMAGES + WANTED:>6} images {2 * IMAGES:>7} an epoch" in dry.output
    assert f"captions: {IMAGES} from files, {WANTED} from class tokens, 0 missing" in dry.output


def test_a_run_that_finds_them_trains_the_same(workshop, unbroken):
    outcome = workshop.train("found", reg_data_dir=str(reg(workshop, "unbroken")))
    assert outcome.code == 0, outcome.output
    assert drawn(workshop, "found") == []
    assert weights(workshop, "found") == weights(workshop, "unbroken")


def test_a_resumed_run_is_the_same_and_draws_what_was_removed_with_the_base_model(workshop, unbroken):
    assert train(workshop, "resumed", max_train_steps=2, save_state_on_train_end=True).code == 0
    (reg(workshop, "resumed") / FOLDER / "class_image_00004.png").unlink()
    outcome = train(workshop, "resumed", "--resume", "latest")
    assert outcome.code == 0, outcome.output
    assert drawn(workshop, "resumed") == [WANTED, 1]
    assert pictures(workshop, "resumed") == pictures(workshop, "unbroken")
    assert weights(workshop, "resumed") == weights(workshop, "unbroken")


STRIKES = {
    "before the third": Strike(KEEP, 3, "before"),
    "after the third": Strike(KEEP, 3, "after"),
    "in the third": Strike("PIL.Image.Image.save", 3, "half-way"),
}


@pytest.mark.parametrize("name", STRIKES)
def test_killed_and_started_again(workshop, unbroken, name):
    assert train(workshop, name, strikes=(STRIKES[name],)).code == -STRIKES[name].signal
    folder = reg(workshop, name) / FOLDER
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("class*")}
    assert len(before) == (3 if name == "after the third" else 2)
    outcome = train(workshop, name)
    assert outcome.code == 0, outcome.output
    assert drawn(workshop, name) == [WANTED - len(before)]
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name in before} == before
    assert pictures(workshop, name) == pictures(workshop, "unbroken")
    assert weights(workshop, name) == weights(workshop, "unbroken")


def test_stopped_by_a_signal_and_started_again(workshop, unbroken):
    outcome = train(workshop, "stopped", strikes=(Strike(KEEP, 3, "after", signal.SIGTERM),))
    assert outcome.code == 143, outcome.output
    assert [event["event"] for event in workshop.events("stopped")] == ["class_images_stopped", "end"]
    assert workshop.events("stopped")[0]["count"] == len(pictures(workshop, "stopped")) == 4  # the batch is finished
    assert f"stopped after 4 of {WANTED} class pictures: SIGTERM" in outcome.output
    assert train(workshop, "stopped").code == 0
    assert pictures(workshop, "stopped") == pictures(workshop, "unbroken")


def test_own_pictures_count_and_are_left_alone(workshop, unbroken):
    """In a folder of another name, with cached latents on the disk; the prompt is the caption of the user's pictures too."""
    folder = reg(workshop, "own") / "3_toad"
    folder.mkdir(parents=True)
    for number in range(3):
        write_picture(folder / f"{number}.png", number)
    (folder / "1.txt").write_text("a toad on a stone", encoding="utf-8")
    own = {path.name: path.read_bytes() for path in folder.iterdir()}
    outcome = train(workshop, "own", cache_latents_to_disk=True)
    assert outcome.code == 0, outcome.output
    assert DREW.search(outcome.output).groups() == (str(WANTED - 3), str(WANTED))
    assert f"captions: {IMAGES + 1} from files, {WANTED - 1} from class tokens, 0 missing" in outcome.output
    assert len(list(folder.glob("*.npz"))) == WANTED
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".npz"}
    assert {name: found[name] for name in own} == own
    new = {name: content for name, content in pictures(workshop, "unbroken").items() if int(name[-9:-4]) <= WANTED - 3}
    assert found == own | new


def test_two_processes_draw_the_same(workshop):
    options = {"num_class_images": 4, "max_train_steps": 1}
    assert workshop.train("one", reg_data_dir=str(reg(workshop, "one")), **options).code == 0
    outcomes = workshop.train_in_two("two", reg_data_dir=str(reg(workshop, "two")), **options)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert len(pictures(workshop, "two")) == 4
    assert pictures(workshop, "two") == pictures(workshop, "one")
    assert b"\nSteps: 30, " in pictures(workshop, "two")["class_image_00001.png"]


def test_pictures_of_another_prompt_are_not_taken_for_these(workshop, unbroken):
    folder = shutil.copytree(reg(workshop, "unbroken"), reg(workshop, "newt")) / FOLDER
    outcome = train(workshop, "newt", "--class_prompt", "a newt")
    assert outcome.code == 2
    assert f'class_prompt: this is "a newt", but {WANTED} pictures in its folder were drawn from another' in outcome.output
    assert f'{folder / "class_image_00001.png"} from "{PROMPT}"' in outcome.output
