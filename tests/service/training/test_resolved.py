"""What a request means on a machine with certain models: files, rate, schedule, optimizer, precision; and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from library.errors import UserError
from service.training.fields import BadInput
from service.training.models import Models, read_models
from service.training.request import TrainingRequest
from service.training.resolved import Machine, resolve, with_class_pictures

GPU = Machine(has_cuda=True, has_bf16=True)
REQUEST = TrainingRequest(method="dreambooth", instance_prompt="a sks dog", class_prompt="a dog", max_train_steps=5)


@pytest.fixture
def models(tmp_path) -> Models:
    for name in ("sd15", "sd15-fp16", "vae"):
        (tmp_path / name).mkdir()
    (tmp_path / "models.toml").write_text(
        'default = "runwayml/stable-diffusion-v1-5"\n'
        '[models."runwayml/stable-diffusion-v1-5"]\npath = "sd15"\nvae = "stabilityai/sd-vae-ft-mse"\nrevisions = { fp16 = "sd15-fp16" }\n'
        '[models."plain"]\npath = "sd15"\nfamily = "sdxl"\n'
        '[vaes."stabilityai/sd-vae-ft-mse"]\npath = "vae"\n',
        encoding="utf-8",
    )
    return read_models(tmp_path / "models.toml")


def problems_of(request: TrainingRequest, models: Models) -> dict[str, str]:
    with pytest.raises(BadInput) as caught:
        resolve(request, GPU, models)
    return {problem.field: problem.message for problem in caught.value.problems}


def test_names_stand_for_files(models, tmp_path):
    base = resolve(REQUEST, GPU, models).base
    assert (base.model.name, base.path, base.vae_path) == ("runwayml/stable-diffusion-v1-5", tmp_path / "sd15", tmp_path / "vae")
    assert resolve(replace(REQUEST, revision="fp16"), GPU, models).base.path == tmp_path / "sd15-fp16"
    plain = resolve(replace(REQUEST, model="plain"), GPU, models).base
    assert (plain.vae_path, plain.model.family) == (None, "sdxl")


def test_only_registered_names_are_taken(models, tmp_path):
    found = problems_of(replace(REQUEST, model=str(tmp_path / "sd15"), vae="vae"), models)
    assert found.keys() == {"model", "vae"}
    assert found["model"].endswith("is not registered here; there are plain, runwayml/stable-diffusion-v1-5")
    assert problems_of(replace(REQUEST, revision="secret"), models).keys() == {"revision"}
    assert problems_of(REQUEST, Models({}, {}, None)) == {
        "model": "none is named, and this service has no default; the operator registers them in models.toml"
    }


def test_mistakes_in_the_list_of_models(tmp_path):
    file = tmp_path / "models.toml"
    file.write_text(
        'defaults = 1\ndefault = "b"\n[models.a]\npath = "gone"\nfamily = "flux"\nvae = "v"\nsize = 1\n[vaes.w]\n', encoding="utf-8"
    )
    with pytest.raises(UserError) as caught:
        read_models(file)
    text = "\n".join(caught.value.messages)
    for part in ("unknown key defaults", 'default: there is no [models."b"]', "gone does not exist", "family: this is one of", 'no [vaes."v"]', "unknown key size", "[vaes.w] path: name the file"):
        assert part in text
    assert read_models(tmp_path / "none.toml") == Models({}, {}, None)


def test_scale_lr_is_arithmetic(models):
    request = replace(REQUEST, scale_lr=True, learning_rate=1e-6, gradient_accumulation_steps=3, train_batch_size=2)
    found = resolve(request, replace(GPU, processes=4), models)
    assert found.learning_rate == pytest.approx(24e-6)
    assert found.warnings == ("scale_lr: the learning rate is 2.4e-05, 1e-06 x 3 accumulated x 2 pictures x 4 processes",)
    assert resolve(replace(request, scale_lr=False), GPU, models).learning_rate == 1e-6


def test_constant_with_a_warm_up_is_said(models):
    found = resolve(replace(REQUEST, lr_warmup_steps=7), GPU, models)
    assert found.lr_scheduler == "constant_with_warmup"
    assert found.warnings == ("lr_scheduler: constant has no warm-up; constant_with_warmup is used for 7 steps of it",)
    assert resolve(REQUEST, GPU, models).lr_scheduler == "constant"
    assert resolve(replace(REQUEST, lr_scheduler="cosine", lr_warmup_steps=7), GPU, models).lr_scheduler == "cosine"


@pytest.mark.parametrize(
    ("machine", "asked", "used", "said"),
    [
        (GPU, "bf16", "bf16", 0),
        (GPU, "fp16", "fp16", 0),
        (Machine(has_cuda=True), "bf16", "fp16", 1),
        (Machine(), "fp16", "no", 1),
        (Machine(), "no", "no", 0),
    ],
)
def test_precision(models, machine, asked, used, said):
    found = resolve(replace(REQUEST, mixed_precision=asked), machine, models)
    assert (found.mixed_precision, len(found.warnings)) == (used, said)


def test_8_bit_adam_needs_a_gpu(models):
    request = replace(REQUEST, use_8bit_adam=True, mixed_precision="no")
    assert (resolve(request, GPU, models).optimizer_type, resolve(request, GPU, models).warnings) == ("AdamW8bit", ())
    for machine, reason in ((Machine(), "an NVIDIA GPU and there is none"), (replace(GPU, has_8bit_adam=False), "bitsandbytes, which is not installed")):
        found = resolve(request, machine, models)
        assert (found.optimizer_type, found.warnings) == ("AdamW", (f"use_8bit_adam: 8-bit Adam needs {reason}; AdamW is used",))


def test_class_pictures_of_the_upload(models):
    keeping = resolve(replace(REQUEST, with_prior_preservation=True), GPU, models)
    assert with_class_pictures(keeping, 3) == keeping
    with pytest.raises(BadInput, match="num_class_images: class pictures are needed and the upload holds none"):
        with_class_pictures(keeping, 0)
    drawing = resolve(replace(REQUEST, with_prior_preservation=True, num_class_images=5), GPU, models)
    assert with_class_pictures(drawing, 0) == drawing
    (warning,) = with_class_pictures(resolve(REQUEST, GPU, models), 3).warnings
    assert warning == "3 class pictures of the upload are not used: prior preservation is off"


def test_a_weight_of_0_leaves_the_class_out(models):
    found = resolve(replace(REQUEST, with_prior_preservation=True, prior_loss_weight=0.0), GPU, models)
    assert not found.with_prior_preservation
    assert found.warnings == ("prior_loss_weight is 0: the class pictures would count nothing, and are left out",)


def test_the_resolved_copy_tells_what_is_used_and_no_place(models, tmp_path):
    found = resolve(replace(REQUEST, lr_warmup_steps=7, scale_lr=True), replace(GPU, processes=2), models).to_json()
    assert (found["lr_scheduler"], found["learning_rate"], found["model"]) == ("constant_with_warmup", 2e-6, "runwayml/stable-diffusion-v1-5")
    assert found["sample_prompt"] == "a sks dog"
    assert str(Path(tmp_path)) not in json.dumps(found)
