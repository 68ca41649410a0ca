"""How the model is kept and computed: weights of 8 bits, another attention, compilation. Tried before a model is loaded."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from library.config.options import MemoryOptions
from library.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from library.types import Parts

HEAD_WIDTHS = (40, 80, 160)  # of the attention heads of Stable Diffusion 1; those of 2 and XL are 64


def check_memory_options(options: MemoryOptions, mixed_precision: str) -> None:
    """Tries what needs a package or a compiler on the device of the run. UserError says what to write instead."""
    if options.xformers:
        _try_xformers(mixed_precision)
    if options.torch_compile:
        _try_compiling(options.dynamo_backend)


def own_device() -> str:
    """Where this process is going to train: on the GPU of another one, a trial would take its memory."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def _try_xformers(mixed_precision: str) -> None:
    import torch

    try:
        operators: Any = importlib.import_module("xformers.ops")
    except ImportError as error:
        raise UserError(f"xformers: the package cannot be imported ({error}); pip install xformers, or write sdpa instead") from error
    device = own_device()
    dtype = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[mixed_precision]
    try:
        for width in HEAD_WIDTHS:
            query = torch.zeros(1, 16, 1, width, device=device, dtype=dtype, requires_grad=True)
            torch.autograd.grad(operators.memory_efficient_attention(query, query, query).sum(), query)
    except Exception as error:  # it raises what it likes where it has no operator
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"xformers: it has no attention for {device} in {dtype} ({reason}); write sdpa instead") from error


def _try_compiling(backend: str) -> None:
    import torch

    try:
        compiled = torch.compile(lambda numbers: numbers + 1, backend=backend)
        compiled(torch.ones(2, device=own_device()))  # for a GPU inductor needs Triton, for a CPU a C++ compiler
    except Exception as error:  # of compilers, linkers and backends that are not installed
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = 'write dynamo_backend = "aot_eager", or remove torch_compile'
        raise UserError(f"torch_compile: {backend} does not work on this machine ({reason}); {remedy}") from error
    finally:
        torch._dynamo.reset()


def prepare_model(parts: Parts, options: MemoryOptions) -> None:
    """What the options ask for, once the method has attached itself to the model."""
    unet: Any = parts.unet
    if options.fp8_base or options.fp8_base_unet:
        for model in (parts.unet, *(parts.text_encoders if options.fp8_base else ())):
            keep_in_8_bits(model)
    if options.xformers:
        unet.enable_xformers_memory_efficient_attention()
    if options.torch_compile:
        unet.compile(backend=options.dynamo_backend)


def keep_in_8_bits(model: nn.Module) -> None:
    """The weights of inner linear and convolutional layers as float8 (e4m3); autocast widens them where they are used.

    Norms, embeddings and the first and last convolution, which are small and matter most, stay as they are.
    """
    import torch
    from torch import nn

    outer = {getattr(model, name, None) for name in ("conv_in", "conv_out")}
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module not in outer:
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(torch.float8_e4m3fn)


def bytes_of_weight(options: MemoryOptions, part: str, usual: int) -> int:
    """Of a part's weights, about."""
    in_8_bits = options.fp8_base or (options.fp8_base_unet and part == "unet")
    return 1 if in_8_bits and part != "vae" else usual
