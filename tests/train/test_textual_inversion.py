"""Textual inversion from the command line: what is saved, and what is refused."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.tiny_models import tiny_sd1_folder, tiny_sdxl_folder
from tests.train.runs import Workshop, make_workshop, tensors_hash

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the processes of these tests are forked")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    """Every caption of its pictures begins with the new word."""
    folder = tmp_path_factory.mktemp("inversion")
    workshop = make_workshop(
        folder, "train_textual_inversion.py", token_string="zorb", num_vectors_per_token=2, init_word="frog",
        caption_prefix="zorb", save_model_as="safetensors", max_train_steps=6, save_every_n_steps=2, save_state=True, flip_aug=True,
    )  # fmt: skip
    (folder / "prompts.txt").write_text("zorb --w 64 --h 64 --s 2 --d 1\n", encoding="utf-8")
    return workshop


def test_the_vectors_are_saved_with_what_they_are(workshop):
    outcome = workshop.train("unbroken", sample_prompts=str(workshop.folder / "prompts.txt"), sample_every_n_steps=6)
    assert outcome.code == 0, outcome.output
    with safe_open(workshop.output("unbroken") / "toad.safetensors", "pt") as file:
        assert list(file.keys()) == ["emb_params"]
        assert tuple(file.get_tensor("emb_params").shape) == (2, 32)
        assert file.metadata()["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"
    early = load_file(workshop.output("unbroken") / "toad-step00000002.safetensors")["emb_params"]
    assert not torch.equal(early, load_file(workshop.output("unbroken") / "toad.safetensors")["emb_params"])
    assert len(list((workshop.output("unbroken") / "sample").glob("toad_000006_00_*.png"))) == 1


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"token_string": None}, "token_string (default): this option is needed"),
        ({"token_string": "my toad"}, "write one word, without spaces"),
        ({"token_string": "frog"}, "the model knows frog already"),
        ({"caption_prefix": None}, "no caption holds the word zorb"),
        ({"weights": "nowhere.pt"}, "nowhere.pt: no such file"),
        ({"use_object_template": True, "use_style_template": True}, "one is for things, the other for styles"),
        ({"network_module": "networks.lora"}, "this is an option of train_network.py"),
    ],
)
def test_mistakes(workshop, flags, expected):
    outcome = workshop.train("mistaken", **flags)
    assert outcome.code == 2
    assert expected in outcome.output
    assert "Traceback" not in outcome.output


def test_templates_need_no_captions(workshop):
    options = {"caption_prefix": None, "use_style_template": True, "max_train_steps": 1, "save_model_as": None}
    outcome = workshop.train("templates", **options)
    assert outcome.code == 0, outcome.output
    stored = torch.load(workshop.output("templates") / "toad.pt", weights_only=True)  # the default of this script
    assert stored["emb_params"].shape == (2, 32)


def test_a_vector_for_each_layer(tmp_path):
    workshop = make_workshop(
        tmp_path, "train_textual_inversion_XTI.py", token_string="zorb", use_object_template=True, save_model_as="safetensors",
        max_train_steps=2, gradient_checkpointing=True,
    )  # fmt: skip
    tiny_sd1_folder(tmp_path / "model", layers_per_block=2)
    outcome = workshop.train("layers")
    assert outcome.code == 0, outcome.output
    stored = load_file(workshop.output("layers") / "toad.safetensors")
    assert len(stored) == 16
    assert all(tensor.shape == (1, 32) for tensor in stored.values())
    assert len({tuple(tensor.flatten().tolist()) for tensor in stored.values()}) == 16  # each has learnt by itself


def test_both_text_encoders_of_sdxl_learn_the_word(tmp_path):
    workshop = make_workshop(
        tmp_path, "sdxl_train_textual_inversion.py", token_string="zorb", use_object_template=True, save_model_as="safetensors",
        pretrained_model_name_or_path=str(tiny_sdxl_folder(tmp_path / "sdxl")), max_train_steps=2, save_every_n_steps=1,
    )  # fmt: skip
    outcome = workshop.train("sdxl")
    assert outcome.code == 0, outcome.output
    early, late = (load_file(workshop.output("sdxl") / name) for name in ("toad-step00000001.safetensors", "toad.safetensors"))
    assert late.keys() == {"clip_l", "clip_g"}
    assert all(not torch.equal(early[name], late[name]) for name in late)
    general = replace(workshop, script="train_textual_inversion.py")
    assert general.train("general").code == 0
    files = [workshop.output(name) / "toad.safetensors" for name in ("sdxl", "general")]
    assert tensors_hash(files[0]) == tensors_hash(files[1])


def test_vectors_per_layer_are_not_for_sdxl(tmp_path):
    workshop = make_workshop(
        tmp_path, "train_textual_inversion_XTI.py", token_string="zorb", use_object_template=True,
        pretrained_model_name_or_path=str(tiny_sdxl_folder(tmp_path / "sdxl")), dry_run=True,
    )  # fmt: skip
    outcome = workshop.train("refused")
    assert outcome.code == 2
    assert "vectors per layer are for the 16 cross-attention layers of Stable Diffusion 1 and 2" in outcome.output


def test_the_script_for_sdxl_takes_no_other_model(workshop):
    outcome = replace(workshop, script="sdxl_train_textual_inversion.py").train("not-sdxl")
    assert outcome.code == 2
    assert "sdxl_train_textual_inversion.py takes sdxl: use train_textual_inversion.py" in outcome.output
