"""Every option of every training script against a table that says what it changes: and it does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from library.checkpoint.naming import RunLength
from library.config.scripts import CACHING, SCRIPTS
from library.config.settings import options_for
from library.errors import UserError
from tests.options import rows_of_data, rows_of_results, rows_of_training
from tests.options.looks import Look, planned
from tests.options.rows import Row
from tests.options.trials import Bench

ROOT = Path(__file__).resolve().parents[2]
ROWS = (*rows_of_data.ROWS, *rows_of_training.ROWS, *rows_of_results.ROWS)
TRAINING = [script for script in SCRIPTS if script not in CACHING]
# Those that differ from another in the family alone, which the model decides in the other one.
ALIASES = {script.name: script.general for script in SCRIPTS.values() if script.general}
# Those that differ from another in one thing, of which few options hear; whole trainings are compared with each of these only.
KIN: dict[str, tuple[str, set[str]]] = {
    "train_db.py": ("fine_tune.py", {"stop_text_encoder_training", "learning_rate_te", "learning_rate_te1", "learning_rate_te2"}),
    "train_textual_inversion_XTI.py": (
        "train_textual_inversion.py", {"token_string", "init_word", "num_vectors_per_token", "weights", "optimizer_type"},
    ),
}  # fmt: skip


def is_compared(script: str, row: Row) -> bool:
    if script in ALIASES or row.option not in options_for(script) or not row.is_of(script):
        return False
    return script not in KIN or row.option in KIN[script][1] or not row.needs_a_training


PAIRS = [(script, row) for script in TRAINING for row in ROWS if is_compared(script, row)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    with bench.open():
        yield bench


@pytest.mark.parametrize("script", TRAINING)
def test_each_option_has_a_row(script: str) -> None:
    options = options_for(script)
    assert sorted(options) == sorted({row.option for row in ROWS if row.option in options and row.is_of(script)})


@pytest.mark.parametrize(("script", "row"), PAIRS, ids=[f"{row.option}-{script}" for script, row in PAIRS])
def test_it_changes_what_the_row_says(bench: Bench, script: str, row: Row) -> None:
    changed, unchanged = bench.trial(script, row.with_it), bench.trial(script, row.without_it)
    if isinstance(row.look, str):
        with pytest.raises(UserError, match=row.look):
            assert changed.plan
        assert unchanged.plan
    else:
        assert bench.seen(row.look, changed) != bench.seen(row.look, unchanged)


def test_rows_are_of_options_that_there_are() -> None:
    known = {option for script in TRAINING for option in options_for(script)}
    assert {row.option for row in ROWS} == known
    assert [row for row in ROWS if not any(row.option in options_for(script) and row.is_of(script) for script in TRAINING)] == []


@pytest.mark.parametrize("script", KIN)
def test_one_thing_tells_kin_apart(bench: Bench, script: str) -> None:
    """What tells them apart is asked in two places: for the rules of options, and where the method is made and checked."""
    other = SCRIPTS[KIN[script][0]]
    assert replace(SCRIPTS[script], name=other.name, tracker=other.tracker, per_layer=False) == other
    left = options_for(script).keys() ^ options_for(other.name).keys()
    assert left <= {"train_text_encoder"}
    asking = [path for path in (ROOT / "library").rglob("*.py") if re.search(r"\bTRAIN_DB\b|script\.per_layer", path.read_text(encoding="utf-8"))]
    assert {path.relative_to(ROOT).as_posix() for path in asking} == {
        "library/config/check.py", "library/config/scripts.py", "library/methods/embedding_checks.py", "library/train/method.py"
    }  # fmt: skip
    model = {"pretrained_model_name_or_path": "{bench}/deep"}
    assert planned(bench.trial(script, model)) == planned(bench.trial(other.name, model))


LOOKS = {row.look: (script, row) for script, row in reversed(PAIRS) if not isinstance(row.look, str)}


@pytest.mark.parametrize("look", LOOKS, ids=[f"{row.option}-{script}" for script, row in LOOKS.values()])
def test_trainings_look_alike_where_nothing_differs(bench: Bench, look: Look) -> None:
    """So that an option that changes nothing is found."""
    script, row = LOOKS[look]
    assert bench.seen(look, bench.trial(script, row.without_it)) == look(bench.fresh(script, row.without_it))


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_does_what_its_namesake_does(bench: Bench, alias: str) -> None:
    """But for the family: so the rows of the one are those of the other."""
    namesake = SCRIPTS[ALIASES[alias]]
    assert replace(SCRIPTS[alias], name=namesake.name, family=None, general=None) == namesake
    assert options_for(alias) == options_for(namesake.name)
    options = {"pretrained_model_name_or_path": "{bench}/sdxl"}
    one, other = bench.trial(alias, options), bench.trial(namesake.name, options)
    assert planned(one) == planned(other)
    assert one.result.bits == other.result.bits
    assert one.result.files.keys() == other.result.files.keys()
    with pytest.raises(UserError, match=f"{alias} takes sdxl: use {namesake.name}"):
        assert bench.trial(alias, {}).plan


# An option, and what puts its use out of work.
BROKEN: dict[str, tuple[str, object]] = {
    "initial_step": ("library.train.plan.RunLength", lambda first_step, *rest: RunLength(1, *rest)),
    "flip_aug": ("library.data.dataset.FLIP_PROBABILITY", 0.0),
    "min_snr_gamma": ("library.diffusion.weighting.min_snr_factor", lambda snr, *_: torch.ones_like(snr)),
    "ema": ("library.optim.average.WeightAverage.in_place", nullcontext),
    "lr_warmup_steps": ("library.optim.schedules.steps_of", lambda *_: 0),
    "metadata_author": ("library.checkpoint.modelspec.DESCRIPTIVE", ()),
    "gradient_checkpointing": ("library.methods.adapter.enable_checkpointing", lambda models: []),
}


@pytest.mark.parametrize("option", BROKEN)
def test_an_option_that_nobody_reads_is_found(bench: Bench, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    script = "train_network.py"
    (row,) = (row for of, row in PAIRS if of == script and row.option == option)
    assert not isinstance(row.look, str)
    monkeypatch.setattr(*BROKEN[option])
    assert row.look(bench.fresh(script, row.with_it)) == row.look(bench.fresh(script, row.without_it))
