"""What the tests of the mathematics share: options, draws that are given instead of drawn, the reference."""
from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from library.diffusion.draws import Draws
from library.types import BatchPlace

REFERENCE = Path(__file__).parent.parent / "reference" / "sd_loss.py"


@pytest.fixture
def draws():
    """Builds Draws for `count` samples, of which the first has the given position in the global batch."""

    def build(count=4, first_position=0, seed=7, step=1, micro_step=0):
        place = BatchPlace(1, step, micro_step, (), first_position, ends_step=True, ends_epoch=False, share=1.0)
        return Draws(seed, place, count)

    return build


class GivenDraws:
    """Stands in for Draws: every number was chosen beforehand, so that a reference can use the same."""

    def __init__(self, tensors: dict[str, torch.Tensor], timesteps: torch.Tensor, scalars: list[float]):
        self.tensors, self.timesteps, self.scalars = tensors, timesteps, scalars

    def normal(self, name, shape):
        assert self.tensors[name].shape[1:] == tuple(shape)
        return self.tensors[name]

    def integers(self, name, low, high):
        return self.timesteps

    def batch_random(self, name):
        values = iter(self.scalars)
        return SimpleNamespace(random=lambda: next(values), uniform=lambda low, high: low + (high - low) * next(values))


@pytest.fixture
def given_draws():
    return GivenDraws


@pytest.fixture(scope="session")
def load_reference():
    """Loads tests/reference/sd_loss.py, if asked with one constant changed."""

    def load(old: str = "", new: str = "") -> ModuleType:
        source = REFERENCE.read_text(encoding="utf-8")
        assert not old or source.count(old) == 1, f"{old!r} is not in the reference exactly once"
        module = ModuleType("sd_loss")
        exec(compile(source.replace(old, new) if old else source, str(REFERENCE), "exec"), module.__dict__)
        return module

    return load
