"""Names of CLIP's tensors: of transformers (`text_model.…`), in single files (as OpenCLIP, or as transformers, called them)."""
from __future__ import annotations

import re
from collections.abc import Iterable

from library.families.source import Place, Places
from library.families.weight_files import Shapes

LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
PARTS_OF_A_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")  # OpenCLIP keeps the three in one tensor
OUTSIDE = {
    "text_model.embeddings.token_embedding.weight": Place("token_embedding.weight"),
    "text_model.embeddings.position_embedding.weight": Place("positional_embedding"),
    "text_model.final_layer_norm.weight": Place("ln_final.weight"),
    "text_model.final_layer_norm.bias": Place("ln_final.bias"),
    "text_projection.weight": Place("text_projection", transposed=True),
}


def clip_name(name: str) -> str:
    """A stored name under which transformers of any version knows a text encoder's tensor; 5 leaves out `text_model.`."""
    return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"


def openclip_place(name: str) -> Place:
    """Where OpenCLIP keeps the tensor that transformers calls `name`; KeyError if nowhere."""
    match = LAYER.fullmatch(name)
    if match is None:
        return OUTSIDE[name]
    layer, module, kind = match.groups()
    start = f"transformer.resblocks.{layer}."
    if module in ATTENTION:
        return Place(f"{start}attn.in_proj_{kind}", ATTENTION.index(module), len(ATTENTION))
    return Place(f"{start}{PARTS_OF_A_LAYER[module]}.{kind}")


def openclip_places(names: Iterable[str]) -> Places:
    """The place of each of these tensors (transformers' names)."""
    return {name: openclip_place(name) for name in names}


def layer_count(stored: Shapes) -> int:
    """How many layers a text encoder of OpenCLIP's has."""
    count = 0
    while f"transformer.resblocks.{count}.mlp.c_fc.weight" in stored:
        count += 1
    return count


def openclip_text_names(layers: int, with_projection: bool) -> list[str]:
    """transformers' names of the tensors of an encoder with so many layers."""
    modules = (*PARTS_OF_A_LAYER, *ATTENTION)
    inside = [
        f"text_model.encoder.layers.{layer}.{module}.{kind}"
        for layer in range(layers)
        for module in modules
        for kind in ("weight", "bias")
    ]
    return inside + [name for name in OUTSIDE if with_projection or name != "text_projection.weight"]
