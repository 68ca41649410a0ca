"""Loss and gradients of a small Stable Diffusion UNet equal those of a reference that shares no code with the project."""
from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from library.config.options import LossOptions, NoiseOptions
from library.diffusion.schedule import scaled_linear_schedule
from library.diffusion.training_loss import DiffusionTraining

TIMESTEPS = torch.tensor([3, 620, 999])
OBJECTIVES = ("epsilon", "v")
LOSSES = [{"loss_type": name} for name in ("l1", "l2")] + [
    {"loss_type": name, "huber_schedule": schedule, "huber_c": 0.2, "huber_scale": 0.7}
    for name, schedule in itertools.product(("huber", "smooth_l1"), ("constant", "exponential", "snr"))
]
WEIGHTINGS = {
    "epsilon": [
        {"min_snr_gamma": 5.0},
        {"v_pred_like_loss": 0.5},
        {"debiased_estimation_loss": True},
        {"min_snr_gamma": 1.0, "v_pred_like_loss": 0.25, "debiased_estimation_loss": True},
    ],
    "v": [
        {"min_snr_gamma": 5.0},
        {"scale_v_pred_loss_like_noise_pred": True},
        {"debiased_estimation_loss": True},
        {"min_snr_gamma": 1.0, "scale_v_pred_loss_like_noise_pred": True, "debiased_estimation_loss": True},
    ],
}
NOISES = [
    {"noise_offset": 0.1},
    {"noise_offset": 0.1, "noise_offset_random_strength": True},
    {"noise_offset": 0.05, "adaptive_noise_scale": -0.5},
    {"multires_noise_iterations": 6, "multires_noise_discount": 0.4},
    {"ip_noise_gamma": 0.1},
    {"ip_noise_gamma": 0.1, "ip_noise_gamma_random_strength": True},
    {"noise_offset": 0.2, "adaptive_noise_scale": 0.3, "multires_noise_iterations": 2, "ip_noise_gamma": 0.05},
]
REFERENCE_NAMES = {
    "multires_noise_discount": "multires_discount",
    "scale_v_pred_loss_like_noise_pred": "scale_v_pred",
    "v_pred_like_loss": "v_pred_like",
    "debiased_estimation_loss": "debiased",
}
CASES = [
    *[(o, zero, {}, loss) for o in OBJECTIVES for zero in (False, True) for loss in LOSSES],
    *[(o, zero, {}, weighting) for o in OBJECTIVES for zero in (False, True) for weighting in WEIGHTINGS[o]],
    *[(o, False, noise, {}) for o in OBJECTIVES for noise in NOISES],
]


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, attention_head_dim=2,
        cross_attention_dim=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(1)
    normal = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    return {
        "latents": normal(3, 4, 8, 8),
        "text": normal(3, 5, 8),
        "noise": normal(3, 4, 8, 8),
        "noise_offset": normal(3, 4, 1, 1),
        "ip_noise": normal(3, 4, 8, 8),
        "multires_0": normal(3, 4, 8, 8),
        "multires_1": normal(3, 4, 2, 2),  # 8 / 3.2
        "multires_2": normal(3, 4, 1, 1),  # 8 / 2.6^2: the first with a side of 1, so the last
        "masks": torch.rand((3, 64, 64), generator=generator),
        "loss_weights": torch.tensor([1.0, 0.5, 1.0]),
    }


SCALARS = [0.3, 0.6, 0.3, 0.9, 0.9, 0.9]  # of [0, 1): the first is a random strength, all are the radii 2 + 2 u


def model_of(unet, data):
    return lambda noisy, timesteps: unet(noisy, timesteps, data["text"]).sample


def gradients(unet, loss):
    unet.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in unet.parameters() if parameter.grad is not None])


def project_loss(unet, data, training, given, masks):
    corrupted = training.corrupt(data["latents"], given)
    prediction = model_of(unet, data)(corrupted.noisy_latents, corrupted.timesteps)
    loss, per_sample = training.loss(prediction, corrupted, data["loss_weights"], masks)
    assert torch.equal(per_sample.mean(), loss)
    return loss


