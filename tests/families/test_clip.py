"""Text states against a straightforward reference on transformers, token by token and window by window."""
from __future__ import annotations

import pytest
import torch

from library.families.caption_weights import weighted_fragments
from library.families.clip import cut_windows, encode_captions, read_captions
from library.families.tokenizers import load_tokenizer
from library.types import TextSettings
from tests.tiny_models import tiny_sd1_parts

BOS, EOS = 49406, 49407
LONG = ", ".join(f"tag number {number} of a frog" for number in range(60))
MIDDLE = " ".join(["frog"] * 100)
CAPTIONS = ["", "a photo of sls frog", "(green:1.4) frog, [dull] (((pond", MIDDLE, LONG]


@pytest.fixture(scope="module")
def parts():
    return tiny_sd1_parts()


def reference(parts, caption, clip_skip, length, weighted):
    """[n + 2, d] of one caption, in plain loops."""
    model, tokenizer = parts.text_encoders[0].text_model, parts.tokenizers[0]
    fragments = weighted_fragments(caption) if weighted else [(caption, 1.0)]
    content, weights = [], []
    for text, weight in fragments:
        ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        content += ids
        weights += [weight] * len(ids)
    content, weights = content[:length], weights[:length]
    content += [EOS] * (length - len(content))
    weights += [1.0] * (length - len(weights))
    states = []
    for start in range(0, length, 75):
        output = model(torch.tensor([[BOS, *content[start : start + 75], EOS]]), output_hidden_states=True)
        layers = len(model.encoder.layers)
        chosen = output.hidden_states[layers - ((clip_skip or 1) - 1)]
        states.append(model.final_layer_norm(chosen)[0])
    joined = [states[0][:1], *(window[1:76] for window in states), states[-1][76:]]
    return torch.cat(joined) * torch.tensor([1.0, *weights, 1.0])[:, None]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("length", [None, 150, 225])
@pytest.mark.parametrize("clip_skip", [None, 1, 2])
def test_states_equal_the_reference(parts, clip_skip, length, weighted):
    settings = TextSettings(clip_skip, length, weighted)
    states = encode_captions(parts.text_encoders[0], parts.tokenizers[0], CAPTIONS, settings)
    assert states.shape == (len(CAPTIONS), (length or 75) + 2, 32)
    for row, caption in zip(states, CAPTIONS, strict=True):
        torch.testing.assert_close(row, reference(parts, caption, clip_skip, length or 75, weighted), atol=1e-5, rtol=1e-5)


def test_clip_skip_length_and_weights_change_the_states(parts):
    def states(caption, *options):
        return encode_captions(parts.text_encoders[0], parts.tokenizers[0], [caption], TextSettings(*options))

    plain = states(LONG)
    assert not torch.allclose(plain, states(LONG, 2), atol=1e-2)
    assert torch.equal(plain, states(LONG, 1))
    assert not torch.equal(states(LONG, None, 150)[:, -3], states(LONG + " end", None, 225)[:, -3])
    assert not torch.allclose(states("(frog:1.4)", None, None, True), states("frog", None, None, True), atol=1e-2)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("words", "length"), [([0], 2), ([1, 5], 7), ([75, 3], 77), ([76], 78), ([10, 150], 152), ([225], 227)])
def test_without_padding_the_states_end_with_the_longest_caption(parts, words, length, weighted):
    captions = [" ".join(["frog"] * count) for count in words]
    settings = TextSettings(max_token_length=225, weighted=weighted, no_padding=True)
    states = encode_captions(parts.text_encoders[0], parts.tokenizers[0], captions, settings)
    assert states.shape == (len(words), length, 32)
    model = parts.text_encoders[0].text_model
    for row, count in zip(states, words, strict=True):
        ids = [BOS] + [11438] * count + [EOS] * (max(words) - count + 1)  # as a tokenizer pads to the longest
        content = ids[1:-1] or [EOS]
        windows = [torch.tensor([[BOS, *content[start : start + 75], EOS]]) for start in range(0, len(content), 75)]
        alone = [model(window).last_hidden_state[0] for window in windows]
        expected = torch.cat([alone[0][:1], *(window[1:-1] for window in alone), alone[-1][-1:]])
        torch.testing.assert_close(row, expected[:length], atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_layer(parts):
    encoder = parts.text_encoders[0]
    encoder.requires_grad_(True)
    try:
        encode_captions(encoder, parts.tokenizers[0], ["(a) frog", LONG], TextSettings(None, 150, True)).square().sum().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())
    finally:
        encoder.zero_grad(set_to_none=True)
        encoder.requires_grad_(False)


def test_modules_have_the_names_that_adapters_expect(parts):
    names = dict(parts.text_encoders[0].named_modules())
    assert "text_model.encoder.layers.0.self_attn.q_proj" in names
    assert "text_model.encoder.layers.1.mlp.fc2" in names


def test_the_vocabulary_that_ships():
    tokenizer = load_tokenizer()
    assert tokenizer("a photo of sls frog").input_ids == [49406, 320, 1125, 539, 33651, 11438, 49407]
    assert (len(tokenizer), tokenizer.pad_token_id, tokenizer.model_max_length) == (49408, 49407, 77)


def test_windows_of_sd1():
    tokenizer = load_tokenizer()
    windows = read_captions(tokenizer, ["frog", MIDDLE], TextSettings(max_token_length=150)).windows
    assert windows.shape == (2, 2, 77)
    assert windows[0, 1].tolist() == [BOS] + [EOS] * 76
    assert windows[1, 0].tolist() == [BOS] + [11438] * 75 + [EOS]
    assert windows[1, 1].tolist() == [BOS] + [11438] * 25 + [EOS] * 51


PAD = 0
WORD = 7


@pytest.mark.parametrize(
    ("words", "first", "second"),
    [
        (0, [EOS] + [PAD] * 75, [EOS] + [PAD] * 75),  # the second window has nothing but padding: it begins with EOS
        (74, [WORD] * 74 + [EOS, PAD], [EOS] + [PAD] * 75),
        (75, [WORD] * 75 + [EOS], [EOS] + [PAD] * 75),  # a full window ends with EOS, not with padding
        (76, [WORD] * 75 + [EOS], [WORD, EOS] + [PAD] * 74),
        (150, [WORD] * 75 + [EOS], [WORD] * 75 + [EOS]),
    ],
)
def test_windows_where_the_padding_is_not_eos(words, first, second):
    ids = [BOS] + [WORD] * words + [EOS] + [PAD] * (150 - words)
    windows = cut_windows(torch.tensor([ids]), EOS, PAD)
    assert windows[0].tolist() == [[BOS, *first], [BOS, *second]]
