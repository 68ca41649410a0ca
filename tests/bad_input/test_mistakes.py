"""Every mistake of the tables: exit code 2, a message that names the file and the key, no traceback, no weight read."""
from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input import config_cases, data_cases, model_cases, run_cases
from tests.bad_input.bad_files import PAYLOAD_RAN
from tests.bad_input.processes import Outcome
from tests.bad_input.table import Case, filled, make

LATER = [*data_cases.CASES, *model_cases.CASES, *run_cases.LEARNING, *run_cases.PROMPTS, *run_cases.PLACES]


def check(case: Case, outcome: Outcome, here: Path, models: Path) -> None:
    assert outcome.code == 2, outcome.complained
    assert "Traceback" not in outcome.complained
    assert all(line.startswith("error: ") for line in outcome.complained.splitlines()), outcome.complained
    missing = [words for words in case.expected if filled(words, str(here), str(models)) not in outcome.complained]
    assert not missing, outcome.complained
    assert not outcome.weights_read
    assert not (here / PAYLOAD_RAN).exists()
    assert not list(here.glob("out/**/*.safetensors"))


@pytest.mark.parametrize("case", config_cases.CASES, ids=str)
def test_what_is_written_is_checked_before_torch_is_imported(case, tmp_path, processes):
    outcome = processes.run(tmp_path, make(case, tmp_path, tmp_path), case.environment, "all but torch")
    check(case, outcome, tmp_path, tmp_path)
    assert not outcome.imported_torch


@pytest.mark.parametrize("case", LATER, ids=str)
def test_mistakes(case, tmp_path, models, processes):
    outcome = processes.run(tmp_path, make(case, tmp_path, models), case.environment)
    check(case, outcome, tmp_path, models)
    if case.expected[0] in case.config:  # the message is about an option of the config file
        assert f"error: {tmp_path / 'run.toml'} " in outcome.complained


@pytest.mark.parametrize("case", run_cases.RESUMES, ids=str)
def test_mistakes_of_resumed_runs(case, tmp_path, models_and_state, processes):
    flags = make(case, tmp_path, models_and_state)
    check(case, processes.run(tmp_path, flags, case.environment), tmp_path, models_and_state)
