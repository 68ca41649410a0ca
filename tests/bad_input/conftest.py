"""Models and a state to go on from, made once; the processes."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bad_input.processes import Processes
from tests.bad_input.table import Case, make
from tests.tiny_models import tiny_sd1_folder, tiny_sd1_single_file


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    running = Processes()
    yield running
    running.close()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """diffusers/, other/, single.safetensors, single.ckpt."""
    folder = tmp_path_factory.mktemp("models")
    tiny_sd1_folder(folder / "diffusers")
    tiny_sd1_folder(folder / "other", seed=1)
    tiny_sd1_single_file(folder / "single.safetensors")
    tiny_sd1_single_file(folder / "single.ckpt")
    return folder


@pytest.fixture(scope="session")
def models_and_state(models: Path, processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder after a run of two steps has left its state/ there."""
    here = tmp_path_factory.mktemp("first run")
    flags = make(Case("a run", (), {"save_state_on_train_end": True}), here, models)
    outcome = processes.run(here, flags)
    assert outcome.code == 0, outcome.complained
    (here / "out" / "frog-state").rename(models / "state")
    return models
