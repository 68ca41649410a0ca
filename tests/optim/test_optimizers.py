"""Every optimizer trains, continues from its saved state to the bit, and says early what is wrong with its arguments."""
from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
import torch

from library.config.options import OptimizerOptions, SchedulerOptions
from library.errors import UserError
from library.optim.names import SHORT_NAMES
from library.optim.optimizers import (
    adapted_learning_rates,
    build_optimizer,
    check_optimizer,
    evaluation_weights,
    is_schedule_free,
    optimizer_description,
)
from library.optim.schedulers import build_scheduler

NAMES = [short.name for short in SHORT_NAMES.values()]
OTHER_CLASSES = ["RMSprop", "torch.optim.NAdam", "bitsandbytes.optim.AdEMAMix8bit"]
FINDS_ITS_RATE = [name for name in NAMES if name.startswith("DAdapt") or name == "Prodigy"]
SCHEDULE_FREE = [name for name in NAMES if name.endswith("ScheduleFree")]


def options_for(name: str, **changes) -> OptimizerOptions:
    rate = 1.0 if name in FINDS_ITS_RATE else 1e-2
    return OptimizerOptions(**{"optimizer_type": name, "learning_rate": rate} | changes)


def accelerated(optimizer):
    """Like accelerate's wrapper, which has train and eval whatever it wraps."""
    return SimpleNamespace(optimizer=optimizer, train=None, eval=None, param_groups=optimizer.param_groups)


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.filterwarnings("ignore:.*paged.*", "ignore:.*Paged.*")
@pytest.mark.parametrize("name", NAMES + OTHER_CLASSES)
def test_continues_from_its_state_to_the_bit(problem, name):
    scheduler_options = SchedulerOptions(lr_scheduler="cosine", lr_warmup_steps=2)

    def start():
        one = problem()
        rates = (0.5, 1.0) if name in FINDS_ITS_RATE else (1e-3, 1e-2)
        optimizer = build_optimizer(options_for(name), one.groups(*rates))
        return one, optimizer, build_scheduler(scheduler_options, optimizer, 10)

    unbroken, optimizer, scheduler = start()
    before = unbroken.snapshot()
    unbroken.train(optimizer, range(1, 5), scheduler)
    weights, state = unbroken.snapshot(), through_a_file([optimizer.state_dict(), scheduler.state_dict()])
    unbroken.train(optimizer, range(5, 9), scheduler)

    resumed, optimizer, scheduler = start()
    with torch.no_grad():
        for weight, saved in zip(resumed.weights, weights, strict=True):
            weight.copy_(saved)
    optimizer.load_state_dict(state[0])
    scheduler.load_state_dict(state[1])
    resumed.train(optimizer, range(5, 9), scheduler)

    for first, last, again in zip(before, unbroken.snapshot(), resumed.snapshot(), strict=True):
        assert torch.equal(last, again)
        assert not torch.equal(first, last)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_case_insensitive_and_classes_exist(name):
    check_optimizer(options_for(name.upper()))
    assert optimizer_description(options_for(name.upper())) == optimizer_description(options_for(name.lower()))


@pytest.mark.parametrize("name", ["AdamW", "AdaFactor", "Lion", "Prodigy", "RAdamScheduleFree"])
def test_weights_of_mixed_dtype(problem, name):
    one = problem()
    one.weights[0] = torch.nn.Parameter(one.weights[0].detach().bfloat16())
    before = one.snapshot()
    one.train(build_optimizer(options_for(name), one.groups()), range(1, 12))
    assert all(not torch.equal(old, new) for old, new in zip(before, one.snapshot(), strict=True))


@pytest.mark.parametrize("name", FINDS_ITS_RATE)
def test_two_rates_train_both_sides(problem, name):
    """The documented `--text_encoder_lr=0.5 --unet_lr=1.0`: each side finds its own step size, as if it were alone."""
    one = problem()
    optimizer = build_optimizer(options_for(name), one.groups(0.5, 1.0))
    before = one.snapshot()
    one.train(optimizer, range(1, 8))
    assert all(not torch.equal(old, new) for old, new in zip(before, one.snapshot(), strict=True))

    alone = problem()
    single = build_optimizer(options_for(name), alone.groups(0.5, 1.0)[1:])
    alone.train(single, range(1, 8))
    assert torch.equal(alone.weights[1], one.weights[1])
    assert adapted_learning_rates(optimizer)["unet"] == adapted_learning_rates(single)["unet"]
    assert set(adapted_learning_rates(optimizer)) == {"textencoder", "unet"}


