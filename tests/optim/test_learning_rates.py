"""Learning rates at chosen steps against closed forms; what is refused."""
from __future__ import annotations

import math

import pytest
import torch

from library.config.options import OptimizerOptions, SchedulerOptions
from library.errors import UserError
from library.optim.optimizers import build_optimizer
from library.optim.schedulers import build_scheduler, check_scheduler
from library.optim.schedules import SCHEDULES, steps_of

TOTAL = 100


def half_cosine(progress):
    return 0.5 * (1 + math.cos(math.pi * progress))


def warmed(after, warm_up=10):
    """A linear rise from 0, then `after`, a function of the step."""
    return lambda step: step / warm_up if step < warm_up else after(step)


def optimizer_of(problem, rates=(0.5, 1.0)):
    return build_optimizer(OptimizerOptions(optimizer_type="SGD"), problem().groups(*rates))


def rates_of(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


CLOSED_FORMS = [
    ({"lr_scheduler": "constant"}, lambda step: 1.0),
    ({"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 10}, warmed(lambda step: 1.0)),
    ({"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 0.1}, warmed(lambda step: 1.0)),
    ({"lr_scheduler": "linear"}, lambda step: 1 - step / 100),
    ({"lr_scheduler": "linear", "lr_warmup_steps": 10}, warmed(lambda step: (100 - step) / 90)),
    ({"lr_scheduler": "cosine", "lr_warmup_steps": 10}, warmed(lambda step: half_cosine((step - 10) / 90))),
    (
        {"lr_scheduler": "cosine_with_restarts", "lr_warmup_steps": 10, "lr_scheduler_num_cycles": 3},
        warmed(lambda step: half_cosine(3 * (step - 10) / 90 % 1) if step < 100 else 0.0),
    ),
    (
        {"lr_scheduler": "polynomial", "lr_warmup_steps": 10, "lr_scheduler_power": 2.0},
        warmed(lambda step: (1 - 2e-7) * ((100 - step) / 90) ** 2 + 2e-7),
    ),
    ({"lr_scheduler": "inverse_sqrt", "lr_warmup_steps": 10}, warmed(lambda step: math.sqrt(10 / step))),
    ({"lr_scheduler": "inverse_sqrt", "lr_scheduler_timescale": 50}, lambda step: math.sqrt(50 / (step + 50))),
    ({"lr_scheduler": "inverse_sqrt"}, lambda step: math.sqrt(10000 / (step + 10000))),
    (
        {"lr_scheduler": "cosine_with_min_lr", "lr_warmup_steps": 10, "lr_scheduler_min_lr_ratio": 0.2},
        warmed(lambda step: 0.2 + 0.8 * half_cosine((step - 10) / 90)),
    ),
    (
        {"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_num_cycles": 3, "lr_scheduler_min_lr_ratio": 0.2},
        lambda step: 0.2 + 0.8 * half_cosine(3 * step / 100),
    ),
    (
        {"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_args": ("min_lr=0.05",)},
        lambda step: 0.1 + 0.9 * half_cosine(step / 100),
    ),
    (
        {"lr_scheduler": "cosine_warmup_with_min_lr", "lr_warmup_steps": 10, "lr_scheduler_min_lr_ratio": 0.2},
        lambda step: (step + 1) / 10 if step < 10 else 0.2 + 0.8 * half_cosine((step - 9) / 90),
    ),
    (
        {
            "lr_scheduler": "cosine_warmup_with_min_lr", "lr_warmup_steps": 11, "lr_scheduler_min_lr_ratio": 0.0,
            "lr_scheduler_args": ("warmup_lr_rate=0.5",),
        },
        lambda step: 0.5 + 0.05 * step if step < 11 else half_cosine((step - 10) / 89),
    ),
    (
        {"lr_scheduler": "warmup_stable_decay", "lr_warmup_steps": 10, "lr_decay_steps": 0.4, "lr_scheduler_min_lr_ratio": 0.1},
        lambda step: 0.1 + 0.9 * step / 10 if step < 10 else 1.0 if step < 60 else 0.1 + 0.9 * half_cosine((step - 60) / 40),
    ),
    (
        {"lr_scheduler": "warmup_stable_decay", "lr_decay_steps": 50},
        lambda step: 1.0 if step < 50 else half_cosine((step - 50) / 50),
    ),
    (
        {"lr_scheduler": "piecewise_constant", "lr_scheduler_args": ("step_rules='1:10,0.1:60,0.01'",)},
        lambda step: 1.0 if step < 10 else 0.1 if step < 60 else 0.01,
    ),
    (
        {"lr_scheduler_type": "StepLR", "lr_scheduler_args": ("step_size=20", "gamma=0.5")},
        lambda step: 0.5 ** (step // 20),
    ),
    (
        {"lr_scheduler_type": "torch.optim.lr_scheduler.CosineAnnealingLR", "lr_scheduler_args": ("T_max=100",)},
        lambda step: half_cosine(step / 100),
    ),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize(("changes", "factor"), CLOSED_FORMS)
def test_closed_forms(problem, changes, factor):
    check_scheduler(SchedulerOptions(**changes), OptimizerOptions(), TOTAL)
    optimizer = optimizer_of(problem)
    scheduler = build_scheduler(SchedulerOptions(**changes), optimizer, TOTAL)
    for step in range(TOTAL + 1):
        expected = factor(step)
        assert rates_of(optimizer) == pytest.approx([0.5 * expected, expected], rel=1e-6, abs=1e-9), step
        scheduler.step(1.0)


def test_every_name_is_tested():
    tested = {changes.get("lr_scheduler") for changes, _ in CLOSED_FORMS} | {"reduce_lr_on_plateau"}
    assert tested >= set(SCHEDULES)


def test_counts_and_parts():
    assert [steps_of(value, 1600) for value in (None, 0, 100, 0.1, 0.0, 1.0)] == [0, 0, 100, 160, 0, 1600]


@pytest.mark.parametrize(
    "changes",
    [
        {"lr_scheduler": "reduce_lr_on_plateau", "lr_scheduler_args": ("patience=3", "factor=0.5")},
        {"lr_scheduler_type": "ReduceLROnPlateau", "lr_scheduler_args": ("patience=3", "factor=0.5")},
    ],
)
def test_plateau_follows_the_running_loss(problem, changes):
    optimizer = optimizer_of(problem)
    scheduler = build_scheduler(SchedulerOptions(**changes), optimizer, TOTAL)
    for step in range(50):  # noise of the single steps does not matter as long as their mean falls
        scheduler.step(10 - 0.1 * step + (-1) ** step * 0.01)
    assert rates_of(optimizer) == [0.5, 1.0]
    for _ in range(5):
        scheduler.step(10.0)
    assert rates_of(optimizer) == [0.25, 0.5]


@pytest.mark.parametrize(
    "changes",
    [
        {"lr_scheduler": "reduce_lr_on_plateau", "lr_scheduler_args": ("patience=1",)},
        {"lr_scheduler": "cosine", "lr_warmup_steps": 3},
        {"lr_scheduler": "piecewise_constant", "lr_scheduler_args": ("step_rules='1:3,0.1:6,0.01'",)},
        {"lr_scheduler_type": "ExponentialLR", "lr_scheduler_args": ("gamma=0.9",)},
    ],
)
def test_continues_from_its_state(problem, changes):
    unbroken, resumed = problem(), problem()
    optimizers = [build_optimizer(OptimizerOptions(), one.groups()) for one in (unbroken, resumed)]
    schedulers = [build_scheduler(SchedulerOptions(**changes), optimizer, 10) for optimizer in optimizers]
    unbroken.train(optimizers[0], range(1, 5), schedulers[0])
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    schedulers[1].load_state_dict(schedulers[0].state_dict())
    unbroken.train(optimizers[0], range(5, 9), schedulers[0])
    resumed.train(optimizers[1], range(5, 9), schedulers[1])
    assert rates_of(optimizers[0]) == rates_of(optimizers[1])


def test_relative_step_shows_the_rate_of_adafactor(problem):
    options = OptimizerOptions(optimizer_type="AdaFactor", learning_rate=3e-4, optimizer_args=("scale_parameter=False",))
    one = problem()
    optimizer = build_optimizer(options, one.groups())
    scheduler = build_scheduler(SchedulerOptions(lr_scheduler="adafactor"), optimizer, TOTAL)
    assert rates_of(optimizer) == [3e-4, 3e-4]
    for step in (1, 2):
        one.train(optimizer, [step], scheduler)
        assert rates_of(optimizer) == [1e-2, 1e-2]  # min(1e-2, 1 / sqrt(step)): Shazeer and Stern 2018, arXiv 1804.04235
    optimizer.state[one.weights[0]]["step"] = 40_000 - 1
    one.train(optimizer, [3], scheduler)
    assert rates_of(optimizer) == pytest.approx([5e-3, 1e-2])


def test_adafactor_with_a_given_rate_follows_the_schedule(problem):
    options = OptimizerOptions(optimizer_type="AdaFactor", optimizer_args=("relative_step=False",))
    optimizer = build_optimizer(options, problem().groups(0.5, 1.0))
    scheduler = build_scheduler(SchedulerOptions(lr_scheduler="constant_with_warmup", lr_warmup_steps=10), optimizer, TOTAL)
    assert rates_of(optimizer) == [0.0, 0.0]
    problem().train(optimizer, [1])
    scheduler.step(1.0)
    assert rates_of(optimizer) == [0.05, 0.1]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_schedule_free_keeps_its_rate(problem, caplog):
    optimizer_options = OptimizerOptions(optimizer_type="AdamWScheduleFree", learning_rate=1e-3)
    options = SchedulerOptions(lr_scheduler="cosine", lr_warmup_steps=10)
    check_scheduler(options, optimizer_options, TOTAL)
    assert "without effect: lr_scheduler, lr_warmup_steps" in caplog.text
    optimizer = build_optimizer(optimizer_options, problem().groups())
    scheduler = build_scheduler(options, optimizer, TOTAL)
    for _ in range(50):
        scheduler.step(1.0)
    assert rates_of(optimizer) == [1e-3, 1e-3]


@pytest.mark.parametrize(
    ("changes", "optimizer_type", "message"),
    [
        ({"lr_scheduler": "cosin"}, "AdamW", "did you mean cosine"),
        ({"lr_scheduler": "cosin"}, "AdamWScheduleFree", "did you mean cosine"),
        ({"lr_scheduler": "adafactor"}, "AdamW", "AdaFactor"),
        ({"lr_scheduler": "adafactor"}, "AdamWScheduleFree", "AdaFactor"),
        ({"lr_warmup_steps": 10}, "AdamW", "constant_with_warmup"),
        ({"lr_scheduler": "cosine", "lr_decay_steps": 10}, "AdamW", "lr_decay_steps = 10.*warmup_stable_decay"),
        ({"lr_scheduler": "cosine", "lr_scheduler_power": 2.0}, "AdamW", "lr_scheduler_power = 2.0.*polynomial"),
        ({"lr_scheduler": "cosine_with_min_lr"}, "AdamW", "lr_scheduler_min_lr_ratio"),
        ({"lr_scheduler": "cosine_warmup_with_min_lr"}, "AdamW", "lr_scheduler_min_lr_ratio"),
        ({"lr_scheduler": "warmup_stable_decay", "lr_warmup_steps": 0.6, "lr_decay_steps": 60}, "AdamW", "max_train_steps"),
        ({"lr_scheduler": "piecewise_constant"}, "AdamW", "step_rules='1:"),
        ({"lr_scheduler": "piecewise_constant", "lr_scheduler_args": ("step_rules='often'",)}, "AdamW", "as in step_rules='1:"),
        ({"lr_scheduler": "cosine", "lr_scheduler_args": ("num_warmup_steps=3",)}, "AdamW", "option of its own"),
        ({"lr_scheduler": "cosine", "lr_scheduler_args": ("num_training_steps=3",)}, "AdamW", "max_train_steps"),
        ({"lr_scheduler": "reduce_lr_on_plateau", "lr_scheduler_args": ("factor=2.0",)}, "AdamW", "refuses its arguments"),
        ({"lr_scheduler_type": "StepLr"}, "AdamW", "did you mean StepLR"),
        ({"lr_scheduler_type": "StepLR"}, "AdamW", "needs step_size"),
        ({"lr_scheduler_type": "torch.optim.AdamW"}, "AdamW", "not a scheduler class"),
        ({"lr_scheduler_type": "math.sqrt"}, "AdamW", "not a scheduler class"),
        ({"lr_scheduler_type": "no_such.Thing"}, "AdamW", "pip install no-such"),
        ({"lr_scheduler_type": "StepLR", "lr_scheduler_args": ("step_size=1.5",)}, "AdamW", "whole number"),
        ({"lr_scheduler_type": "StepLR", "lr_scheduler_args": ("optimizer=1",)}, "AdamW", "optimizer_type"),
        ({"lr_scheduler_type": "ConstantLR", "lr_warmup_steps": 5}, "AdamW", "lr_warmup_steps = 5"),
    ],
)
def test_mistakes(changes, optimizer_type, message):
    with pytest.raises(UserError, match=message):
        check_scheduler(SchedulerOptions(**changes), OptimizerOptions(optimizer_type=optimizer_type), TOTAL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr_scheduler": "linear", "lr_warmup_steps": 100}, "not over"),
        ({"lr_scheduler": "linear", "lr_scheduler_type": "ConstantLR"}, "replaces lr_scheduler linear"),
    ],
)
def test_warnings(caplog, changes, message):
    check_scheduler(SchedulerOptions(**changes), OptimizerOptions(), TOTAL)
    assert message in caplog.text


def test_the_number_of_steps_may_be_unknown(caplog):
    check_scheduler(SchedulerOptions(lr_scheduler="linear", lr_warmup_steps=5000), OptimizerOptions(), None)
    assert caplog.text == ""


def test_one_step_of_the_scheduler_per_optimizer_step(problem):
    """Whatever the number of processes: nothing else steps it, and it knows no processes."""
    one = problem()
    optimizer = build_optimizer(OptimizerOptions(learning_rate=1.0), one.groups())
    scheduler = build_scheduler(SchedulerOptions(lr_scheduler="linear"), optimizer, 4)
    seen = []
    for step in range(4):
        seen.append(rates_of(optimizer)[0])
        one.train(optimizer, [step + 1], scheduler)
    assert seen == [1.0, 0.75, 0.5, 0.25]
    assert torch.tensor(rates_of(optimizer)).tolist() == [0.0, 0.0]
