"""What the options about the model, what is trained of it, and how, change."""

from __future__ import annotations

from library.config.scripts import EMBEDDING, FINE_TUNE, FULL, NETWORK, SDXL_TRAIN, TRAIN_TEXTUAL_INVERSION_XTI
from tests.options.looks import (
    begun,
    calls,
    calls_before,
    calls_loading,
    extras,
    files_begun,
    if_possible,
    noted,
    planned,
    rates,
    rates_begun,
    rates_to_come,
    shared,
    steps,
    stored,
    trained,
    types_begun,
)
from tests.options.rows import Row

SDXL = {"pretrained_model_name_or_path": "{bench}/sdxl"}
TRAINING_TEXT = (FINE_TUNE.name, SDXL_TRAIN.name)
TEXT_TOO = {"train_text_encoder": True}
WORD = {"token_string": "zorb"}
BY_LAYER = (TRAIN_TEXTUAL_INVERSION_XTI.name,)
NOT_BY_LAYER = (*FULL, *NETWORK, *(script for script in EMBEDDING if script not in BY_LAYER))
SGD = {"optimizer_type": "SGD"}
BF16 = {"mixed_precision": "bf16"}
ONE_MEASUREMENT_A_STEP = {
    "validation_split": 0.4, "validate_every_n_steps": 1, "max_train_steps": 3, "learning_rate": 1e-30,
}  # fmt: skip
DEEPSPEED = {"deepspeed": True, "mixed_precision": "bf16"}
STAGE_3 = {**DEEPSPEED, "zero_stage": 3}
STAGE_3_ON_DISK = {**STAGE_3, "offload_param_device": "nvme"}
MANY_WEIGHTS = (*FULL, *NETWORK)
FEW = "the vectors of words are too small for parts"

