"""Every field of the metadata of a run made by hand."""
from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from library import __version__
from library.checkpoint.dataset_facts import DatasetFacts, SubsetFacts
from library.checkpoint.hashes import ModelHashes
from library.checkpoint.metadata import TrainingFacts, file_metadata
from library.checkpoint.naming import RunLength, SavePoint
from library.config.datasets.settings import CaptionSettings, DatasetSettings, SubsetSettings
from library.config.options import (
    DataOptions,
    MetadataOptions,
    ModelOptions,
    NetworkOptions,
    NoiseOptions,
    OptimizerOptions,
    SavingOptions,
    ValidationOptions,
)
from library.config.settings import Settings

SAVED_AT = 1_700_000_123.75
POINT = SavePoint("step", 150, 2)

FROG = SubsetSettings(
    image_dir=Path("/data/20_sls frog"), num_repeats=20, class_tokens="sls frog", flip_aug=True, resize_interpolation="area",
    caption=CaptionSettings(shuffle_caption=True, keep_tokens=1, caption_prefix="art, "),
)  # fmt: skip
REG = SubsetSettings(image_dir=Path("/reg/1_frog"), is_reg=True, class_tokens="frog")
DATASET = DatasetFacts(
    settings=DatasetSettings(resolution=(512, 384), batch_size=4, enable_bucket=True, max_bucket_reso=768, subsets=(FROG, REG)),
    subsets=(SubsetFacts(5, {"sls frog": 5, "green": 2}), SubsetFacts(8, {"frog": 8})),
    num_train_images=100,
    num_reg_images=100,
    bucket_counts={(384, 512): 150, (512, 384): 50},
    mean_aspect_error=0.125,
)
SETTINGS = Settings(
    model=ModelOptions(pretrained_model_name_or_path="somebody/some-model", clip_skip=2),
    network=NetworkOptions(
        network_module="networks.lora", network_dim=8, network_alpha=4, network_dropout=0.1,
        network_args=("conv_dim=4", "note=a=b"), training_comment="hello",
    ),
    data=DataOptions(train_data_dir="/data", resolution=(512, 384), face_crop_aug_range=(2.0, 4.0), cache_latents_to_disk=True),
    noise=NoiseOptions(noise_offset=0.05, max_timestep=900),
    optimizer=OptimizerOptions(learning_rate=1e-4, text_encoder_lr=(5e-5,)),
    saving=SavingOptions(output_name="frog"),
    metadata=MetadataOptions(metadata_author="A. Person", metadata_trigger_phrase="sls frog"),
)  # fmt: skip
FACTS = TrainingFacts(
    settings=SETTINGS,
    session_id=12345,
    started_at=1_700_000_000.5,
    seed=42,
    length=RunLength(1, 300, 100),
    batches_per_epoch=50,
    total_batch_size=8,
    datasets=(DATASET,),
    optimizer_description="torch.optim.adamw.AdamW(weight_decay=0.01)",
    base_model_version="sd_v1",
    architecture="stable-diffusion-v1",
    artefact="lora",
    prediction_type="epsilon",
    default_resolution=(512, 512),
)

