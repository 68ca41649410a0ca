"""The one seam between the loop and what the model is: what a family of models can do."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from library.data.text_layout import TextLayout
from library.families.source import NOT_TRAINED, Layout, Trained
from library.types import Batch, Conditioning, Parts, Posterior, TextSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from library.config.options.model import ModelOptions

Objective = Literal["epsilon", "v"]


class Family(Protocol):
    """A family bound to one checkpoint, whose header has been read and whose weights have not."""

    @property
    def name(self) -> str:
        """A short name: `sd_v1`, `sd_v2`, `sdxl`."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of this checkpoint with these options, though it is no mistake."""

    @property
    def objective(self) -> Objective:
        """What the model predicts: the noise, or v."""

    @property
    def latent_scale(self) -> float:
        """Factor between the VAE's latents and those that the model sees."""

    @property
    def channels(self) -> int:
        """Channels of a latent."""

    @property
    def vae_scale(self) -> int:
        """Pixels of a picture, along one side, per pixel of its latent."""

    @property
    def latent_cache_suffix(self) -> str:
        """How the names of cached latents end: VAEs differ, and files that lie side by side must not be taken for one another."""

    @property
    def bucket_step(self) -> int:
        """The usual step between bucket sizes, in pixels."""

    @property
    def default_resolution(self) -> int:
        """The side, in pixels, of the square pictures that the model was made for."""

    @property
    def base_model_version(self) -> str:
        """The value of ss_base_model_version."""

    @property
    def modelspec_architecture(self) -> str:
        """The value of modelspec.architecture, without suffixes."""

    @property
    def adapter_prefixes(self) -> tuple[str, ...]:
        """First part of adapter keys: for the UNet, then for each text encoder."""

    def parameter_counts(self) -> dict[str, int]:
        """Parameters of each part, from the headers."""

    @property
    def source_layout(self) -> Layout:
        """The form that the checkpoint has."""

    def load(self, options: ModelOptions, dtype: torch.dtype, device: torch.device | str) -> Parts:
        """Read the weights: every module in eval mode and frozen, on `device`, in `dtype` (the VAE in fp32 with no_half_vae)."""

    def encode_text(self, parts: Parts, captions: list[str], settings: TextSettings) -> Conditioning:
        """Captions -> conditioning. Gradients flow unless the caller forbids them."""

    def text_layout(self, parts: Parts) -> TextLayout:
        """How encoded captions lie in cache files."""

    def encode_images(self, parts: Parts, images: Tensor) -> Posterior:
        """[B, 3, H, W] in [-1, 1] -> what the VAE says, unscaled, in fp32."""

    def decode_latents(self, parts: Parts, latents: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] -> images [B, 3, H, W], about -1..1, in fp32."""

    def predict(
        self, parts: Parts, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning, batch: Batch | None
    ) -> Tensor:
        """What the model says of scaled, noised latents [B, C, h, w] at timesteps [B]: noise or v, by `objective`."""

    def save(
        self,
        parts: Parts,
        path: Path,
        layout: Layout,
        dtype: torch.dtype | None,
        metadata: Mapping[str, str],
        trained: Trained = NOT_TRAINED,
    ) -> None:
        """Write the whole model to `path`: a file, or a folder that is there and empty or is not there.

        Tensors of the checkpoint's file that are no part of the model go into a single file as they are. `dtype`: of the model's
        tensors; None leaves each in its own. `metadata`: of a .safetensors file. Parts that were not trained, which memory may
        hold in fewer bits, are written as the checkpoint has them. Where `path` must appear whole or not at all, give the path of
        a temporary file or folder.
        """
