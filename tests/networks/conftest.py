"""Models that adapters are attached to."""
from __future__ import annotations

import pytest

from library.types import Parts
from tests.full_models import full_parts
from tests.tiny_models import tiny_sd1_parts


@pytest.fixture
def parts() -> Parts:
    return tiny_sd1_parts()


@pytest.fixture(scope="session")
def sd15() -> Parts:
    """Stable Diffusion 1.5 in its real shapes, without memory for the numbers."""
    return full_parts("sd_v1")
