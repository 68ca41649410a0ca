"""The inputs of each service: its defaults, its names, what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from service.training import from_cerebrium, from_replicate, from_tiyaro
from service.training.fields import BadInput
from service.training.request import TrainingRequest

TIYARO = {"name": "milkyway", "version": "1.0", "datasetS3ObjName": "milkyway.zip", "class_prompt": "a dog", "instance_prompt": "a sks dog"}
REPLICATE = {"instance_prompt": "a photo of a cjw person", "class_prompt": "a photo of a person", "instance_data": "https://example.com/person.zip"}
CEREBRIUM = {"name": "toy", "hf_model_path": "runwayml/stable-diffusion-v1-5", "train_prompt": "a sks toy"}


def problems_of(read: Callable[[Mapping[str, object]], TrainingRequest], inputs: Mapping[str, object]) -> dict[str, str]:
    with pytest.raises(BadInput) as caught:
        read(inputs)
    return {problem.field: problem.message for problem in caught.value.problems}


# --- Tiyaro ---


def test_tiyaro_leaves_the_rest_to_the_defaults_of_replicates_trainer():
    tiyaro, replicate = from_tiyaro.read(TIYARO), from_replicate.read(REPLICATE)
    own = {"name", "version", "instance_prompt", "class_prompt", "instance_data"}
    for name, value in tiyaro.to_json().items():
        assert name in own or value == replicate.to_json()[name], name
    assert (tiyaro.name, tiyaro.version, tiyaro.instance_data) == ("milkyway", "1.0", "milkyway.zip")
    assert tiyaro.instance_prompt == "a sks dog"


def test_tiyaro_every_documented_field():
    documented = {
        "desc": "x", "model": "a/b", "vae": "c", "seed": 7, "prior_loss_weight": 0.5, "resolution": 256, "train_batch_size": 2,
        "lr_warmup_steps": 3, "lr_scheduler": "cosine", "num_class_images": 9, "learning_rate": 1e-5, "gradient_accumulation_steps": 4,
        "max_train_steps": 11, "train_text_encoder": False, "use_8bit_adam": True, "mixed_precision": "bf16", "with_prior_preservation": False,
        "adam_beta1": 0.8, "adam_beta2": 0.99, "adam_weight_decay": 0.1, "adam_epsilon": 1e-6, "max_grad_norm": 2.0,
    }  # fmt: skip
    assert {field.name for field in from_tiyaro.FIELDS} == documented.keys() | TIYARO.keys()
    found = from_tiyaro.read(TIYARO | documented)
    for name, value in documented.items():
        assert getattr(found, "description" if name == "desc" else name) == value


def test_tiyaro_mistakes():
    found = problems_of(
        from_tiyaro.read,
        {**TIYARO, "name": "../up", "seed": 2**31, "num_train_epochs": 3, "model": "/models/secret.ckpt", "lr_scheduler": "my.module.Class"},
    )
    assert found.keys() == {"name", "seed", "num_train_epochs", "model", "lr_scheduler"}
    assert problems_of(from_tiyaro.read, {}).keys() == TIYARO.keys()


# --- Replicate ---


def test_replicate_defaults():
    request = from_replicate.read(REPLICATE)
    assert request == TrainingRequest(
        method="dreambooth", instance_prompt="a photo of a cjw person", class_prompt="a photo of a person",
        instance_data="https://example.com/person.zip", with_prior_preservation=True, num_class_images=50, seed=1337, resolution=512,
        max_train_steps=2000, learning_rate=1e-6, lr_scheduler="constant", train_batch_size=1, mixed_precision="fp16",
    )  # fmt: skip


def test_replicate_steps_win_over_epochs_and_epochs_alone_decide():
    both = from_replicate.read(REPLICATE | {"max_train_steps": 10, "num_train_epochs": 3})
    assert (both.max_train_steps, both.warnings) == (10, ("num_train_epochs has no effect: max_train_steps decides",))
    epochs = from_replicate.read(REPLICATE | {"num_train_epochs": 3})
    assert (epochs.max_train_steps, epochs.num_train_epochs, epochs.warnings) == (None, 3, ())


def test_replicate_says_what_has_no_effect():
    (warning,) = from_replicate.read(REPLICATE | {"sample_batch_size": 2}).warnings
    assert warning.startswith("sample_batch_size has no effect")


def test_replicate_mistakes():
    found = problems_of(from_replicate.read, {**REPLICATE, "num_class_images": 0, "hub_token": "x", "instance_prompt": "a\nb"})
    assert found.keys() == {"num_class_images", "hub_token", "instance_prompt"}
    assert from_replicate.read({**REPLICATE, "num_class_images": 0, "class_data": "https://example.com/c.zip"}).num_class_images == 0
    assert from_replicate.read({**REPLICATE, "num_class_images": 0, "with_prior_preservation": False}).num_class_images == 0


# --- Cerebrium ---


def test_cerebrium_defaults():
    assert from_cerebrium.read(CEREBRIUM) == TrainingRequest(
        method="lora", name="toy", model="runwayml/stable-diffusion-v1-5", instance_prompt="a sks toy", learning_rate=5e-4,
        num_train_epochs=30, train_batch_size=2, validation_epochs=10, use_8bit_adam=True, mixed_precision="no",
        train_text_encoder=False, pad_tokens=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "target", "value"),
    [
        ({"lr_schedule": "cosine"}, "lr_scheduler", "cosine"),
        ({"lr_scheduler": "cosine"}, "lr_scheduler", "cosine"),
        ({"warmup_steps": 5}, "lr_warmup_steps", 5),
        ({"lr_warmup_steps": 5}, "lr_warmup_steps", 5),
        ({"learning_rate": "1e-4"}, "learning_rate", 1e-4),
        ({"max_train_steps": 9}, "max_train_steps", 9),
        ({"num_validation_images": 2}, "sample_count", 2),
        ({"lr_power": 2}, "lr_power", 2.0),
    ],
)
def test_cerebrium_both_generations_of_names(arguments, target, value):
    assert getattr(from_cerebrium.read({**CEREBRIUM, "training_args": arguments}), target) == value


def test_cerebrium_keeps_a_class():
    for inputs in (
        {"num_prior_class_images": 20},
        {"training_args": {"num_prior_class_images": 20}},
    ):
        request = from_cerebrium.read({**CEREBRIUM, "prior_class_prompt": "a toy", **inputs})
        assert (request.with_prior_preservation, request.class_prompt, request.num_class_images) == (True, "a toy", 20)
    folder = from_cerebrium.read({**CEREBRIUM, "prior_class_prompt": "a toy", "prior_class_image_dir": "/home/me/toys"})
    assert (folder.with_prior_preservation, folder.num_class_images) == (True, 0)


def test_cerebrium_keeps_nothing_of_what_concerns_its_own_machines():
    assert "SECRET" not in str(from_cerebrium.read({**CEREBRIUM, "api_key": "SECRET", "hardware": "A10", "cpu": 2, "init_debug": False}))


def test_cerebrium_mistakes():
    found = problems_of(
        from_cerebrium.read,
        {
            "name": "toy", "hf_model_path": "/root/model", "train_prompt": "x", "custom_tokenizer": "mine", "num_prior_class_images": 4,
            "training_type": "transformer",
            "training_args": {"learning_rate": 2, "lr_schedule": "cosine", "lr_scheduler": "linear", "network_module": "os"},
        },
    )  # fmt: skip
    assert found.keys() == {
        "hf_model_path", "custom_tokenizer", "prior_class_prompt", "training_type", "training_args.learning_rate",
        "training_args.lr_scheduler", "training_args.network_module",
    }  # fmt: skip
    assert problems_of(from_cerebrium.read, {**CEREBRIUM, "training_args": ["a"]}).keys() == {"training_args"}
    assert problems_of(from_cerebrium.read, {**CEREBRIUM, "prior_class_prompt": "a toy"}).keys() == {"num_prior_class_images"}


def test_cerebrium_says_what_has_no_effect():
    request = from_cerebrium.read({**CEREBRIUM, "training_args": {"use_xformers": True, "max_train_steps": 5, "num_train_epochs": 2}})
    assert [warning.split(" ")[0] for warning in request.warnings] == ["use_xformers", "num_train_epochs"]
