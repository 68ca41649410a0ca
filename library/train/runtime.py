"""The machine below the loop: device, precision, processes and the global random generators."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TypeVar

import numpy
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn

from library.errors import UserError
from library.seeding import seed_from
from library.train.fsdp import ShardedUNet
from library.train.sharing import WholeModels
from library.train.sharing_plan import USE_DEEPSPEED, USE_FSDP, WHOLE, SharingPlan
from library.train.signals import Stopped, StopRequest
from library.train.zero import ZeroEngine
from library.types import BatchPlace

Value = TypeVar("Value")
USUAL_WAIT_MINUTES = 120  # PyTorch waits 10 with GPUs: less than drawing samples, caching a folder or uploading can take one process
FROZEN_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Runtime:
    """One process of a run. `rank` and `world_size` count the processes that `accelerate launch` started."""

    def __init__(
        self,
        mixed_precision: str,
        seed: int,
        stop_request: StopRequest,
        sixteen_bit_weights: bool = False,
        timeout_minutes: int | None = None,  # of waiting for other processes; None: the usual time
        sharing: SharingPlan = WHOLE,
    ):
        patience = InitProcessGroupKwargs(timeout=timedelta(minutes=timeout_minutes or USUAL_WAIT_MINUTES))
        # Without a GPU accelerate sees several processes only when told that the CPU is meant.
        has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
        with _unknown_to_accelerate():
            self.accelerator = Accelerator(mixed_precision=mixed_precision, cpu=not has_gpu, kwargs_handlers=[patience])
        self.sharing = _make_sharing(self.accelerator, sharing)
        self.frozen_dtype = FROZEN_DTYPES[mixed_precision]  # of weights that are not trained
        self.trained_dtype = self.frozen_dtype if sixteen_bit_weights else torch.float32
        self.seed = seed
        self.stop_request = stop_request

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def world_size(self) -> int:
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    def stop_wanted(self) -> bool:
        """Whether somebody asks to stop; `wanted_by_any` says whom."""
        return self.wanted_by_any(self.stop_request.wanted)

    def wanted_by_any(self, wanted: bool) -> bool:
        """`wanted` by this process; where a pass over the model needs all processes, by any of them, and all must call this."""
        return any(self.gathered(wanted)) if self.sharing.in_parts else wanted

    @property
    def scales_gradients(self) -> bool:
        """Whether a loss scaler (fp16) is at work, which skips steps with infinite gradients by itself."""
        return self.accelerator.scaler is not None

    def autocast(self) -> AbstractContextManager:
        return self.accelerator.autocast()

    def seed_global_generators(self, place: BatchPlace) -> None:
        """Make dropout, and whatever a network module draws by itself, a function of the place in the run."""
        seed = seed_from(self.seed, "global", place.step, place.micro_step, self.rank)
        torch.manual_seed(seed)
        random.seed(seed)
        numpy.random.seed(seed % 2**32)

    @contextmanager
    def generators_apart(self, seed: int) -> Iterator[None]:
        """Inside, the global generators start from this seed; afterwards they go on as if nothing had been drawn."""
        states = random.getstate(), numpy.random.get_state()
        devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            random.seed(seed)
            numpy.random.seed(seed % 2**32)
            try:
                yield
            finally:
                random.setstate(states[0])
                numpy.random.set_state(states[1])

    def backward(self, loss: Tensor, place: BatchPlace) -> None:
        """Adds the batch's share of its loss to the gradients of the step; a filler copy's share is nothing."""
        self.sharing.backward(loss, place.share, place.ends_step)

    def agree(self, losses: list[Tensor]) -> tuple[float, bool]:
        """The mean loss of a step over the samples of all processes, and whether any process wants to stop after it."""
        total = torch.cat(losses).cpu().double().sum() if losses else torch.zeros((), dtype=torch.float64)
        count = sum(len(loss) for loss in losses)
        facts = torch.tensor([float(total), float(count), float(self.stop_request.wanted)])
        if self.world_size > 1:
            facts = facts.to(self.device)
            torch.distributed.all_reduce(facts)
        loss_sum, sample_count, stop_votes = facts.tolist()
        return loss_sum / sample_count, stop_votes > 0

    def sum_everywhere(self, values: Tensor) -> Tensor:
        """The sums of float64 values over all processes, alike in each of them to the bit."""
        if self.world_size == 1:
            return values
        values = values.to(self.device)
        torch.distributed.all_reduce(values)
        return values.cpu()

    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """The same in every process from here on."""
        self.sharing.average(parameters)

    def clip_gradients(self, parameters: list[nn.Parameter], max_norm: float) -> float:
        """Scale the gradients so that their joint norm is at most max_norm (0: leave them); returns the norm before."""
        return self.sharing.clip(parameters, max_norm)

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """A user's mistake that one process meets, or a stop that it is asked for, is raised in all: none waits for another."""
        messages: tuple[str, ...] = ()
        try:
            yield
        except UserError as error:
            messages = error.messages
        except Stopped:
            pass
        everybodys = self.gathered((messages, self.stop_request.wanted))
        if any(messages for messages, _ in everybodys):
            raise UserError(*dict.fromkeys(message for messages, _ in everybodys for message in messages))
        if any(stop_wanted for _, stop_wanted in everybodys):
            raise Stopped

    def gathered(self, value: Value) -> list[Value]:
        """The values of all processes."""
        values = [value] * self.world_size
        if self.world_size > 1:
            torch.distributed.all_gather_object(values, value)
        return values

    def same_everywhere(self, value: str) -> str:
        """The main process's value, in every process."""
        values = [value]
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def merged(self, mine: dict[str, int]) -> dict[str, int]:
        """The dictionaries of all processes as one, in every process."""
        return {key: value for one in self.gathered(mine) for key, value in one.items()}

    def barrier(self) -> None:
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.distributed.destroy_process_group()


@contextmanager
def _unknown_to_accelerate() -> Iterator[None]:
    """Inside, accelerate hears nothing of FSDP and DeepSpeed, which are handed their modules by us: it knows neither on a CPU."""
    hidden = {name: os.environ.pop(name) for name in (USE_FSDP, USE_DEEPSPEED) if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _make_sharing(accelerator: Accelerator, plan: SharingPlan) -> WholeModels:
    """What the plan asks for."""
    if plan.kind == "fsdp":
        return ShardedUNet(accelerator, plan.fsdp, plan.writes_model)
    if plan.kind == "deepspeed":
        return ZeroEngine(accelerator, plan.deepspeed, plan.max_grad_norm, plan.writes_model)
    return WholeModels(accelerator)
