"""What files of Stable Diffusion 2.x hold of their text encoder, and the model does not use."""
from __future__ import annotations

import math
import re
from functools import partial

import torch

from library.checkpoint.weights_file import Outgoing
from library.families.saving_file import Tensors

RESBLOCK = re.compile(r"(.+\.resblocks\.)(\d+)(\..+)")
LOGIT_SCALE = math.log(100)  # where CLIP's training ends up


def invented_tensors(tensors: Tensors) -> Tensors:
    """A last layer, like the one before it, and the two tensors that tie the text to pictures: programs expect all of them."""
    blocks = [match for name in tensors if (match := RESBLOCK.fullmatch(name))]
    last = max(int(match[2]) for match in blocks)
    invented = {f"{match[1]}{last + 1}{match[3]}": tensors[match[0]] for match in blocks if int(match[2]) == last}
    prefix = blocks[0][1].removesuffix("transformer.resblocks.")
    embedding = tensors[f"{prefix}token_embedding.weight"]
    width, dtype = embedding.shape[1], embedding.dtype
    invented[f"{prefix}text_projection"] = Outgoing((width, width), dtype, partial(torch.eye, width))
    invented[f"{prefix}logit_scale"] = Outgoing((), dtype, partial(torch.tensor, LOGIT_SCALE))
    return invented
