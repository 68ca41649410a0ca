"""What the options about the model's text, about pictures, captions, noise and loss change."""

from __future__ import annotations

from library.config.scripts import FINE_TUNE, NETWORK, SDXL_TRAIN, TRAIN_DB
from tests.options.looks import (
    batches,
    calls_loading,
    captions,
    files_of_batches,
    if_possible,
    losses,
    masks,
    noted,
    planned,
    second_look,
    workers,
)
from tests.options.rows import Row

TEXTS_AT_ONCE = calls_loading("library.families.clip.encode_captions", lambda encoder, tokenizer, texts, settings: len(texts))
SILENT = {"pretrained_model_name_or_path": "{bench}/whole.safetensors"}  # says nothing of what it predicts
OF_FOLDER = {"train_data_dir": "{here}/data/1_toad"}
BUCKETS = {"enable_bucket": True, "resolution": 256, "min_bucket_reso": 64}
REGULARISED = {"reg_data_dir": "{here}/reg"}
ON_DISK = {"cache_latents_to_disk": True}
MASKED = {**OF_FOLDER, "masked_loss": True}
SHUFFLED = {"shuffle_caption": True}
WARMED_UP = {"token_warmup_step": 4, "max_train_steps": 6}
FIXED_TEXT = {  # what has to stand beside a cache of text
    NETWORK: {"network_train_unet_only": True},
    (TRAIN_DB.name,): {"stop_text_encoder_training": -1},
    (FINE_TUNE.name, SDXL_TRAIN.name): {},
}