EVERY_RUN = {
    "ss_session_id": "12345",
    "ss_training_started_at": "1700000000.5",
    "ss_training_finished_at": "1700000123.75",
    "ss_steps": "150",
    "ss_epoch": "1",
    "ss_output_name": "frog",
    "ss_learning_rate": "0.0001",
    "ss_text_encoder_lr": "[5e-05]",
    "ss_unet_lr": "None",
    "ss_num_train_images": "100",
    "ss_num_validation_images": "0",
    "ss_num_reg_images": "100",
    "ss_num_batches_per_epoch": "50",
    "ss_num_epochs": "3",
    "ss_gradient_checkpointing": "False",
    "ss_gradient_accumulation_steps": "1",
    "ss_max_train_steps": "300",
    "ss_lr_warmup_steps": "0",
    "ss_lr_scheduler": "constant",
    "ss_network_module": "networks.lora",
    "ss_network_dim": "8",
    "ss_network_alpha": "4",
    "ss_network_dropout": "0.1",
    "ss_network_args": '{"conv_dim": "4", "note": "a=b", "dropout": 0.1}',
    "ss_mixed_precision": "no",
    "ss_full_fp16": "False",
    "ss_v2": "False",
    "ss_base_model_version": "sd_v1",
    "ss_sd_model_name": "somebody/some-model",
    "ss_clip_skip": "2",
    "ss_max_token_length": "None",
    "ss_cache_latents": "True",
    "ss_seed": "42",
    "ss_lowram": "False",
    "ss_noise_offset": "0.05",
    "ss_noise_offset_random_strength": "False",
    "ss_multires_noise_iterations": "None",
    "ss_multires_noise_discount": "0.3",
    "ss_adaptive_noise_scale": "None",
    "ss_zero_terminal_snr": "False",
    "ss_ip_noise_gamma": "None",
    "ss_ip_noise_gamma_random_strength": "False",
    "ss_training_comment": "hello",
    "ss_sd_scripts_commit_hash": "(unknown)",
    "ss_optimizer": "torch.optim.adamw.AdamW(weight_decay=0.01)",
    "ss_max_grad_norm": "1.0",
    "ss_caption_dropout_rate": "0.0",
    "ss_caption_dropout_every_n_epochs": "0",
    "ss_caption_tag_dropout_rate": "0.0",
    "ss_face_crop_aug_range": "2.0,4.0",
    "ss_prior_loss_weight": "1.0",
    "ss_min_snr_gamma": "None",
    "ss_scale_weight_norms": "None",
    "ss_debiased_estimation": "False",
    "ss_loss_type": "l2",
    "ss_huber_schedule": "snr",
    "ss_huber_scale": "1.0",
    "ss_huber_c": "0.1",
    "ss_fp8_base": "False",
    "ss_fp8_base_unet": "False",
    "ss_validation_seed": "None",
    "ss_validation_split": "0.0",
    "ss_max_validation_steps": "None",
    "ss_validate_every_n_epochs": "None",
    "ss_validate_every_n_steps": "None",
    "ss_resize_interpolation": "None",
}
BUCKETS = {
    "buckets": {"0": {"resolution": [384, 512], "count": 150}, "1": {"resolution": [512, 384], "count": 50}},
    "mean_img_ar_error": 0.125,
}
TAGS = {"20_sls frog": {"sls frog": 5, "green": 2}, "1_frog": {"frog": 8}}
FOLDERS_BY_FLAG = {
    "ss_batch_size_per_device": "4",
    "ss_total_batch_size": "8",
    "ss_resolution": "(512, 384)",
    "ss_color_aug": "False",
    "ss_flip_aug": "False",
    "ss_random_crop": "False",
    "ss_shuffle_caption": "False",
    "ss_keep_tokens": "0",
    "ss_enable_bucket": "True",
    "ss_bucket_no_upscale": "False",
    "ss_min_bucket_reso": "256",
    "ss_max_bucket_reso": "768",
    "ss_dataset_dirs": json.dumps({"20_sls frog": {"n_repeats": 20, "img_count": 5}}),
    "ss_reg_dataset_dirs": json.dumps({"1_frog": {"n_repeats": 1, "img_count": 8}}),
    "ss_tag_frequency": json.dumps(TAGS),
    "ss_bucket_info": json.dumps(BUCKETS),
}
MODELSPEC = {
    "modelspec.sai_model_spec": "1.0.1",
    "modelspec.architecture": "stable-diffusion-v1/lora",
    "modelspec.implementation": "diffusers",
    "modelspec.title": "frog",
    "modelspec.resolution": "512x384",
    "modelspec.author": "A. Person",
    "modelspec.date": datetime.fromtimestamp(1_700_000_123).isoformat(),
    "modelspec.trigger_phrase": "sls frog",
    "modelspec.prediction_type": "epsilon",
    "modelspec.timestep_range": "0,900",
    "modelspec.encoder_layer": "2",
    "modelspec.implementation_version": f"tadpole/{__version__}",
}


def metadata(settings: Settings = SETTINGS, **facts: object) -> dict[str, str]:
    return file_metadata(replace(FACTS, settings=settings, **facts), POINT, SAVED_AT)


def test_a_run_with_folders_given_by_flags() -> None:
    assert metadata() == {**EVERY_RUN, **FOLDERS_BY_FLAG, **MODELSPEC}