MODEL = (
    Row("pretrained_model_name_or_path", "tensor", begun, "{bench}/other", scripts=NOT_BY_LAYER),
    Row("pretrained_model_name_or_path", "tensor", begun, "{bench}/other-deep", scripts=BY_LAYER),
    Row("vae", "tensor", begun, "{bench}/other"),
    Row("tokenizer_cache_dir", "file", files_begun, "{here}/tokenizer", beside={"pretrained_model_name_or_path": "{bench}/untold"}, scripts=NOT_BY_LAYER),
    Row("tokenizer_cache_dir", "file", files_begun, "{here}/tokenizer", beside={"pretrained_model_name_or_path": "{bench}/untold-deep"}, scripts=BY_LAYER),
    Row("v2", "refusal", "v2 = true, but this is", True),
    Row("disable_mmap_load_safetensors", "call", calls_before("library.families.weight_files._read_in_order"), True),
    Row("no_half_vae", "tensor", types_begun, True, beside=BF16),
)
NETWORK_ROWS = (
    Row("network_module", "tensor", begun, "tests.methods.plugin"),
    Row("network_dim", "tensor", begun, 3),
    Row("network_alpha", "tensor", begun, 2.0),
    Row("network_dropout", "tensor", trained, 0.5),
    Row("network_args", "tensor", begun, ["conv_dim=2"]),
    Row("network_weights", "tensor", begun, "{bench}/lora.safetensors"),
    Row("dim_from_weights", "tensor", if_possible(begun), True, beside={"network_weights": "{bench}/lora.safetensors", "network_dim": None}),
    Row("network_train_unet_only", "tensor", begun, True),
    Row("network_train_text_encoder_only", "tensor", begun, True),
    Row("scale_weight_norms", "log", extras, 0.1),
    Row("base_weights", "tensor", begun, ["{bench}/lora.safetensors"]),
    Row("base_weights_multiplier", "tensor", begun, [0.5], beside={"base_weights": ["{bench}/lora.safetensors"]}),
)
WORDS = (
    Row("token_string", "tensor", begun, "zorb", scripts=NETWORK),
    Row("token_string", "refusal", "no caption holds the word", "zarb", scripts=EMBEDDING),
    Row("init_word", "tensor", begun, "frog", beside=WORD),
    Row("num_vectors_per_token", "tensor", begun, 2, beside=WORD),
    Row("weights", "tensor", begun, "{bench}/words.safetensors", beside=WORD, scripts=NOT_BY_LAYER),
    Row("weights", "tensor", begun, "{bench}/words-by-layer.safetensors", beside=WORD, scripts=BY_LAYER),
    Row("token_lr", "log", rates_begun, 0.1, beside=WORD),
)
PARTS = (
    Row("train_text_encoder", "log", rates_begun, True),
    Row("stop_text_encoder_training", "tensor", trained, 1, beside={"max_train_steps": 2}, scripts=("train_db.py",)),
    Row("stop_text_encoder_training", "tensor", trained, 1, beside={**TEXT_TOO, "max_train_steps": 2}, scripts=TRAINING_TEXT),
    Row("learning_rate_te", "log", rates_begun, 0.1, scripts=("train_db.py",)),
    Row("learning_rate_te", "log", rates_begun, 0.1, beside=TEXT_TOO, scripts=TRAINING_TEXT),
    Row("block_lr", "log", rates_begun, ",".join(["0.1"] * 23), beside=SDXL),
    *(Row(name, "log", rates_begun, 0.1, beside=SDXL, scripts=("train_db.py",)) for name in ("learning_rate_te1", "learning_rate_te2")),
    *(
        Row(name, "log", rates_begun, 0.1, beside={**SDXL, **TEXT_TOO}, scripts=TRAINING_TEXT)
        for name in ("learning_rate_te1", "learning_rate_te2")
    ),
    Row("unet_lr", "log", rates_begun, 0.1),
    Row("text_encoder_lr", "log", rates_begun, [0.1]),
)
FUSED = calls("library.optim.fused.FusedOptimizer._step_now")
OPTIMIZER = (
    Row("learning_rate", "log", rates_begun, 0.1),
    Row("optimizer_type", "tensor", trained, "SGD"),
    Row("optimizer_args", "tensor", trained, ["weight_decay=0.5"], beside=SGD),
    Row("max_grad_norm", "tensor", trained, 1e-6, beside=SGD),
    Row("fused_backward_pass", "call", FUSED, True, beside={"optimizer_type": "AdaFactor", "optimizer_args": ["relative_step=False"]}),
    Row("fused_optimizer_groups", "call", FUSED, 2),
)


def _scheduled(option: str, given: object, against: object = None, **beside: object) -> Row:
    return Row(option, "log", rates_to_come, given, against, beside={"max_train_steps": 4, **beside})


