"""The adapter method: the order of the plug-in contract, what is frozen, what is written."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from library.config.options import NetworkOptions, OptimizerOptions
from library.errors import UserError
from library.methods.adapter import AdapterMethod
from library.methods.base import NotFiniteWeights
from library.types import BatchPlace
from networks.lora_weights import read_weights
from tests.methods import plugin
from tests.tiny_models import tiny_sd1_parts

PLUGIN = "tests.methods.plugin"


def attached(parts=None, checkpointing=False, seed=1, rates=None, **network):
    method = AdapterMethod(
        NetworkOptions(**{"network_module": "networks.lora"} | network),
        OptimizerOptions(**{"learning_rate": 1e-3} | (rates or {})),
        checkpointing,
        seed,
    )
    method.attach(parts or tiny_sd1_parts(), "sd_v1")
    return method


def prediction(parts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 49406, (2, 77), generator=generator)
    latents = torch.randn(2, 4, 16, 16, generator=generator)  # large enough for attention between positions in the middle block
    return parts.unet(latents, torch.tensor([3, 700]), parts.text_encoders[0](ids)).sample


def randomise(method):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in method.network.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return method


def batch(epoch=1, step=1, network_multiplier=1.0):
    """As much of a batch as the method looks at."""
    return SimpleNamespace(place=BatchPlace(epoch, step, 0, (), 0, True, False, 1.0), network_multiplier=network_multiplier)


@pytest.fixture(autouse=True)
def fresh_calls():
    plugin.calls.clear()


def test_the_contract_in_its_order():
    method = attached(
        network_module=PLUGIN,
        network_dim=8,
        network_alpha=4.0,
        network_dropout=0.1,
        network_args=("kind=x",),
        network_weights="w.safetensors",
        network_train_unet_only=True,
        checkpointing=True,
        rates={"unet_lr": 2e-4, "text_encoder_lr": (3e-4,)},
    )
    assert plugin.calls == [
        ("create_network", 1.0, 8, 4.0, "TextEncoder", 0.1, {"kind": "x", "dropout": 0.1}),
        ("prepare_network", 8, 1e-3),
        ("apply_to", False, True),
        ("load_weights", "w.safetensors"),
        ("enable_gradient_checkpointing",),
        ("prepare_optimizer_params", 3e-4, 2e-4),
        ("prepare_grad_etc",),
    ]
    (group,) = method.parameter_groups()
    assert (group["lr"], group["name"], group["weight_decay"], len(group["params"])) == (1e-3, "group0", 0.5, 1)
    plugin.calls.clear()

    for epoch, step in ((3, 7), (3, 8), (4, 9)):
        method.before_batch(batch(epoch, step))
    epoch_start, step_start = ("on_epoch_start",), ("on_step_start",)
    assert plugin.calls[:5] == [epoch_start, step_start, step_start, epoch_start, step_start]
    assert method.after_step() == {"norm/avg_key_norm": 2.0}
    plugin.calls.clear()

    method.write("out.safetensors", torch.float16, {"ss_steps": "1"})
    assert plugin.calls == [("save_weights", "out.safetensors", torch.float16, {"ss_steps": "1"})]


def test_shapes_from_a_file_are_asked_for_in_the_plugins_own_signature():
    attached(network_module=PLUGIN, dim_from_weights=True, network_weights="w.pt", network_dropout=0.1)
    assert plugin.calls[0] == ("create_network_from_weights", 1, "w.pt", False)


def test_a_plugins_own_type_error_is_not_hidden():
    with pytest.raises(TypeError, match="a mistake inside the plug-in"):
        attached(network_module=PLUGIN, network_args=("kind=faulty",))


def test_the_multiplier_of_the_dataset_is_that_of_its_batches():
    method = attached()

    def strengths():
        return {lora.multiplier for lora in method.network.loras}

    for multiplier in (1.0, 0.5, -0.5):
        method.before_batch(batch(network_multiplier=multiplier))
        assert strengths() == {multiplier}
    method.eval()  # sample pictures show the network as it is
    assert strengths() == {1.0}
    method.train()
    method.before_batch(batch(network_multiplier=-0.5))
    assert strengths() == {-0.5}


def test_what_is_only_measured_has_its_multiplier_too():
    method = attached()
    method.eval()
    method.before_batch(batch(network_multiplier=0.5))
    assert {lora.multiplier for lora in method.network.loras} == {0.5}


def test_a_plugin_is_not_told_of_what_is_only_measured():
    """It may count epochs and steps."""
    method = attached(network_module=PLUGIN)
    method.before_batch(batch(epoch=3))
    plugin.calls.clear()
    method.eval()
    method.before_batch(batch(epoch=1))
    method.train()
    assert plugin.calls == []
    method.before_batch(batch(epoch=3))
    assert plugin.calls == [("on_step_start",)]


def test_a_plugin_without_multipliers_refuses_one():
    method = attached(network_module=PLUGIN)
    method.before_batch(batch())
    with pytest.raises(UserError, match="tests.methods.plugin has no set_multiplier, which network_multiplier"):
        method.before_batch(batch(network_multiplier=0.5))


def test_no_network_is_an_error():
    with pytest.raises(UserError, match="made no network"):
        attached(network_module=PLUGIN, network_args=("kind=none",))


def test_a_plugin_without_norms_makes_scale_weight_norms_a_warning(caplog):
    method = attached(network_module=PLUGIN, scale_weight_norms=1.0)
    assert "scale_weight_norms has no effect" in caplog.text
    assert method.after_step() == {"norm/avg_key_norm": 2.0}


def test_the_model_is_frozen_and_only_adapters_learn():
    parts = tiny_sd1_parts()
    for module in (parts.unet, parts.vae, *parts.text_encoders):
        module.train().requires_grad_(True)
    method = randomise(attached(parts))
    method.train()
    prediction(parts).square().mean().backward()
    own = {id(parameter) for parameter in method.network.parameters()}
    for module in (parts.unet, parts.vae, *parts.text_encoders):
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in module.parameters())
        assert not any(submodule.training for submodule in module.modules())
    trained = [parameter for group in method.parameter_groups() for parameter in group["params"]]
    assert {id(parameter) for parameter in trained} == own
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in trained)
    assert [group["name"] for group in method.parameter_groups()] == ["textencoder", "unet"]


@pytest.mark.parametrize(
    ("network", "rates", "trains_text", "names"),
    [
        ({}, {}, True, ["textencoder", "unet"]),
        ({"network_train_unet_only": True}, {}, False, ["unet"]),
        ({"network_train_text_encoder_only": True}, {}, True, ["textencoder"]),
        ({}, {"text_encoder_lr": (0.0,)}, False, ["unet"]),
        ({}, {"unet_lr": 0.0}, True, ["textencoder"]),
        ({}, {"learning_rate": 0.0, "text_encoder_lr": (1e-5,)}, True, ["textencoder"]),
    ],
)
def test_which_side_is_trained(network, rates, trains_text, names):
    method = attached(rates=rates, **network)
    assert method.trains_text_encoder is trains_text
    assert [group["name"] for group in method.parameter_groups()] == names


@pytest.mark.parametrize(
    ("rates", "words"),
    [({"learning_rate": 0.0}, "nothing to train"), ({"text_encoder_lr": (1e-4, 1e-5)}, "text_encoder_lr holds 2 values")],
)
def test_rates_that_cannot_be(rates, words):
    with pytest.raises(UserError, match=words):
        attached(rates=rates)


def test_first_weights_depend_on_the_seed_alone():
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    first = attached(seed=5).network.state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(12)
    again, other = attached(seed=5).network.state_dict(), attached(seed=6).network.state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def gradients(checkpointing, **network):
    parts = tiny_sd1_parts()
    method = randomise(attached(parts, checkpointing, **network))
    method.train()
    torch.manual_seed(4)
    prediction(parts).square().mean().backward()
    return parts, method, [torch.zeros(1) if p.grad is None else p.grad for p in method.network.parameters()]  # none: dropped


@pytest.mark.parametrize("network", [{}, {"network_dropout": 0.2, "network_args": ("rank_dropout=0.2", "module_dropout=0.2")}])
def test_checkpointing_changes_memory_not_gradients(network):
    _, _, plain = gradients(False, **network)
    parts, method, checkpointed = gradients(True, **network)
    for expected, found in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    in_training = [module for model in (parts.unet, *parts.text_encoders) for module in model.modules() if module.training]
    assert {type(module).__name__ for module in in_training} >= {"CLIPEncoderLayer", "CrossAttnDownBlock2D"}
    assert not any(list(module.children()) == [] for module in in_training)  # no layer, so no dropout, is among them
    method.eval()
    assert not any(module.training for model in (parts.unet, *parts.text_encoders) for module in model.modules())
    with torch.inference_mode():
        prediction(parts)


def test_checkpointed_layers_run_twice():
    parts = tiny_sd1_parts()
    method = attached(parts, checkpointing=True)
    runs = []
    text_layer, unet_layer = parts.text_encoders[0].text_model.encoder.layers[0].mlp, parts.unet.down_blocks[0].attentions[0]
    text_layer.register_forward_pre_hook(lambda *_: runs.append("text"))
    unet_layer.transformer_blocks[0].attn1.register_forward_pre_hook(lambda *_: runs.append("unet"))
    method.train()
    prediction(parts).square().mean().backward()
    assert sorted(runs) == ["text", "text", "unet", "unet"]


def test_dropouts_are_off_while_samples_are_drawn():
    parts = tiny_sd1_parts()
    method = randomise(attached(parts, network_dropout=0.5))
    method.train()
    with torch.no_grad():
        assert not torch.equal(prediction(parts), prediction(parts))
        method.eval()
        assert torch.equal(prediction(parts), prediction(parts))


def test_long_weights_are_scaled_after_a_step():
    method = randomise(attached(scale_weight_norms=0.5))
    measured = method.after_step()
    assert measured["max_norm/keys_scaled"] > 0
    assert measured["max_norm/max_key_norm"] == pytest.approx(0.5, rel=1e-4)
    assert 0 < measured["norm/avg_key_norm"] <= 0.5
    assert method.after_step()["max_norm/keys_scaled"] < measured["max_norm/keys_scaled"]


def test_base_weights_become_part_of_the_model(tmp_path):
    parts = tiny_sd1_parts()
    earlier = randomise(attached(parts, network_args=("conv_dim=2",)))
    earlier.write(tmp_path / "base.safetensors", None, {})
    with torch.no_grad():
        earlier.network.set_multiplier(0.5)
        expected = prediction(parts)

    fresh = tiny_sd1_parts()
    method = attached(fresh, base_weights=(str(tmp_path / "base.safetensors"),), base_weights_multiplier=(0.5,))
    with torch.no_grad():
        torch.testing.assert_close(prediction(fresh), expected, rtol=1e-4, atol=1e-4)
    assert method.network.state_dict().keys() == attached().network.state_dict().keys()


def test_training_goes_on_from_a_file(tmp_path):
    file = str(tmp_path / "lora.safetensors")
    parts = tiny_sd1_parts()
    randomise(attached(parts, network_dim=3, network_args=("conv_dim=2",))).write(file, None, {})
    again = tiny_sd1_parts()
    method = attached(again, network_weights=file, dim_from_weights=True, network_dropout=0.25)
    assert {adapter.dropouts.neuron for adapter in method.network.loras} == {0.25}
    with torch.no_grad():
        method.eval()
        torch.testing.assert_close(prediction(again), prediction(parts))


def test_nothing_that_is_not_finite_is_written(tmp_path):
    file = tmp_path / "lora.safetensors"
    method = randomise(attached())
    weight = method.network.loras[0].lora_up.weight
    with torch.no_grad():
        weight[0, 0] = 1e6
    assert not method.has_nan()
    with pytest.raises(NotFiniteWeights, match="as float16"):
        method.write(file, torch.float16, {})
    method.write(file, torch.float32, {})
    assert read_weights(file)
    file.unlink()
    with torch.no_grad():
        weight[0, 0] = float("nan")
    assert method.has_nan()
    with pytest.raises(NotFiniteWeights, match="lora_up"):
        method.write(file, None, {})
    assert not file.exists()


def test_modules_hold_what_a_resumed_run_needs():
    method = randomise(attached())
    other = attached(seed=9)
    (name,) = method.modules()
    other.modules()[name].load_state_dict(method.modules()[name].state_dict())
    own, theirs = method.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(own[key], theirs[key]) for key in own)
