"""A VAE that overflows in half precision is widened, its pictures encoded again and named; what no precision mends is told."""
from __future__ import annotations

from functools import partial

import pytest
import torch

from library.families.autoencoder import decode_latents, encode_images
from library.families.encoding import PictureEncoder, not_finite
from tests.tiny_models import tiny_sd1_parts

PATHS = ["dark.png", "light.png"]


@pytest.fixture
def pictures() -> torch.Tensor:
    """One that is all but 0, and one of full contrast."""
    light = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    return torch.cat([light * 1e-3, light])


@pytest.fixture
def told() -> list[tuple[list[str], str]]:
    return []


def encoder_of(vae, told):
    return PictureEncoder(vae, partial(encode_images, vae), lambda paths, precision: told.append((paths, precision)))


def loud_vae(dtype: torch.dtype):
    """Its weights are finite in float16; what the first layer makes of a light picture is not."""
    vae = tiny_sd1_parts().vae
    with torch.no_grad():
        vae.encoder.conv_in.weight.mul_(3e5)
    return vae.to(dtype)


def test_a_picture_that_overflows_widens_the_vae_once(pictures, told):
    vae = loud_vae(torch.float16)
    assert not_finite(encode_images(vae, pictures), PATHS) == ["light.png"]
    encode = encoder_of(vae, told)
    posterior = encode(pictures, PATHS)
    assert told == [(["light.png"], "float16")]
    assert {tensor.dtype for tensor in vae.parameters()} == {torch.float32}
    assert not_finite(posterior, PATHS) == []
    expected = encode_images(loud_vae(torch.float16).float(), pictures)
    assert torch.equal(posterior.mean, expected.mean) and torch.equal(posterior.std, expected.std)
    assert posterior.mean[1].abs().max() > 0.01
    encode(pictures, PATHS)
    assert len(told) == 1


def test_a_vae_that_does_not_overflow_keeps_its_precision(pictures, told):
    vae = tiny_sd1_parts().vae.to(torch.float16)
    expected = encode_images(vae, pictures)
    assert torch.equal(encoder_of(vae, told)(pictures, PATHS).mean, expected.mean)
    assert told == [] and next(vae.parameters()).dtype == torch.float16


def test_what_float32_cannot_encode_stays_no_number(pictures, told):
    vae = tiny_sd1_parts().vae
    posterior = encoder_of(vae, told)(pictures * torch.tensor([1.0, float("inf")]).view(2, 1, 1, 1), PATHS)
    assert not_finite(posterior, PATHS) == ["light.png"]
    assert told == []


def test_latents_that_overflow_are_decoded_in_float32_and_the_vae_stays_as_it_was():
    vae = tiny_sd1_parts().vae
    with torch.no_grad():
        vae.decoder.conv_in.weight.mul_(3e5)
    vae = vae.to(torch.float16)
    weights = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    latents = torch.linspace(-1, 1, 4 * 8 * 8).view(1, 4, 8, 8)
    assert not vae.decode(latents.half()).sample.isfinite().all()
    images = decode_latents(vae, latents)
    assert images.isfinite().all()
    assert all(tensor.dtype == torch.float16 and torch.equal(tensor, weights[name]) for name, tensor in vae.state_dict().items())
    assert torch.equal(images, decode_latents(vae.float(), latents))
