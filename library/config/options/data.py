"""Options about the training pictures, their captions and the loading of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from library.config.declare import option
from library.config.scripts import CACHING, FULL, NETWORK

INTERPOLATIONS = ("lanczos", "nearest", "bilinear", "linear", "bicubic", "cubic", "area")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where the pictures are and how they are prepared. A dataset file overrides most of these for its datasets."""

    dataset_config: Path | None = option(
        None, "Dataset file (.toml or .json): folders of pictures, each with its own settings.", private=True
    )
    train_data_dir: str | None = option(
        None,
        'Folder whose sub-folders hold the training pictures and are named like "20_sls frog" (repeats_words).',
        private=True,
    )
    reg_data_dir: str | None = option(
        None, "The same for regularisation pictures: what the class should keep looking like.", private=True
    )
    num_class_images: int = option(
        0,
        "Regularisation pictures in each folder of them: what is missing is drawn with the base model before training.",
        least=0,
        most=99_999,
    )
    class_prompt: str | None = option(
        None,
        "What missing regularisation pictures are drawn from, and their caption (left out: the folder's class tokens); what "
        "prior_prediction keeps.",
    )
    in_json: str | None = option(
        None, "Metadata file (.json or .jsonl): pictures with captions; train_data_dir is their folder.", private=True
    )
    dataset_repeats: int = option(1, "How often each picture is used in an epoch, where neither folder names nor files say it.")
    dataset_class: str | None = option(None, "Python class (package.module.Class) that makes the batches instead of all this.")
    cache_info: bool = option(False, "Keep captions and sizes in metadata_cache.json beside the pictures, to start faster.")
    resolution: tuple[int, int] | None = option(None, "Training size in pixels: 512, or 768,512 for width,height.")
    train_batch_size: int = option(1, "Pictures per batch and process.", least=1)

    enable_bucket: bool = option(False, "Keep each picture's shape: group pictures into buckets of similar aspect ratio.")
    min_bucket_reso: int = option(256, "Shortest side of a bucket in pixels.", least=1)
    max_bucket_reso: int = option(1024, "Longest side of a bucket in pixels.", least=1)
    bucket_reso_steps: int = option(64, "Sides of buckets are multiples of this many pixels.", least=1)
    bucket_no_upscale: bool = option(False, "Never enlarge a picture: small pictures get small buckets of their own.")
    resize_interpolation: str | None = option(
        None, "How pictures are resized. Left out: area to shrink, lanczos to enlarge.", choices=INTERPOLATIONS
    )

    caption_extension: str = option(".caption", "Extension of caption files; most people's are .txt.")
    shuffle_caption: bool = option(False, "Shuffle the tags of a caption each time that it is used.")
    caption_separator: str = option(",", "What stands between the tags of a caption.")
    keep_tokens: int = option(
        0, "This many tags at the start of a caption stay where they are when tags are shuffled or dropped.", least=0
    )
    keep_tokens_separator: str = option("", "Tags before this mark, and after a second one, stay in place; replaces keep_tokens.")
    secondary_separator: str | None = option(None, "Tags joined by this mark are shuffled and dropped as one.")
    enable_wildcard: bool = option(False, "Draw one of {a|b|c} in captions, and one line of captions of several lines.")
    caption_prefix: str | None = option(None, "Text put before every caption.")
    caption_suffix: str | None = option(None, "Text put after every caption.")
    caption_dropout_rate: float = option(0.0, "Probability with which a picture is trained without its caption.", least=0, most=1)
    caption_dropout_every_n_epochs: int = option(0, "Train every n-th epoch without captions; 0 never does.", least=0)
    caption_tag_dropout_rate: float = option(0.0, "Probability with which each tag of a caption is dropped.", least=0, most=1)
    token_warmup_min: int = option(1, "Number of tags that captions start with during the tag warm-up.", least=0)
    token_warmup_step: float = option(
        0.0, "Use more and more tags of a caption until this step (under 1: part of all steps); 0 uses all at once.", least=0
    )

    color_aug: bool = option(False, "Vary hue and brightness a little at random. Not with cached latents.")
    flip_aug: bool = option(False, "Mirror half of the pictures at random, left to right.")
    random_crop: bool = option(False, "Crop at a random place instead of the centre. Not with cached latents.")
    face_crop_aug_range: tuple[float, float] | None = option(
        None, "Crop around the face given in the file's name so that it is this much of the picture, for example 2.0,4.0."
    )
    alpha_mask: bool = option(False, "Use the pictures' transparency as a mask: transparent parts are not learned.")
    masked_loss: bool = option(False, "Use masks: what is black in a picture's mask (see conditioning_data_dir) is not learned.")
    conditioning_data_dir: str | None = option(
        None, "Folder of masks, named like the pictures in train_data_dir itself.", private=True
    )

    validation_split: float = option(0.0, "Part of the pictures that is held out of training to measure it by.", least=0, most=1)
    validation_seed: int | None = option(None, "Decides which pictures are held out. Left out: the same ones in every run.")

    cache_latents: bool = option(False, "Encode every picture once, before training, and keep the results in memory.")
    cache_latents_to_disk: bool = option(False, "Keep the encoded pictures in files beside the pictures, for later runs too.")
    vae_batch_size: int = option(1, "Pictures encoded at once while caching.", least=1)
    skip_cache_check: bool = option(False, "Trust cache files that are there without opening each to check it.")
    skip_existing: bool = option(False, "Leave out pictures whose cache file is there, without checking it.", scripts=CACHING)
    cache_text_encoder_outputs: bool = option(
        False,
        "Encode every caption once, before training, and keep the results in memory. Not if the text encoder is trained.",
        scripts=(*NETWORK, *FULL),
    )
    cache_text_encoder_outputs_to_disk: bool = option(
        False, "Keep the encoded captions in files beside the pictures, for later runs too.", scripts=(*NETWORK, *FULL)
    )
    text_encoder_batch_size: int = option(16, "Captions encoded at once while caching.", least=1, scripts=(*NETWORK, *FULL))
    caption_variants: int = option(
        1,
        "Renderings of each caption that are cached where captions are shuffled, tags dropped or wildcards drawn; each use of a "
        "picture draws one of them.",
        least=1,
        scripts=(*NETWORK, *FULL),
    )

    prior_loss_weight: float = option(
        1.0, "Weight of regularisation pictures, and of class prompts under prior_prediction, in the loss.", least=0
    )
    paired_prior: bool = option(
        False,
        "The step of the DreamBooth paper: beside each batch stands one of as many class pictures (regularisation pictures), and the "
        "loss is the mean over the one plus prior_loss_weight times the mean over the other.",
        scripts=(*NETWORK, *FULL),
    )
    prior_prediction: bool = option(
        False,
        "Train each picture's class_prompt besides, so that the model goes on to predict what it does without the network. Takes no "
        "regularisation pictures.",
        scripts=NETWORK,
    )
    max_data_loader_n_workers: int = option(
        8, "Processes that load pictures (at most CPU threads - 1); 0 loads in the training process.", least=0
    )
    persistent_data_loader_workers: bool = option(False, "Keep the loading processes alive between epochs.")
    on_bad_image: str = option(
        "stop",
        "What to do about a picture that cannot be read: stop before training, or skip it and say so.",
        choices=("stop", "skip"),
    )