def reference_loss(reference, unet, data, objective, zero_terminal, noise, loss, masks):
    strength = {"noise_offset", "ip_noise_gamma"}
    changes = {REFERENCE_NAMES.get(name, name): value for name, value in (noise | loss).items()}
    for name in strength & changes.keys():
        if changes.pop(f"{name}_random_strength", False):
            changes[name] *= SCALARS[0]
    octaves = min(changes.pop("multires_noise_iterations", 0), 3)
    given = {"noise": data["noise"], "offset_noise": data["noise_offset"], "ip_noise": data["ip_noise"]}
    if octaves:
        given["octaves"] = [data[f"multires_{i}"] for i in range(octaves)]
    return reference.training_loss(
        model_of(unet, data), data["latents"], TIMESTEPS, given, data["loss_weights"], masks,
        prediction=objective, zero_terminal_snr=zero_terminal, **changes,
    )  # fmt: skip


@pytest.fixture
def both(unet, data, given_draws):
    """Loss and gradients of the project and of a reference, for one set of options."""

    def run(reference, objective, zero_terminal, noise, loss, masked=False):
        masks = data["masks"] if masked else None
        training = DiffusionTraining(
            scaled_linear_schedule(zero_terminal), objective, NoiseOptions(**noise), LossOptions(**loss)
        )
        ours = project_loss(unet, data, training, given_draws(data, TIMESTEPS, SCALARS), masks)
        our_gradients = gradients(unet, ours)
        theirs = reference_loss(reference, unet, data, objective, zero_terminal, noise, loss, masks)
        return ours, theirs, our_gradients, gradients(unet, theirs)

    return run


def assert_equal(ours, theirs):
    """To 1e-5 of the largest value."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize(("objective", "zero_terminal", "noise", "loss"), CASES)
def test_loss_and_gradients(both, load_reference, objective, zero_terminal, noise, loss):
    ours, theirs, our_gradients, their_gradients = both(load_reference(), objective, zero_terminal, noise, loss)
    assert_equal(ours, theirs)
    assert_equal(our_gradients, their_gradients)
    assert our_gradients.abs().max() > 1e-4


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_masks(both, load_reference, objective):
    ours, theirs, our_gradients, their_gradients = both(load_reference(), objective, False, {}, {}, masked=True)
    assert_equal(ours, theirs)
    assert_equal(our_gradients, their_gradients)


@pytest.mark.parametrize(
    ("old", "new", "objective", "noise", "loss"),
    [
        ("math.sqrt(0.012)", "math.sqrt(0.0121)", "epsilon", {}, {}),
        ("spread * latents[b])", "0.99 * spread * latents[b])", "v", {}, {}),
        ('"smooth_l1": 2}', '"smooth_l1": 2.01}', "epsilon", {}, {"loss_type": "smooth_l1"}),
        ("/ (1 + sigma) ** 2", "/ (1 + sigma) ** 2.02", "v", {}, {"loss_type": "huber"}),
        ("(snr + 1)\n        else", "(snr + 1.01)\n        else", "v", {}, {"min_snr_gamma": 5.0}),
        ("(noise.numel() - 1)", "noise.numel()", "epsilon", {"multires_noise_iterations": 3}, {}),
    ],
)  # fmt: skip
def test_a_changed_constant_is_seen(both, load_reference, old, new, objective, noise, loss):
    ours, theirs, *_ = both(load_reference(old, new), objective, False, noise, loss)
    assert abs(ours - theirs) > 1e-5 * max(1.0, abs(theirs))


def test_the_reference_stands_alone():
    source = (Path(__file__).parent.parent / "reference" / "sd_loss.py").read_text(encoding="utf-8")
    imported = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]  # fmt: skip
    assert sorted(imported) == ["math", "torch", "torch.nn.functional"]
