"""BLIP and GIT through transformers, with tiny random models."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.make_captions import TRANSFORMERS_IDS, MakeCaptionsOptions
from library.errors import UserError
from library.preparation.captioners import Captioner, without_writing
from tests.finetune.tiny_captioners import SIDE, SPECIAL, WORDS, tiny_blip, tiny_git
from tests.finetune.tool_runs import make_images, run

BLIP, GIT = "make_captions.py", "make_captions_by_git.py"
NAMES = ["a.png", "b.jpg", "sub/c.webp"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {BLIP: tiny_blip(folder / "blip"), GIT: tiny_git(folder / "git")}


def caption(script: str, folder: Path, model: Path, *flags: str) -> list[str]:
    """Run a captioner; the captions, in the order of NAMES."""
    model_flag = "--caption_weights" if script == BLIP else "--model_id"
    run(script, folder, model_flag, model, "--max_length", "12", "--recursive", *flags)
    return [(folder / name).with_suffix(".caption").read_text(encoding="utf-8") for name in NAMES]


@pytest.mark.parametrize(("script", "flags"), [(BLIP, []), (BLIP, ["--beam_search", "--num_beams", "2"]), (GIT, [])])
def test_images_are_captioned(tmp_path: Path, models: dict[str, Path], script: str, flags: list[str]) -> None:
    folder = make_images(tmp_path, *NAMES)
    first = caption(script, folder, models[script], *flags)
    assert all(line.endswith("\n") and set(line.split()) <= set(WORDS) - set(SPECIAL) for line in first)
    assert all(1 <= len(line.split()) <= 11 for line in first)  # the twelfth token is the start
    for name in NAMES:
        (folder / name).with_suffix(".caption").unlink()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        before = torch.random.get_rng_state()
        assert caption(script, folder, models[script], *flags) == first  # chance included
        assert torch.equal(torch.random.get_rng_state(), before)


def test_chance_is_of_the_seed_and_the_picture_only(tmp_path: Path, models: dict[str, Path]) -> None:
    folder = make_images(tmp_path, *NAMES)
    first = caption(BLIP, folder, models[BLIP])
    (folder / "b.caption").unlink()  # as if a run had been interrupted before it
    assert caption(BLIP, folder, models[BLIP]) == first
    for name in NAMES:
        (folder / name).with_suffix(".caption").unlink()
    assert caption(BLIP, folder, models[BLIP], "--seed", "1") != first


@pytest.mark.parametrize("script", [BLIP, GIT])
def test_batches_say_what_single_pictures_say(tmp_path: Path, models: dict[str, Path], script: str) -> None:
    flags = ["--beam_search"] if script == BLIP else []
    singles = caption(script, make_images(tmp_path / "1", *NAMES), models[script], *flags)
    assert caption(script, make_images(tmp_path / "2", *NAMES), models[script], *flags, "--batch_size", "2") == singles


@pytest.mark.parametrize("script", [BLIP, GIT])
def test_second_call_does_what_is_missing(
    tmp_path: Path, models: dict[str, Path], script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_images(tmp_path, *NAMES)
    (folder / "a.caption").write_text("by hand", encoding="utf-8")
    assert caption(script, folder, models[script])[0] == "by hand"
    assert "1 of 3 images have a .caption file already" in capsys.readouterr().out
    caption(script, folder, tmp_path / "no model is needed")


def test_debug_and_extension(tmp_path: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_images(tmp_path, "a.png")
    run(GIT, folder, "--model_id", models[GIT], "--caption_extension", "txt", "--debug", "--max_length", "5")
    assert f"{folder / 'a.png'}: {(folder / 'a.txt').read_text(encoding='utf-8')}" in capsys.readouterr().out


@pytest.mark.parametrize(("script", "kind"), [(BLIP, "blip"), (GIT, "git")])
def test_model_sees_the_picture(tmp_path: Path, models: dict[str, Path], script: str, kind: str) -> None:
    """Resized (GIT: and cropped) to its size, in the colours and the scale that its configuration says, without torchvision."""
    captioner = Captioner(str(models[script]), "--model", kind, {})
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 30:50] = (255, 128, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    seen = captioner.load(tmp_path / "a.png")
    assert seen.shape == (3, SIDE, SIDE)
    np.testing.assert_allclose(seen[:, 16, 16], (np.array([255, 128, 0]) / 255 - 0.5) / 0.25, atol=0.02)
    np.testing.assert_allclose(seen[:, 16, 0], -2, atol=0.02)
    stripe = 20 * SIDE / (80 if kind == "blip" else 40)
    assert abs((seen[0, 16] > 0).sum() - stripe) <= 1


def test_processor_named_as_older_versions_did(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "images", *NAMES)
    assert all(caption(BLIP, folder, tiny_blip(tmp_path / "model", "BlipImageProcessorFast")))


def test_mistakes(tmp_path: Path, models: dict[str, Path]) -> None:
    folder = make_images(tmp_path / "images", *NAMES)
    broken = shutil.copytree(models[BLIP], tmp_path / "broken")
    (broken / "preprocessor_config.json").unlink()
    for script, model, flags, said in (
        (BLIP, models[GIT], [], 'holds a model of the type "git", this tool runs models of the type "blip"'),
        (GIT, models[BLIP], [], 'holds a model of the type "blip"'),
        (BLIP, tmp_path, [], "config.json: there is no such model configuration"),
        (BLIP, tmp_path / "nothing here", [], "neither a folder nor a Hugging Face model id"),
        (BLIP, Path("large.pth"), [], "files in BLIP's own format are not read"),
        (BLIP, broken, [], "broken: this model cannot be loaded: "),
        (BLIP, models[BLIP], ["--num_beams", "2"], "--num_beams: this is for --beam_search only"),
        (BLIP, models[BLIP], ["--min_length", "13"], "--min_length: 13 is more than --max_length 12"),
    ):
        with pytest.raises(UserError) as raised:
            caption(script, folder, model, *flags)
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)


def test_default_weights_have_a_transformers_id() -> None:
    assert TRANSFORMERS_IDS[MakeCaptionsOptions.caption_weights] == "Salesforce/blip-image-captioning-large"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("a frog on a leaf", "a frog on a leaf"),
        ('a frog with the word "ribbit" on it', "a frog"),
        ("a frog with the words ribbit on the back", "a frog"),
        ('a green sign that says "stop here" on a road', "a green sign on a road"),
        ("a poster that reads ribbit", "a poster"),
        ("a frog with the number 5 on his shirt and a hat", "a frog and a hat"),
        ('a book cover with the name "frog', "a book cover"),
        ("a letter on a table", "a letter on a table"),
        ("a frog with a hat", "a frog with a hat"),
    ],
)
def test_remove_words(said: str, kept: str) -> None:
    assert without_writing(said) == kept


def test_remove_words_is_applied(tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_images(tmp_path, "a.png")
    monkeypatch.setattr(Captioner, "describe", lambda self, images: ["a frog with the word frog on it"] * len(images))
    run(GIT, folder, "--model_id", models[GIT], "--remove_words")
    assert (folder / "a.caption").read_text(encoding="utf-8") == "a frog\n"


def test_folders_hold_what_the_published_models_hold(models: dict[str, Path]) -> None:
    for model in models.values():
        assert json.loads((model / "config.json").read_text(encoding="utf-8"))["model_type"] == model.name
        assert (model / "model.safetensors").is_file()
