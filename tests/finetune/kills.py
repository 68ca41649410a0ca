"""Kills tools (SIGKILL) at every rename and in the middle of every journal line, runs them again, and compares with an unbroken run.

python -m tests.finetune.kills FOLDER; prints how many kills each tool has survived. A process of its own, because it forks.
"""
from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime  # noqa: F401  (so that not every child has to)

import library.checkpoint.files as files
import library.preparation.latents  # noqa: F401  (the same)
from library.preparation.journal import Journal
from tests.finetune.tiny_tagger import colour_images, wd_tagger
from tests.finetune.tool_runs import files_in, make_images, run
from tests.tiny_models import tiny_sd1_folder

MOST_KILLS = 40


class Countdown:
    """Counts places where a kill can happen, and does it at one of them."""

    def __init__(self, fatal: int | None):
        self._left = fatal

    def place(self) -> bool:
        """Whether this is the place."""
        if self._left is None:
            return False
        self._left -= 1
        return self._left < 0


def fatal_places(countdown: Countdown) -> None:
    """Put the places into the tools' code."""
    replace, add = files.replace, Journal.add

    def deadly_replace(source: Path, target: Path) -> None:
        if countdown.place():
            die()  # a whole temporary file is there, the target is the old one
        replace(source, target)
        if countdown.place():
            die()

    def deadly_add(journal: Journal, key: str, entry: dict[str, Any]) -> None:
        if countdown.place():
            whole = json.dumps([key, entry]).encode()
            journal._file.write(whole[: len(whole) // 2])
            journal._file.flush()
            die()
        add(journal, key, entry)

    files.replace = deadly_replace
    Journal.add = deadly_add  # type: ignore[method-assign]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def survives(work: Callable[[], None], fatal: int | None) -> bool:
    """Do the work in a child; False if it was killed. Any other failure ends this program."""
    child = os.fork()
    if child == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        fatal_places(Countdown(fatal))
        work()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        sys.exit(f"the tool failed by itself: {status}")
    return status == 0


def kill_everywhere(folder: Path, prepare: Callable[[Path], None], work: Callable[[Path], None]) -> int:
    """The number of kills after which a second call made what an unbroken run makes, to the byte."""
    start, place = folder / "start", folder / "place"
    prepare(start)
    before = files_in(start)
    shutil.copytree(start, place)  # with the time stamps, on which caches depend
    assert survives(lambda: work(place), None)
    expected = files_in(place)
    assert expected != before
    for fatal in range(MOST_KILLS):
        shutil.rmtree(place)
        shutil.copytree(start, place)
        if survives(lambda: work(place), fatal):
            return fatal
        found = files_in(place)
        for name in found.keys() & expected.keys():
            assert found[name] in (expected[name], before.get(name)), f"kill {fatal}: {name} is neither old nor new"
        assert survives(lambda: work(place), None)
        assert files_in(place) == expected, f"kill {fatal}: {files_in(place).keys() ^ expected.keys()}"
    raise AssertionError("the tool never came to its end")


def main(folder: Path) -> None:
    os.chdir(folder)
    tagger, model = wd_tagger(folder / "tagger"), tiny_sd1_folder(folder / "model", short=True)
    old = json.dumps({"red1.png": {"tags": "old", "caption": "old"}})

    def pictures(place: Path) -> None:
        colour_images(place, "red1.png", "green2.png")

    def pictures_and_metadata(place: Path) -> None:
        pictures(place)
        make_images(place, "x.png", txt="tag", caption="caption")
        (place / "meta.json").write_text(old, encoding="utf-8")

    def tag(place: Path, *flags: str | Path) -> None:
        run("tag_images_by_wd14_tagger.py", place, "--model_dir", tagger, *flags)

    def encode(place: Path) -> None:
        size = ["--max_resolution", "64,64", "--min_bucket_reso", "64"]
        run("prepare_buckets_latents.py", place, place / "meta.json", place / "meta.json", model, *size)

    cases: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
        "tag files": (pictures, tag),
        "tags in metadata": (pictures_and_metadata, lambda place: tag(place, "--output_path", place / "meta.json", "--append_tags")),
        "merge": (pictures_and_metadata, lambda place: run("merge_captions_to_metadata.py", place, place / "meta.json")),
        "clean": (
            pictures_and_metadata,
            lambda place: run("clean_captions_and_tags.py", place / "meta.json", place / "clean.json"),
        ),
        "latents": (pictures_and_metadata, encode),
    }
    survived = {}
    for name, (prepare, work) in cases.items():
        case = folder / name
        case.mkdir()
        survived[name] = kill_everywhere(case, prepare, work)
    print(json.dumps(survived))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
