"""Sort images into buckets and encode them before training, into cache files beside the images.

python finetune/prepare_buckets_latents.py train_data meta.json meta_latents.json model.safetensors --max_resolution 512,512
"""
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script is run by its path, from any folder

from library.config.declare import option
from library.config.tool import positional, run_tool
from library.data.records import PreparedDataset
from library.data.scan import scan_images
from library.data.wording import shortened
from library.errors import UserError
from library.preparation.images import ImageTree, find_images
from library.preparation.keys import ImageKeys
from library.preparation.metadata_file import check_writable, read_sources, write_metadata


@dataclass(frozen=True, kw_only=True)
class PrepareBucketsOptions:
    """Sort images into buckets and encode them before training, into cache files beside the images."""

    train_data_dir: str = positional("Folder of the images.")
    in_json: str = positional("Metadata file to start from.")
    out_json: str = positional("Metadata file to write, with each image's bucket; if it exists it is completed and kept as .bak.")
    model_name_or_path: str = positional("The model that is to be trained, or its VAE: a file, a folder or a Hugging Face id.")
    v2: bool = option(False, "The model is a Stable Diffusion 2.x model.")
    batch_size: int = option(1, "Images that the VAE encodes together.", least=1)
    max_data_loader_n_workers: int | None = option(
        None, "Accepted, and changes nothing: images are always read while others are encoded.", least=0
    )
    max_resolution: tuple[int, int] = option((512, 512), "Training size in pixels, as width,height.")
    min_bucket_reso: int = option(256, "Shortest side of a bucket in pixels.", least=1)
    max_bucket_reso: int = option(1024, "Longest side of a bucket in pixels.", least=1)
    bucket_reso_steps: int = option(64, "Sides of buckets are multiples of this many pixels.", least=1)
    bucket_no_upscale: bool = option(False, "Never enlarge an image: small images get small buckets of their own.")
    mixed_precision: str = option("no", "Precision of the VAE; take that of the training.", choices=("no", "fp16", "bf16"))
    full_path: bool = option(False, "Name new images by their whole path, not by their path from train_data_dir.")
    flip_aug: bool = option(False, "Encode mirrored images, too, for training with flip_aug.")
    alpha_mask: bool = option(False, "Keep the transparency as a mask, for training with alpha_mask.")
    skip_existing: bool = option(False, "Trust cache files that are there without opening each to check it.")
    recursive: bool = option(False, "Search the folders below train_data_dir, too.")


def prepare_buckets_latents(options: PrepareBucketsOptions) -> None:
    out = Path(options.out_json)
    check_writable(out)
    tree = find_images(options.train_data_dir, options.recursive)
    entries = read_sources(options.in_json, options.out_json)
    keys = ImageKeys(entries, tree.root, tree.images, options.in_json)
    scan = scan_images(map(str, tree.images))
    mistakes = [f"{path}: {reason}" for path, reason in sorted(scan.bad.items())]
    if not scan.sizes:
        raise UserError(*shortened(mistakes, "bad images"))

    from library.preparation.latents import Sizing, assign_buckets, bucketed_dataset, find_vae

    if options.max_data_loader_n_workers is not None:
        print("--max_data_loader_n_workers changes nothing here: images are always read while others are encoded")
    sizing = Sizing(**{name: getattr(options, name) for name in Sizing.__dataclass_fields__})
    dataset = bucketed_dataset(tree.root, sizing, options.flip_aug, options.alpha_mask)
    vae = find_vae(options.model_name_or_path, options.v2)
    prepared = assign_buckets(dataset, scan)
    try:
        _encode(tree, prepared, vae, options)
    except UserError as error:
        mistakes += error.messages
    bucket_of = {keys.key_of(Path(record.path), options.full_path): record.bucket for record in prepared.records}
    new = [key for key in bucket_of if key not in entries]
    if entries and new:
        print(f"without a caption, as {options.in_json} had no entry for them: {len(new)} images, such as {new[0]}")
    for key, bucket in bucket_of.items():
        entries.setdefault(key, {})["train_resolution"] = list(bucket)
    write_metadata(out, entries)
    if mistakes:
        raise UserError(*shortened(mistakes, "bad images"))


def _encode(tree: ImageTree, prepared: PreparedDataset, vae: str, options: PrepareBucketsOptions) -> None:
    from library.preparation.latents import write_latents

    tree.remove_leftovers()
    write_latents(prepared, vae, options.mixed_precision, options.batch_size, options.skip_existing)


if __name__ == "__main__":
    run_tool(PrepareBucketsOptions, prepare_buckets_latents)
