"""What --network_args may say, and what is said about the rest."""
from __future__ import annotations

import math

import pytest

from library.errors import UserError
from networks.lora_blocks import SD_LAYOUT, SDXL_LAYOUT
from networks.lora_settings import read_settings

TWENTY_FIVE_ONES = ",".join(["1"] * 25)


def settings(network_dim=4, network_alpha=1.0, neuron_dropout=None, **arguments):
    return read_settings(network_dim, network_alpha, neuron_dropout, arguments, SD_LAYOUT)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"conv_dmi": "4"}, ["conv_dmi", 'did you mean "conv_dim"']),
        ({"attn_only": "yes"}, ["attn_only=yes", "true or false"]),
        ({"attn_only": "true", "conv_dim": "4"}, ["conv_dim", "attn_only"]),
        ({"colour": "red"}, ["colour", "loraplus_lr_ratio"]),
        ({"conv_dim": "four"}, ["conv_dim=four", "whole number"]),
        ({"conv_dim": "0"}, ["conv_dim=0", "from 1 on"]),
        ({"conv_alpha": "1"}, ["conv_alpha", "without conv_dim"]),
        ({"conv_dim": "4", "conv_alpha": "nan"}, ["conv_alpha=nan"]),
        ({"rank_dropout": "1"}, ["rank_dropout=1", "below 1"]),
        ({"module_dropout": "-0.1"}, ["module_dropout=-0.1"]),
        ({"block_dims": "4,4"}, ["block_dims", "25 values", "holds 2"]),
        ({"block_dims": TWENTY_FIVE_ONES.replace("1", "x", 1)}, ["block_dims", "'x'"]),
        ({"block_alphas": TWENTY_FIVE_ONES}, ["block_alphas", "block_dims"]),
        ({"conv_block_dims": TWENTY_FIVE_ONES}, ["conv_block_dims", "block_dims"]),
        ({"block_dims": TWENTY_FIVE_ONES, "conv_block_alphas": TWENTY_FIVE_ONES}, ["conv_block_alphas", "conv_dim"]),
        ({"down_lr_weight": "0.5"}, ["down_lr_weight=0.5", '"0.5,1"']),
        ({"up_lr_weight": "cosinus"}, ["up_lr_weight=cosinus", "cosine"]),
        ({"up_lr_weight": "cosine+x"}, ["up_lr_weight=cosine+x", "'x'"]),
        ({"mid_lr_weight": "-1"}, ["mid_lr_weight=-1", "from 0 on"]),
        ({"block_lr_zero_threshold": "0.1"}, ["block_lr_zero_threshold", "down_lr_weight"]),
        ({"loraplus_lr_ratio": "0"}, ["loraplus_lr_ratio=0", "above 0"]),
        ({"network_dim": 0}, ["network_dim = 0"]),
        ({"neuron_dropout": 1.0}, ["network_dropout = 1.0"]),
        ({"neuron_dropout": 0.1, "dropout": "0.2"}, ["dropout=0.2", "network_dropout = 0.1"]),
    ],
)
def test_mistakes_name_the_key(arguments, words):
    with pytest.raises(UserError) as caught:
        settings(**arguments)
    assert len(caught.value.messages) == 1
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_all_mistakes_at_once():
    with pytest.raises(UserError) as caught:
        settings(conv_dim="x", rank_dropout="2", rank_drop="1")
    assert len(caught.value.messages) == 3


def test_the_trainers_dropout_says_the_same_as_network_dropout():
    assert settings(neuron_dropout=0.1, dropout=0.1).dropouts.neuron == 0.1
    assert settings(dropout="0.2").dropouts.neuron == 0.2
    assert settings(dropout=None).dropouts.neuron == 0.0


def test_lora_plus_ratios():
    both = settings(loraplus_lr_ratio="16", loraplus_unet_lr_ratio="4")
    assert (both.unet_lr_ratio, both.text_encoder_lr_ratio) == (4.0, 16.0)
    assert settings().unet_lr_ratio is None


@pytest.mark.parametrize(
    ("preset", "formula"),
    [
        ("sine", lambda block: math.sin(math.pi / 2 * block / 11)),
        ("cosine", lambda block: math.sin(math.pi / 2 * (11 - block) / 11)),
        ("linear", lambda block: block / 11),
        ("reverse_linear", lambda block: (11 - block) / 11),
        ("zeros+0.25", lambda block: 0.25),
        ("linear+.5", lambda block: block / 11 + 0.5),
    ],
)
@pytest.mark.parametrize(("key", "first"), [("down_lr_weight", 0), ("up_lr_weight", 13)])
def test_presets(preset, formula, key, first):
    weights = settings(**{key: preset}).blocks.lr_weights
    assert len(weights) == 25
    assert weights[first : first + 12] == pytest.approx([formula(block) for block in range(12)])
    assert [weight for block, weight in enumerate(weights) if not first <= block < first + 12] == [1.0] * 13


