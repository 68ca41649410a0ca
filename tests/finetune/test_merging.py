"""Captions and tags from files beside images into metadata."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from library.errors import UserError
from tests.finetune.tool_runs import make_images, run

CAPTIONS, TAGS = "merge_captions_to_metadata.py", "merge_dd_tags_to_metadata.py"


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_captions_then_tags(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "images", "a.png", "b.jpg", caption=" ein {} \n\n zwei ", txt="1girl , long_{} , ")
    (folder / "b.caption").unlink()
    run(CAPTIONS, folder, tmp_path / "cap.json")
    assert read(tmp_path / "cap.json") == {"a.png": {"caption": "ein a\nzwei"}}
    run(TAGS, folder, tmp_path / "all.json", "--in_json", tmp_path / "cap.json")
    assert read(tmp_path / "all.json") == {
        "a.png": {"caption": "ein a\nzwei", "tags": "1girl, long_a"},
        "b.jpg": {"tags": "1girl, long_b"},
    }


def test_several_folders_with_full_paths(tmp_path: Path) -> None:
    out = tmp_path / "meta.json"
    for name in ("one", "two"):
        run(TAGS, make_images(tmp_path / name, "a.png", txt=name), out, "--full_path")
    assert read(out) == {str(tmp_path / name / "a.png"): {"tags": name} for name in ("one", "two")}
    assert read(tmp_path / "meta.json.bak") == {str(tmp_path / "one/a.png"): {"tags": "one"}}


def test_recursive(tmp_path: Path) -> None:
    folder = make_images(tmp_path, "a.png", "x/b.png", "x/y/c.png", ".hidden/d.png", txt="{}")
    run(TAGS, folder, tmp_path / "meta.json", "--recursive")
    assert read(tmp_path / "meta.json") == {"a.png": {"tags": "a"}, "x/b.png": {"tags": "b"}, "x/y/c.png": {"tags": "c"}}


def test_old_keys_are_found_and_other_fields_stay(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "images", "a.png", "b.png", caption="{}")
    old = {"a": {"tags": "t", "caption": "old"}, str(folder / "b.png"): {"train_resolution": [64, 64]}, "x/c": {"tags": "c"}}
    (tmp_path / "meta.json").write_text(json.dumps(old), encoding="utf-8")
    run(CAPTIONS, folder, tmp_path / "meta.json")
    old["a"]["caption"], old[str(folder / "b.png")]["caption"] = "a", "b"
    assert read(tmp_path / "meta.json") == old


def test_json_lines(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "images", "a.png", "b.png", txt="{}")
    run(TAGS, folder, tmp_path / "meta.jsonl")
    lines = (tmp_path / "meta.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"image_path": "a.png", "tags": "a"}, {"image_path": "b.png", "tags": "b"}]


def test_debug_prints_what_is_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_images(tmp_path / "images", "a.png", txt="tag")
    run(TAGS, folder, tmp_path / "meta.json", "--debug")
    said = capsys.readouterr()
    assert "a.png: tag" in said.out
    assert "tags of 1 images merged; 0 images have no .txt file" in said.out
    assert "100%" in said.err


def test_mistakes(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "images", "a.png", "b.png", txt="{}")
    out = tmp_path / "meta.json"

    def said(script: str, *flags: str | Path) -> str:
        with pytest.raises(UserError) as raised:
            run(script, *flags)
        assert not out.exists()
        return str(raised.value)

    assert "no image in" in said(CAPTIONS, folder, out)
    assert "2 of 2 have a .txt file: give --caption_extension .txt" in said(CAPTIONS, folder, out)
    assert "there is no folder" in said(TAGS, tmp_path / "none", out)
    assert "there is no such metadata file" in said(TAGS, folder, out, "--in_json", tmp_path / "none.json")
    assert "--caption_extension: this is empty" in said(TAGS, folder, out, "--caption_extension", ".")
    (tmp_path / "empty" / "below").mkdir(parents=True)
    assert "--recursive searches the folders in it, too" in said(TAGS, tmp_path / "empty", out)
    assert "there are no images" in said(TAGS, tmp_path / "empty", out, "--recursive")
    (folder / "a.txt").write_bytes("ä".encode("latin-1"))
    assert "a.txt: the caption is not UTF-8 text" in said(TAGS, folder, out)
    make_images(folder, "a.jpg")
    assert 'a.png" would share a caption file: rename one of them' in said(TAGS, folder, out)