def subset_of(settings: SubsetSettings, **fields: object) -> dict[str, object]:
    plain = {
        "img_count": 0, "num_repeats": 1, "color_aug": False, "flip_aug": False, "random_crop": False, "shuffle_caption": False,
        "keep_tokens": 0, "keep_tokens_separator": "", "secondary_separator": None, "enable_wildcard": False,
        "caption_prefix": None, "caption_suffix": None, "resize_interpolation": None,
        "image_dir": settings.image_dir.name, "class_tokens": settings.class_tokens, "is_reg": settings.is_reg,
    }  # fmt: skip
    return {**plain, **fields}


def test_a_run_with_a_dataset_file() -> None:
    settings = replace(SETTINGS, data=replace(SETTINGS.data, dataset_config=Path("data.toml")))
    plain = replace(DATASET, settings=replace(DATASET.settings, enable_bucket=False, batch_size=2))
    fields = metadata(settings, datasets=(DATASET, plain))
    datasets = json.loads(fields.pop("ss_datasets"))
    assert fields == {
        **EVERY_RUN,
        "ss_num_train_images": "200",
        "ss_num_reg_images": "200",
        "ss_tag_frequency": json.dumps(TAGS),
        "ss_dataset_dirs": json.dumps(
            {"20_sls frog": {"n_repeats": 20, "img_count": 5}, "20_sls frog (2)": {"n_repeats": 20, "img_count": 5}}
        ),
        **MODELSPEC,
    }
    first = {
        "is_dreambooth": True,
        "batch_size_per_device": 4,
        "num_train_images": 100,
        "num_reg_images": 100,
        "resolution": [512, 384],
        "enable_bucket": True,
        "min_bucket_reso": 256,
        "max_bucket_reso": 768,
        "tag_frequency": TAGS,
        "bucket_info": BUCKETS,
        "resize_interpolation": None,
        "subsets": [
            subset_of(
                FROG, img_count=5, num_repeats=20, flip_aug=True, shuffle_caption=True, keep_tokens=1, caption_prefix="art, ",
                resize_interpolation="area",
            ),
            subset_of(REG, img_count=8),
        ],
    }  # fmt: skip
    without_buckets = {"enable_bucket": False, "min_bucket_reso": None, "max_bucket_reso": None, "bucket_info": None}
    assert datasets == [first, {**first, **without_buckets, "batch_size_per_device": 2}]


def test_a_metadata_file_stands_where_folders_do() -> None:
    described = SubsetSettings(metadata_file=Path("/data/frogs.json"), image_dir=Path("/data/pictures"))
    dataset = replace(DATASET, settings=replace(DATASET.settings, subsets=(described,)), subsets=(SubsetFacts(5, {"frog": 5}),))
    fields = metadata(replace(SETTINGS, data=replace(SETTINGS.data, dataset_config=Path("data.toml"))), datasets=(dataset,))
    (facts,) = json.loads(fields["ss_datasets"])
    assert facts["is_dreambooth"] is False
    assert facts["subsets"][0]["metadata_file"] == "frogs.json"
    assert not {"image_dir", "class_tokens", "is_reg"} & facts["subsets"][0].keys()
    assert json.loads(fields["ss_dataset_dirs"]) == {"frogs.json": {"n_repeats": 1, "img_count": 5}}
    assert json.loads(fields["ss_tag_frequency"]) == {"frogs.json": {"frog": 5}}


def test_no_metadata_leaves_what_loaders_need() -> None:
    settings = replace(SETTINGS, network=replace(SETTINGS.network, no_metadata=True))
    kept = ("ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args")
    assert metadata(settings) == {**{name: EVERY_RUN[name] for name in kept}, **MODELSPEC}


def test_without_network_args_there_is_no_field_for_them() -> None:
    network = replace(SETTINGS.network, network_args=None)
    assert metadata(replace(SETTINGS, network=network)).keys() == metadata().keys() - {"ss_network_args"}


def test_no_dropout_is_added_where_the_shape_comes_from_a_file() -> None:
    network = replace(SETTINGS.network, dim_from_weights=True, network_args=("dropout=0.3",))
    assert metadata(replace(SETTINGS, network=network))["ss_network_args"] == '{"dropout": "0.3"}'
    network = replace(SETTINGS.network, dim_from_weights=True, network_args=("conv_dim=1",))
    assert metadata(replace(SETTINGS, network=network))["ss_network_args"] == '{"conv_dim": "1"}'


