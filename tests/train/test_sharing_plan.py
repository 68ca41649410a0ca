"""How accelerate's answers and the options say that a training is shared, and what is told before a model is loaded."""

from __future__ import annotations

import importlib.util

import pytest

from library.config.load import load_settings
from library.errors import UserError
from library.train.sharing_plan import FSDPSettings, SharingPlan, plan_sharing

NEEDED = ("--pretrained_model_name_or_path", "m", "--network_module", "networks.lora", "--output_dir", "o")
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}
LAUNCHED = {"RANK": "0"}


def settings(*flags: str, script: str = "train_network.py"):
    return load_settings(script, [*(NEEDED if script == "train_network.py" else ()), *flags])


@pytest.fixture
def installed(monkeypatch):
    """As if DeepSpeed were."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: object() if name == "deepspeed" else real(name, *rest))


def test_nothing_asked_for():
    assert plan_sharing(settings(), 2, {"ACCELERATE_USE_FSDP": "false"}).kind == "whole"


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, FSDPSettings()),
        ({"FSDP_RESHARD_AFTER_FORWARD": "false"}, FSDPSettings(reshard_after_forward=False)),
        ({"FSDP_VERSION": "1", "FSDP_SHARDING_STRATEGY": "FULL_SHARD"}, FSDPSettings()),
        ({"FSDP_VERSION": "1", "FSDP_SHARDING_STRATEGY": "SHARD_GRAD_OP"}, FSDPSettings(reshard_after_forward=False)),
        (
            {"FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_TRANSFORMER_CLS_TO_WRAP": "BasicTransformerBlock, ResnetBlock2D"},
            FSDPSettings(class_names=("BasicTransformerBlock", "ResnetBlock2D")),
        ),
        ({"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP", "FSDP_MIN_NUM_PARAMS": "5000"}, FSDPSettings(least_parameters=5000)),
    ],
)
def test_answers_about_fsdp(answers, expected):
    assert plan_sharing(settings(), 2, FSDP | answers) == SharingPlan("fsdp", expected)


def test_one_process_has_nothing_to_share():
    plan = plan_sharing(settings(), 1, FSDP)
    assert plan.kind == "whole" and "one process" in plan.notes[0]


@pytest.mark.parametrize(
    ("flags", "answers", "words"),
    [
        ((), {"FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params"),
        ((), {"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "--gradient_checkpointing"),
        ((), {"FSDP_VERSION": "1", "FSDP_SHARDING_STRATEGY": "HYBRID_SHARD"}, "FULL_SHARD or SHARD_GRAD_OP"),
        ((), {"FSDP_IGNORED_MODULES": "x"}, "fsdp_ignored_modules"),
        (("--mixed_precision", "fp16"), {}, 'mixed_precision = "bf16"'),
        (("--mixed_precision", "bf16", "--fp8_base"), {}, "fp8_base"),
        (("--torch_compile",), {}, "torch_compile"),
    ],
)
def test_what_does_not_go_with_fsdp(flags, answers, words):
    with pytest.raises(UserError, match=words):
        plan_sharing(settings(*flags), 2, FSDP | answers)


def test_what_a_network_can_do_beside_a_shared_model():
    """It is whole in each process, so that averages, its own optimizers and 16 bits stay possible."""
    flags = ("--ema", "--optimizer_type", "AdaFactor", "--mixed_precision", "bf16", "--full_bf16")
    assert plan_sharing(settings(*flags), 2, FSDP).kind == "fsdp"


def test_deepspeed_takes_its_options_or_the_answers(installed, monkeypatch):
    asked = plan_sharing(
        settings("--deepspeed", "--zero_stage", "1", "--offload_optimizer_device", "cpu", "--max_grad_norm", "0.5"), 2, LAUNCHED
    )
    assert asked == SharingPlan(
        "deepspeed", deepspeed={"zero_stage": 1, "offload_optimizer_device": "cpu"}, max_grad_norm=0.5
    )
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    answered = LAUNCHED | {"ACCELERATE_USE_DEEPSPEED": "true"}
    assert plan_sharing(settings(), 2, answered) == SharingPlan("deepspeed", max_grad_norm=1.0)
    with pytest.raises(UserError, match="ema"):
        plan_sharing(settings("--ema"), 2, answered)
    nothing = plan_sharing(settings("--deepspeed", "--zero_stage", "0"), 2, LAUNCHED)
    assert nothing.kind == "whole" and "zero_stage = 0" in nothing.notes[0]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--optimizer_type", "AdaFactor"), "optimizer_type: Adafactor looks at whole tensors"),
        (("--optimizer_type", "Prodigy"), "optimizer_type: Prodigy looks at whole tensors"),
        (("--optimizer_type", "AdamWScheduleFree"), "two sets of weights"),
        (("--mixed_precision", "bf16", "--full_bf16"), "full_bf16"),
        (("--fused_optimizer_groups", "2"), "fused_optimizer_groups"),
        (("--mixed_precision", "fp16"), "mixed_precision"),
        (("--zero_stage", "3", "--ema"), "ema"),
        (("--zero_stage", "3", "--gradient_accumulation_steps", "2"), "zero_stage = 2"),
        (("--zero_stage", "3", "--scale_weight_norms", "1"), "scale_weight_norms"),
    ],
)
def test_what_does_not_go_with_deepspeed(installed, flags, words):
    with pytest.raises(UserError, match=words):
        plan_sharing(settings("--deepspeed", *flags), 2, LAUNCHED)


def test_words_are_too_small_for_stage_3(installed):
    words = settings("--deepspeed", "--zero_stage", "3", "--token_string", "mytoad", script="train_textual_inversion.py")
    with pytest.raises(UserError, match="vectors of words"):
        plan_sharing(words, 2, LAUNCHED)


def test_a_text_encoder_that_stops(installed):
    stops = settings("--deepspeed", "--stop_text_encoder_training", "5", script="train_db.py")
    with pytest.raises(UserError, match="use FSDP"):
        plan_sharing(stops, 2, LAUNCHED)


def test_deepspeed_needs_a_launcher_and_the_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(UserError) as raised:
        plan_sharing(settings("--deepspeed"), 1, {})
    assert ["accelerate launch" in raised.value.messages[0], "pip install deepspeed" in raised.value.messages[1]] == [True, True]