def test_groups_of_one_rate_share_an_estimate(problem):
    one = problem()
    optimizer = build_optimizer(options_for("Prodigy"), one.groups())
    one.train(optimizer, range(1, 8))
    rates = adapted_learning_rates(optimizer)
    assert rates["unet"] == rates["textencoder"] > 0


def test_schedules_and_accelerate_see_the_groups_of_a_chain(problem):
    one = problem()
    optimizer = build_optimizer(options_for("Prodigy"), one.groups(0.5, 1.0))
    scheduler = build_scheduler(SchedulerOptions(lr_scheduler="linear"), optimizer, 4)
    one.train(optimizer, range(1, 3), scheduler)
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {"textencoder": 0.25, "unet": 0.5}
    assert [group["lr"] for member in optimizer.members for group in member.param_groups] == [0.25, 0.5]
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups[0] is optimizer.members[0].param_groups[0]
    assert len(optimizer.state) == 3


def test_group_rates(problem):
    optimizer = build_optimizer(OptimizerOptions(learning_rate=3e-4), problem().groups(None, 1e-3))
    assert [group["lr"] for group in optimizer.param_groups] == [3e-4, 1e-3]
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults["weight_decay"] == 0.01  # the library's defaults apply


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "torch.optim.adamw.AdamW"),
        ({"optimizer_args": ("eps=1e-6", "betas=0.9,0.99")}, "torch.optim.adamw.AdamW(eps=1e-06,betas=(0.9, 0.99))"),
        ({"optimizer_type": "AdamW8bit"}, "bitsandbytes.optim.adamw.AdamW8bit"),
        ({"optimizer_type": "Lion"}, "lion_pytorch.lion_pytorch.Lion"),
        ({"optimizer_type": "sgdnesterov"}, "torch.optim.sgd.SGD(nesterov=True,momentum=0.9)"),
        (
            {"optimizer_type": "SGDNesterov", "optimizer_args": ("momentum=0.5",)},
            "torch.optim.sgd.SGD(nesterov=True,momentum=0.5)",
        ),
        ({"optimizer_type": "torch.optim.Adafactor"}, "torch.optim.Adafactor"),
        ({"optimizer_type": "AdaFactor"}, "transformers.optimization.Adafactor(relative_step=True)"),
        (
            {"optimizer_type": "AdaFactor", "optimizer_args": ("warmup_init=True", "relative_step=False")},
            "transformers.optimization.Adafactor(warmup_init=True,relative_step=True)",
        ),
    ],
)
def test_which_class_with_which_arguments(changes, expected):
    check_optimizer(OptimizerOptions(**changes))
    assert optimizer_description(OptimizerOptions(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer_type": "AdanW"}, "did you mean AdamW"),
        ({"optimizer_type": "torch.optim.Adm"}, "did you mean Adam"),
        ({"optimizer_type": "torch.optimizer.Adam"}, "no module torch.optimizer"),
        ({"optimizer_type": "no_such_package.Adam"}, "pip install no-such-package"),
        ({"optimizer_type": "lr_scheduler"}, "not an optimizer class"),
        ({"optimizer_type": "LBFGS"}, "several times"),
        ({"optimizer_args": ("betas=(0.9)",)}, "betas=0.9,0.999"),
        ({"optimizer_args": ("betas=0.9,0.99,0.999",)}, "expected 2 values"),
        ({"optimizer_args": ("betas=0.9,True",)}, "expected 2 values"),
        ({"optimizer_args": ("betas=0.9,1.5",)}, "1.5"),
        ({"optimizer_args": ('weight_decay="x"',)}, "weight_decay.*expected a number"),
        ({"optimizer_args": ("weight_decay=True",)}, "expected a number"),
        ({"optimizer_args": ("weight_decay=None",)}, "expected a number"),
        ({"optimizer_args": ("amsgrad=1",)}, "expected True or False"),
        ({"optimizer_args": ("fused='yes'",)}, "expected True or False"),
        ({"optimizer_args": ("wieght_decay=0.1",)}, "did you mean weight_decay"),
        ({"optimizer_args": ("lr=0.1",)}, "learning_rate"),
        ({"optimizer_args": ("params=1",)}, "remove it"),
        ({"optimizer_args": ("weight_decay",)}, "exactly one"),
        ({"optimizer_args": ("weight_decay=0.1=0.2",)}, "exactly one"),
        ({"optimizer_args": ("weight_decay=abc",)}, "text needs quotes"),
        ({"optimizer_args": ("eps=1e-8", "eps=1e-6")}, "given twice"),
        ({"optimizer_type": "Prodigy", "optimizer_args": ("d0=-1",)}, "Invalid d0"),
    ],
)
def test_mistakes(changes, message):
    with pytest.raises(UserError, match=message):
        check_optimizer(OptimizerOptions(**changes))


