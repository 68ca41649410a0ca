"""DeepSpeed: each process keeps a part of the optimizer's numbers, of gradients and, in stage 3, of weights. ZeRO, arXiv 1910.02054."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin
from torch import Tensor, nn
from torch.optim import Optimizer

from library.checkpoint.state import StoredOptimizer
from library.errors import UserError
from library.train.sharing import SteppedOptimizer, WholeModels


def engine_config(asked: Mapping[str, Any], max_grad_norm: float, world_size: int) -> dict[str, Any]:
    """DeepSpeed's configuration: what the options ask for, else the answers of `accelerate config`, else its defaults.

    Batches, accumulation and precision are the loop's own business, so that DeepSpeed sees one batch of one picture per process and
    weights in float32.
    """
    try:
        plugin = DeepSpeedPlugin(**asked)
    except ValueError as error:  # of a configuration file
        raise UserError(f"deepspeed: {error}") from error
    ours = {
        "train_batch_size": world_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "zero_allow_untrusted_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
    }
    return _without_auto(plugin.deepspeed_config) | ours


def _without_auto(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values that accelerate would work out from a language model are left to DeepSpeed's defaults."""
    kept = {name: value for name, value in config.items() if value != "auto"}
    return {name: _without_auto(value) if isinstance(value, dict) else value for name, value in kept.items()}


class ZeroEngine(WholeModels):
    """The optimizer works on parts of flat lists of weights; DeepSpeed's engine sends gradients and weights to and fro."""

    in_parts = True

    def __init__(self, accelerator: Accelerator, asked: Mapping[str, Any], max_grad_norm: float, writes_model: bool):
        super().__init__(accelerator)
        self._config = engine_config(asked, max_grad_norm, self.world_size)
        self._stage: int = self._config["zero_optimization"]["stage"]
        self._writes_model = writes_model  # saved files hold the U-Net
        self._saved: list[nn.Module] = []
        self._engine: Any = None
        self._stored: _PartsInFile | None = None

    def begin(self, optimizer: Optimizer, modules: Mapping[str, nn.Module], unet: nn.Module) -> SteppedOptimizer:
        import deepspeed

        beside = [] if "unet" in modules else [unet]
        self._saved = [*modules.values(), *(beside if self._writes_model else [])]
        shared = nn.ModuleList([*modules.values(), *(beside if self._stage == 3 else [])])  # there, frozen weights are in parts, too
        self._engine, *_ = deepspeed.initialize(model=shared, optimizer=optimizer, config=self._config)
        for module in shared.modules():
            if self._stage == 3 and any(isinstance(child, nn.Embedding) for child in module.children()):
                module.register_forward_pre_hook(_gather_embeddings)
        if self._stored is not None:
            self._stored.engine = self._engine
        return _SteppedByTheEngine(optimizer)

    def backward(self, loss: Tensor, share: float, ends_step: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(ends_step)
        self._engine.backward(loss * share)
        if not ends_step:
            self._engine.step()  # which only counts

    def average(self, parameters: list[nn.Parameter]) -> None:
        """The engine has done it in the backward pass."""

    def clip(self, parameters: list[nn.Parameter], max_norm: float) -> float:
        """Clips and steps at once, by the configuration; gradients that are no numbers move nothing, and show in the norm."""
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    @contextmanager
    def whole(self, with_state: bool) -> Iterator[None]:
        import deepspeed

        if with_state and self._stored is not None:
            self._stored.gather(self.world_size)
        weights = [weight for module in self._saved for weight in module.parameters()]
        with deepspeed.zero.GatheredParameters(weights) if self._stage == 3 else nullcontext():
            yield

    def stored(self, optimizer: Optimizer) -> StoredOptimizer:
        self._stored = _PartsInFile(optimizer)
        return self._stored


def _gather_embeddings(module: nn.Module, _: Any) -> None:
    """Of a module that reads their shapes before it calls them; DeepSpeed gathers each when it is called, and scatters it then."""
    missing: list[Any] = [weight for weight in module.parameters() if weight.numel() == 0]
    if missing:
        missing[0].all_gather(missing)


class _SteppedByTheEngine:
    """What the loop sees of the optimizer; the step itself was taken along with clipping."""

    def __init__(self, optimizer: Optimizer):
        self.param_groups = optimizer.param_groups

    def step(self) -> None:
        """Done."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Done by the engine after its step."""


class _PartsInFile:
    """An optimizer whose state file holds the part of each process, for as many processes as there were."""

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self.engine: Any = None  # once it is there
        self._group: Any = None  # of processes, on the CPU
        self._parts: list[dict[str, Any]] = []
        self.param_groups = optimizer.param_groups

    def gather(self, world_size: int) -> None:
        """In the main process, the parts of all."""
        numbers = [dict(self.optimizer.state.get(flat, {})) for flat in self._flat_weights()]
        groups = [{key: value for key, value in group.items() if key != "params"} for group in self.param_groups]
        mine = {"numbers": [_on_cpu(of_one) for of_one in numbers], "groups": groups}
        self._parts = [mine] * world_size if torch.distributed.get_rank() == 0 else []
        if self._group is None:
            self._group = torch.distributed.new_group(backend="gloo")  # NCCL would bring all parts onto the first GPU at once
        torch.distributed.gather_object(mine, self._parts or None, group=self._group)

    def _flat_weights(self) -> list[Tensor]:
        """What the optimizer really steps; stage 3 calls it otherwise."""
        zero = self.engine.optimizer
        in_stage_3 = self.engine.zero_optimization_stage() == 3
        return zero.fp32_partitioned_groups_flat if in_stage_3 else zero.single_partition_of_fp32_groups

    def state_dict(self) -> dict[str, Any]:
        return {"parts": self._parts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "parts" not in state_dict:
            raise ValueError("the state was saved without DeepSpeed")
        mine = state_dict["parts"][torch.distributed.get_rank()]
        for flat, numbers in zip(self._flat_weights(), mine["numbers"], strict=True):
            self.optimizer.state[flat] = {name: _near(value, flat) for name, value in numbers.items()}
        for group, stored in zip(self.param_groups, mine["groups"], strict=True):
            group.update(stored)


def _on_cpu(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.cpu() if isinstance(value, Tensor) else value for name, value in numbers.items()}


def _near(value: Any, flat: Tensor) -> Any:
    """Counters stay on the CPU, as optimizers have them."""
    return value.to(flat.device) if isinstance(value, Tensor) and value.ndim else value
