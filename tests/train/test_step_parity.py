"""From pictures and captions to losses, number by number, against a plain reference on transformers and diffusers: each family."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from library.config.options import LossOptions, NetworkOptions, NoiseOptions, OptimizerOptions
from library.diffusion.draws import Draws
from library.diffusion.schedule import scaled_linear_schedule
from library.diffusion.training_loss import DiffusionTraining
from library.families.encoding import PictureEncoder
from library.families.sd import StableDiffusion
from library.families.sdxl import StableDiffusionXL
from library.methods.adapter import AdapterMethod
from library.train.batch_loss import BatchLoss
from library.types import Batch, BatchPlace, Parts, TextSettings
from tests.tiny_models import tiny_sd1_parts, tiny_sd2_parts, tiny_sdxl_parts

SEED, GAMMA = 7, 5.0
CAPTIONS = ["a photo of sls frog", "", "a green frog on a stone"]
SIZES = [[640, 480, 0, 16, 64, 96], [333, 222, 5, 0, 64, 96], [64, 96, 0, 0, 64, 96]]  # of the picture, the crop, the target
MODELS = {
    "sd1": (tiny_sd1_parts, StableDiffusion()),
    "sd2": (tiny_sd2_parts, StableDiffusion(name="sd_v2")),
    "sd2-v": (tiny_sd2_parts, StableDiffusion(name="sd_v2", objective="v")),
    "sdxl": (tiny_sdxl_parts, StableDiffusionXL()),
}
LATENT_SCALES = {"sd1": 0.18215, "sd2": 0.18215, "sd2-v": 0.18215, "sdxl": 0.13025}


@dataclass
class Numbers:
    """What a training step works with, each for the whole batch."""

    timesteps: Tensor
    states: Tensor
    time: Tensor  # what the U-Net's embedding of the timestep starts from
    added: Tensor | None  # what the embedding of the pooled text and the sizes starts from
    noisy: Tensor
    prediction: Tensor
    target: Tensor
    losses: Tensor


def make_batch() -> Batch:
    generator = torch.Generator().manual_seed(3)
    sizes = torch.tensor(SIZES)
    images = torch.randint(256, (3, 3, 64, 96), dtype=torch.uint8, generator=generator)
    place = BatchPlace(1, 4, 1, (), 6, ends_step=True, ends_epoch=False, share=1.0)
    return Batch(
        place, CAPTIONS, ["1.png", "2.png", "3.png"], torch.tensor([1.0, 0.5, 1.0]), images, None, None, sizes[:, :2], sizes[:, 2:4],
        sizes[:, 4:], [False] * 3, custom_attributes=[{}] * 3,
    )  # fmt: skip


# --- ours ---


@dataclass(frozen=True)
class Watched(DiffusionTraining):
    """Keeps what the loss is made of."""

    seen: list = field(default_factory=list)

    def loss(self, prediction, corrupted, loss_weights, masks=None):
        self.seen.extend([prediction, corrupted])
        return super().loss(prediction, corrupted, loss_weights, masks)


def inputs_of(module: nn.Module) -> list:
    """Will hold the arguments of each call, with a dictionary of those given by name as the last."""
    seen: list = []
    module.register_forward_pre_hook(lambda _, given, named: seen.append((*given, named)), with_kwargs=True)
    return seen


def ours(name: str) -> Numbers:
    make, family = MODELS[name]
    parts = make()
    method = AdapterMethod(NetworkOptions(network_module="networks.lora"), OptimizerOptions(), False, seed=1)
    method.attach(parts, family.name)
    runtime = SimpleNamespace(device=torch.device("cpu"), frozen_dtype=torch.float32, autocast=torch.enable_grad, wanted_by_any=bool)
    diffusion = Watched(scaled_linear_schedule(False), family.objective, NoiseOptions(), LossOptions(min_snr_gamma=GAMMA))
    encode = PictureEncoder(parts.vae, lambda pictures: family.encode_images(parts, pictures), lambda paths, dtype: None)
    loss = BatchLoss(family, parts, diffusion, runtime, encode, TextSettings(), SEED, method, lambda *_: None)
    unet, time, added = map(inputs_of, (parts.unet, parts.unet.time_embedding, getattr(parts.unet, "add_embedding", nn.Identity())))
    losses = loss(make_batch())
    prediction, corrupted = diffusion.seen
    noisy, timesteps, named = unet[0]
    return Numbers(
        timesteps, named["encoder_hidden_states"], time[0][0], added[0][0] if added else None, noisy, prediction, corrupted.target, losses
    )  # fmt: skip


# --- the reference ---


def text_of(parts: Parts, name: str) -> tuple[Tensor, Tensor | None]:
    """States [B, 77, d], and for SDXL the pooled vector."""
    outputs = []
    for encoder, tokenizer in zip(parts.text_encoders, parts.tokenizers, strict=True):
        ids = tokenizer(CAPTIONS, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        outputs.append((encoder.text_model(ids, output_hidden_states=True), ids))
    if name != "sdxl":
        return outputs[0][0].last_hidden_state, None
    ends = [outputs[1][0].last_hidden_state[row, ids.tolist().index(49407)] for row, ids in enumerate(outputs[1][1])]
    pooled = torch.stack([parts.text_encoders[1].text_projection.weight @ end for end in ends])
    return torch.cat([output.hidden_states[-2] for output, _ in outputs], dim=-1), pooled


def sinusoid(number: float, width: int) -> list[float]:
    """Cosines, then sines, of the number times frequencies from 1 down to about 1/10000."""
    angles = [number * math.exp(-math.log(10000) * index / (width // 2)) for index in range(width // 2)]
    return [*map(math.cos, angles), *map(math.sin, angles)]


def reference(name: str) -> Numbers:
    make, family = MODELS[name]
    parts, batch = make(), make_batch()
    draws = Draws(SEED, batch.place, 3)  # only where numbers are drawn
    timesteps, noise = draws.integers("timestep", 0, 1000), draws.normal("noise", (4, 8, 12))
    with torch.no_grad():
        posterior = parts.vae.encode(batch.images / 255 * 2 - 1).latent_dist
        states, pooled = text_of(parts, name)
    latents = (posterior.mean + posterior.std * draws.normal("latents", (4, 8, 12))) * LATENT_SCALES[name]
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, num_train_timesteps=1000)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    target = noise if family.objective == "epsilon" else scheduler.get_velocity(latents, noise, timesteps)
    given = {} if pooled is None else {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": torch.tensor(SIZES)}}
    prediction = parts.unet(noisy, timesteps, states, **given).sample
    losses = []
    for row, timestep in enumerate(timesteps.tolist()):
        alpha_bar = scheduler.alphas_cumprod[timestep]
        snr = alpha_bar / (1 - alpha_bar)
        weight = snr.clamp(max=GAMMA) / (snr if family.objective == "epsilon" else snr + 1)
        losses.append(((prediction[row] - target[row]) ** 2).mean() * weight * batch.loss_weights[row])
    width = parts.unet.config.block_out_channels[0]
    time = torch.tensor([sinusoid(timestep, width) for timestep in timesteps.tolist()])
    added = None
    if pooled is not None:
        sizes = torch.tensor([[value for number in row for value in sinusoid(number, 256)] for row in SIZES])
        added = torch.cat([pooled, sizes], dim=1)
    return Numbers(timesteps, states, time, added, noisy, prediction, target, torch.stack(losses))


@pytest.mark.parametrize("name", MODELS)
def test_every_number_of_a_step(name):
    found, expected = ours(name), reference(name)
    assert (expected.added is None) == (name != "sdxl")
    for what, theirs in vars(expected).items():
        mine = getattr(found, what)
        if theirs is None:
            assert mine is None, what
            continue
        tolerance = 1e-4 if what in ("time", "added") else 1e-5  # sines of up to 1000, of which float32 knows 4 digits
        torch.testing.assert_close(mine.detach(), theirs.detach(), atol=tolerance, rtol=1e-5, msg=lambda text, what=what: f"{what}: {text}")
