"""Textual inversion: which tensors move, what the words mean to the encoder, and the files of all kinds."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from library.config.options import EmbeddingOptions
from library.data.captions import process_caption
from library.data.templates import OBJECTS, caption_replacements
from library.errors import UserError
from library.families.clip import encode_captions
from library.methods.embedding import EmbeddingMethod
from library.methods.embedding_file import check_weights, read_vectors
from library.methods.new_words import LAYERS, hand_out_layers
from library.seeding import python_random
from library.types import TextSettings
from tests.tiny_models import tiny_sd1_parts

CAPTIONS = ["a photo of zorb zorb1 on grass", "a cat"]


def options(**values) -> EmbeddingOptions:
    return EmbeddingOptions(**{"token_string": "zorb", "num_vectors_per_token": 2, "init_word": "frog"} | values)


def attached(parts, per_layer: bool = False, **values) -> EmbeddingMethod:
    method = EmbeddingMethod(options(**values), 1e-2, False, seed=1, per_layer=per_layer)
    method.attach(parts, "sd_v1")
    return method


def encoded(parts, captions=CAPTIONS) -> torch.Tensor:
    return encode_captions(parts.text_encoders[0], parts.tokenizers[0], captions, TextSettings())


@pytest.fixture
def parts():
    return tiny_sd1_parts()


def test_the_word_begins_as_its_init_word(parts):
    before = encoded(parts, ["a photo of frog frog on grass", "a cat"])
    attached(parts)
    assert torch.equal(encoded(parts), before)


def test_init_words_are_repeated_or_cut(parts, caplog):
    ids = parts.tokenizers[0]("frog cat").input_ids[1:-1]
    matrix = parts.text_encoders[0].text_model.embeddings.token_embedding.weight.clone()
    method = attached(parts, init_word="frog cat", num_vectors_per_token=3)
    assert torch.equal(method.modules()["words"][0][0], matrix[[ids[0], ids[1], ids[0]]])
    assert not caplog.messages


def test_init_words_that_do_not_fit_are_told(parts, caplog):
    ids = parts.tokenizers[0]("frog cat on").input_ids[1:-1]
    matrix = parts.text_encoders[0].text_model.embeddings.token_embedding.weight.clone()
    method = attached(parts, init_word="frog cat on", num_vectors_per_token=2)
    assert torch.equal(method.modules()["words"][0][0], matrix[ids[:2]])
    (message,) = caplog.messages
    assert message == 'init_word "frog cat on" is 3 tokens, of which the first 2 are used; num_vectors_per_token = 3 would begin with all'


def test_without_an_init_word_vectors_are_drawn_from_the_seed(parts):
    first = attached(parts, init_word=None).modules()["words"][0]
    again = attached(tiny_sd1_parts(), init_word=" ").modules()["words"][0]
    assert torch.equal(first, again)
    assert first.std() > 0


def test_only_the_words_learn(parts):
    method = attached(parts)
    frozen = {name: tensor.clone() for name, tensor in parts.text_encoders[0].state_dict().items() if "vectors" not in name}
    (group,) = method.parameter_groups()
    assert [tuple(parameter.shape) for parameter in group["params"]] == [(1, 2, 32)]  # and not the matrix of 49408 rows
    before = [parameter.detach().clone() for parameter in group["params"]]
    optimizer = torch.optim.AdamW(group["params"], lr=0.1)  # with weight decay
    encoded(parts).square().sum().backward()
    assert all(parameter.grad is None for parameter in parts.text_encoders[0].parameters() if parameter is not group["params"][0])
    optimizer.step()
    assert not torch.equal(group["params"][0], before[0])
    after = parts.text_encoders[0].state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in frozen.items())


def test_captions_without_the_word_are_not_touched(parts):
    before = encoded(parts, ["a cat"])
    method = attached(parts)
    with torch.no_grad():
        method.modules()["words"][0].add_(1)
    assert torch.equal(encoded(parts, ["a cat"]), before)


@pytest.mark.parametrize("word", ["cat", "Cat", "the"])
def test_a_word_that_exists_is_refused(parts, word):
    with pytest.raises(UserError, match="token_string: the model knows"):
        attached(parts, token_string=word, num_vectors_per_token=1)


def test_captions_get_all_words_and_templates():
    words = options(num_vectors_per_token=3)
    rng = python_random(1, "test")
    caption = {"caption_prefix": None}
    settings = _caption_settings(**caption)
    assert process_caption("my zorb, green", settings, rng, 1, 1, 1, caption_replacements(words)) == "my zorb zorb1 zorb2, green"
    templated = caption_replacements(options(use_object_template=True))
    texts = {process_caption("not used", settings, rng, 1, 1, 1, templated) for _ in range(200)}
    assert texts == {text.format("zorb zorb1") for text in OBJECTS}


def _caption_settings(**values):
    from library.config.datasets import CaptionSettings

    return CaptionSettings(**values)


# --- files ---


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_file_holds_the_vectors_and_is_read_back(parts, tmp_path, suffix):
    path = tmp_path / f"zorb.{suffix}"
    method = attached(parts, init_word=None)
    method.write(path, None, {"ss_steps": "1"})
    stored = load_file(path) if suffix == "safetensors" else torch.load(path, weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == {"emb_params": (2, 32)}
    again = attached(tiny_sd1_parts(), weights=str(path))
    assert torch.equal(again.modules()["words"][0], method.modules()["words"][0])


def test_the_web_uis_form_is_read(parts, tmp_path):
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "zorb"}, tmp_path / "zorb.pt")
    assert torch.equal(attached(parts, weights=str(tmp_path / "zorb.pt")).modules()["words"][0][0], vectors)


def test_a_single_vector_may_have_one_dimension(parts, tmp_path):
    torch.save({"emb_params": torch.ones(32)}, tmp_path / "zorb.pt")
    method = attached(parts, weights=str(tmp_path / "zorb.pt"), num_vectors_per_token=1)
    assert method.modules()["words"][0].shape == (1, 1, 32)


def test_a_file_with_another_number_of_vectors_is_refused(tmp_path):
    torch.save({"emb_params": torch.ones(3, 32)}, tmp_path / "zorb.pt")
    with pytest.raises(UserError, match="holds 3 vectors; write num_vectors_per_token = 3"):
        check_weights(options(weights=str(tmp_path / "zorb.pt")), False, 1)


def test_files_of_other_kinds_are_refused(parts, tmp_path):
    torch.save({"clip_l": torch.ones(2, 32), "clip_g": torch.ones(2, 48)}, tmp_path / "xl.pt")
    torch.save({"emb_params": torch.ones(2, 48)}, tmp_path / "wide.pt")
    torch.save({"emb_params": torch.ones(2, 2, 2, 2)}, tmp_path / "odd.pt")
    with pytest.raises(UserError, match="not for one text encoder"):
        check_weights(options(weights=str(tmp_path / "xl.pt")), False, 1)
    with pytest.raises(UserError, match="it is not for Stable Diffusion XL"):
        check_weights(options(weights=str(tmp_path / "wide.pt")), False, 2)
    with pytest.raises(UserError, match="not from train_textual_inversion_XTI"):
        check_weights(options(weights=str(tmp_path / "wide.pt")), True, 1)
    with pytest.raises(UserError, match="no vectors of words"):
        check_weights(options(weights=str(tmp_path / "odd.pt")), False, 1)
    with pytest.raises(UserError, match="hold 48 numbers, those of this model 32"):
        attached(parts, weights=str(tmp_path / "wide.pt"))


def test_one_encoder_of_two_may_be_missing(tmp_path):
    torch.save({"clip_g": torch.ones(2, 48)}, tmp_path / "xl.pt")
    chosen = options(weights=str(tmp_path / "xl.pt"))
    check_weights(chosen, False, 2)
    first, second = read_vectors(chosen, False, 2)
    assert first is None
    assert second is not None and second.shape == (1, 2, 48)


# --- a vector for each layer ---


def test_every_layer_sees_its_own_vectors():
    parts = tiny_sd1_parts(layers_per_block=2)
    method = attached(parts, per_layer=True)
    vectors = method.modules()["words"][0]
    assert vectors.shape == (16, 2, 32)
    with torch.no_grad():
        vectors.add_(torch.arange(16)[:, None, None])
    states = encoded(parts).unflatten(-1, (16, 32))  # [B, 77, layers, d]
    plain = tiny_sd1_parts(layers_per_block=2)
    for layer in (0, 7, 15):
        single = copy.deepcopy(plain)
        other = attached(single)
        with torch.no_grad():
            other.modules()["words"][0].copy_(vectors[layer][None])
        assert torch.equal(states[:, :, layer], encoded(single)), layer
    seen = []
    hand_out_seen(parts.unet, seen)
    noisy = torch.zeros(2, 4, 8, 8)
    with torch.no_grad():
        parts.unet(noisy, torch.tensor([1, 1]), encoder_hidden_states=encoded(parts))
    assert all(torch.equal(found, states[:, :, layer]) for layer, found in enumerate(seen))
    assert len(seen) == 16


def hand_out_seen(unet, seen: list) -> None:
    """Records what each cross-attention is given, in the order of the calls."""
    for name, module in unet.named_modules():
        if name.endswith(".attn2"):
            module.to_k.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0]))


def test_layers_are_saved_by_name_and_read_back(tmp_path):
    method = attached(tiny_sd1_parts(layers_per_block=2), per_layer=True, init_word=None)
    with torch.no_grad():
        method.modules()["words"][0].add_(torch.arange(16)[:, None, None])
    path = tmp_path / "zorb.safetensors"
    method.write(path, None, {})
    stored = load_file(path)
    assert set(stored) == set(LAYERS)
    assert torch.equal(stored["OUT11"], method.modules()["words"][0][15])
    chosen = options(weights=str(path))
    check_weights(chosen, True, 1)
    (read,) = read_vectors(chosen, True, 1)
    assert torch.equal(read, method.modules()["words"][0])


def test_a_model_with_other_layers_is_refused(parts):
    with pytest.raises(UserError, match="has 10 cross-attention layers"):
        hand_out_layers(parts.unet)


def test_the_file_is_what_diffusers_reads(parts, tmp_path):
    from diffusers import StableDiffusionPipeline

    path = Path(tmp_path / "zorb.safetensors")
    method = attached(parts, init_word=None)
    method.write(path, None, {})
    ours = encoded(parts)
    plain = tiny_sd1_parts()
    pipeline = StableDiffusionPipeline(
        vae=plain.vae, text_encoder=plain.text_encoders[0].text_model, tokenizer=plain.tokenizers[0], unet=plain.unet,
        scheduler=None, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.load_textual_inversion(str(path), token="zorb")
    prompts = [pipeline.maybe_convert_prompt(text, pipeline.tokenizer) for text in ("a photo of zorb on grass", "a cat")]
    ids = pipeline.tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        theirs = pipeline.text_encoder(ids).last_hidden_state
    assert torch.allclose(ours, theirs, atol=1e-6)
