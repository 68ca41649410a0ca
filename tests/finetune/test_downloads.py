"""Models from a hub: real hub code against a local server that plays it."""
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_hub import FakeHub
from tests.finetune.tiny_tagger import colour_images, wd_tagger
from tests.finetune.tool_runs import files_in

ROOT = Path(__file__).parents[2]
CLOSED_DOOR = "http://127.0.0.1:9"  # where nobody answers


def call(hub_address: str, home: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, for the hub's address is read when its library is imported."""
    environment = {**os.environ, "HF_ENDPOINT": hub_address, "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment.pop("HF_HUB_OFFLINE", None)
    words = [sys.executable, *map(str, command)]
    return subprocess.run(words, cwd=home, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def tagger_hub(tmp_path: Path) -> Iterator[FakeHub]:
    files = files_in(wd_tagger(tmp_path / "published"))
    with FakeHub("owner/tagger", {**files, "saved_model.pb": b"large", "v2/model.onnx": b"", "README.md": b""}) as hub:
        yield hub


def test_tagger_is_downloaded_once_and_anew_when_asked(tmp_path: Path, tagger_hub: FakeHub) -> None:
    folder = colour_images(tmp_path / "images", "red1.png")

    def tag(address: str, *flags: str) -> subprocess.CompletedProcess[str]:
        (folder / "red1.txt").unlink(missing_ok=True)
        script = ROOT / "finetune" / "tag_images_by_wd14_tagger.py"
        return call(address, tmp_path, script, folder, "--repo_id", "owner/tagger", "--model_dir", "models", *flags)

    done = tag(tagger_hub.address)
    assert done.returncode == 0, done.stderr
    assert (folder / "red1.txt").read_text(encoding="utf-8") == "red_thing, hero_(series)\n"
    assert tagger_hub.downloads == {"model.onnx": 1, "selected_tags.csv": 1}
    assert (tmp_path / "models" / "owner_tagger" / "model.onnx").is_file()

    assert tag(CLOSED_DOOR).returncode == 0  # what is there needs no hub
    failed = tag(CLOSED_DOOR, "--force_download")
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith("error: --repo_id: owner/tagger cannot be downloaded: ")

    labels = tagger_hub.files["selected_tags.csv"].replace(b"red_thing", b"crimson")
    tagger_hub.files["selected_tags.csv"] = labels
    done = tag(tagger_hub.address, "--force_download")
    assert done.returncode == 0, done.stderr
    assert tagger_hub.downloads == {"model.onnx": 2, "selected_tags.csv": 2}
    assert (folder / "red1.txt").read_text(encoding="utf-8") == "crimson, hero_(series)\n"


FETCH_TAGGER = "import sys; from library.preparation.tagger import tagger_folder; print(tagger_folder(sys.argv[1], 'models', False))"


def test_an_unfinished_download_is_finished(tmp_path: Path, tagger_hub: FakeHub) -> None:
    folder = tmp_path / "models" / "owner_tagger"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(tagger_hub.files["model.onnx"])
    done = call(tagger_hub.address, tmp_path, "-c", FETCH_TAGGER, "owner/tagger")
    assert Path(done.stdout.strip()) == folder.relative_to(tmp_path)
    assert (folder / "selected_tags.csv").is_file()


@pytest.mark.parametrize(
    ("repo_id", "said"),
    [("owner/nothing", "cannot be downloaded: 404"), ("owner/tagger/v2", "owner/tagger/v2 is no ONNX tagger: it lacks")],
)
def test_what_the_hub_lacks_is_said(tmp_path: Path, tagger_hub: FakeHub, repo_id: str, said: str) -> None:
    assert said in call(tagger_hub.address, tmp_path, "-c", FETCH_TAGGER, repo_id).stderr


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_captioner_is_downloaded_without_what_it_does_not_need(tmp_path: Path, weights: str) -> None:
    code = "from library.preparation.hub import model_folder; print(model_folder('owner/blip', '--caption_weights'))"
    needed = {"config.json": b"{}", "vocab.txt": b"a", "preprocessor_config.json": b"[]", weights: b"weights"}
    other = {"tf_model.h5": b"x", "pytorch_model.bin" if weights == "model.safetensors" else "flax_model.msgpack": b"x"}
    with FakeHub("owner/blip", {**other, **needed}) as hub:
        done = call(hub.address, tmp_path, "-c", code)
        assert done.returncode == 0, done.stderr
        assert hub.downloads == dict.fromkeys(needed, 1)
    assert {name.rpartition("/")[2] for name in files_in(Path(done.stdout.strip()))} == needed.keys()
    again = call(CLOSED_DOOR, tmp_path, "-c", code)  # now it is in the hub's cache
    assert again.stdout == done.stdout
