"""The tagger from pictures to tag files and metadata, with small ONNX models."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from library.errors import UserError
from library.preparation.tagger import Tagger, read_labels
from tests.finetune.tiny_tagger import LABELS, SIDE, cl_tagger, colour_images, wd_tagger
from tests.finetune.tool_runs import files_in, run

TAG = "tag_images_by_wd14_tagger.py"
TEXTS = {"red": "red_thing, hero_(series)", "green": "green_thing", "blue": "blue_thing"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wd_tagger(tmp_path_factory.mktemp("model"))


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("make", [wd_tagger, cl_tagger])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_images_are_tagged(tmp_path: Path, make, batch_size: int) -> None:
    folder = colour_images(tmp_path / "images", "red1.png", "green2.png", "blue3.png", "red4.webp", "sub/blue.png")
    run(TAG, folder, "--model_dir", make(tmp_path / "model"), "--batch_size", str(batch_size), "--recursive", "--onnx")
    for image in ("red1", "green2", "blue3", "red4", "sub/blue"):
        assert text(folder / f"{image}.txt") == TEXTS[Path(image).name.rstrip("1234")] + "\n"


@pytest.mark.parametrize("make", [wd_tagger, cl_tagger])
def test_image_is_laid_on_a_white_square(tmp_path: Path, make) -> None:
    tagger = Tagger(make(tmp_path / "model"))
    colour_images(tmp_path, "red.png", size=(20, 10))
    image = tagger.load(tmp_path / "red.png")
    assert image.size == (20, 10)
    assert image.pixels.shape == ((SIDE, SIDE, 3) if make is wd_tagger else (3, SIDE, SIDE))
    blue, green, red = (image.pixels[..., i] if make is wd_tagger else image.pixels[i] for i in range(3))
    low, high = (0, 255) if make is wd_tagger else (-1, 1)
    assert (red == high).all()
    assert (blue == green).all()
    inside = np.zeros((SIDE, SIDE), bool)
    inside[SIDE // 4 : -SIDE // 4] = True
    assert (blue[inside] == low).all()
    assert (blue[~inside] == high).all()


def test_probabilities_come_in_the_order_of_the_labels(tmp_path: Path, model: Path) -> None:
    tagger = Tagger(model)
    colour_images(tmp_path, "red.png", "blue.png")
    found = tagger.probabilities([tagger.load(tmp_path / "red.png"), tagger.load(tmp_path / "blue.png")])
    np.testing.assert_allclose(found, [[0.6, 1, 1, 0, 0, 0.5], [0.6, 0, 0, 0, 1, 0]], atol=1e-6)
    assert [label.name for label in tagger.labels] == [name for name, *_ in LABELS]


def test_transparent_pictures_are_laid_on_white(tmp_path: Path, model: Path) -> None:
    tagger = Tagger(model)
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert (tagger.load(tmp_path / "a.png").pixels == 255).all()


def test_graph_of_a_fixed_batch_and_any_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = colour_images(tmp_path / "images", "red1.png", "green2.png", "blue3.png")
    model = wd_tagger(tmp_path / "model", batch=2, side="side")
    run(TAG, folder, "--model_dir", model, "--batch_size", "3")
    assert text(folder / "blue3.txt") == "blue_thing\n"
    assert "batches of 2 only" in capsys.readouterr().out
    assert Tagger(model).load(folder / "red1.png").pixels.shape == (448, 448, 3)


def test_flags_reach_the_tags(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = colour_images(tmp_path / "images", "red1.png", "green2.png")
    switches = ["--use_rating_tags", "--use_rating_tags_as_last_tag", "--remove_underscore", "--frequency_tags", "--debug"]
    limits = ["--thresh", "0.4", "--character_threshold", "0.9"]
    more = ["--tag_replacement", "red_thing,crimson", "--caption_separator", "; ", "--caption_extension", "tags"]
    run(TAG, folder, "--model_dir", model, *switches, *limits, *more)
    assert text(folder / "red1.tags") == "crimson; sensitive\n"
    assert text(folder / "green2.tags") == "green thing; general\n"
    said = capsys.readouterr().out
    assert f"{folder / 'red1.png'}: crimson; sensitive" in said
    assert [line for line in said.splitlines() if "\t" in line] == ["1\tgreen thing", "1\tgeneral", "1\tcrimson", "1\tsensitive"]


def test_second_call_does_what_is_missing(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = colour_images(tmp_path / "images", "red1.png", "green2.png", "blue3.png")
    (folder / "red1.txt").write_text("by hand", encoding="utf-8")
    (folder / "green2.txt").write_text("", encoding="utf-8")
    run(TAG, folder, "--model_dir", model)
    assert [text(folder / f"{name}.txt") for name in ("red1", "green2", "blue3")] == ["by hand", "green_thing\n", "blue_thing\n"]
    assert "1 of 3 images have a .txt file already" in capsys.readouterr().out
    run(TAG, folder, "--model_dir", tmp_path / "no model is needed")


def test_append(tmp_path: Path, model: Path) -> None:
    folder = colour_images(tmp_path / "images", "red1.png", "blue2.png")
    (folder / "red1.txt").write_text("by hand,red_thing", encoding="utf-8")
    for _ in range(2):
        run(TAG, folder, "--model_dir", model, "--append_tags")
        assert text(folder / "red1.txt") == "by hand, red_thing, hero_(series)\n"
        assert text(folder / "blue2.txt") == "blue_thing\n"


@pytest.mark.parametrize(("name", "field"), [("meta.json", "tags"), ("meta.jsonl", "caption")])
def test_metadata(tmp_path: Path, model: Path, name: str, field: str) -> None:
    folder = colour_images(tmp_path / "images", "red1.png", "green2.png", size=(30, 20))
    out = tmp_path / name
    run(TAG, folder, "--model_dir", model, "--output_path", out, "--thresh", "0.3")
    lines = [json.loads(line) for line in text(out).splitlines()] if name.endswith("l") else json.loads(text(out))
    entries = {entry.pop("image_path"): entry for entry in lines} if name.endswith("l") else lines
    assert entries == {
        str(folder / "red1.png"): {field: "red_thing, green_thing, blue_thing, hero_(series)", "image_size": [30, 20]},
        str(folder / "green2.png"): {field: "red_thing, green_thing, blue_thing", "image_size": [30, 20]},
    }
    assert sorted(files_in(tmp_path / "images")) == ["green2.png", "red1.png"]
    assert not list(tmp_path.glob("*.unfinished"))


def test_metadata_is_completed(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = colour_images(tmp_path / "images", "red1.png", "green2.png", "blue3.png")
    out = tmp_path / "meta.json"
    out.write_text('{"red1": {"tags": "by hand"}, "blue3.png": {"caption": "c"}, "x": {"tags": "y"}}', encoding="utf-8")
    run(TAG, folder, "--model_dir", model, "--output_path", out, "--frequency_tags")
    green = str(folder / "green2.png")
    expected = {
        "red1": {"tags": "by hand"},
        "blue3.png": {"caption": "c", "tags": "blue_thing", "image_size": [20, 20]},
        "x": {"tags": "y"},
        green: {"tags": "green_thing", "image_size": [20, 20]},
    }
    assert json.loads(text(out)) == expected
    assert (tmp_path / "meta.json.bak").exists()
    assert "1 of 3 images have tags in" in (said := capsys.readouterr().out)
    assert "1\tby hand" in said
    run(TAG, folder, "--model_dir", model, "--output_path", out, "--append_tags")
    expected["red1"] = {"tags": "by hand, red_thing, hero_(series)", "image_size": [20, 20]}
    expected["blue3.png"]["tags"] = "blue_thing"
    assert json.loads(text(out)) == expected


@pytest.mark.parametrize("output", [[], ["--output_path", "meta.json"]])
def test_bad_images_are_named_and_the_others_done(
    tmp_path: Path, model: Path, output: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = colour_images(tmp_path / "images", "red1.png", "green2.png", "blue3.png")
    (folder / "green2.png").write_bytes((folder / "green2.png").read_bytes()[:60])
    for _ in range(2):
        with pytest.raises(UserError, match=r"green2.png: (?s:.*)the other images are done; mend or remove these"):
            run(TAG, folder, "--model_dir", model, "--batch_size", "2", *output)
    if output:
        assert {Path(key).name for key in json.loads(text(Path("meta.json")))} == {"red1.png", "blue3.png"}
    else:
        assert sorted(path.name for path in folder.glob("*.txt")) == ["blue3.txt", "red1.txt"]


def test_mistakes(tmp_path: Path, model: Path) -> None:
    folder = colour_images(tmp_path / "images", "red1.png")
    for flags, said in (
        (["--caption_separator", ""], "--caption_separator: this is empty"),
        (["--output_path", tmp_path / "none" / "meta.json"], "there is no folder"),
        (["--repo_id", "one word", "--model_dir", tmp_path / "none"], "--repo_id: one word cannot be downloaded"),
    ):
        with pytest.raises(UserError) as raised:
            run(TAG, folder, "--model_dir", model, *flags)
        assert said in str(raised.value)


def test_damaged_models_are_named(tmp_path: Path, model: Path) -> None:
    folder = colour_images(tmp_path / "images", "red1.png")
    damaged = wd_tagger(tmp_path / "model")
    labels = damaged / "selected_tags.csv"
    rows = text(labels)
    for content, said in (
        (rows + "9,more,0,1\n", "the model has 6 outputs, its list of tags 7"),
        (rows.replace(",0,1", ",77,1"), "categories that are not known here: 77"),
        ("a,b\n1,2\n", "the list of tags is not of a kind that is known here"),
    ):
        labels.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=said):
            run(TAG, folder, "--model_dir", damaged)
    labels.write_text(rows, encoding="utf-8")
    (damaged / "model.onnx").write_bytes((model / "model.onnx").read_bytes()[:100])
    with pytest.raises(UserError, match="model.onnx: this model cannot be loaded .*--force_download fetches it anew"):
        run(TAG, folder, "--model_dir", damaged)


def test_older_list_of_tags_of_cl_tagger(tmp_path: Path) -> None:
    names = {"10": "b", "9": "a"}
    mapping = {"idx_to_tag": names, "tag_to_category": {"a": "Quality", "b": "Model"}}
    (tmp_path / "tag_mapping.json").write_text(json.dumps(mapping), encoding="utf-8")
    assert read_labels(tmp_path) == [("a", "quality"), ("b", "model")]