def test_lists_are_padded_with_one_and_an_empty_item_is_zero():
    assert settings(down_lr_weight="0.5,,2").blocks.lr_weights == (0.5, 0.0, 2.0, *[1.0] * 22)
    assert settings(mid_lr_weight="0.5").blocks.lr_weights[12] == 0.5
    assert settings(up_lr_weight="0.5,").blocks.lr_weights[13:15] == (0.5, 0.0)


def test_a_list_that_is_too_long_is_cut_with_a_warning(caplog):
    """It also works when only one of up and down is given."""
    assert settings(up_lr_weight=TWENTY_FIVE_ONES.replace("1", "2")).blocks.lr_weights == (*[1.0] * 13, *[2.0] * 12)
    assert "up_lr_weight: 25 values for 12 blocks" in caplog.text


def test_weights_up_to_the_threshold_are_zero():
    blocks = settings(down_lr_weight="linear", block_lr_zero_threshold="0.1").blocks
    assert blocks.lr_weights[:3] == (0.0, 0.0, pytest.approx(2 / 11))
    assert blocks.without_untrained().ranks[:3] == (0, 0, 4)


def test_missing_block_lists_fall_back():
    dims = ",".join(str(number) for number in range(25))
    blocks = settings(block_dims=dims, conv_dim="2", conv_alpha="3").blocks
    assert (blocks.ranks, blocks.alphas) == (tuple(range(25)), (1.0,) * 25)
    assert (blocks.conv_ranks, blocks.conv_alphas) == ((2,) * 25, (3.0,) * 25)
    assert settings(block_dims=dims).blocks.conv_ranks is None
    assert settings(block_dims=dims, conv_block_dims=dims).blocks.conv_alphas == (1.0,) * 25


@pytest.mark.parametrize(
    ("path", "block"),
    [
        ("down_blocks.0.resnets.0.conv1", 1),
        ("down_blocks.0.attentions.1.proj_in", 2),
        ("down_blocks.0.downsamplers.0.conv", 3),
        ("down_blocks.3.resnets.1.conv2", 11),
        ("mid_block.attentions.0.proj_in", 12),
        ("up_blocks.0.resnets.0.conv1", 13),
        ("up_blocks.0.upsamplers.0.conv", 15),
        ("up_blocks.3.attentions.2.proj_out", 24),
    ],
)
def test_block_numbers(path, block):
    assert SD_LAYOUT.block_index(path) == block


def test_block_lists_of_sdxl():
    """23 blocks: the time embedding, 9 down, 3 in the middle, 9 up, the output."""
    dims = ",".join(str(number) for number in range(23))
    blocks = read_settings(4, 1.0, None, {"block_dims": dims, "mid_lr_weight": "0.5", "up_lr_weight": "zeros"}, SDXL_LAYOUT).blocks
    assert blocks.ranks == tuple(range(23))
    assert blocks.lr_weights == (*[1.0] * 10, 0.5, 1.0, 1.0, *[0.0] * 9, 1.0)
    with pytest.raises(UserError, match="23 values"):
        read_settings(4, 1.0, None, {"block_dims": TWENTY_FIVE_ONES}, SDXL_LAYOUT)


@pytest.mark.parametrize(
    ("path", "name", "block"),
    [
        ("down_blocks.0.resnets.0.conv1", "input_blocks.1.0.in_layers.2", 2),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op", 4),
        ("down_blocks.1.attentions.1.proj_in", "input_blocks.5.1.proj_in", 6),
        ("down_blocks.2.resnets.1.time_emb_proj", "input_blocks.8.0.emb_layers.1", 9),
        ("mid_block.resnets.0.conv2", "middle_block.0.out_layers.3", 10),
        ("mid_block.attentions.0.transformer_blocks.9.ff.net.2", "middle_block.1.transformer_blocks.9.ff.net.2", 11),
        ("mid_block.resnets.1.conv1", "middle_block.2.in_layers.2", 12),
        ("up_blocks.0.attentions.2.proj_out", "output_blocks.2.1.proj_out", 15),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv", 15),
        ("up_blocks.2.resnets.2.conv_shortcut", "output_blocks.8.0.skip_connection", 21),
    ],
)
def test_names_and_block_numbers_of_sdxl(path, name, block):
    assert (SDXL_LAYOUT.module_path(path), SDXL_LAYOUT.block_index(path)) == (name, block)


def test_a_layer_outside_of_all_blocks_has_no_name():
    with pytest.raises(ValueError, match="no block"):
        SDXL_LAYOUT.module_path("conv_in")
