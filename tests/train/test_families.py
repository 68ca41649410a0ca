"""LoRA on Stable Diffusion 2.x and XL through the script: trains and draws, whatever form the model has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors import safe_open

from library.config.options.model import ModelOptions
from library.families.detect import identify
from tests.tiny_models import tiny_sd2_folder, tiny_sdxl_folder
from tests.train.runs import Workshop, make_workshop, tensors_hash

OPTIONS = {
    "train_batch_size": 2,
    "max_train_steps": 4,
    "max_token_length": 150,
    "weighted_captions": True,
    "save_every_n_steps": 2,
    "save_state": True,
}


@dataclass(frozen=True)
class Trained:
    """A family's workshop, with a run that nothing disturbed."""

    workshop: Workshop
    base_model_version: str
    prefixes: set[str]

    def hash_of(self, name: str) -> str:
        return tensors_hash(self.workshop.output(name) / "toad.safetensors")


@pytest.fixture(scope="module", params=["sd2", "sdxl"])
def trained(request, tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sd2":
        model = tiny_sd2_folder(folder / "tiny", prediction_type="v_prediction")
        options = {"v2": True, "v_parameterization": True}
        expected = ("sd_v2_v", {"lora_unet", "lora_te"})
    else:
        model, options, expected = tiny_sdxl_folder(folder / "tiny"), {}, ("sdxl_base_v1-0", {"lora_unet", "lora_te1", "lora_te2"})
    prompts = folder / "prompts.txt"
    prompts.write_text("a toad --w 64 --h 72 --s 2 --d 1\n", encoding="utf-8")
    more = {"sample_prompts": str(prompts), "sample_every_n_steps": 4, "pretrained_model_name_or_path": str(model)}
    workshop = make_workshop(folder, **OPTIONS, **options, **more)
    outcome = workshop.train("unbroken")
    assert outcome.code == 0, outcome.output
    return Trained(workshop, *expected)


def test_all_parts_are_trained_and_the_file_says_of_what(trained):
    with safe_open(trained.workshop.output("unbroken") / "toad.safetensors", "pt") as file:
        metadata = file.metadata()
        ups = [name for name in file.keys() if name.endswith("lora_up.weight")]  # noqa: SIM118  not a dictionary
        moved = {name.partition("_text_model")[0] if "_text_model" in name else "lora_unet" for name in ups if file.get_tensor(name).any()}
    assert moved == trained.prefixes
    assert metadata["ss_base_model_version"] == trained.base_model_version
    assert metadata["ss_v2"] == str(trained.base_model_version.startswith("sd_v2"))
    assert metadata["modelspec.prediction_type"] == ("v" if trained.base_model_version.endswith("_v") else "epsilon")


def test_samples_are_drawn(trained):
    [event] = [event for event in trained.workshop.events("unbroken") if event["event"] == "sampled"]
    assert (event["step"], event["count"]) == (4, 1)


def test_the_same_model_as_a_single_file_trains_alike(trained):
    options = ModelOptions(
        pretrained_model_name_or_path=trained.workshop.options["pretrained_model_name_or_path"],
        v_parameterization=trained.workshop.options.get("v_parameterization", False),
    )
    family = identify(options)
    single = trained.workshop.folder / "single.safetensors"
    family.save(family.load(options, torch.float32, "cpu"), single, "safetensors", None, {})
    changes = {"pretrained_model_name_or_path": str(single), "save_state": False, "cache_latents_to_disk": True}
    outcome = trained.workshop.train("single", **changes)
    assert outcome.code == 0, outcome.output
    caches = {path.stem.rpartition("_")[2] for path in trained.workshop.folder.rglob("*.npz")}
    assert caches == {"sdxl" if "lora_te2" in trained.prefixes else "sd"}
    assert trained.hash_of("single") == trained.hash_of("unbroken")


def test_checkpointing_changes_no_number(trained):
    outcome = trained.workshop.train("checkpointed", gradient_checkpointing=True, sample_every_n_steps=None, save_state=False)
    assert outcome.code == 0, outcome.output
    assert trained.hash_of("checkpointed") == trained.hash_of("unbroken")


def test_sides_of_buckets(trained):
    """Multiples of 64 pixels, and of 32 for SDXL, whose U-Net halves latents once less."""
    buckets = {"enable_bucket": True, "bucket_reso_steps": 32, "min_bucket_reso": 32, "dry_run": True}
    outcome = trained.workshop.train("steps", **buckets)
    if "lora_te2" in trained.prefixes:
        assert outcome.code == 0, outcome.output
    else:
        assert outcome.code == 2
        assert "bucket_reso_steps: 32 is not divisible by 64, which sd_v2 needs; write 64, 128" in outcome.output


def test_captions_are_cached_in_files_of_the_family(trained):
    """With which a run trains as without: see the matrix."""
    cached = {"cache_text_encoder_outputs": True, "cache_text_encoder_outputs_to_disk": True, "network_train_unet_only": True}
    outcome = trained.workshop.train("cached", **cached, sample_every_n_steps=None, save_state=False, max_train_steps=1)
    assert outcome.code == 0, outcome.output
    is_sdxl = "lora_te2" in trained.prefixes
    files = list(trained.workshop.folder.rglob("*_te_outputs.npz" if is_sdxl else "*_sd_te.npz"))
    assert len(files) == 5
    assert np.load(files[0]).keys() >= ({"hidden_state1", "hidden_state2", "pool2"} if is_sdxl else {"hidden_state"})
