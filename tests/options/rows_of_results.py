"""What the options about saved files, their descriptions, samples, logs and the hub change."""

from __future__ import annotations

from library.config.scripts import EMBEDDING, FULL, NETWORK
from tests.options.looks import (
    files,
    going_on,
    header,
    log_folders,
    log_options,
    log_prefixes,
    log_suffixes,
    logs,
    noted,
    planned,
    said,
    samples,
    stored,
)
from tests.options.looks_outside import asked_of_hub, fetched, places_on_hub, states_on_hub, told_to_wandb, waits_for_hub
from tests.options.rows import Row

ONE_FILE = {FULL: {"save_model_as": "safetensors", "pretrained_model_name_or_path": "{bench}/whole"}, (*NETWORK, *EMBEDDING): {}}  # what has to stand beside metadata
EPOCHS = {"max_train_steps": 12}  # four of them
STATES = {**EPOCHS, "save_state": True}
DESCRIBED = {
    "metadata_title": "Toads",
    "metadata_author": "me",
    "metadata_description": "of toads",
    "metadata_license": "MIT",
    "metadata_tags": "toad, frog",
    "metadata_usage_hint": "say toad",
    "metadata_thumbnail": "data:image/png;base64,AAAA",
    "metadata_merged_from": "two others",
    "metadata_trigger_phrase": "toad",
    "metadata_preprocessor": "none",
    "metadata_is_negative_embedding": "true",
}
PROMPTS = {"sample_prompts": "{here}/prompts.txt"}
LOGGED = {"logging_dir": "{here}/logs"}
TRACKED = {"log_prefix": "toads-", "log_tracker_name": "mine", "log_tracker_config": "{here}/tensorboard.toml", "log_config": True}
WANDB = {**LOGGED, "log_with": "wandb"}
REPOSITORY = {"huggingface_repo_id": "me/toads", "huggingface_token": "hf_first"}
SENT = {"huggingface_path_in_repo": "runs", "save_state": True, "save_state_to_huggingface": True}

SAVING = (
    Row("output_dir", "file", files, "{here}/elsewhere"),
    Row("output_name", "plan", planned, "frog"),
    Row("save_model_as", "plan", planned, "ckpt", against="safetensors"),
    Row("use_safetensors", "plan", planned, True, beside={"save_model_as": "ckpt"}),
    *(Row("save_precision", "tensor", stored, "bf16", beside=beside, scripts=scripts) for scripts, beside in ONE_FILE.items()),
    Row("save_every_n_epochs", "plan", planned, 1, beside=EPOCHS),
    Row("save_every_n_steps", "plan", planned, 2, beside=EPOCHS),
    Row("save_n_epoch_ratio", "plan", planned, 2, beside=EPOCHS),
    Row("save_last_n_epochs", "plan", planned, 1, beside={**EPOCHS, "save_every_n_epochs": 1}),
    Row("save_last_n_steps", "plan", planned, 2, beside={**EPOCHS, "save_every_n_steps": 2}),
    Row("save_last_n_epochs_state", "plan", planned, 1, beside={**STATES, "save_every_n_epochs": 1}),
    Row("save_last_n_steps_state", "plan", planned, 2, beside={**STATES, "save_every_n_steps": 2}),
    Row("save_state", "plan", planned, True),
    Row("save_state_on_train_end", "plan", planned, True),
    Row("resume", "plan", going_on, "latest", beside={"max_train_steps": 2}),
    Row("initial_step", "plan", planned, 2, beside=EPOCHS),
    Row("initial_epoch", "plan", planned, 2, beside=EPOCHS),
    Row("skip_until_initial_step", "log", noted, True, beside={**EPOCHS, "initial_step": 2}),
)
METADATA = (
    *(
        Row(name, "file", header(f"modelspec.{name.removeprefix('metadata_')}"), given, beside=beside, company=DESCRIBED, scripts=scripts)
        for scripts, beside in ONE_FILE.items()
        for name, given in DESCRIBED.items()
    ),
    Row("training_comment", "file", header("ss_training_comment"), "a remark"),
    Row("no_metadata", "file", header("ss_seed"), True),
)
SAMPLING = (
    Row("sample_prompts", "plan", planned, "{here}/prompts.txt"),
    Row("sample_sampler", "plan", planned, "euler", beside=PROMPTS),
    Row("sample_every_n_steps", "file", samples, 1, beside=PROMPTS),
    Row("sample_every_n_epochs", "file", samples, 1, beside={**PROMPTS, "train_batch_size": 3}),
    Row("sample_at_first", "file", samples, True, beside=PROMPTS),
    Row("ema_samples", "file", samples, True, beside={**PROMPTS, "sample_every_n_steps": 1, "ema": True, "learning_rate": 0.1}),
)
LOGGING = (
    Row("logging_dir", "log", logs(log_folders), "{here}/logs"),
    *(
        Row(name, "log", logs(part), TRACKED[name], beside=LOGGED, company=TRACKED)
        for name, part in {
            "log_prefix": log_prefixes, "log_tracker_name": log_folders, "log_tracker_config": log_suffixes, "log_config": log_options,
        }.items()
    ),
    Row("log_with", "log", told_to_wandb, "wandb", beside=LOGGED),
    Row("wandb_run_name", "log", told_to_wandb, "toads", beside=WANDB),
    Row("wandb_api_key", "log", told_to_wandb, "a key", beside=WANDB),
    Row("console_log_level", "log", said, "DEBUG"),
    Row("console_log_file", "log", said, "{here}/log.txt"),
    Row("console_log_simple", "log", said, True),
    Row("dry_run", "file", said, True),
    Row("debug_dataset", "file", said, True),
)  # fmt: skip
HUB = (
    Row("huggingface_repo_id", "log", asked_of_hub, "me/toads", company=REPOSITORY),
    Row("huggingface_repo_type", "log", asked_of_hub, "dataset", beside=REPOSITORY),
    Row("huggingface_repo_visibility", "log", asked_of_hub, "public", beside=REPOSITORY),
    Row("huggingface_token", "log", asked_of_hub, "hf_second", against="hf_first", beside=REPOSITORY),
    Row("huggingface_path_in_repo", "file", places_on_hub, "runs", beside=REPOSITORY, company=SENT),
    Row("save_state_to_huggingface", "file", states_on_hub, True, beside=REPOSITORY, company=SENT),
    Row("async_upload", "call", waits_for_hub, True, beside=REPOSITORY),
    Row("resume_from_huggingface", "log", fetched, True, company={"resume": "me/toads/a-state"}),
)
ROWS = (*SAVING, *METADATA, *SAMPLING, *LOGGING, *HUB)
