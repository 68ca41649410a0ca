"""Every rule about combinations of options, broken once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from library.config.check import ODDITIES, RULES, TRAINING_RULES, check_settings
from library.config.load import load_settings
from library.config.scripts import CACHING
from library.config.settings import Settings

Load = Callable[..., Settings]
Mistakes = Callable[..., list[str]]

COMPLETE = "--pretrained_model_name_or_path m --network_module networks.lora --output_dir out"
BROKEN = [
    ("--adaptive_noise_scale 0.1", "--adaptive_noise_scale: this has no effect without noise_offset"),
    ("--noise_offset_random_strength", "without noise_offset"),
    ("--multires_noise_discount 0.5", "without multires_noise_iterations"),
    ("--ip_noise_gamma_random_strength", "without ip_noise_gamma"),
    ("--min_timestep 500 --max_timestep 400", "--min_timestep: this is above max_timestep"),
    ("--scale_v_pred_loss_like_noise_pred", "without v_parameterization"),
    ("--v_pred_like_loss 0.5 --v_parameterization", "cannot be combined with v_parameterization"),
    ("--loss_type huber --huber_c 0", "--huber_c: this must be above 0"),
    ("--huber_schedule constant", "--huber_schedule: only loss_type huber and smooth_l1 use this"),
    ("--huber_c 0.2", "--huber_c: only loss_type huber and smooth_l1"),
    ("--huber_scale 2", "--huber_scale: only loss_type huber and smooth_l1"),
    ("--loss_type huber --huber_scale 2", '--huber_scale: huber_schedule "snr" does not use this'),
    ("--full_bf16 --mixed_precision fp16", '--full_bf16: this needs mixed_precision = "bf16"'),
    ("--full_fp16", '--full_fp16: this needs mixed_precision = "fp16"'),
    ("--fp8_base", '--fp8_base: this needs mixed_precision = "bf16"'),
    ("--fp8_base_unet", '--fp8_base_unet: this needs mixed_precision = "bf16"'),
    ("--fp8_base_unet --fp8_base --mixed_precision bf16", "remove one of them"),
    ("--xformers --sdpa", "both say which attention to use"),
    ("--diffusers_xformers --mem_eff_attn", "--diffusers_xformers: this cannot be combined with mem_eff_attn"),
    ("--xformers --torch_compile", "cannot be compiled"),
    ("--dynamo_backend eager", "without torch_compile"),
    ("--fused_backward_pass --fused_optimizer_groups 4", "both say when to step"),
    ("--fused_backward_pass --gradient_accumulation_steps 2", "--fused_backward_pass: gradients are gone before others"),
    ("--fused_optimizer_groups 2 --mixed_precision fp16", "--fused_optimizer_groups: steps during the backward pass know nothing"),
    ("--fused_optimizer_groups 2 --gradient_accumulation_steps 2", "--fused_optimizer_groups: gradients are gone"),
    ("--fused_backward_pass --mixed_precision fp16", "--fused_backward_pass: steps during the backward pass know nothing"),
    ("--zero_stage 1", "--zero_stage: this has no effect without deepspeed"),
    ("--offload_optimizer_device cpu", "--offload_optimizer_device: this has no effect without deepspeed"),
    ("--deepspeed --offload_optimizer_nvme_path /fast", "without offload_optimizer_device"),
    ("--deepspeed --zero_stage 3 --offload_param_nvme_path /fast", "without offload_param_device"),
    ("--deepspeed --offload_param_device cpu", "--offload_param_device: only stage 3 uses this"),
    ("--deepspeed --zero3_init_flag", "--zero3_init_flag: only stage 3 uses this"),
    ("--deepspeed --zero3_save_16bit_model", "--zero3_save_16bit_model: only stage 3 uses this"),
    ("--ema_decay 0.9", "without ema"),
    ("--ema_samples", "without ema"),
    ("--network_train_unet_only --network_train_text_encoder_only", "nothing would be left to train"),
    ("--network_train_unet_only --text_encoder_lr 1e-5", "the text encoder is not trained"),
    ("--network_train_text_encoder_only --unet_lr 1e-5", "the U-Net is not trained"),
    ("--dim_from_weights", "without network_weights"),
    ("--dim_from_weights --network_weights f --network_dim 4", "--network_dim: this cannot be combined"),
    ("--dim_from_weights --network_weights f --network_alpha 4", "--network_alpha: this cannot be combined"),
    ("--base_weights_multiplier", None),
    ("--base_weights f --base_weights_multiplier 1 2", "more multipliers than files"),
    ("--training_comment x --no_metadata", "cannot be combined with no_metadata"),
    ("--vae_batch_size 2", "without cache_latents"),
    ("--skip_cache_check --cache_latents", "without cache_latents_to_disk or cache_text_encoder_outputs_to_disk"),
    ("--text_encoder_batch_size 4", "--text_encoder_batch_size: this has no effect without cache_text_encoder_outputs"),
    ("--caption_variants 4", "--caption_variants: this has no effect without cache_text_encoder_outputs"),
    (
        "--no_token_padding --cache_text_encoder_outputs --network_train_unet_only",
        "--no_token_padding: this cannot be combined with cache_text_encoder_outputs",
    ),
    ("--cache_text_encoder_outputs", "add network_train_unet_only = true, or remove cache_text_encoder_outputs"),
    ("--cache_text_encoder_outputs_to_disk --text_encoder_lr 1e-5", "--cache_text_encoder_outputs_to_disk: the text encoder is trained"),
    ("--init_word frog", "--init_word: this has no effect without token_string, the word to learn"),
    ("--num_vectors_per_token 2", "--num_vectors_per_token: this has no effect without token_string"),
    ("--weights w.pt", "--weights: this has no effect without token_string"),
    ("--use_object_template", "--use_object_template: this has no effect without token_string"),
    ("--use_style_template", "--use_style_template: this has no effect without token_string"),
    ("--token_lr 1e-3", "--token_lr: this has no effect without token_string"),
    ("--token_string zorb --token_lr 0", "--token_lr: at 0 the word is not learned"),
    ("--token_string zorb --cache_text_encoder_outputs", "--token_string: this cannot be combined with cache_text_encoder_outputs"),
    ("--num_class_images 9", "--num_class_images: this has no effect without reg_data_dir or dataset_config"),
    ("--class_prompt frog", "--class_prompt: this has no effect without reg_data_dir or dataset_config or prior_prediction"),
    ("--paired_prior", "--paired_prior: this has no effect without reg_data_dir or dataset_config"),
    ("--paired_prior --reg_data_dir r --dataset_class a.B", "--paired_prior: this cannot be combined with dataset_class"),
    ("--paired_prior --reg_data_dir r --prior_prediction", "--paired_prior: this cannot be combined with prior_prediction"),
    ("--paired_prior --reg_data_dir r --prior_loss_weight 0", "--paired_prior: prior_loss_weight = 0 leaves this out"),
    ("--prior_prediction --prior_loss_weight 0", "--prior_prediction: prior_loss_weight = 0 leaves this out"),
    ("--prior_prediction --dataset_class a.B", "--prior_prediction: this cannot be combined with dataset_class"),
    ("--conditioning_data_dir masks", "--conditioning_data_dir: this has no effect without masked_loss"),
    ("--dataset_repeats 2", "--dataset_repeats: this has no effect without dataset_config or in_json or conditioning_data_dir"),
    ("--validation_seed 2", "--validation_seed: this has no effect without validation_split or dataset_config"),
    ("--in_json m.json --masked_loss --conditioning_data_dir masks", "--in_json: this cannot be combined with conditioning_data_dir"),
    ("--dataset_class a.B --cache_latents", "--dataset_class: this cannot be combined with cache_latents"),
    (
        "--dataset_class a.B --cache_text_encoder_outputs --network_train_unet_only",
        "--dataset_class: this cannot be combined with cache_text_encoder_outputs",
    ),
    ("--persistent_data_loader_workers --max_data_loader_n_workers 0", "no loading processes to keep"),
    ("--save_n_epoch_ratio 2 --save_every_n_epochs 2", "both say how often to save"),
    ("--save_last_n_epochs 2", "without save_every_n_epochs or save_n_epoch_ratio"),
    ("--save_last_n_steps 2", "without save_every_n_steps"),
    ("--save_last_n_epochs_state 2 --save_every_n_epochs 1", "without save_state"),
    ("--save_last_n_epochs_state 2 --save_state", "without save_every_n_epochs"),
    ("--save_last_n_steps_state 2 --save_every_n_steps 1", "without save_state"),
    ("--save_last_n_steps_state 2 --save_state", "without save_every_n_steps"),
    ("--initial_step 1 --initial_epoch 2", "both say where to begin"),
    ("--skip_until_initial_step", "without initial_step or initial_epoch or resume"),
    ("--initial_step 1600", "--initial_step: the run would end before it begins"),
    ("--initial_epoch 3 --max_train_epochs 2", "--initial_epoch: the run would end before it begins"),
    ("--sample_every_n_steps 5", "without sample_prompts"),
    ("--sample_every_n_epochs 5", "without sample_prompts"),
    ("--sample_at_first", "without sample_prompts"),
    ("--log_with tensorboard", "TensorBoard needs a folder"),
    ("--log_with all", "TensorBoard needs a folder"),
    ("--log_prefix x", "without logging_dir"),
    ("--log_tracker_name x", "without logging_dir or log_with"),
    ("--log_tracker_config x.toml", "without logging_dir or log_with"),
    ("--log_config", "without logging_dir or log_with"),
    ("--logging_dir logs --wandb_run_name x", "--wandb_run_name: only wandb uses this"),
    ("--logging_dir logs --log_with tensorboard --wandb_api_key x", "--wandb_api_key: only wandb uses this"),
    ("--log_with wandb --wandb_run_name x --log_tracker_config x.toml", "that file decides"),
    ("--async_upload", "without huggingface_repo_id"),
    ("--huggingface_path_in_repo x", "without huggingface_repo_id"),
    ("--huggingface_repo_type model", "--huggingface_repo_type: this has no effect without huggingface_repo_id"),
    ("--huggingface_repo_visibility public", "without huggingface_repo_id"),
    ("--save_state_to_huggingface --save_state", "--save_state_to_huggingface: this has no effect without huggingface_repo_id"),
    ("--huggingface_token x", "without huggingface_repo_id or resume_from_huggingface"),
    ("--save_state_to_huggingface --huggingface_repo_id me/x", "without save_state or save_state_on_train_end"),
    ("--resume_from_huggingface", "without resume"),
    ("--huggingface_repo_id me/x --huggingface_repo_type modle", "--huggingface_repo_type: this is one of model, dataset, space"),
    ("--huggingface_repo_id me/x --huggingface_repo_visibility Public", "this is one of public, private"),
    ("--huggingface_repo_id me/x --huggingface_path_in_repo a/../b", "--huggingface_path_in_repo: this is a folder in the repository"),
    ("--output_name out/frog", "--output_name: a name has none of the characters"),
    (r"--output_name C:\frog", "write the folder in output_dir"),
]
ODD = [
    ("--deepspeed --zero_stage 3 --zero3_init_flag", "--zero3_init_flag: models are read tensor by tensor"),
    ("--deepspeed --zero_stage 3 --zero3_save_16bit_model", "--zero3_save_16bit_model: saved files hold whole weights"),
    ("--zero_terminal_snr", "--zero_terminal_snr: this is meant for models that predict v"),
    ("--sdpa", "--sdpa: this attention is used in any case"),
    ("--mem_eff_attn", "holds no full matrix"),
    ("--lowram", "one by one in any case"),
    ("--fp8_base --mixed_precision bf16", "--fp8_base: the backward pass keeps each weight of the U-Net in 16 bits, too"),
    ("--fp8_base_unet --mixed_precision fp16", "more than without this; add gradient_checkpointing"),
    ("--ddp_static_graph", "--ddp_static_graph: gradients are averaged without"),
    ("--ddp_gradient_as_bucket_view", "--ddp_gradient_as_bucket_view: gradients are averaged without"),
    ("--sample_prompts p.txt", "no sample pictures are drawn"),
    ("--sample_prompts p.txt --sample_every_n_epochs 1 --sample_every_n_steps 5", "sample_every_n_steps is not used"),
]
BROKEN_WORDS = [  # of the scripts for textual inversion
    ("", "token_string (default): this option is needed"),
    ("--token_string=two_words", "write one word, without spaces"),
    ("--token_string w --use_object_template --use_style_template", "one is for things, the other for styles"),
]
BROKEN_WHOLE = [  # of the scripts that train the model itself
    ("fine_tune.py", "--stop_text_encoder_training 5", "the text encoder is not trained in any case; write train_text_encoder = true"),
    ("fine_tune.py", "--learning_rate_te 1e-5", "--learning_rate_te: the text encoder is not trained"),
    ("train_db.py", "--fp8_base --mixed_precision bf16", "--fp8_base: a model that is trained itself needs more than 8 bits"),
    ("train_db.py", "--cache_text_encoder_outputs", "--cache_text_encoder_outputs: the text encoder is trained"),
    ("fine_tune.py", "--cache_text_encoder_outputs --train_text_encoder --learning_rate_te 1e-5", "the text encoder is trained"),
    ("sdxl_train.py", "--cache_text_encoder_outputs --train_text_encoder --learning_rate_te1 0", "the text encoder is trained"),
    ("sdxl_train.py", "--learning_rate_te1 1e-5", "--learning_rate_te1: the text encoder is not trained"),
    ("train_db.py", "--learning_rate_te2 1e-5 --stop_text_encoder_training -1", "--learning_rate_te2: the text encoder is not trained"),
]
FINE = [
    "",
    "--noise_offset 0.1 --adaptive_noise_scale 0.1 --noise_offset_random_strength",
    "--loss_type smooth_l1 --huber_schedule exponential --huber_scale 2 --huber_c 0.3",
    "--zero_terminal_snr --v_parameterization --scale_v_pred_loss_like_noise_pred --min_snr_gamma 5 --debiased_estimation_loss",
    "--cache_latents_to_disk --vae_batch_size 4 --skip_cache_check",
    "--cache_text_encoder_outputs_to_disk --network_train_unet_only --skip_cache_check --caption_variants 8 --text_encoder_batch_size 2",
    "--save_n_epoch_ratio 3 --save_last_n_epochs 2 --save_state --save_last_n_epochs_state 1",
    "--initial_step 10 --max_train_steps 11",
    "--initial_step 5000 --max_train_epochs 9",
    "--min_timestep 400 --max_timestep 400",
    "--base_weights a b --base_weights_multiplier 0.5",
    "--network_weights f --dim_from_weights",
    "--full_bf16 --mixed_precision bf16 --fused_backward_pass --ema --ema_decay 0.9 --ema_samples",
    "--output_name frog.v1-2",
    "--fp8_base --mixed_precision bf16 --gradient_checkpointing",
]


@pytest.mark.parametrize(("flags", "expected"), [case for case in BROKEN if case[1]])
def test_broken_rule_is_told(load: Load, mistakes: Mistakes, flags: str, expected: str) -> None:
    (message,) = mistakes(check_settings, load(*COMPLETE.split(), *flags.split()))
    assert expected in message


def test_multipliers_need_files(load: Load, mistakes: Mistakes) -> None:
    messages = mistakes(check_settings, load(*COMPLETE.split(), "--base_weights_multiplier", "1"))
    assert "without base_weights" in messages[0]
    assert "more multipliers than files" in messages[1]


@pytest.mark.parametrize(("flags", "expected"), ODD)
def test_oddity_is_noted(load: Load, flags: str, expected: str) -> None:
    (note,) = check_settings(load(*COMPLETE.split(), *flags.split()))
    assert expected in note


@pytest.mark.parametrize("flags", FINE)
def test_nothing_is_said_about_what_fits(load: Load, flags: str) -> None:
    assert check_settings(load(*COMPLETE.split(), *flags.split())) == []


def test_what_every_run_needs_is_told_at_once_with_an_example(load: Load, mistakes: Mistakes) -> None:
    messages = mistakes(check_settings, load())
    assert [message.split(" ")[0] for message in messages] == ["pretrained_model_name_or_path", "network_module", "output_dir"]
    assert 'write network_module = "networks.lora", or --network_module "networks.lora"' in messages[1]


def test_a_tool_that_fills_caches_needs_neither_network_nor_output(mistakes: Mistakes) -> None:
    for script in CACHING:
        (message,) = mistakes(check_settings, load_settings(script, []))
        assert message.startswith("pretrained_model_name_or_path")
        flags = "--pretrained_model_name_or_path m --cache_text_encoder_outputs --text_encoder_lr 1e-5 --skip_existing"
        assert check_settings(load_settings(script, flags.split())) == []
        (message,) = mistakes(check_settings, load_settings(script, [*flags.split(), "--debug_dataset"]))
        assert message.startswith("--debug_dataset: give this to the training script")
        (message,) = mistakes(check_settings, load_settings(script, [*flags.split(), "--base_weights", "f"]))
        assert message.startswith("--base_weights: this has no effect without network_module")


def test_message_names_file_table_and_key(load: Load, mistakes: Mistakes, tmp_path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[noise]\nadaptive_noise_scale = 0.1\n", encoding="utf-8")
    (message,) = mistakes(check_settings, load(*COMPLETE.split(), "--config_file", path))
    assert message.startswith(f"{path} [noise] adaptive_noise_scale: ")


def words_of(flags: str) -> list[str]:
    """An underscore within a value stands for a space."""
    return [word.replace("=two_words", "=two words") for word in flags.split()]


@pytest.mark.parametrize(("flags", "expected"), BROKEN_WORDS)
def test_broken_rules_about_words(load: Load, mistakes: Mistakes, flags: str, expected: str) -> None:
    complete = "--pretrained_model_name_or_path m --output_dir out"
    (message,) = mistakes(check_settings, load(*complete.split(), *words_of(flags), script="train_textual_inversion.py"))
    assert expected in message


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_words_are_trained_in_32_bits(load: Load, precision: str) -> None:
    flags = f"--pretrained_model_name_or_path m --output_dir out --token_string t --mixed_precision {precision} --full_{precision}"
    (note,) = check_settings(load(*flags.split(), script="train_textual_inversion.py"))
    assert note.startswith(f"--full_{precision}: the vectors of words are trained in float32")


@pytest.mark.parametrize(("script", "flags", "expected"), BROKEN_WHOLE)
def test_broken_rules_about_whole_models(load: Load, mistakes: Mistakes, script: str, flags: str, expected: str) -> None:
    complete = "--pretrained_model_name_or_path m --output_dir out"
    (message,) = mistakes(check_settings, load(*complete.split(), *flags.split(), script=script))
    assert expected in message


def test_every_rule_is_broken_by_a_case(load: Load) -> None:
    cases = [load(*flags.split()) for flags, _ in BROKEN + ODD] + [load("--base_weights_multiplier", "1")]
    words = [*(flags for flags, _ in BROKEN_WORDS), "--full_fp16", "--full_bf16"]
    cases += [load(*words_of(flags), script="train_textual_inversion.py") for flags in words]
    cases += [load(*flags.split(), script=script) for script, flags, _ in BROKEN_WHOLE]
    rules = RULES + TRAINING_RULES + ODDITIES
    unbroken = [f"{rule.option}: {rule.message}" for rule in rules if not any(map(rule.is_broken, cases))]
    assert unbroken == []
