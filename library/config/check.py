"""Checks of options against each other, as one table of rules; none needs a model, a picture or a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from library.config.scripts import TRAIN_DB
from library.config.settings import Settings, options_for
from library.errors import UserError


@dataclass(frozen=True)
class Rule:
    """A combination of options that cannot be meant. `option` is the one that the message names first."""

    option: str
    is_broken: Callable[[Settings], bool]
    message: str


def check_settings(settings: Settings) -> list[str]:
    """Notes about what is odd but allowed; UserError with every broken rule."""
    own = CACHING_RULES if settings.script.method == "caching" else TRAINING_RULES
    mistakes = [_told(settings, rule) for rule in _rules_for(settings, RULES + own) if rule.is_broken(settings)]
    if mistakes:
        raise UserError(*mistakes)
    return [_told(settings, rule) for rule in _rules_for(settings, ODDITIES) if rule.is_broken(settings)]


def _rules_for(settings: Settings, rules: tuple[Rule, ...]) -> list[Rule]:
    """Those about options that the script takes."""
    return [rule for rule in rules if rule.option in options_for(settings.script.name)]


def _told(settings: Settings, rule: Rule) -> str:
    return f"{settings.where(rule.option)}: {rule.message}"


def _required(option: str, example: str) -> Rule:
    return Rule(option, lambda s: not s.value(option), f"this option is needed; write {option} = {example}, or --{option} {example}")


def _needs(option: str, *others: str) -> Rule:
    """`option` has no effect unless one of `others` is set; checked where it differs from its default."""
    wanted = " or ".join(others)
    return Rule(
        option,
        lambda s: s.changed(option) and not any(s.changed(other) for other in others),
        f"this has no effect without {wanted}; set {wanted}, or remove {option}",
    )


def _one_of(option: str, *values: str) -> Rule:
    """`option` is any text in the interface, but only these mean something."""
    return Rule(option, lambda s: s.value(option) not in (None, *values), f"this is one of {', '.join(values)}")


def _excludes(option: str, other: str, reason: str) -> Rule:
    return Rule(option, lambda s: s.changed(option) and s.changed(other), f"this cannot be combined with {other}: {reason}")


def _uses_huber(settings: Settings) -> bool:
    return settings.loss.loss_type in ("huber", "smooth_l1")


def _for_huber_only(option: str) -> Rule:
    return Rule(option, lambda s: s.changed(option) and not _uses_huber(s), "only loss_type huber and smooth_l1 use this")


def _for_wandb_only(option: str) -> Rule:
    return Rule(
        option,
        lambda s: s.changed(option) and s.logging.log_with not in ("wandb", "all"),
        'only wandb uses this; write log_with = "wandb" or "all"',
    )


def _logs_nowhere(settings: Settings) -> bool:
    return settings.logging.log_with in ("tensorboard", "all") and not settings.logging.logging_dir


def _fused_in_one_go(option: str) -> Rule:
    return Rule(
        option,
        lambda s: s.changed(option) and s.training.gradient_accumulation_steps > 1,
        "gradients are gone before others could be added to them; remove gradient_accumulation_steps",
    )


def _fused_unscaled(option: str) -> Rule:
    return Rule(
        option,
        lambda s: s.changed(option) and s.training.mixed_precision == "fp16",
        'steps during the backward pass know nothing of scaled gradients; write mixed_precision = "bf16"',
    )


def _not_for_words(option: str) -> Rule:
    return Rule(
        option,
        lambda s: s.changed(option) and s.script.method == "embedding",
        "the vectors of words are trained in float32 in any case",
    )


def _for_trained_text(option: str) -> Rule:
    return Rule(option, lambda s: s.changed(option) and not _asks_for_text_encoder(s), "the text encoder is not trained; remove this")


def _too_late(settings: Settings) -> bool:
    """Whether the run would begin where it ends."""
    begins, training = settings.saving, settings.training
    if training.max_train_epochs is not None:
        return (begins.initial_epoch or 1) > training.max_train_epochs
    return (begins.initial_step or 0) >= training.max_train_steps


def _begins_too_late(option: str, length: str) -> Rule:
    return Rule(option, lambda s: s.changed(option) and _too_late(s), f"the run would end before it begins ({length})")


def _weighs_nothing(option: str) -> Rule:
    message = "prior_loss_weight = 0 leaves this out; remove one of them"
    return Rule(option, lambda s: s.changed(option) and not s.data.prior_loss_weight, message)


def _timesteps_reversed(settings: Settings) -> bool:
    noise = settings.noise
    return noise.min_timestep is not None and noise.min_timestep > (1000 if noise.max_timestep is None else noise.max_timestep)


def _more_multipliers_than_files(settings: Settings) -> bool:
    return len(settings.network.base_weights_multiplier or ()) > len(settings.network.base_weights or ())


def _asks_for_text_encoder(settings: Settings) -> bool:
    """Whether a text encoder is trained where its learning rate is not 0."""
    if settings.script.method == "full":
        stop = settings.full.stop_text_encoder_training
        return (settings.full.train_text_encoder or settings.script == TRAIN_DB) and (stop is None or stop > 0)
    return not (settings.script.method == "adapter" and settings.network.network_train_unet_only)


def _of_a_word(option: str) -> Rule:
    """Textual inversion cannot do without a word, which is told there."""
    return Rule(
        option,
        lambda s: s.changed(option) and not s.embedding.token_string and s.script.method != "embedding",
        f"this has no effect without token_string, the word to learn; set token_string, or remove {option}",
    )


def _trains_text_encoder(settings: Settings) -> bool:
    optimizer = settings.optimizer
    usual = optimizer.learning_rate if optimizer.learning_rate_te is None else optimizer.learning_rate_te
    rates = (usual if rate is None else rate for rate in (optimizer.learning_rate_te1, optimizer.learning_rate_te2))
    return _asks_for_text_encoder(settings) and (settings.script.method != "full" or any(rates))


def _is_a_path(settings: Settings) -> bool:
    return bool(set(settings.saving.output_name or "") & set('/\\:*?"<>|'))


def _is_several_words(settings: Settings) -> bool:
    token = settings.embedding.token_string or ""
    return token != "".join(token.split())


def _of_ddp(option: str) -> Rule:
    return Rule(option, lambda s: s.changed(option), "gradients are averaged without PyTorch's DDP, so that this changes nothing")


def _needs_narrow_numbers(option: str) -> Rule:
    return Rule(
        option,
        lambda s: s.changed(option) and s.training.mixed_precision == "no",
        'this needs mixed_precision = "bf16" or "fp16", in which the weights are used',
    )


def _keeps_wide_weights(option: str) -> Rule:
    """Autocast's 16-bit copy of each narrow weight stays until the backward pass."""
    message = "the backward pass keeps each weight of the U-Net in 16 bits, too, more than without this; add gradient_checkpointing"
    return Rule(option, lambda s: s.changed(option) and s.script.method != "caching" and not s.training.gradient_checkpointing, message)


