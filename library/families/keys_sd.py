"""Names of the tensors of Stable Diffusion: the original ("LDM") checkpoints' and Diffusers', in both directions."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."

RESNET_PARTS = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
VAE_RESNET_PARTS = {"nin_shortcut": "conv_shortcut"} | {name: name for name in ("norm1", "conv1", "norm2", "conv2")}
VAE_ATTENTION_PARTS = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
OLD_VAE_ATTENTION_PARTS = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # Diffusers before 0.12


@dataclass(frozen=True)
class UNetLayout:
    """The tree of a UNet: resolutions, residual layers per resolution, and which resolutions attend to the text."""

    levels: int
    layers: int
    attention: tuple[bool, ...]  # by level, finest first


def _numbers(names: Iterable[str], prefix: str) -> set[int]:
    """The numbers that follow `prefix` in these names."""
    rests = (name[len(prefix) :].split(".", 1)[0] for name in names if name.startswith(prefix))
    return {int(rest) for rest in rests if rest.isdigit()}


def ldm_unet_layout(names: Iterable[str]) -> UNetLayout:
    """Read the tree off the LDM names (without `model.diffusion_model.`)."""
    known = set(names)
    blocks = len(_numbers(known, "input_blocks."))
    downs = sum(f"input_blocks.{index}.0.op.weight" in known for index in range(blocks))
    levels = downs + 1
    layers = (blocks - 1 - downs) // levels
    attention = tuple(f"input_blocks.{1 + level * (layers + 1)}.1.proj_in.weight" in known for level in range(levels))
    return UNetLayout(levels, layers, attention)


def diffusers_unet_layout(names: Iterable[str]) -> UNetLayout:
    """Read the tree off the Diffusers names."""
    known = set(names)
    levels = len(_numbers(known, "down_blocks."))
    attention = tuple(f"down_blocks.{level}.attentions.0.proj_in.weight" in known for level in range(levels))
    return UNetLayout(levels, len(_numbers(known, "down_blocks.0.resnets.")), attention)


def unet_table(layout: UNetLayout) -> dict[str, str]:
    """LDM module name -> Diffusers module name, for every module below which the names agree."""
    table = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "label_emb.0.0": "add_embedding.linear_1",
        "label_emb.0.2": "add_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
        "middle_block.1": "mid_block.attentions.0",
    }
    table |= _resnet("middle_block.0", "mid_block.resnets.0") | _resnet("middle_block.2", "mid_block.resnets.1")
    stride = layout.layers + 1
    for level in range(layout.levels):
        for layer in range(layout.layers):
            index = 1 + level * stride + layer
            table |= _resnet(f"input_blocks.{index}.0", f"down_blocks.{level}.resnets.{layer}")
            table[f"input_blocks.{index}.1"] = f"down_blocks.{level}.attentions.{layer}"
        table[f"input_blocks.{(level + 1) * stride}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
        attends = layout.attention[layout.levels - 1 - level]
        for layer in range(stride):
            index = level * stride + layer
            table |= _resnet(f"output_blocks.{index}.0", f"up_blocks.{level}.resnets.{layer}")
            if attends:
                table[f"output_blocks.{index}.1"] = f"up_blocks.{level}.attentions.{layer}"
        last = level * stride + layout.layers
        table[f"output_blocks.{last}.{2 if attends else 1}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
    return table


def _resnet(ldm: str, diffusers: str, parts: Mapping[str, str] = RESNET_PARTS) -> dict[str, str]:
    return {f"{ldm}.{old}": f"{diffusers}.{new}" for old, new in parts.items()}


def vae_table(levels: int, layers: int) -> dict[str, str]:
    """LDM module name -> Diffusers module name of the autoencoder; `layers` counts the encoder's, the decoder has one more."""
    table = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for side in ("encoder", "decoder"):
        table |= {f"{side}.conv_in": f"{side}.conv_in", f"{side}.conv_out": f"{side}.conv_out"}
        table[f"{side}.norm_out"] = f"{side}.conv_norm_out"
        for number in (0, 1):
            table |= _resnet(f"{side}.mid.block_{number + 1}", f"{side}.mid_block.resnets.{number}", VAE_RESNET_PARTS)
        table |= _resnet(f"{side}.mid.attn_1", f"{side}.mid_block.attentions.0", VAE_ATTENTION_PARTS)
    for level in range(levels):
        down, up = f"encoder.down.{level}", f"decoder.up.{levels - 1 - level}"
        for layer in range(layers):
            table |= _resnet(f"{down}.block.{layer}", f"encoder.down_blocks.{level}.resnets.{layer}", VAE_RESNET_PARTS)
        for layer in range(layers + 1):
            table |= _resnet(f"{up}.block.{layer}", f"decoder.up_blocks.{level}.resnets.{layer}", VAE_RESNET_PARTS)
        table[f"{down}.downsample.conv"] = f"encoder.down_blocks.{level}.downsamplers.0.conv"
        table[f"{up}.upsample.conv"] = f"decoder.up_blocks.{level}.upsamplers.0.conv"
    return table


def ldm_vae_table(names: Iterable[str]) -> dict[str, str]:
    """The table for an autoencoder with these LDM names (without `first_stage_model.`)."""
    known = set(names)
    return vae_table(len(_numbers(known, "encoder.down.")), len(_numbers(known, "encoder.down.0.block.")))


def diffusers_vae_table(names: Iterable[str]) -> dict[str, str]:
    """The table, LDM -> Diffusers, for an autoencoder with these Diffusers names."""
    known = set(names)
    return vae_table(len(_numbers(known, "encoder.down_blocks.")), len(_numbers(known, "encoder.down_blocks.0.resnets.")))


def inverted(table: Mapping[str, str]) -> dict[str, str]:
    """The same table, read the other way."""
    return {new: old for old, new in table.items()}


def translated(name: str, table: Mapping[str, str]) -> str | None:
    """`name` with the longest module name that the table knows replaced; None where it knows none."""
    head = name
    while "." in head:
        head = head.rpartition(".")[0]
        if head in table:
            return table[head] + name[len(head) :]
    return None


def modern_vae_name(name: str) -> str:
    """A Diffusers name of the autoencoder in today's spelling (attention was once called query, key, value, proj_attn)."""
    head, _, rest = name.partition(".attentions.0.")
    module, _, leaf = rest.rpartition(".")
    new = OLD_VAE_ATTENTION_PARTS.get(module)
    return f"{head}.attentions.0.{new}.{leaf}" if new else name


def is_vae_attention_matrix(name: str) -> bool:
    """Is this (Diffusers) name one that LDM files store as a 1x1 convolution, [out, in, 1, 1], and Diffusers as [out, in]?"""
    return name.endswith(".weight") and any(f".attentions.0.{part}." in name for part in ("to_q", "to_k", "to_v", "to_out.0"))


def must_translate(name: str, table: Mapping[str, str]) -> str:
    """As `translated`; KeyError where the table knows no part of the name."""
    translation = translated(name, table)
    if translation is None:
        raise KeyError(f"no LDM name is known for {name}")
    return translation
