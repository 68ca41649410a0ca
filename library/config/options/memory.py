"""Options about the memory and the speed of the model, where they change nothing of what is learned."""

from __future__ import annotations

from dataclasses import dataclass

from library.config.declare import option
from library.config.scripts import NETWORK

DYNAMO_BACKENDS = (
    "eager", "aot_eager", "inductor", "aot_ts_nvfuser", "nvprims_nvfuser", "cudagraphs", "ofi", "fx2trt", "onnxrt", "tensort",
    "ipex", "tvm",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """How the frozen model is kept and computed, and how processes find each other."""

    sdpa: bool = option(False, "Use PyTorch's scaled dot product attention.")
    xformers: bool = option(False, "Use the attention of the package xformers in the U-Net; needs an NVIDIA GPU.")
    mem_eff_attn: bool = option(False, "Use an attention that holds no full attention matrix.")
    fp8_base: bool = option(False, "Keep the weights of the frozen U-Net and text encoders in 8 bits; needs mixed_precision.")
    fp8_base_unet: bool = option(False, "The same for the U-Net only.", scripts=NETWORK)
    lowram: bool = option(False, "Load the weights directly into the memory of the GPU.")
    highvram: bool = option(False, "Leave the VAE in the memory of the GPU after latents are cached.")
    torch_compile: bool = option(False, "Compile the U-Net with torch.compile; the first steps take minutes.")
    dynamo_backend: str = option("inductor", "What torch_compile compiles with.", choices=DYNAMO_BACKENDS)
    ddp_timeout: int | None = option(None, "Minutes that a process waits for the others before it gives up; left out: 120.", least=1)
    ddp_gradient_as_bucket_view: bool = option(False, "A setting of PyTorch's DDP, which is not used here.")
    ddp_static_graph: bool = option(False, "A setting of PyTorch's DDP, which is not used here.")
