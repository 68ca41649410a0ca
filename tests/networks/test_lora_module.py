"""One adapter: its arithmetic, its dropouts, its number types."""
from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from networks.lora_module import LoRAModule, Target
from networks.lora_settings import Dropouts

NO_DROPOUTS = Dropouts()
LAYERS = {
    "linear": (lambda: nn.Linear(6, 10), (3, 5, 6)),
    "linear on vectors": (lambda: nn.Linear(6, 10), (3, 6)),
    "conv 1x1": (lambda: nn.Conv2d(6, 10, 1), (3, 6, 4, 4)),
    "conv 3x3": (lambda: nn.Conv2d(6, 10, 3, stride=2, padding=1), (3, 6, 8, 8)),
}


def adapted(kind: str, dropouts: Dropouts = NO_DROPOUTS, multiplier: float = 1.0, alpha: float = 2.0):
    """A layer with an adapter of rank 4 whose weights are random, its input, and its output without the adapter."""
    torch.manual_seed(3)
    make, shape = LAYERS[kind]
    layer, x = make(), torch.randn(shape)
    plain = layer(x)
    adapter = LoRAModule(Target("name", "path", layer), 4, alpha, dropouts, multiplier)
    nn.init.normal_(adapter.lora_up.weight)
    adapter.apply_to()
    return layer, adapter, x, plain


@pytest.mark.parametrize("kind", LAYERS)
def test_output_is_that_of_the_merged_weight(kind):
    layer, adapter, x, plain = adapted(kind, multiplier=0.7)
    output = layer(x)
    merged = LAYERS[kind][0]()
    merged.load_state_dict({"weight": layer.weight + 0.7 * adapter.weight_delta(), "bias": layer.bias})
    torch.testing.assert_close(output, merged(x), rtol=1e-4, atol=1e-5)
    assert (output - plain).abs().max() > 0.1


def test_delta_is_alpha_over_rank_times_up_times_down():
    _, adapter, _, _ = adapted("linear", alpha=2.0)
    torch.testing.assert_close(adapter.weight_delta(), 2.0 / 4 * adapter.lora_up.weight @ adapter.lora_down.weight)


@pytest.mark.parametrize("kind", LAYERS)
def test_norm_equals_that_of_the_whole_delta(kind):
    _, adapter, _, _ = adapted(kind)
    torch.testing.assert_close(adapter.weight_delta_norm(), adapter.weight_delta().norm())


def test_a_new_adapter_changes_nothing_and_has_kaiming_uniform_down():
    torch.manual_seed(0)
    layer = nn.Linear(600, 40)
    adapter = LoRAModule(Target("name", "path", layer), 64, 1.0, Dropouts(), 1.0)
    assert not adapter.lora_up.weight.any()
    down = adapter.lora_down.weight.detach()
    bound = 1 / math.sqrt(600)  # sqrt(6 / ((1 + a^2) fan_in)) with a = sqrt(5)
    assert down.abs().max() == pytest.approx(bound, rel=0.01)
    assert down.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_multiplier_zero_is_the_model_itself():
    layer, _, x, plain = adapted("linear", multiplier=0.0)
    assert torch.equal(layer(x), plain)


@pytest.mark.parametrize("dropouts", [Dropouts(neuron=0.5), Dropouts(rank=0.5), Dropouts(module=0.5)])
@pytest.mark.parametrize("kind", LAYERS)
def test_dropouts_are_at_work_in_training_mode_only(kind, dropouts):
    layer, adapter, x, plain = adapted(kind, dropouts)
    adapter.eval()
    quiet = layer(x)
    assert torch.equal(layer(x), quiet)
    adapter.train()
    assert any(not torch.equal(layer(x), quiet) for _ in range(8))


def test_module_dropout_leaves_the_layer_alone_that_often():
    layer, _, x, plain = adapted("linear", Dropouts(module=0.25))
    skipped = sum(torch.equal(layer(x), plain) for _ in range(2000))
    assert skipped / 2000 == pytest.approx(0.25, abs=0.03)


def test_rank_dropout_drops_ranks_of_a_sample_and_keeps_the_mean():
    """Every input of the layer is in the same few possible outputs: sums over the ranks kept, divided by 1 - p."""
    _, adapter, _, _ = adapted("linear", Dropouts(rank=0.5))
    x = torch.ones(400, 5, 6)
    with torch.no_grad():
        output = adapter(x)
        per_rank = adapter.lora_down(x[0, 0])[:, None] * adapter.lora_up.weight.T * adapter.scale / (1 - 0.5)  # [rank, out]
    kept = torch.linalg.lstsq(per_rank.T, output[:, 0].T).solution  # [rank, sample]
    torch.testing.assert_close(kept, kept.round(), rtol=0, atol=1e-3)
    torch.testing.assert_close(output, output[:, :1].expand_as(output))  # the same for all positions of a sample
    assert kept.mean() == pytest.approx(0.5, abs=0.05)
    assert len(kept.round().unique(dim=1).T) == 2**4


def test_rank_dropout_of_a_convolution_drops_channels():
    _, adapter, x, _ = adapted("conv 3x3", Dropouts(rank=0.5))
    torch.manual_seed(5)
    output = adapter(x)
    torch.manual_seed(5)
    mask = (torch.rand(len(x), 4, 1, 1) >= 0.5).float()
    torch.testing.assert_close(output, adapter.lora_up(adapter.lora_down(x) * mask) * 0.5 / (1 - 0.5))


def test_neuron_dropout_is_dropout_of_the_rank_activations():
    _, adapter, x, _ = adapted("linear", Dropouts(neuron=0.5))
    torch.manual_seed(5)
    output = adapter(x)
    torch.manual_seed(5)
    expected = adapter.lora_up(nn.functional.dropout(adapter.lora_down(x), 0.5)) * 0.5
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [True, False])
def test_a_half_precision_layer_keeps_its_type_and_the_adapter_its_own(dtype, autocast):
    layer, adapter, x, _ = adapted("linear")
    layer.to(dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        output = layer(x.to(dtype))
    assert output.dtype == dtype
    output.float().square().sum().backward()
    for parameter in adapter.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.abs().sum() > 0


def test_loading_another_alpha_changes_the_scale():
    _, adapter, _, _ = adapted("linear", alpha=2.0)
    adapter.load_state_dict(adapter.state_dict() | {"alpha": torch.tensor(1.0)})
    assert adapter.scale == 0.25