def _of_stage_3(option: str) -> Rule:
    return Rule(option, lambda s: s.changed(option) and s.sharing.zero_stage != 3, "only stage 3 uses this; write zero_stage = 3")


RULES: tuple[Rule, ...] = (
    _required("pretrained_model_name_or_path", '"model.safetensors"'),
    Rule(
        "token_string",
        lambda s: s.script.method == "embedding" and not s.embedding.token_string,
        'this option is needed, the new word; write token_string = "mytoad", or --token_string mytoad',
    ),
    Rule("token_string", _is_several_words, "write one word, without spaces"),
    *map(
        _of_a_word, ("init_word", "num_vectors_per_token", "weights", "token_lr", "use_object_template", "use_style_template")
    ),
    Rule(
        "token_lr",
        lambda s: s.embedding.token_lr == 0,
        "at 0 the word is not learned; write token_lr = 1e-3, or remove token_string",
    ),
    _excludes("use_object_template", "use_style_template", "one is for things, the other for styles; remove one of them"),
    Rule("output_name", _is_a_path, r'a name has none of the characters / \ : * ? " < > |; write the folder in output_dir'),
    # noise
    _needs("adaptive_noise_scale", "noise_offset"),
    _needs("noise_offset_random_strength", "noise_offset"),
    _needs("multires_noise_discount", "multires_noise_iterations"),
    _needs("ip_noise_gamma_random_strength", "ip_noise_gamma"),
    Rule("min_timestep", _timesteps_reversed, "this is above max_timestep (1000 if left out); write a smaller number"),
    # loss
    _needs("scale_v_pred_loss_like_noise_pred", "v_parameterization"),
    _excludes("v_pred_like_loss", "v_parameterization", "it makes the loss of a noise-predicting model like that of a v model"),
    Rule("huber_c", lambda s: _uses_huber(s) and s.loss.huber_c == 0, "this must be above 0; write huber_c = 0.1"),
    *map(_for_huber_only, ("huber_schedule", "huber_c", "huber_scale")),
    Rule(
        "huber_scale",
        lambda s: s.changed("huber_scale") and _uses_huber(s) and s.loss.huber_schedule == "snr",
        'huber_schedule "snr" does not use this; write huber_schedule = "constant" or "exponential", or remove huber_scale',
    ),
    # precision and memory
    *map(_needs_narrow_numbers, ("fp8_base", "fp8_base_unet")),
    Rule(
        "fp8_base",
        lambda s: s.changed("fp8_base") and s.script.method == "full",
        "a model that is trained itself needs more than 8 bits; remove this; full_bf16 saves memory too",
    ),
    _excludes("fp8_base_unet", "fp8_base", "fp8_base keeps the U-Net in 8 bits too; remove one of them"),
    _excludes("xformers", "sdpa", "both say which attention to use; remove one of them"),
    _excludes("xformers", "mem_eff_attn", "both say which attention to use; remove one of them"),
    _excludes("xformers", "torch_compile", "xformers' attention cannot be compiled; remove one of them"),
    _needs("dynamo_backend", "torch_compile"),
    *(_needs(name, "deepspeed") for name in ("zero_stage", "offload_optimizer_device")),
    *(_needs(f"offload_{what}_nvme_path", f"offload_{what}_device") for what in ("optimizer", "param")),
    *map(_of_stage_3, ("offload_param_device", "zero3_init_flag", "zero3_save_16bit_model")),
    Rule(
        "full_fp16",
        lambda s: s.training.full_fp16 and s.training.mixed_precision != "fp16",
        'this needs mixed_precision = "fp16"',
    ),
    Rule(
        "full_bf16",
        lambda s: s.training.full_bf16 and s.training.mixed_precision != "bf16",
        'this needs mixed_precision = "bf16"',
    ),
    _excludes("fused_backward_pass", "fused_optimizer_groups", "both say when to step; remove one of them"),
    *map(_fused_in_one_go, ("fused_backward_pass", "fused_optimizer_groups")),
    *map(_fused_unscaled, ("fused_backward_pass", "fused_optimizer_groups")),
    _needs("ema_decay", "ema"),
    _needs("ema_samples", "ema"),
    # what is trained
    Rule(
        "stop_text_encoder_training",
        lambda s: s.changed("stop_text_encoder_training") and not s.full.train_text_encoder and s.script != TRAIN_DB,
        "the text encoder is not trained in any case; write train_text_encoder = true, or remove this",
    ),
    *map(_for_trained_text, ("learning_rate_te", "learning_rate_te1", "learning_rate_te2")),
    # network
    _excludes("network_train_unet_only", "network_train_text_encoder_only", "nothing would be left to train; remove one of them"),
    _excludes("text_encoder_lr", "network_train_unet_only", "the text encoder is not trained; remove one of them"),
    _excludes("unet_lr", "network_train_text_encoder_only", "the U-Net is not trained; remove one of them"),
    _needs("dim_from_weights", "network_weights"),
    _excludes("network_dim", "dim_from_weights", "the file in network_weights decides; remove one of them"),
    _excludes("network_alpha", "dim_from_weights", "the file in network_weights decides; remove one of them"),
    _needs("base_weights", "network_module"),
    _needs("base_weights_multiplier", "base_weights"),
    Rule("base_weights_multiplier", _more_multipliers_than_files, "there are more multipliers than files in base_weights"),
    _excludes("training_comment", "no_metadata", "the comment would be stored in the metadata; remove one of them"),
    # data
    _needs("vae_batch_size", "cache_latents"),
    _needs("skip_cache_check", "cache_latents_to_disk", "cache_text_encoder_outputs_to_disk"),
    _needs("text_encoder_batch_size", "cache_text_encoder_outputs"),
    _needs("caption_variants", "cache_text_encoder_outputs"),
    _excludes(
        "token_string", "cache_text_encoder_outputs", "what is made of a caption changes with the word in it; remove one of them"
    ),
    _excludes(
        "no_token_padding", "cache_text_encoder_outputs", "what a caption is cut to depends on its batch; remove one of them"
    ),
    _needs("num_class_images", "reg_data_dir", "dataset_config"),
    _needs("class_prompt", "reg_data_dir", "dataset_config", "prior_prediction"),
    *map(_weighs_nothing, ("paired_prior", "prior_prediction")),
    _needs("paired_prior", "reg_data_dir", "dataset_config"),
    _excludes("paired_prior", "dataset_class", "the class makes the batches; remove one of them"),
    _excludes("paired_prior", "prior_prediction", "they are two ways to keep the class; remove one of them"),
    _excludes("prior_prediction", "dataset_class", "the class makes the captions; it can mark pictures with diff_output_preservation"),
    _needs("conditioning_data_dir", "masked_loss"),
    _needs("dataset_repeats", "dataset_config", "in_json", "conditioning_data_dir"),
    _needs("validation_seed", "validation_split", "dataset_config"),
    _excludes("in_json", "conditioning_data_dir", "each describes the pictures of train_data_dir; remove one of them"),
    _excludes("dataset_class", "cache_latents", "the class makes latents itself, or not at all; remove one of them"),
    _excludes("dataset_class", "cache_text_encoder_outputs", "the class makes the captions, at each use; remove one of them"),
    Rule(
        "persistent_data_loader_workers",
        lambda s: s.data.persistent_data_loader_workers and s.data.max_data_loader_n_workers == 0,
        "there are no loading processes to keep (max_data_loader_n_workers = 0); remove one of them",
    ),
    # saving
    _excludes("save_n_epoch_ratio", "save_every_n_epochs", "both say how often to save; remove one of them"),
    _needs("save_last_n_epochs", "save_every_n_epochs", "save_n_epoch_ratio"),
    _needs("save_last_n_steps", "save_every_n_steps"),
    _needs("save_last_n_epochs_state", "save_state"),
    _needs("save_last_n_epochs_state", "save_every_n_epochs", "save_n_epoch_ratio"),
    _needs("save_last_n_steps_state", "save_state"),
    _needs("save_last_n_steps_state", "save_every_n_steps"),
    _excludes("initial_step", "initial_epoch", "both say where to begin; remove one of them"),
    _needs("skip_until_initial_step", "initial_step", "initial_epoch", "resume"),
    *map(_begins_too_late, ("initial_step", "initial_epoch"), ("max_train_steps", "max_train_epochs")),
    # the hub
    *(
        _needs(name, "huggingface_repo_id")
        for name in (
            "huggingface_repo_type", "huggingface_path_in_repo", "huggingface_repo_visibility", "save_state_to_huggingface",
            "async_upload",
        )
    ),
    _needs("huggingface_token", "huggingface_repo_id", "resume_from_huggingface"),
    _needs("save_state_to_huggingface", "save_state", "save_state_on_train_end"),
    _needs("resume_from_huggingface", "resume"),
    _one_of("huggingface_repo_type", "model", "dataset", "space"),
    _one_of("huggingface_repo_visibility", "public", "private"),
    Rule(
        "huggingface_path_in_repo",
        lambda s: ".." in (s.hub.huggingface_path_in_repo or "").split("/"),
        'this is a folder in the repository; write it without ".."',
    ),
    # sampling and logging
    _needs("sample_every_n_steps", "sample_prompts"),
    _needs("sample_every_n_epochs", "sample_prompts"),
    _needs("sample_at_first", "sample_prompts"),
    Rule("log_with", _logs_nowhere, 'TensorBoard needs a folder; write logging_dir = "logs", or log_with = "wandb"'),
    _needs("log_prefix", "logging_dir"),
    *(_needs(name, "logging_dir", "log_with") for name in ("log_tracker_name", "log_tracker_config", "log_config")),
    *map(_for_wandb_only, ("wandb_run_name", "wandb_api_key")),
    _excludes("wandb_run_name", "log_tracker_config", 'that file decides; write name = "..." in its table [wandb]'),
)

