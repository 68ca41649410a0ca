"""What is known before a model is loaded: how long a run is, where it begins, and what stands in its way."""

from __future__ import annotations

import pytest

from library.config.load import load_settings
from library.errors import UserError
from library.train.plan import Plan, make_plan
from tests.train.runs import Strike, Workshop, make_workshop, write_picture

READS_WEIGHTS = "library.families.loading.load_module"
TRAINS = "library.train.run.train_by_plan"
STEPS_PER_EPOCH = 3  # 5 pictures, batch size 1, 2 accumulated


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("plan"), gradient_accumulation_steps=2)


@pytest.fixture(scope="module")
def stopped(workshop) -> str:
    """A finished run of 4 steps with its state."""
    assert workshop.train("stopped", max_train_steps=4, save_state=True).code == 0
    return "stopped"


def plan(workshop: Workshop, name: str, *flags: str, **options) -> Plan:
    settings = load_settings("train_network.py", ["--config_file", str(workshop.config(name, **options)), *flags])
    assert settings is not None
    return make_plan(settings)


def mistakes(workshop: Workshop, name: str, *flags: str, **options) -> tuple[str, ...]:
    with pytest.raises(UserError) as raised:
        plan(workshop, name, *flags, **options)
    return raised.value.messages


def test_steps_as_given(workshop):
    found = plan(workshop, "steps", max_train_steps=7)
    assert (found.length.first_step, found.length.last_step, found.length.epochs) == (1, 7, 3)
    assert (found.batches_per_epoch, found.length.steps_per_epoch, found.effective_batch) == (5, STEPS_PER_EPOCH, 2)
    assert found.notes == []


def test_epochs_win_and_the_run_says_so(workshop):
    found = plan(workshop, "epochs", max_train_steps=7, max_train_epochs=4)
    assert found.length.last_step == 4 * STEPS_PER_EPOCH
    assert found.notes == ["max_train_epochs and max_train_steps are both given: the epochs decide, 12 steps"]
    assert plan(workshop, "epochs", max_train_epochs=4).notes == []


def test_the_default_is_said(workshop):
    found = plan(workshop, "default")
    assert found.length.last_step == 1600
    assert found.notes == ["neither max_train_steps nor max_train_epochs is given: the default is 1600 steps"]


