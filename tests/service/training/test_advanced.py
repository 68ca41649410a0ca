"""The page's inputs, and the options of the trainer that a request may set: a list, and nothing that is dangerous is on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from library.config.kinds import KINDS
from library.config.settings import OPTIONS
from service.training import from_console, from_replicate
from service.training.advanced import ADVANCED, advanced_options
from service.training.fields import BadInput
from service.training.job_files import check_together, run_options
from service.training.job_folder import JobFolder
from service.training.models import BaseModel, Models
from service.training.resolved import Machine, ResolvedRequest, resolve

MODELS = Models({"base": BaseModel("base", Path())}, {}, "base")
SMALL = {"name": "frog", "instance_prompt": "a sks frog"}


def resolved(inputs: dict) -> ResolvedRequest:
    return resolve(from_console.read(inputs), Machine(), MODELS)


def problems_of(function, *arguments) -> dict[str, str]:
    with pytest.raises(BadInput) as caught:
        function(*arguments)
    return {problem.field: problem.message for problem in caught.value.problems}


def test_no_option_of_the_list_names_a_place_a_module_or_a_token():
    """Texts are safe where they are one of some choices."""
    for name in ADVANCED:
        option = OPTIONS[name]
        assert not option.declared.secret and not option.declared.private, name
        assert option.declared.choices or option.kind in (KINDS[bool], KINDS[int], KINDS[float]), name


def test_no_option_of_the_list_is_what_an_input_stands_for():
    for inputs in (SMALL, {**SMALL, "method": "lora", "class_prompt": "a frog", "gradient_checkpointing": True, "center_crop": True}):
        written = run_options(resolved(inputs), JobFolder(Path("job")))
        assert set(ADVANCED) & written.keys() <= {"network_dim", "network_alpha"}  # whose value here is a default


def test_the_page_needs_a_name_and_a_prompt():
    request = from_console.read(SMALL)
    assert (request.method, request.with_prior_preservation, request.max_train_steps, request.learning_rate) == ("dreambooth", False, 2000, 1e-6)
    assert from_console.read({**SMALL, "class_prompt": "a frog"}).with_prior_preservation
    assert from_console.read({**SMALL, "num_train_epochs": 2}).max_train_steps is None
    network = from_console.read({**SMALL, "method": "lora"})
    assert (network.learning_rate, network.train_text_encoder) == (5e-4, False)
    assert from_console.read({**SMALL, "method": "lora", "learning_rate": 1e-3}).learning_rate == 1e-3


def test_mistakes_are_told_at_once_by_name():
    found = problems_of(
        from_console.read,
        {
            "instance_prompt": "x\ny", "with_prior_preservation": True,
            "advanced": {
                "optimizer_type": "os.system", "noise_offset": float("nan"), "network_dim": 4, "loss_type": "l3", "flip_aug": "yes",
                "min_snr_gama": 5, "keep_tokens": 10**400, "clip_skip": 99,
            },
        },
    )  # fmt: skip
    assert found.keys() == {
        "name", "instance_prompt", "class_prompt", "advanced.optimizer_type", "advanced.noise_offset", "advanced.network_dim", "advanced.loss_type",
        "advanced.flip_aug", "advanced.min_snr_gama", "advanced.keep_tokens", "advanced.clip_skip",
    }  # fmt: skip
    assert found["advanced.min_snr_gama"].endswith('did you mean "min_snr_gamma"?')
    assert problems_of(from_console.read, {**SMALL, "advanced": [1]}).keys() == {"advanced"}


def test_values_reach_the_run():
    inputs = {**SMALL, "method": "lora", "advanced": {"network_dim": 8, "noise_offset": 0.05, "flip_aug": True, "huber_c": None}}
    written = run_options(resolved(inputs), JobFolder(Path("job")))
    assert (written["network_dim"], written["network_alpha"], written["noise_offset"], written["flip_aug"]) == (8, 4.0, 0.05, True)
    assert "huber_c" not in written


def test_what_does_not_go_together_is_told():
    check_together(resolved({**SMALL, "advanced": {"noise_offset": 0.1, "ema": True}}))
    found = problems_of(check_together, resolved({**SMALL, "advanced": {"adaptive_noise_scale": 0.1, "ema_decay": 0.9}}))
    assert found.keys() == {"advanced.adaptive_noise_scale", "advanced.ema_decay"}
    assert found["advanced.ema_decay"] == "this has no effect without ema; set ema, or remove ema_decay"
    for request in (from_replicate.read({"instance_prompt": "a", "class_prompt": "b", "instance_data": "https://x.org/c.zip"}), from_console.read(SMALL)):
        check_together(resolve(request, Machine(has_cuda=True), MODELS))


def test_each_method_has_its_own():
    assert "network_dim" in advanced_options("lora") and "network_dim" not in advanced_options("dreambooth")
    assert set(ADVANCED) == advanced_options("lora").keys() | advanced_options("dreambooth").keys()