@pytest.mark.parametrize(
    ("name", "package", "install"),
    [
        ("Lion", "lion_pytorch", "lion-pytorch"),
        ("AdamW8bit", "bitsandbytes", "bitsandbytes"),
        ("DAdaptation", "dadaptation", "dadaptation"),
        ("Prodigy", "prodigyopt", "prodigyopt"),
        ("AdamWScheduleFree", "schedulefree", "schedulefree"),
    ],
)
def test_missing_packages(monkeypatch, name, package, install):
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)

    class NotInstalled:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [NotInstalled, *sys.meta_path])
    with pytest.raises(UserError, match=f"pip install {install}$"):
        check_optimizer(OptimizerOptions(optimizer_type=name))


def test_all_mistakes_at_once():
    with pytest.raises(UserError) as raised:
        check_optimizer(OptimizerOptions(optimizer_args=("wieght_decay=0.1", "amsgrad=1")))
    assert len(raised.value.messages) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer_type": "Prodigy", "learning_rate": 1e-4}, "1.0 is usual"),
        ({"optimizer_type": "DAdaptAdam", "unet_lr": 1.0, "text_encoder_lr": (0.1,), "learning_rate": 0.0}, "1.0 is usual"),
        ({"optimizer_type": "AdaFactor", "optimizer_args": ("relative_step=False",)}, "max_grad_norm"),
    ],
)
def test_warnings(caplog, changes, message):
    check_optimizer(OptimizerOptions(**changes))
    assert message in caplog.text


def test_no_warning_without_reason(caplog):
    check_optimizer(OptimizerOptions(optimizer_type="Prodigy", unet_lr=1.0, text_encoder_lr=(0.5,)))
    check_optimizer(OptimizerOptions())
    assert caplog.text == ""


@pytest.mark.parametrize("name", SCHEDULE_FREE)
@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, accelerated], ids=["plain", "accelerated"])
def test_evaluation_weights_are_the_average_and_leave_no_trace(problem, name, wrap):
    looked, blind = problem(), problem()
    optimizers = [build_optimizer(options_for(name), one.groups()) for one in (looked, blind)]
    for one, optimizer in zip((looked, blind), optimizers, strict=True):
        one.train(optimizer, range(1, 15))
    trained = looked.snapshot()
    wrapped = wrap(optimizers[0])
    with evaluation_weights(wrapped):
        inside = looked.snapshot()
        with evaluation_weights(wrapped):
            assert all(map(torch.equal, inside, looked.snapshot()))
        assert all(map(torch.equal, inside, looked.snapshot()))  # the inner block did not switch back
    assert all(map(torch.equal, trained, looked.snapshot()))
    assert not any(map(torch.equal, trained, inside))
    optimizers[1].eval()
    assert all(map(torch.equal, inside, blind.snapshot()))
    looked.train(optimizers[0], range(15, 17))  # training goes on


def test_evaluation_weights_of_others_are_the_trained_ones(problem):
    one = problem()
    optimizer = build_optimizer(OptimizerOptions(), one.groups())
    before = one.snapshot()
    assert not is_schedule_free(optimizer)
    with evaluation_weights(accelerated(optimizer)):
        assert all(map(torch.equal, before, one.snapshot()))


@pytest.mark.parametrize("name, device", [("AdamW8bit", "meta"), ("AdamW8bit", "cpu"), ("AdamW", "meta")])
def test_bitsandbytes_makes_a_step_on_the_device_of_the_training(monkeypatch, name, device):
    """Where it has no code for the GPU, nothing but a step says so; "meta" stands for one that it has no code for."""
    bitsandbytes = pytest.importorskip("bitsandbytes.optim")
    steps = []

    def step(optimizer):
        (parameter,) = optimizer.param_groups[0]["params"]
        steps.append((parameter.device.type, parameter.grad.shape))
        raise RuntimeError("Native code method attempted to call: cadam\nmore")

    monkeypatch.setattr(bitsandbytes.AdamW8bit, "step", step)
    if (name, device) != ("AdamW8bit", "meta"):
        check_optimizer(options_for(name), device)
        assert steps == []
        return
    with pytest.raises(UserError, match=r"AdamW8bit makes no step on meta \(Native code method attempted to call: cadam\); pip install"):
        check_optimizer(options_for(name), device)
    assert steps == [("meta", torch.Size([2**14]))]