def test_processes_share_an_epoch(workshop, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = plan(workshop, "two", max_train_epochs=2)
    assert (found.batches_per_epoch, found.length.steps_per_epoch, found.effective_batch) == (5, 2, 4)
    assert found.length.last_step == 4


@pytest.mark.parametrize(
    "options, first_step",
    [({"initial_step": 5}, 6), ({"initial_epoch": 3}, 2 * STEPS_PER_EPOCH + 1), ({"initial_epoch": 1}, 1)],
)
def test_counters_without_a_state(workshop, options, first_step):
    found = plan(workshop, "initial", max_train_steps=10, **options)
    assert (found.length.first_step, found.length.last_step) == (first_step, 10)


def test_nothing_left_to_do(workshop):
    (message,) = mistakes(workshop, "done", max_train_steps=10, initial_epoch=5)
    assert message.startswith("max_train_steps: 10 steps are asked for in all, and 12 are done already")


def test_resuming_goes_on_where_the_state_ends(workshop, stopped):
    found = plan(workshop, stopped, "--resume", "latest", max_train_steps=10)
    assert (found.length.first_step, found.length.last_step) == (5, 10)
    assert found.notes[-1] == f"resuming from {workshop.output(stopped) / 'toad-state'}, where 4 steps are done"
    assert plan(workshop, stopped, "--resume", "latest", max_train_steps=10, initial_step=4).length.first_step == 5


def test_a_state_brings_its_seed(workshop, stopped):
    found = plan(workshop, stopped, "--resume", "latest", max_train_steps=10, seed=None)
    assert found.seed == 1
    fresh = [plan(workshop, "seedless", max_train_steps=10, seed=None) for _ in range(2)]
    assert fresh[0].seed != fresh[1].seed
    assert fresh[0].notes == [f"no seed was given: drew {fresh[0].seed}"]


@pytest.mark.parametrize("options", [{"initial_step": 3}, {"initial_epoch": 3}])
def test_counters_that_contradict_the_state(workshop, stopped, options):
    (message,) = mistakes(workshop, stopped, "--resume", "latest", max_train_steps=10, **options)
    assert "the state" in message
    assert "says 4" in message
    assert "delete initial_step and initial_epoch" in message


def test_a_state_of_another_run(workshop, stopped):
    messages = mistakes(workshop, stopped, "--resume", "latest", max_train_steps=10, seed=2, network_dim=4, train_batch_size=2)
    for name in ("seed is 2 here and 1", "network_dim is 4 here and 2", "the data has changed"):
        assert any(name in message for message in messages), messages


def test_a_finished_run_has_nothing_to_resume(workshop, stopped):
    (message,) = mistakes(workshop, stopped, "--resume", "latest", max_train_steps=4)
    assert "4 steps are asked for in all, and 4 are done already" in message


def test_all_mistakes_at_once(workshop):
    options = {"pretrained_model_name_or_path": str(workshop.folder / "nowhere"), "optimizer_type": "Adamm", "max_train_steps": 4}
    messages = mistakes(workshop, "wrong", "--resume", str(workshop.folder / "no-state"), **options)
    for word in ("nowhere", "Adamm", "no-state"):
        assert any(word in message for message in messages), messages


def test_of_many_files_the_last_ones_are_named_too(workshop):
    (line,) = (line for line in plan(workshop, "many", save_every_n_steps=1, max_train_steps=20).lines() if "files kept" in line)
    assert "toad-step00000001.safetensors" in line and line.endswith(", toad.safetensors (21 in all)")
    assert line.count(".safetensors") == 8


def test_what_is_measured_and_when(workshop):
    def lines(**options) -> list[str]:
        found = plan(workshop, "measured", max_train_steps=7, validation_split=0.6, **options)
        return [line for line in found.lines() if line.startswith(("validation", "early", "files"))]

    first, kept = lines()
    assert first == "validation: 3 images held out, 4 timesteps each, every epoch"
    assert kept.endswith(": toad.safetensors")
    options = {"validate_every_n_epochs": 2, "validate_every_n_steps": 50, "max_validation_steps": 2}
    first, second, kept = lines(**options, early_stopping_patience=3, save_best=True)
    assert first == "validation: 3 images held out, 2 of them measured, 4 timesteps each, every 2 epochs and every 50 steps"
    assert second == "early stopping: patience 3, counted in validations without a lower loss"
    assert kept.endswith(": toad.safetensors, toad-best.safetensors")


def test_the_seed_of_the_validation(workshop):
    options = {"max_train_steps": 7, "validation_split": 0.6}
    assert plan(workshop, "measured", **options).validation.seed == 1
    assert plan(workshop, "measured", validation_seed=0, **options).validation.seed == 0


def test_nothing_to_measure_by(workshop):
    """The share of five pictures rounds to none."""
    options = {"max_train_steps": 7, "save_best": True, "early_stopping_patience": 2, "validate_every_n_epochs": 1}
    for split in ({}, {"validation_split": 0.05}):
        messages = mistakes(workshop, "nothing", **options, **split)
        assert [message.split(": ")[-2].split()[-1] for message in messages] == [
            "validate_every_n_epochs", "save_best", "early_stopping_patience"
        ]  # fmt: skip
        assert all("no image is held out of training to measure it by; set validation_split = 0.1" in text for text in messages)


def test_regularisation_pictures_are_not_held_out(workshop):
    reg = workshop.folder / "reg" / "1_animal"
    reg.mkdir(parents=True)
    write_picture(reg / "0.png", 7)
    found = plan(workshop, "reg", max_train_steps=7, validation_split=0.6, reg_data_dir=str(reg.parent))
    assert found.validation.held_out == 3  # of the five others
    assert [record.is_reg for record in found.prepared[0].records].count(True) == 1


def test_a_best_that_was_measured_in_another_way_is_forgotten(workshop):
    options = {"max_train_steps": 4, "save_state": True, "validation_split": 0.4}
    assert workshop.train("best", **options).code == 0
    options["max_train_steps"] = 10
    again = plan(workshop, "best", "--resume", "latest", **options)
    assert (again.validation.best.last_step, again.validation.best.step) == (4, again.validation.best.step)
    assert again.validation.best.loss > 0
    other = plan(workshop, "best", "--resume", "latest", loss_type="l1", **options)
    assert other.validation.best.loss is None
    assert any("the best so far is forgotten" in note for note in other.notes)


def test_a_dry_run_prints_the_plan_and_reads_no_weight(workshop):
    forbidden = [
        Strike("library.families.loading.load_module", 1, "before"),
        Strike("library.train.run.train_by_plan", 1, "before"),
    ]
    outcome = workshop.train("dry", "--dry_run", strikes=forbidden, max_train_steps=7, save_every_n_steps=3, save_state=True)
    assert outcome.code == 0, outcome.output
    for line in (
        "batches per epoch: 5; optimizer steps per epoch: 3",
        "steps: 1 to 7, 3 epochs; seed 1",
        "effective batch: 2 (batch x 1 processes x 2 accumulated)",
        "toad-step00000003.safetensors, toad-step00000003-state, toad-step00000006.safetensors",
        "nothing was trained, and nothing written but the dataset report",
    ):
        assert line in outcome.output
    files = sorted(path.name for path in workshop.output("dry").iterdir())
    assert files == ["toad_dataset_report.html", "toad_dataset_report.json"]
