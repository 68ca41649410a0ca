"""What comes with Diffusers' models, and what does not."""
from __future__ import annotations

import importlib.util
import sys

import pytest

from tests.train.runs import process_context


def _look() -> None:
    assert "library.families.diffusers_models" in sys.modules
    assert "bitsandbytes" not in sys.modules
    from bitsandbytes.optim import PagedAdamW8bit

    assert PagedAdamW8bit.__module__.startswith("bitsandbytes.")


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is optional")
def test_bitsandbytes_is_imported_by_whoever_wants_its_optimizers_alone():
    process = process_context().Process(target=_look)
    process.start()
    process.join()
    assert process.exitcode == 0