CACHING_RULES: tuple[Rule, ...] = (
    Rule("debug_dataset", lambda s: s.training.debug_dataset, "give this to the training script; a tool has only dry_run"),
)

TRAINING_RULES: tuple[Rule, ...] = (
    _required("network_module", '"networks.lora"'),
    _required("output_dir", '"output"'),
    Rule(
        "cache_text_encoder_outputs",
        lambda s: s.data.cache_text_encoder_outputs and _trains_text_encoder(s) and not s.embedding.token_string,
        "the text encoder is trained, so what it makes of a caption changes; add network_train_unet_only = true, or "
        "remove cache_text_encoder_outputs and cache_text_encoder_outputs_to_disk; of a whole model, train the U-Net only",
    ),
)

ODDITIES: tuple[Rule, ...] = (
    Rule("zero3_init_flag", lambda s: s.sharing.zero3_init_flag, "models are read tensor by tensor in any case"),
    Rule("zero3_save_16bit_model", lambda s: s.sharing.zero3_save_16bit_model, "saved files hold whole weights in any case"),
    *map(_not_for_words, ("full_fp16", "full_bf16")),
    Rule(
        "skip_until_initial_step",
        lambda s: s.saving.skip_until_initial_step,
        "a run begins at its place in the order of the pictures in any case",
    ),
    Rule("sdpa", lambda s: s.memory.sdpa, "this attention is used in any case"),
    Rule(
        "mem_eff_attn",
        lambda s: s.memory.mem_eff_attn,
        "PyTorch's attention, which is used in any case, holds no full matrix",
    ),
    Rule("lowram", lambda s: s.memory.lowram, "weights go to their device one by one in any case"),
    *map(_keeps_wide_weights, ("fp8_base", "fp8_base_unet")),
    *map(_of_ddp, ("ddp_gradient_as_bucket_view", "ddp_static_graph")),
    Rule(
        "persistent_data_loader_workers",
        lambda s: s.data.persistent_data_loader_workers,
        "loading processes live as long as the run in any case",
    ),
    Rule(
        "zero_terminal_snr",
        lambda s: s.noise.zero_terminal_snr and not s.model.v_parameterization,
        "this is meant for models that predict v (v_parameterization)",
    ),
    Rule(
        "sample_prompts",
        lambda s: (
            s.changed("sample_prompts")
            and not any(s.changed(name) for name in ("sample_every_n_steps", "sample_every_n_epochs", "sample_at_first"))
        ),
        "no sample pictures are drawn during training; set sample_every_n_epochs or sample_every_n_steps",
    ),
    Rule(
        "sample_every_n_epochs",
        lambda s: s.changed("sample_every_n_epochs") and s.changed("sample_every_n_steps"),
        "this decides when sample pictures are drawn; sample_every_n_steps is not used",
    ),
)
