"""The machine below the loop: device, precision, processes and the global random generators."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn
from torch.optim import Optimizer

from library.errors import UserError
from library.optim.fused import FusedOptimizer
from library.seeding import seed_from
from library.train.signals import Stopped, StopRequest
from library.types import BatchPlace

Value = TypeVar("Value")
FROZEN_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Runtime:
    """One process of a run. `rank` and `world_size` count the processes that `accelerate launch` started."""

    def __init__(
        self,
        mixed_precision: str,
        seed: int,
        stop_request: StopRequest,
        sixteen_bit_weights: bool = False,
        timeout_minutes: int | None = None,  # of waiting for other processes; None: as long as PyTorch does
    ):
        patience = [InitProcessGroupKwargs(timeout=timedelta(minutes=timeout_minutes))] if timeout_minutes else []
        # Without a GPU accelerate sees several processes only when told that the CPU is meant.
        has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
        self.accelerator = Accelerator(mixed_precision=mixed_precision, cpu=not has_gpu, kwargs_handlers=patience)
        self.frozen_dtype = FROZEN_DTYPES[mixed_precision]  # of weights that are not trained
        self.trained_dtype = self.frozen_dtype if sixteen_bit_weights else torch.float32
        self._fused: FusedOptimizer | None = None
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

    @property
    def scales_gradients(self) -> bool:
        """Whether a loss scaler (fp16) is at work, which skips steps with infinite gradients by itself."""
        return self.accelerator.scaler is not None

    def autocast(self) -> AbstractContextManager:
        return self.accelerator.autocast()

    def prepare_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """Let the loss scaler skip steps; without one the optimizer is used as it is."""
        self._fused = optimizer if isinstance(optimizer, FusedOptimizer) else None
        scaler = self.accelerator.scaler
        if scaler is None:
            return optimizer
        if self.trained_dtype == torch.float16:  # the scaler refuses such gradients unless told
            scaler._unscale_grads_ = _allowing_float16(scaler._unscale_grads_)
        return self.accelerator.prepare_optimizer(optimizer)

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

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def agree(self, losses: list[Tensor]) -> tuple[float, bool]:
        """The mean loss of a step over the samples of all processes, and whether any process wants to stop after it."""
        total = torch.cat(losses).double().sum() if losses else torch.zeros((), dtype=torch.float64)
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
        """Mean of the gradients over the processes, in a few large messages. Alike on every process to the bit."""
        if self.world_size == 1:
            return
        touched = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=self.device)
        torch.distributed.all_reduce(touched)
        for parameter, count in zip(parameters, touched.tolist(), strict=True):
            if parameter.grad is None and count:  # every process must send the same list; what nobody touched has no gradient
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            torch.distributed.all_reduce(flat)
            flat /= self.world_size
            for gradient, values in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
                gradient.copy_(values.view_as(gradient))

    def clip_gradients(self, parameters: list[nn.Parameter], max_norm: float) -> float:
        """Scale the gradients so that their joint norm is at most max_norm (0: leave them); returns the norm before.

        An optimizer that steps in the backward pass has clipped by then.
        """
        if self._fused is not None:
            return self._fused.take_norm()
        return float(self.accelerator.clip_grad_norm_(parameters, max_norm or math.inf))

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


def _allowing_float16(unscale: Callable[..., Any]) -> Callable[..., Any]:
    """The function of torch's scaler that is told, as its last argument, whether gradients may be float16."""
    return lambda optimizer, inverse_scale, found_inf, _: unscale(optimizer, inverse_scale, found_inf, True)


def _buckets(gradients: Iterable[Tensor], most: int = 2**24) -> Iterable[list[Tensor]]:
    """Gradients of one dtype grouped so that a message holds about `most` numbers."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (gradient.dtype != bucket[0].dtype or size + gradient.numel() > most):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel()
    if bucket:
        yield bucket
