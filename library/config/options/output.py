"""Options about what a run leaves behind: saved files, metadata, sample pictures and logs."""

from __future__ import annotations

from dataclasses import dataclass

from library.config.declare import option
from library.config.scripts import EMBEDDING, FULL

SAMPLERS = (
    "ddim", "pndm", "lms", "euler", "euler_a", "heun", "dpm_2", "dpm_2_a", "dpmsolver", "dpmsolver++", "dpmsingle",
    "k_lms", "k_euler", "k_euler_a", "k_dpm_2", "k_dpm_2_a",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SavingOptions:
    """What is saved, when and where, and from where a run goes on."""

    output_dir: str | None = option(None, "Folder in which the trained files are saved.", private=True)
    output_name: str | None = option(None, "Name of the trained files without extension; left out: last.")
    save_model_as: str | None = option(
        "safetensors",
        "Format of the trained files; left out for a whole model: that of the model it was trained from.",
        choices=("ckpt", "pt", "safetensors"),
        variants={
            FULL: {"default": None, "choices": ("ckpt", "safetensors", "diffusers", "diffusers_safetensors")},
            EMBEDDING: {"default": "pt"},
        },
    )
    use_safetensors: bool = option(False, "Save whole models as .safetensors, where they would be pickles.", scripts=FULL)
    save_precision: str | None = option(
        None, "Precision of the saved weights; left out: as they are trained.", choices=("float", "fp16", "bf16")
    )
    save_every_n_epochs: int | None = option(None, "Save after every n-th epoch.", least=1)
    save_every_n_steps: int | None = option(None, "Save after every n-th step.", least=1)
    save_n_epoch_ratio: int | None = option(None, "Save about this many times in all, spread evenly over the epochs.", least=1)
    save_last_n_epochs: int | None = option(None, "Keep the files of the last n epochs only.", least=1)
    save_last_n_steps: int | None = option(None, "Keep the files of the last n steps only.", least=1)
    save_last_n_epochs_state: int | None = option(None, "The same for state folders; left out: as save_last_n_epochs.", least=1)
    save_last_n_steps_state: int | None = option(None, "The same for state folders; left out: as save_last_n_steps.", least=1)
    save_state: bool = option(False, "With every save, also save all that is needed to resume the run, in a folder.")
    save_state_on_train_end: bool = option(False, "Save that folder at the end of the run only.")
    resume: str | None = option(
        None, 'Go on from this state folder; "latest" takes the newest complete one of this output.', private=True
    )
    initial_step: int | None = option(None, "Begin counting at this step.", least=0)
    initial_epoch: int | None = option(None, "Begin counting at this epoch, from 1.", least=1)
    skip_until_initial_step: bool = option(False, "Begin at initial_step or initial_epoch in the order of the pictures as well.")


@dataclass(frozen=True, kw_only=True)
class MetadataOptions:
    """Descriptions that are stored in the trained file (ModelSpec)."""

    metadata_title: str | None = option(None, "Title of the model; left out: output_name.")
    metadata_author: str | None = option(None, "Author of the model.")
    metadata_description: str | None = option(None, "Description of the model.")
    metadata_license: str | None = option(None, "Licence of the model.")
    metadata_tags: str | None = option(None, "Tags of the model, separated by commas.")
    metadata_usage_hint: str | None = option(None, "How to use the model.")
    metadata_thumbnail: str | None = option(None, "A small picture for the model, as a data: URL.")
    metadata_merged_from: str | None = option(None, "The models that this one was merged from.")
    metadata_trigger_phrase: str | None = option(None, "The words in a prompt that call up what was trained.")
    metadata_preprocessor: str | None = option(None, "How input pictures have to be prepared for the model.")
    metadata_is_negative_embedding: str | None = option(None, "Whether this is an embedding for negative prompts.")


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Pictures that are drawn during training to see what was learned so far."""

    sample_prompts: str | None = option(None, "File of prompts (.txt, .toml or .json) for sample pictures.", private=True)
    sample_every_n_steps: int | None = option(None, "Draw sample pictures after every n-th step.", least=1)
    sample_every_n_epochs: int | None = option(
        None, "Draw them after every n-th epoch; decides over sample_every_n_steps.", least=1
    )
    sample_at_first: bool = option(False, "Draw them before the first step as well.")
    sample_sampler: str = option("ddim", "Sampler of the sample pictures.", choices=SAMPLERS)


@dataclass(frozen=True, kw_only=True)
class LoggingOptions:
    """Logs for TensorBoard or Weights & Biases (wandb), and on the console."""

    logging_dir: str | None = option(None, "Folder for logs; given, TensorBoard logs are written.", private=True)
    log_with: str | None = option(
        None, "What to log with; left out: TensorBoard, if logging_dir is given.", choices=("tensorboard", "wandb", "all")
    )
    log_prefix: str | None = option(None, "Text before the date in the name of the log folder.")
    log_tracker_name: str | None = option(
        None, "Name of the tracker: TensorBoard's folder, wandb's project. Left out: network_train, textual_inversion, ..."
    )
    log_tracker_config: str | None = option(
        None,
        "File (.toml) with a table for each tracker, [tensorboard] or [wandb]: further arguments to start it with.",
        private=True,
    )
    log_config: bool = option(False, "Store the options of the run in the tracker, without secrets and without paths.")
    wandb_run_name: str | None = option(None, "Name of the run in wandb; left out: wandb makes one up.")
    wandb_api_key: str | None = option(None, "Key for wandb; left out: WANDB_API_KEY, or that of `wandb login`.", secret=True)
    console_log_level: str | None = option(
        None, "Which messages are printed; left out: INFO.", choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    )
    console_log_file: str | None = option(None, "Write messages to this file instead of the console.", private=True)
    console_log_simple: bool = option(False, "Print plain messages without colours and columns.")
