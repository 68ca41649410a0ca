"""prepare_buckets_latents: it writes latents, the very ones that training reads."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from library.config.datasets.settings import DatasetSettings, SubsetSettings
from library.config.options.model import ModelOptions
from library.data.cache import CacheReport, CacheSettings
from library.data.cache_fill import fill_cache
from library.data.sources import prepare_datasets
from library.data.weights_fingerprint import weights_fingerprint
from library.errors import UserError
from library.families.detect import identify
from tests.finetune.tool_runs import files_in, make_images, run
from tests.tiny_models import tiny_sd1_folder, tiny_sd1_single_file

PREPARE = "prepare_buckets_latents.py"
SIZE = ["--max_resolution", "128,128", "--min_bucket_reso", "64", "--max_bucket_reso", "256"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sd1_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_images(tmp_path / "images", "a.png", "b.jpg", size=(160, 160), txt="{}")
    return make_images(tmp_path / "images", "wide.png", size=(240, 80), txt="{}")


def prepare(folder: Path, model: Path, *flags: str, start: str = "{}") -> dict:
    source = folder.parent / "in.json"
    source.write_text(start, encoding="utf-8")
    run(PREPARE, folder, source, folder.parent / "out.json", model, *SIZE, *flags)
    return json.loads((folder.parent / "out.json").read_text(encoding="utf-8"))


def test_latents_are_written_for_other_tools_to_read(folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metadata = prepare(folder, model, "--batch_size", "2", start='{"a": {"caption": "c"}, "elsewhere/x": {"tags": "t"}}')
    assert metadata == {
        "a": {"caption": "c", "train_resolution": [128, 128]},
        "elsewhere/x": {"tags": "t"},
        "b.jpg": {"train_resolution": [128, 128]},
        "wide.png": {"train_resolution": [192, 64]},
    }
    assert "had no entry for them: 2 images, such as b.jpg" in capsys.readouterr().out
    assert sorted(path.name for path in folder.glob("*.npz")) == [
        "a_0160x0160_sd.npz", "b_0160x0160_sd.npz", "wide_0240x0080_sd.npz",
    ]  # fmt: skip
    with np.load(folder / "wide_0240x0080_sd.npz") as entry:
        assert (entry["latents"].shape, entry["latents"].dtype) == ((4, 8, 24), np.float32)
        assert entry["original_size"].tolist() == [240, 80]


def cache_of_training(subset: SubsetSettings, model: Path, **dataset: object) -> CacheReport:
    """What a training on this subset, with cache_latents_to_disk, finds and encodes."""
    sizes = {"resolution": (128, 128), "min_bucket_reso": 64, "max_bucket_reso": 256, "enable_bucket": True, **dataset}
    prepared = prepare_datasets([DatasetSettings(**sizes, subsets=(subset,))])
    options = ModelOptions(pretrained_model_name_or_path=str(model))
    family = identify(options)
    parts = family.load(options, torch.float32, "cpu")
    vae = weights_fingerprint(parts.vae)
    settings = CacheSettings(on_disk=True, vae_batch_size=1, skip_cache_check=False, vae_fingerprint=vae)
    return fill_cache(prepared, lambda images, paths: family.encode_images(parts, images), settings).report


@pytest.mark.parametrize("option", ["flip_aug", "alpha_mask", None])
def test_training_on_the_folder_reuses_them(folder: Path, model: Path, option: str | None) -> None:
    prepare(folder, model, *([f"--{option}"] if option else []))
    subset = SubsetSettings(image_dir=folder, caption_extension=".txt", where="subset", **({option: True} if option else {}))
    assert cache_of_training(subset, model) == CacheReport(reused=3)


def test_training_on_the_metadata_reuses_them(folder: Path, model: Path) -> None:
    prepare(folder, model, "--bucket_no_upscale")
    subset = SubsetSettings(image_dir=folder, metadata_file=folder.parent / "out.json", where="subset")
    assert cache_of_training(subset, model, bucket_no_upscale=True) == CacheReport(reused=3)
    assert cache_of_training(subset, model, resolution=(192, 192)).reused == 0


def test_second_call_does_what_is_missing(folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(folder, model)
    before = files_in(folder)
    (folder / "b_0160x0160_sd.npz").unlink()
    (folder / "a_0160x0160_sd.npz").write_bytes(b"torn")
    prepare(folder, model)
    assert files_in(folder) == before
    assert "latents: 1 images from the cache, 2 encoded (1 damaged; 1 not made yet)" in capsys.readouterr().out
    (folder / "a_0160x0160_sd.npz").write_bytes(b"trusted")
    prepare(folder, model, "--skip_existing")
    assert (folder / "a_0160x0160_sd.npz").read_bytes() == b"trusted"
    assert "latents: 3 images from the cache, 0 encoded" in capsys.readouterr().out


def test_keys_by_whole_path_and_below(tmp_path: Path, model: Path) -> None:
    folder = make_images(tmp_path / "images", "a.png", "sub/b.png", size=(128, 128))
    metadata = prepare(folder, model, "--full_path", "--recursive")
    assert metadata == {str(folder / name): {"train_resolution": [128, 128]} for name in ("a.png", "sub/b.png")}
    assert (folder / "sub" / "b_0128x0128_sd.npz").is_file()


def test_single_file_and_vae_alone_are_the_same_model(folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(folder, model)
    for other in (tiny_sd1_single_file(folder.parent / "model.safetensors"), model / "vae"):
        prepare(folder, other)
        assert "latents: 3 images from the cache, 0 encoded" in capsys.readouterr().out


def test_half_precision_makes_other_latents(folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(folder, model)
    prepare(folder, model, "--mixed_precision", "bf16")
    assert "3 encoded (3 made with another VAE)" in capsys.readouterr().out


def test_bad_images_are_named_and_the_others_done(folder: Path, model: Path) -> None:
    (folder / "b.jpg").write_bytes((folder / "b.jpg").read_bytes()[:300])
    with pytest.raises(UserError, match="b.jpg: "):
        prepare(folder, model)
    assert json.loads((folder.parent / "out.json").read_text(encoding="utf-8")).keys() == {"a.png", "wide.png"}
    assert len(list(folder.glob("*.npz"))) == 2
    Image.new("RGB", (160, 160)).save(folder / "b.jpg")
    assert prepare(folder, model).keys() == {"a.png", "wide.png", "b.jpg"}


def test_mistakes(folder: Path, model: Path) -> None:
    xl = folder.parent / "xl"
    xl.mkdir()
    (xl / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}', encoding="utf-8")
    for model_path, flags, said in (
        (model, ["--max_resolution", "100,100"], "--max_resolution: 100 is not a positive multiple of 8"),
        (model, ["--bucket_reso_steps", "10"], "--bucket_reso_steps: 10 is not divisible by 64"),
        (model, ["--min_bucket_reso", "512"], "--min_bucket_reso: 512 is more than the shorter side"),
        (model, ["--v2"], "--v2: "),
        (xl, [], "is Stable Diffusion XL; this tool knows Stable Diffusion 1.x and 2.x"),
        (folder.parent / "nowhere.safetensors", [], "model_name_or_path: "),
        (folder, [], "no VAE in Diffusers layout there"),
    ):
        with pytest.raises(UserError) as raised:
            prepare(folder, model_path, *flags)
        assert said in str(raised.value)
        assert not list(folder.glob("*.npz"))
