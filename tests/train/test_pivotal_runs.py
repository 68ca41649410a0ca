"""train_network.py --token_string: two files at every save, gone together; and what is refused."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.tiny_models import tiny_sdxl_folder
from tests.train.runs import Workshop, make_workshop

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the processes of these tests are forked")
WORD = {"token_string": "zorb", "num_vectors_per_token": 2, "init_word": "frog", "token_lr": 1e-2}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    """Every caption begins with the new word."""
    folder = tmp_path_factory.mktemp("pivotal")
    (folder / "prompts.txt").write_text("zorb --w 64 --h 64 --s 2 --d 1\n", encoding="utf-8")
    return make_workshop(
        folder, **WORD, caption_prefix="zorb", max_train_steps=6, save_every_n_steps=2, save_last_n_steps=2, save_state=True,
        flip_aug=True, ema=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(workshop) -> None:
    outcome = workshop.train("unbroken", sample_prompts=str(workshop.folder / "prompts.txt"), sample_every_n_steps=6)
    assert outcome.code == 0, outcome.output
    assert "toad-step00000004.safetensors, toad-step00000004-words.safetensors" in outcome.output


def test_both_are_saved_at_each_save_and_go_together(workshop, unbroken):
    names = sorted(path.name for path in workshop.output("unbroken").glob("*.safetensors"))
    moments = ("", "-step00000004", "-step00000006")
    assert names == sorted(f"toad{moment}{kind}.safetensors" for moment in moments for kind in ("", "-words"))
    saved = [event["kind"] for event in workshop.events("unbroken") if event["event"] == "saved"]
    assert saved == ["weights", "words", "state"] * 4
    assert len(list((workshop.output("unbroken") / "sample").glob("toad_000006_00_*.png"))) == 1


def test_each_file_says_what_it_is(workshop, unbroken):
    folder = workshop.output("unbroken")
    with safe_open(folder / "toad-words.safetensors", "pt") as file:
        assert list(file.keys()) == ["emb_params"]
        assert tuple(file.get_tensor("emb_params").shape) == (2, 32)
        assert file.metadata()["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"
    with safe_open(folder / "toad.safetensors", "pt") as file:
        assert all(key.startswith(("lora_te_", "lora_unet_")) for key in file.keys())  # noqa: SIM118  not a dictionary
        assert file.metadata()["modelspec.architecture"] == "stable-diffusion-v1/lora"
        assert file.metadata()["ss_network_module"] == "networks.lora"
    early, late = (load_file(folder / f"toad-step0000000{step}-words.safetensors")["emb_params"] for step in (4, 6))
    assert not torch.equal(early, late)


def test_goes_on_from_files(workshop, unbroken):
    folder = workshop.output("unbroken")
    sources = {"network_weights": str(folder / "toad.safetensors"), "weights": str(folder / "toad-words.safetensors")}
    more = {"init_word": None, "max_train_steps": 1, "learning_rate": 1e-9, "token_lr": 1e-9, "save_state": False, "ema": None}
    outcome = workshop.train("again", **sources, **more)
    assert outcome.code == 0, outcome.output
    for file in ("toad.safetensors", "toad-words.safetensors"):
        found, given = load_file(workshop.output("again") / file), load_file(folder / file)
        for name, tensor in given.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"token_string": None}, "this has no effect without token_string"),
        ({"token_lr": 0.0}, "token_lr: at 0 the word is not learned"),
        ({"cache_text_encoder_outputs": True, "network_train_unet_only": True}, "token_string: this cannot be combined with cache_text"),
        ({"caption_prefix": None}, "no caption holds the word zorb"),
        ({"weights": "nowhere.pt"}, "nowhere.pt: no such file"),
        ({"prior_prediction": True, "class_prompt": "a zorb"}, "class_prompt: it holds the new word zorb"),
    ],
)
def test_mistakes(workshop, options, expected):
    outcome = workshop.train("mistaken", **options)
    assert outcome.code == 2
    assert expected in outcome.output
    assert "Traceback" not in outcome.output


def test_captions_with_the_word_cannot_be_kept(tmp_path):
    workshop = make_workshop(tmp_path, **WORD)
    subset = {"image_dir": str(tmp_path / "data" / "1_toad"), "custom_attributes": {"diff_output_preservation": True}}
    (tmp_path / "data.json").write_text(json.dumps({"datasets": [{"resolution": 64, "subsets": [subset]}]}), encoding="utf-8")
    files = {"train_data_dir": None, "dataset_config": str(tmp_path / "data.json"), "use_object_template": True}
    outcome = workshop.train("mistaken", **files)
    assert outcome.code == 2
    assert "diff_output_preservation, but the caption of" in outcome.output
    (tmp_path / "data" / "1_toad" / "0.txt").write_text("a zorb", encoding="utf-8")
    outcome = workshop.train("mistaken", **files | {"use_object_template": None})
    assert f"the caption of {tmp_path / 'data' / '1_toad' / '0.png'} holds the new word zorb" in outcome.output


def test_both_text_encoders_of_sdxl_learn_the_word_beside_a_network_and_its_class_is_kept(tmp_path):
    workshop = make_workshop(
        tmp_path, **WORD, use_object_template=True, prior_prediction=True, class_prompt="toad", train_batch_size=2, max_train_steps=2,
        pretrained_model_name_or_path=str(tiny_sdxl_folder(tmp_path / "sdxl")), save_every_n_steps=1, network_train_unet_only=True,
        gradient_checkpointing=True, mixed_precision="bf16",
    )  # fmt: skip
    outcome = workshop.train("sdxl")
    assert outcome.code == 0, outcome.output
    folder = workshop.output("sdxl")
    early, late = (load_file(folder / name) for name in ("toad-step00000001-words.safetensors", "toad-words.safetensors"))
    assert late.keys() == {"clip_l", "clip_g"}
    assert all(not torch.equal(early[name], late[name]) for name in late)
    ups = {name: tensor for name, tensor in load_file(folder / "toad.safetensors").items() if "lora_up" in name}
    assert all(name.startswith("lora_unet_") for name in ups)
    assert any(tensor.any() for tensor in ups.values())