def test_models_on_the_disk_are_named_without_their_folder_and_hashed(tmp_path: Path) -> None:
    (tmp_path / "base.safetensors").write_bytes(b"x")
    model = ModelOptions(pretrained_model_name_or_path=str(tmp_path / "base.safetensors"), vae="somebody/vae")
    hashes = {"model_hashes": ModelHashes("short", "full"), "vae_hashes": ModelHashes("vae short", "vae full")}
    fields = metadata(replace(SETTINGS, model=model), **hashes)
    assert {name: fields[name] for name in fields if "sd_model" in name or "vae" in name} == {
        "ss_sd_model_name": "base.safetensors",
        "ss_sd_model_hash": "short",
        "ss_new_sd_model_hash": "full",
        "ss_vae_name": "somebody/vae",
        "ss_vae_hash": "vae short",
        "ss_new_vae_hash": "vae full",
    }


def test_a_final_save_counts_all_epochs() -> None:
    fields = file_metadata(FACTS, SavePoint("final", 300, 3), SAVED_AT)
    assert (fields["ss_steps"], fields["ss_epoch"]) == ("300", "3")


def test_what_a_run_was_measured_by() -> None:
    settings = replace(
        SETTINGS,
        data=replace(SETTINGS.data, validation_split=0.25, validation_seed=3),
        validation=ValidationOptions(validate_every_n_epochs=2, validate_every_n_steps=5, max_validation_steps=8),
    )
    facts = replace(FACTS, settings=settings, held_out_images=12)
    fields = file_metadata(facts, SavePoint("best", 150, 2), SAVED_AT, validation_loss=0.1 + 0.2)
    told = {name: value for name, value in fields.items() if "validat" in name}
    assert told == {
        "ss_num_validation_images": "12", "ss_validation_split": "0.25", "ss_validation_seed": "3",
        "ss_validate_every_n_epochs": "2", "ss_validate_every_n_steps": "5", "ss_max_validation_steps": "8",
        "ss_validation_loss": "0.30000000000000004",
    }  # fmt: skip
    assert (fields["ss_steps"], fields["ss_epoch"]) == ("150", "1")


TITLES = {"lora": "LoRA", "textual-inversion": "TextualInversion", None: "Checkpoint"}


@pytest.mark.parametrize(("artefact", "title"), TITLES.items())
def test_titles_of_the_untitled(artefact: str, title: str) -> None:
    settings = replace(SETTINGS, saving=SavingOptions())
    assert metadata(settings, artefact=artefact)["modelspec.title"] == f"{title}@1700000123"
    titled = replace(settings, metadata=MetadataOptions(metadata_title="Frogs"))
    assert metadata(titled)["modelspec.title"] == "Frogs"


def test_what_has_no_value_is_left_out() -> None:
    fields = metadata(Settings())
    assert {name for name in fields if name.startswith("modelspec.")} == {
        f"modelspec.{name}"
        for name in (
            "sai_model_spec", "architecture", "implementation", "title", "resolution", "date", "prediction_type",
            "implementation_version",
        )
    }  # fmt: skip
    assert fields["modelspec.resolution"] == "512x512"
    assert "ss_sd_model_name" not in fields


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (NoiseOptions(min_timestep=200), "200,1000"),
        (NoiseOptions(min_timestep=0, max_timestep=500), "0,500"),
        (NoiseOptions(), None),
    ],
)
def test_timestep_range(options: NoiseOptions, expected: str | None) -> None:
    assert metadata(replace(SETTINGS, noise=options)).get("modelspec.timestep_range") == expected


def test_thumbnails(tmp_path: Path) -> None:
    (tmp_path / "small.png").write_bytes(b"pixels")
    values = {
        str(tmp_path / "small.png"): f"data:image/png;base64,{base64.b64encode(b'pixels').decode()}",
        "data:image/gif;base64,AAAA": "data:image/gif;base64,AAAA",
        str(tmp_path / "gone.png"): None,
    }
    for given, expected in values.items():
        settings = replace(SETTINGS, metadata=MetadataOptions(metadata_thumbnail=given))
        assert metadata(settings).get("modelspec.thumbnail") == expected
