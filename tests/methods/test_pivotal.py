"""A network and a word learned together: what moves, what the base is, and that diffusers draws from both files what we do."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from library.config.options import EmbeddingOptions, NetworkOptions, OptimizerOptions
from library.methods.adapter import AdapterMethod
from library.methods.base import NotFiniteWeights
from library.methods.embedding import EmbeddingMethod
from library.methods.pivotal import PivotalMethod
from library.sampling.preview import PreviewOptions, draw_samples
from library.sampling.prompts import SamplePrompt
from library.sampling.schedulers import make_scheduler
from library.types import TextSettings
from tests.networks.test_lora_in_diffusers import MODELS, pipeline
from tests.tiny_models import tiny_sd1_parts

WORDS = EmbeddingOptions(token_string="sls", init_word="frog", num_vectors_per_token=2)


def attached(parts, name="sd_v1", checkpointing=False) -> PivotalMethod:
    network = AdapterMethod(NetworkOptions(network_module="networks.lora"), OptimizerOptions(learning_rate=1e-3), checkpointing, seed=1)
    method = PivotalMethod(network, EmbeddingMethod(WORDS, 1e-2, checkpointing, seed=1))
    method.attach(parts, name)
    return method


def randomise(method: PivotalMethod) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, module in method.modules().items():
            for parameter in module.parameters():
                parameter.normal_(0, 0.2 if name == "network" else 1.0, generator=generator)


@pytest.mark.parametrize("name", MODELS)
def test_diffusers_draws_the_picture_of_our_preview(name, tmp_path):
    make, family = MODELS[name]
    parts = make()
    method = attached(parts, family.name)
    randomise(method)
    method.eval()
    prompt = SamplePrompt("a photo of sls sls1 on a stone", "blurry", 64, 64, 7, 3, 5.0, "ddim")
    (ours,) = draw_samples(family, parts, [prompt], PreviewOptions(seed=1))
    method.write(tmp_path / "frog.safetensors", None, {"ss_network_module": "networks.lora"})
    method.write_words(tmp_path / "frog-words.safetensors", None, {})

    pipe = pipeline(make())
    pipe.scheduler = make_scheduler("ddim", 3, family.objective)
    pipe.set_progress_bar_config(disable=True)
    options = {
        "negative_prompt": "blurry", "width": 64, "height": 64, "num_inference_steps": 3, "guidance_scale": 5.0, "output_type": "np",
    }  # fmt: skip

    def draw() -> np.ndarray:
        return pipe("a photo of sls on a stone", generator=torch.Generator().manual_seed(7), **options).images[0] * 255

    pictures = [draw()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe.load_lora_weights(tmp_path, weight_name="frog.safetensors")
        pictures.append(draw())
        load_words(pipe, tmp_path / "frog-words.safetensors")
        pictures.append(draw())
    assert np.abs(np.asarray(ours).astype(int) - pictures[2]).max() <= 1
    assert all(np.abs(before - after).max() > 3 for before, after in zip(pictures, pictures[1:], strict=False))  # each file counts


def load_words(pipe, file) -> None:
    """As the documentation of diffusers says, for one encoder and for two."""
    if not hasattr(pipe, "text_encoder_2"):
        pipe.load_textual_inversion(str(file), token="sls")
        return
    vectors = load_file(file)
    pipe.load_textual_inversion(vectors["clip_l"], token="sls", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
    pipe.load_textual_inversion(vectors["clip_g"], token="sls", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)


@pytest.mark.parametrize("name", MODELS)
def test_the_network_and_the_words_learn_and_nothing_else(name):
    make, family = MODELS[name]
    parts = make()
    method = attached(parts, family.name, checkpointing=True)
    method.train()
    groups = method.parameter_groups()
    assert [group["name"] for group in groups] == ["textencoder", "unet", "words"]
    assert [group["lr"] for group in groups] == [1e-3, 1e-3, 1e-2]
    modules = {"unet": parts.unet, **{f"text{number}": encoder for number, encoder in enumerate(parts.text_encoders)}}
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    frozen = {(part, key): tensor for part, module in modules.items() for key, tensor in module.named_parameters() if id(tensor) not in trained}
    before = {key: tensor.clone() for key, tensor in frozen.items()}
    words = [vectors.detach().clone() for vectors in method.modules()["words"].parameters()]
    optimizer = torch.optim.AdamW(groups)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(2):  # the second half of a LoRA moves the first half's gradient away from 0
        conditioning = family.encode_text(parts, ["a photo of sls sls1"], TextSettings())
        family.predict(parts, latents, torch.tensor([300]), conditioning, None).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(tensor, before[key]) for key, tensor in frozen.items())
    assert not any(torch.equal(vectors, old) for vectors, old in zip(method.modules()["words"].parameters(), words, strict=True))
    ups = {key: tensor.any() for key, tensor in method.modules()["network"].state_dict().items() if "lora_up" in key}
    assert sum(map(bool, ups.values())) > 0.8 * len(ups)


def test_without_the_network_captions_without_the_word_are_as_before():
    plain, parts = tiny_sd1_parts(), tiny_sd1_parts()
    method = attached(parts)
    randomise(method)
    family = MODELS["sd1"][1]
    with torch.no_grad():
        expected = family.encode_text(plain, ["a frog"], TextSettings()).hidden_states
        with method.base():
            assert torch.equal(family.encode_text(parts, ["a frog"], TextSettings()).hidden_states, expected)
        assert not torch.equal(family.encode_text(parts, ["a frog"], TextSettings()).hidden_states, expected)


def test_what_is_measured_and_the_strength_of_a_dataset():
    method = attached(tiny_sd1_parts())
    method.train()
    place = SimpleNamespace(epoch=1)
    method.before_batch(SimpleNamespace(place=place, network_multiplier=0.5))
    assert {lora.multiplier for lora in method.modules()["network"].loras} == {0.5}
    assert method.after_step()["norm/words"] > 0
    method.eval()
    assert {lora.multiplier for lora in method.modules()["network"].loras} == {1.0}


@pytest.mark.parametrize("spoilt", ["network", "words"])
def test_nothing_that_is_no_number_is_written(spoilt, tmp_path):
    method = attached(tiny_sd1_parts())
    assert not method.has_nan()
    with torch.no_grad():
        next(method.modules()[spoilt].parameters()).fill_(float("nan"))
    assert method.has_nan()
    write = method.write if spoilt == "network" else method.write_words
    with pytest.raises(NotFiniteWeights):
        write(tmp_path / "frog.safetensors", None, {})
    assert list(tmp_path.iterdir()) == []