TEXT = (
    Row("clip_skip", "loss", losses, 2),
    Row("max_token_length", "loss", losses, 150, against=225),
    Row("weighted_captions", "loss", losses, True),
    Row("no_token_padding", "loss", losses, True),
)
FOLDERS = (
    Row("dataset_config", "plan", planned, "{here}/one.toml", against="{here}/two.toml", beside={"train_data_dir": None}),
    Row("train_data_dir", "plan", planned, "{here}/others"),
    Row("reg_data_dir", "plan", planned, "{here}/reg"),
    Row("num_class_images", "plan", planned, 3, beside=REGULARISED),
    Row("class_prompt", "plan", planned, "a frog", beside={**REGULARISED, "num_class_images": 3}),
    Row("in_json", "plan", planned, "{here}/one.json", against="{here}/two.json", beside=OF_FOLDER),
    Row("dataset_repeats", "plan", planned, 2, beside={**OF_FOLDER, "in_json": "{here}/one.json"}),
    Row("dataset_class", "batch", batches, "tests.data.foreign_datasets.Plain"),
    Row("cache_info", "file", files_of_batches, True),
    Row("on_bad_image", "plan", if_possible(planned), "skip", beside={"train_data_dir": "{here}/damaged"}),
    Row("validation_split", "plan", planned, 0.4),
    Row("validation_seed", "plan", planned, 5, beside={"validation_split": 0.4}),
    Row("caption_extension", "plan", planned, ".caption", against=".txt"),
)
SIZES = (
    Row("resolution", "plan", planned, 128),
    Row("train_batch_size", "plan", planned, 2),
    Row("enable_bucket", "plan", planned, True, beside={"resolution": 256, "min_bucket_reso": 64}),
    Row("min_bucket_reso", "plan", planned, 256, beside=BUCKETS),
    Row("max_bucket_reso", "plan", planned, 256, beside=BUCKETS),
    Row("bucket_reso_steps", "plan", planned, 128, beside={**BUCKETS, "min_bucket_reso": 128}),
    Row("bucket_no_upscale", "plan", planned, True, beside=BUCKETS),
)
PICTURES = (
    Row("resize_interpolation", "batch", batches, "nearest"),
    Row("color_aug", "batch", batches, True),
    Row("flip_aug", "batch", batches, True),
    Row("random_crop", "batch", batches, True),
    Row("face_crop_aug_range", "batch", batches, "1.0,1.5"),
    Row("alpha_mask", "batch", batches, True),
    Row("masked_loss", "batch", masks, True, company={**OF_FOLDER, "conditioning_data_dir": "{here}/masks"}),
    Row("conditioning_data_dir", "batch", batches, "{here}/masks", against="{here}/other-masks", beside=MASKED),
)
CAPTIONS = (
    Row("shuffle_caption", "batch", captions, True),
    Row("caption_separator", "batch", captions, ";", beside=SHUFFLED),
    Row("keep_tokens", "batch", captions, 2, beside=SHUFFLED),
    Row("keep_tokens_separator", "batch", captions, "+++", beside=SHUFFLED),
    Row("secondary_separator", "batch", captions, ";"),
    Row("enable_wildcard", "batch", captions, True),
    Row("caption_prefix", "batch", captions, "here is"),
    Row("caption_suffix", "batch", captions, "in a box"),
    Row("caption_dropout_rate", "batch", captions, 0.5),
    Row("caption_dropout_every_n_epochs", "batch", captions, 2),
    Row("caption_tag_dropout_rate", "batch", captions, 0.5),
    Row("token_warmup_min", "batch", captions, 3, beside=WARMED_UP),
    Row("token_warmup_step", "batch", captions, 4, beside={"max_train_steps": 6}),
)
OF_WORDS = (
    Row("use_object_template", "batch", captions, True, beside={"token_string": "zorb"}),
    Row("use_style_template", "batch", captions, True, beside={"token_string": "zorb"}),
)
CACHES = (
    Row("cache_latents", "batch", batches, True),
    Row("cache_latents_to_disk", "file", files_of_batches, True, beside={"cache_latents": True}),
    Row("vae_batch_size", "call", calls_loading("library.families.autoencoder.encode_images", lambda vae, images: len(images)), 2, beside={"cache_latents": True}),
    Row("skip_cache_check", "batch", second_look, True, beside=ON_DISK),
    *(
        row
        for scripts, fixed in FIXED_TEXT.items()
        for row in (
            Row("cache_text_encoder_outputs", "batch", batches, True, beside=fixed, scripts=scripts),
            Row(
                "cache_text_encoder_outputs_to_disk", "file", files_of_batches, True,
                beside={**fixed, "cache_text_encoder_outputs": True}, scripts=scripts,
            ),
            Row(
                "text_encoder_batch_size", "call", TEXTS_AT_ONCE, 2,
                beside={**fixed, "cache_text_encoder_outputs": True}, scripts=scripts,
            ),
            Row(
                "caption_variants", "batch", captions, 3, against=2,
                beside={**fixed, "cache_text_encoder_outputs": True, **SHUFFLED}, scripts=scripts,
            ),
        )
    ),
)  # fmt: skip
LOADING = (
    Row("prior_loss_weight", "batch", batches, 0.5, beside=REGULARISED),
    Row("paired_prior", "batch", batches, True, beside=REGULARISED),
    Row("prior_prediction", "batch", batches, True, company={"class_prompt": "a frog"}),
    Row("max_data_loader_n_workers", "plan", workers, 2, against=1),
    Row("persistent_data_loader_workers", "log", noted, True, beside={"max_data_loader_n_workers": 1}),
)
MULTIRES = {"multires_noise_iterations": 3}
HUBER = {"loss_type": "huber"}
NOISE = (
    Row("noise_offset", "loss", losses, 0.1),
    Row("noise_offset_random_strength", "loss", losses, True, beside={"noise_offset": 0.1}),
    Row("adaptive_noise_scale", "loss", losses, 0.5, beside={"noise_offset": 0.1}),
    Row("multires_noise_iterations", "loss", losses, 3),
    Row("multires_noise_discount", "loss", losses, 0.8, beside=MULTIRES),
    Row("ip_noise_gamma", "loss", losses, 0.1),
    Row("ip_noise_gamma_random_strength", "loss", losses, True, beside={"ip_noise_gamma": 0.1}),
    Row("zero_terminal_snr", "loss", losses, True),
    Row("min_timestep", "loss", losses, 900),
    Row("max_timestep", "loss", losses, 100),
)
LOSS = (
    Row("loss_type", "loss", losses, "l1"),
    Row("huber_schedule", "loss", losses, "constant", beside=HUBER),
    Row("huber_c", "loss", losses, 0.5, beside=HUBER),
    Row("huber_scale", "loss", losses, 3.0, beside={**HUBER, "huber_schedule": "exponential"}),
    Row("min_snr_gamma", "loss", losses, 1.0),
    Row("scale_v_pred_loss_like_noise_pred", "loss", losses, True, beside={**SILENT, "v_parameterization": True}),
    Row("v_parameterization", "loss", losses, True, beside=SILENT),
    Row("v_pred_like_loss", "loss", losses, 0.5),
    Row("debiased_estimation_loss", "loss", losses, True),
    Row("seed", "loss", losses, 2),
)
ROWS = (*TEXT, *FOLDERS, *SIZES, *PICTURES, *CAPTIONS, *OF_WORDS, *CACHES, *LOADING, *NOISE, *LOSS)
