"""A run for which there is too little memory says what needs less."""
from __future__ import annotations

import pytest
import torch

from tests.train.runs import Strike, make_workshop

LOSS = "library.train.batch_loss.BatchLoss.__call__"
ON_A_GPU = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 8.00 GiB"
SMALLER = "a smaller train_batch_size (gradient_accumulation_steps makes up for it), a smaller resolution"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return make_workshop(tmp_path_factory.mktemp("memory"), max_train_steps=2)


def no_room_on_a_gpu() -> None:
    raise torch.OutOfMemoryError(f"{ON_A_GPU}\nand more lines")


def no_room_on_this_machine() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def another_error() -> None:
    raise RuntimeError("something else")


def test_a_gpu_that_is_too_small(workshop):
    strike = Strike(LOSS, 2, "before", mishap=no_room_on_a_gpu)
    outcome = workshop.train("gpu", strikes=[strike], cache_latents=False)
    assert (outcome.code, "Traceback" in outcome.output) == (1, False), outcome.output
    remedies = f'gradient_checkpointing = true, cache_latents = true, mixed_precision = "bf16", {SMALLER}'
    assert f"error: memory is used up ({ON_A_GPU}); what needs less: {remedies}\n" in outcome.output


def test_what_a_run_does_already_is_not_named(workshop):
    strike = Strike(LOSS, 1, "before", mishap=no_room_on_this_machine)
    outcome = workshop.train("cpu", strikes=[strike], gradient_checkpointing=True, cache_latents=True, mixed_precision="bf16")
    assert (outcome.code, "Traceback" in outcome.output) == (1, False), outcome.output
    assert f"; what needs less: {SMALLER}\n" in outcome.output


def test_other_errors_keep_their_traceback(workshop):
    """And end the run, whose loader workers still have something to do."""
    outcome = workshop.train("other", strikes=[Strike(LOSS, 1, "before", mishap=another_error)], cache_latents=False)
    assert outcome.code == 1
    assert "Traceback" in outcome.output
    assert "RuntimeError: something else" in outcome.output