SCHEDULER = (
    Row("lr_scheduler", "log", rates, "cosine", beside={"max_train_steps": 2}),
    _scheduled("lr_scheduler_type", "LinearLR"),
    _scheduled("lr_scheduler_args", ["start_factor=0.5"], lr_scheduler_type="LinearLR"),
    _scheduled("lr_warmup_steps", 2, lr_scheduler="linear"),
    _scheduled("lr_decay_steps", 2, against=1, lr_scheduler="warmup_stable_decay"),
    _scheduled("lr_scheduler_num_cycles", 2, lr_scheduler="cosine_with_restarts"),
    _scheduled("lr_scheduler_power", 2.0, lr_scheduler="polynomial"),
    _scheduled("lr_scheduler_timescale", 3, lr_scheduler="inverse_sqrt", lr_warmup_steps=1),
    _scheduled("lr_scheduler_min_lr_ratio", 0.5, against=0.1, lr_scheduler="cosine_with_min_lr"),
)
LENGTH = (
    Row("max_train_steps", "plan", planned, 5),
    Row("max_train_epochs", "plan", planned, 3),
    Row("gradient_accumulation_steps", "plan", planned, 2),
    Row("gradient_checkpointing", "call", calls("diffusers.models.resnet.ResnetBlock2D.forward"), True),
)
PRECISION = (
    Row("mixed_precision", "tensor", types_begun, "bf16"),
    Row("full_bf16", "tensor", types_begun, True, beside=BF16, scripts=(*FULL, *NETWORK)),
    Row("full_bf16", "log", noted, True, beside=BF16, scripts=EMBEDDING),
    Row("full_fp16", "tensor", types_begun, True, beside={"mixed_precision": "fp16"}, scripts=(*FULL, *NETWORK)),
    Row("full_fp16", "log", noted, True, beside={"mixed_precision": "fp16"}, scripts=EMBEDDING),
    Row("ema", "tensor", stored, True),
    Row("ema_decay", "tensor", stored, 0.01, beside={"ema": True}),
)
VALIDATION = (
    Row("validate_every_n_epochs", "plan", planned, 2, beside={"validation_split": 0.4, "max_train_steps": 9}),
    Row("validate_every_n_steps", "plan", planned, 1, beside={"validation_split": 0.4, "max_train_steps": 3}),
    Row("max_validation_steps", "plan", planned, 1, beside={"validation_split": 0.7}),
    Row("save_best", "plan", planned, True, beside={"validation_split": 0.4}),
    Row("early_stopping_patience", "log", steps, 1, beside=ONE_MEASUREMENT_A_STEP),
)
COMPILE = calls_before("torch.nn.Module.compile", lambda module, backend: backend)
MEMORY = (
    *(
        Row(name, "log", noted, True)
        for name in ("sdpa", "mem_eff_attn", "lowram", "ddp_gradient_as_bucket_view", "ddp_static_graph")
    ),
    Row("xformers", "refusal", "xformers: the package cannot be imported", True),
    Row("fp8_base", "tensor", types_begun, True, beside=BF16, scripts=(*NETWORK, *EMBEDDING)),
    Row("fp8_base", "refusal", "a model that is trained itself needs more than 8 bits", True, beside=BF16, scripts=FULL),
    Row("fp8_base_unet", "tensor", types_begun, True, beside=BF16),
    Row("highvram", "call", calls_loading("torch.nn.Module.to", lambda module, *where, **_: (type(module), where)), True, beside={"cache_latents": True}),
    Row(
        "torch_compile", "call", COMPILE, True,
        company={"dynamo_backend": "eager"},
    ),
    Row(
        "dynamo_backend", "call", COMPILE, "aot_eager", against="eager",
        beside={"torch_compile": True},
    ),
    Row(
        "ddp_timeout", "call", calls_before("library.train.runtime.InitProcessGroupKwargs", lambda timeout: timeout), 3,
        against=5,
    ),
)  # fmt: skip
SHARING = (
    Row("deepspeed", "plan", shared, True, beside=BF16),
    Row("zero_stage", "plan", shared, 1, beside=DEEPSPEED),
    Row("offload_optimizer_device", "plan", shared, "cpu", beside=DEEPSPEED),
    Row("offload_optimizer_nvme_path", "plan", shared, "{here}/nvme", beside={**DEEPSPEED, "offload_optimizer_device": "nvme"}),
    Row("offload_param_device", "plan", shared, "cpu", beside=STAGE_3, scripts=MANY_WEIGHTS),
    Row("offload_param_nvme_path", "plan", shared, "{here}/nvme", beside=STAGE_3_ON_DISK, scripts=MANY_WEIGHTS),
    Row("offload_param_device", "refusal", FEW, "cpu", company=STAGE_3, scripts=EMBEDDING),
    Row("offload_param_nvme_path", "refusal", FEW, "{here}/nvme", company=STAGE_3_ON_DISK, scripts=EMBEDDING),
    Row("zero3_init_flag", "log", noted, True, beside=STAGE_3),
    Row("zero3_save_16bit_model", "log", noted, True, beside=STAGE_3),
)
ROWS = (
    *MODEL, *NETWORK_ROWS, *WORDS, *PARTS, *OPTIMIZER, *SCHEDULER, *LENGTH, *PRECISION, *VALIDATION, *MEMORY, *SHARING,
)  # fmt: skip
