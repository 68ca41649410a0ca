"""What a request is written as: accepted by the trainer's own loader, with the values meant, and with no way out of the allow-list."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from library.config.check import check_settings
from library.config.datasets import DatasetSettings, load_dataset_settings
from library.config.load import Settings, load_settings
from library.config.settings import OPTIONS
from library.config.text_files import read_toml
from library.sampling.prompts import read_prompts
from service.training import from_cerebrium, from_replicate, from_tiyaro
from service.training.fields import Text
from service.training.job_files import write_run
from service.training.job_folder import JobFolder
from service.training.models import BaseModel, Models
from service.training.request import TrainingRequest
from service.training.resolved import Machine, ResolvedRequest, resolve
from tests.service.training.small_pictures import write_picture
from tests.service.training.test_readers import CEREBRIUM, REPLICATE, TIYARO

GPU = Machine(has_cuda=True, has_bf16=True)
# All that a request can make appear in run.toml. An option that imports, names a place or holds a token is here only if the service
# itself decides on its value: see the test of sentinels.
ALLOWED = {
    "pretrained_model_name_or_path", "vae", "v_parameterization", "no_token_padding", "dataset_config", "cache_latents", "paired_prior",
    "prior_loss_weight", "learning_rate", "optimizer_type", "optimizer_args", "max_grad_norm", "lr_scheduler", "lr_warmup_steps",
    "lr_scheduler_num_cycles", "lr_scheduler_power", "max_train_steps", "max_train_epochs", "seed", "gradient_accumulation_steps",
    "gradient_checkpointing", "mixed_precision", "output_dir", "output_name", "save_precision", "save_state", "save_model_as",
    "use_safetensors",
    "save_every_n_steps", "save_last_n_steps", "save_every_n_epochs", "save_last_n_epochs", "sample_prompts", "sample_every_n_steps",
    "sample_every_n_epochs", "stop_text_encoder_training", "network_module", "network_dim", "network_alpha", "network_args",
    "network_train_unet_only",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> JobFolder:
    job = JobFolder(tmp_path / "job")
    for number in (1, 2, 3):
        write_picture(job.instance_pictures / f"0000{number}.png", number)
    return job


def models_in(place: Path) -> Models:
    (place / "sd15").mkdir(exist_ok=True, parents=True)
    name = "runwayml/stable-diffusion-v1-5"
    return Models({name: BaseModel(name, place / "sd15", vae="mse"), "a/b": BaseModel("a/b", place / "sd15")}, {"mse": place / "sd15"}, name)


def resolved(request: TrainingRequest, folder: JobFolder, machine: Machine = GPU) -> ResolvedRequest:
    return resolve(request, machine, models_in(folder.root.parent))


def loaded(request: TrainingRequest, folder: JobFolder, machine: Machine = GPU) -> tuple[Settings, list[DatasetSettings]]:
    """What the script that is started makes of the files, checked as it checks them."""
    launch = write_run(resolved(request, folder, machine), folder)
    found = load_settings(launch.script, list(launch.arguments))
    assert found is not None
    check_settings(found)
    return found, load_dataset_settings(found)


def test_replicates_defaults(folder):
    found, (dataset,) = loaded(from_replicate.read(REPLICATE), folder)
    assert found.script.name == "train_db.py"
    values = {
        "max_train_steps": 2000, "learning_rate": 1e-6, "lr_scheduler": "constant", "seed": 1337, "mixed_precision": "fp16",
        "paired_prior": True, "prior_loss_weight": 1.0, "optimizer_type": "AdamW", "max_grad_norm": 1.0, "save_model_as": "diffusers",
        "use_safetensors": True,
        "optimizer_args": ("betas=0.9,0.999", "weight_decay=0.01", "eps=1e-08"), "no_token_padding": True, "cache_latents": False,
        "sample_every_n_steps": 2000, "save_every_n_steps": 500, "save_state": True, "stop_text_encoder_training": None,
    }  # fmt: skip
    assert {name: found.value(name) for name in values} == values
    assert (dataset.resolution, dataset.batch_size, dataset.enable_bucket, dataset.paired_prior) == ((512, 512), 1, False, True)
    own, of_class = dataset.subsets
    assert (own.class_tokens, own.random_crop, own.is_reg) == ("a photo of a cjw person", True, False)
    assert (of_class.class_prompt, of_class.is_reg, of_class.num_class_images) == ("a photo of a person", True, 50)
    prompts = read_prompts(folder.prompts_file)
    assert [(prompt.prompt, prompt.seed) for prompt in prompts] == [("a photo of a cjw person", 1337 + n) for n in range(4)]
    assert {(prompt.width, prompt.sample_steps, prompt.scale) for prompt in prompts} == {(512, 50, 7.5)}


def test_tiyaros_values(folder):
    chosen = {
        "seed": 2**31 - 1, "resolution": 256, "train_batch_size": 2, "lr_warmup_steps": 3, "lr_scheduler": "cosine",
        "learning_rate": 1e-5, "gradient_accumulation_steps": 4, "max_train_steps": 11, "train_text_encoder": False, "use_8bit_adam": True,
        "mixed_precision": "bf16", "with_prior_preservation": False, "adam_beta1": 0.8, "adam_beta2": 0.99, "adam_weight_decay": 0.1,
        "adam_epsilon": 1e-6, "max_grad_norm": 0.0, "model": "a/b",
    }  # fmt: skip
    found, (dataset,) = loaded(from_tiyaro.read(TIYARO | chosen), folder)
    same = ("seed", "lr_warmup_steps", "lr_scheduler", "learning_rate", "gradient_accumulation_steps", "max_train_steps", "mixed_precision", "max_grad_norm")
    assert {name: found.value(name) for name in same} == {name: chosen[name] for name in same}
    assert found.value("optimizer_type") == "AdamW8bit"
    assert found.value("optimizer_args") == ("betas=0.8,0.99", "weight_decay=0.1", "eps=1e-06")
    assert (found.value("stop_text_encoder_training"), found.value("vae"), found.value("save_every_n_steps")) == (-1, None, None)
    assert (dataset.resolution, dataset.batch_size, dataset.paired_prior, len(dataset.subsets)) == ((256, 256), 2, False, 1)
    assert read_prompts(folder.prompts_file)[1].seed == 0  # one above the largest


def test_cerebriums_defaults(folder):
    found, (dataset,) = loaded(from_cerebrium.read(CEREBRIUM), folder, Machine())
    assert found.script.name == "train_network.py"
    values = {
        "max_train_epochs": 30, "learning_rate": 5e-4, "network_module": "networks.lora", "network_args": ("attn_only=true",),
        "network_train_unet_only": True, "network_dim": 4, "network_alpha": 4.0, "optimizer_type": "AdamW", "mixed_precision": "no",
        "sample_every_n_epochs": 10, "save_every_n_epochs": 10, "save_model_as": "safetensors", "no_token_padding": False,
    }  # fmt: skip
    assert {name: found.value(name) for name in values} == values
    assert (dataset.batch_size, len(dataset.subsets)) == (2, 1)


def test_validation_epochs_are_steps_where_steps_are_counted(folder):
    """Three pictures in batches of two are two steps."""
    arguments = {"max_train_steps": 50, "validation_epochs": 5}
    found, _ = loaded(from_cerebrium.read({**CEREBRIUM, "training_args": arguments}), folder)
    assert (found.value("sample_every_n_steps"), found.value("max_train_epochs")) == (10, None)
    found, _ = loaded(from_cerebrium.read({**CEREBRIUM, "training_args": {"max_train_steps": 3}}), folder)
    assert found.value("sample_every_n_steps") == 3
    found, _ = loaded(from_cerebrium.read({**CEREBRIUM, "training_args": {"num_train_epochs": 4}}), folder)
    assert (found.value("sample_every_n_epochs"), found.value("save_every_n_epochs")) == (4, None)


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"])
@pytest.mark.parametrize("warm_up", [0, 2])
def test_every_schedule_is_one_that_the_trainer_takes(folder, scheduler, warm_up):
    from library.optim.schedulers import check_scheduler

    found, _ = loaded(from_tiyaro.read(TIYARO | {"lr_scheduler": scheduler, "lr_warmup_steps": warm_up, "max_train_steps": 5}), folder)
    check_scheduler(found.scheduler, found.optimizer, 5)
    assert found.value("lr_warmup_steps") == warm_up


def test_center_crop_allows_a_cache(folder):
    found, (dataset,) = loaded(from_replicate.read(REPLICATE | {"center_crop": True}), folder)
    assert found.value("cache_latents")
    assert not any(subset.random_crop for subset in dataset.subsets)


def test_class_pictures_of_the_upload_alone(folder):
    write_picture(folder.class_pictures / "00001.png", 9)
    _, (dataset,) = loaded(from_replicate.read(REPLICATE | {"num_class_images": 0, "class_data": "https://example.com/c.zip"}), folder)
    assert (dataset.subsets[1].num_class_images, dataset.subsets[1].class_tokens) == (0, "a photo of a person")


def test_no_pictures_at_the_end(folder):
    found, _ = loaded(from_replicate.read(REPLICATE | {"n_save_sample": 0}), folder)
    assert found.value("sample_prompts") is None


def test_a_training_that_broke_off_goes_on(folder):
    request = resolved(from_replicate.read(REPLICATE), folder)
    assert write_run(request, folder).arguments == ("--config_file", str(folder.run_file))
    state = folder.output / "model-step00000500-state"
    state.mkdir(parents=True)
    (state / "train_state.json").write_text("{}", encoding="utf-8")
    assert write_run(request, folder).arguments[2:] == ("--resume", "latest")


def test_a_trainer_that_starts_reads_whole_files_while_they_are_written_again(folder):
    request = resolved(from_replicate.read(REPLICATE), folder)
    write_run(request, folder)
    files = (folder.run_file, folder.dataset_file, folder.prompts_file, folder.arguments_file)
    with ExitStack() as stack:
        opened = [stack.enter_context(path.open(encoding="utf-8")) for path in files]
        before = [path.read_text(encoding="utf-8") for path in files]
        write_run(resolved(from_replicate.read(REPLICATE | {"resolution": 128, "learning_rate": 2e-6}), folder), folder)
        assert [file.read() for file in opened] == before
    assert all(path.read_text(encoding="utf-8") != text for path, text in zip(files, before, strict=True))


def test_the_environment_reaches_no_hub(folder):
    launch = write_run(resolved(from_replicate.read(REPLICATE), folder, Machine(processes=2)), folder)
    assert (launch.environment, launch.processes) == ({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}, 2)


# --- safety ---


def flattened(path: Path) -> set[str]:
    return set(read_toml(path, "config file"))


def test_only_allowed_options_are_written(folder):
    requests = [
        from_replicate.read(REPLICATE | {"gradient_checkpointing": True, "center_crop": True, "lr_scheduler": "polynomial"}),
        from_replicate.read(REPLICATE | {"num_train_epochs": 3, "pad_tokens": True, "train_text_encoder": False}),
        from_tiyaro.read(TIYARO | {"lr_scheduler": "cosine_with_restarts", "max_train_steps": 5}),
        from_cerebrium.read(CEREBRIUM),
        from_cerebrium.read({**CEREBRIUM, "training_args": {"max_train_steps": 600}}),
    ]
    written = set()
    for request in requests:
        write_run(resolved(request, folder), folder)
        written |= flattened(folder.run_file)
    assert written <= ALLOWED
    assert ALLOWED - written == {"v_parameterization"}  # which the operator's list of models says


def test_texts_of_a_request_reach_no_option_of_the_run(folder):
    """Every text in it is a sentinel. What is secret, imports a module or names a place says what the service wrote."""
    text = "SENTINEL --w 64"
    request = TrainingRequest(
        method="lora", instance_prompt=text, class_prompt=text, with_prior_preservation=True, num_class_images=2, sample_prompt=text,
        sample_negative_prompt=text, name=text, version=text, description=text, instance_data=text, class_data=text,
    )  # fmt: skip
    write_run(resolved(request, folder), folder)
    assert "SENTINEL" not in folder.run_file.read_text(encoding="utf-8")
    assert "SENTINEL" not in str([path.relative_to(folder.root) for path in folder.root.rglob("*")])
    assert {name for name in flattened(folder.run_file) if OPTIONS[name].declared.secret} == set()
    dataset = read_toml(folder.dataset_file, "dataset file")
    (table,) = dataset["datasets"]
    places = {subset["image_dir"] for subset in table["subsets"]}
    assert places == {str(folder.instance_pictures), str(folder.class_pictures)}


NASTY = st.one_of(
    st.text(min_size=1, max_size=60),
    st.sampled_from(
        [
            'a frog --w 4096 --cn /etc/passwd', '"""', "'''", 'x"\\', "\\", '" ]]', "[[datasets]]", "# no comment", "<script>alert(1)</script>",
            "{a|b}", "__import__('os')", "$(reboot)", "`id`", "%(x)s", "{0}", "ünïcödé 蛙 👩\u200d🚀", "a,b;c", "\u202eabc",
        ]
    ),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(NASTY, NASTY, NASTY)
def test_texts_arrive_as_they_are(folder, own, of_class, negative):
    try:
        own, of_class, negative = (Text().read(text) for text in (own, of_class, negative))
    except ValueError:
        return
    request = TrainingRequest(
        method="dreambooth", instance_prompt=own, class_prompt=of_class, with_prior_preservation=True, num_class_images=1,
        sample_negative_prompt=negative, sample_count=1,
    )  # fmt: skip
    _, (dataset,) = loaded(request, folder)
    assert [subset.class_tokens for subset in dataset.subsets] == [own, of_class]
    assert dataset.subsets[1].class_prompt == of_class
    (prompt,) = read_prompts(folder.prompts_file)
    assert (prompt.prompt, prompt.negative_prompt, prompt.width, prompt.controlnet_image) == (own, negative, 512, None)


def test_a_warning_of_the_request_is_in_the_copy_for_people(folder):
    write_run(resolved(replace(from_replicate.read(REPLICATE), lr_warmup_steps=3), folder), folder)
    assert "constant_with_warmup is used" in folder.arguments_file.read_text(encoding="utf-8")
