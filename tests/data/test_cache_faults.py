"""Whatever befalls a process that caches latents: nothing is lost, nothing torn is used, and the next one ends as if nothing had."""
from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data.another_tool import cache_of_another_tool, change
from tests.data.caching_process import Caching, start_together
from tests.data.tiny_datasets import SIZES, prepare, subset_of, write_images
from tests.train.runs import KILL, Strike

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")

SURVEY = "library.data.cache.LatentCache.why_missing"
COMPARE = "library.data.borrowed_check.may_be_drawn_from"
LOAD = "library.data.cache_fill.fixed_pixels"
ENCODE = "library.data.cache_fill._Filling._encode_batch"
WRITTEN = "library.checkpoint.files.flush_file"
RENAME = "library.checkpoint.files.replace"
REMOVE_OLD = "library.data.cache_fill.remove_leftovers"
FILLED = "library.data.cache_fill._Filling.run"

# The number of whole entries that the killed process must at least have left.
KILLS = {
    "before anything": (Strike(REMOVE_OLD, 1, "before"), 0),
    "in the survey": (Strike(SURVEY, 3, "before"), 0),
    "while loading": (Strike(LOAD, 4, "before"), 0),
    "before encoding": (Strike(ENCODE, 1, "before"), 0),
    "after encoding": (Strike(ENCODE, 3, "after"), 0),
    "in the first temporary file": (Strike(WRITTEN, 1, "half-way"), 0),
    "in a later temporary file": (Strike(WRITTEN, 5, "half-way"), 0),
    "before the first rename": (Strike(RENAME, 1, "before"), 0),
    "after the first rename": (Strike(RENAME, 1, "after"), 1),
    "before the last rename": (Strike(RENAME, 6, "before"), 0),
    "after the last rename": (Strike(RENAME, 6, "after"), 1),
    "at the end": (Strike(FILLED, 1, "after"), 6),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("caching") / "images")


@pytest.fixture(scope="module")
def unbroken(pictures, tmp_path_factory) -> tuple[str, dict[str, dict[str, np.ndarray]]]:
    """The hash of what a process reads that nothing befell, and what it wrote."""
    folder = shutil.copytree(pictures, tmp_path_factory.mktemp("unbroken") / "images")
    found = Caching(folder).found
    assert found["report"]["encoded"] == {"not made yet": len(SIZES)}
    return found["latents"], entries(folder)


@pytest.fixture
def folder(pictures, tmp_path) -> Path:
    return shutil.copytree(pictures, tmp_path / "images")  # with the time stamps, on which fingerprints depend


def entries(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """All entries under their own names; a torn one fails here."""
    found = {}
    for path in folder.glob("[!.]*.npz"):
        with np.load(path) as entry:
            found[path.name] = dict(entry)
    return found


def assert_whole(folder: Path, unbroken: dict[str, dict[str, np.ndarray]]) -> int:
    """Every entry that is there is that of the unbroken run; their number."""
    found = entries(folder)
    for name, arrays in found.items():
        assert arrays.keys() == unbroken[name].keys()
        assert all(np.array_equal(array, unbroken[name][key]) for key, array in arrays.items())
    return len(found)


@pytest.mark.parametrize("moment", KILLS)
def test_killed_and_run_again(folder, unbroken, moment):
    strike, least = KILLS[moment]
    latents, written = unbroken
    killed = Caching(folder, [strike])
    assert killed.code == -KILL, killed.printed
    left = assert_whole(folder, written)
    assert left >= least
    again = Caching(folder).found
    assert (again["report"]["reused"], sum(again["report"]["encoded"].values())) == (left, len(SIZES) - left)
    assert again["latents"] == latents
    assert assert_whole(folder, written) == len(SIZES)
    assert sorted(path.suffix for path in folder.iterdir()) == sorted([".png", ".txt", ".npz"] * len(SIZES))


@pytest.mark.parametrize("strike", [Strike(COMPARE, 1, "before"), Strike(RENAME, 3, "after")], ids=["comparing", "renaming"])
def test_killed_while_another_tools_cache_is_replaced(folder, unbroken, strike):
    """None of it fits: it is replaced by ours, one file after the other."""
    files = cache_of_another_tool(prepare(subset_of(folder, flip_aug=True)))
    for file in files.values():
        with np.load(file) as entry:
            change(file, latents=entry["latents"][..., ::-1])
    latents, written = unbroken
    killed = Caching(folder, [strike])
    assert killed.code == -KILL, killed.printed
    assert Caching(folder).found["latents"] == latents
    assert assert_whole(folder, written) == len(SIZES)


def full_disk() -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("strikes", "bytes_per_file", "reason"),
    [
        ([Strike(WRITTEN, 3, "half-way", mishap=full_disk)], 0, "No space left on device"),
        ([Strike(RENAME, 3, "before", mishap=full_disk)], 0, "No space left on device"),
        ([], 4000, "File too large"),  # the system itself refuses
    ],
    ids=["writing", "renaming", "limit"],
)
def test_a_full_disk_is_told_and_leaves_nothing_torn(folder, unbroken, strikes, bytes_per_file, reason):
    latents, written = unbroken
    stopped = Caching(folder, strikes, bytes_per_file=bytes_per_file)
    assert stopped.code == 2, stopped.printed
    (message,) = stopped.printed.splitlines()
    assert "latent cache" in message and f"cannot be written: {reason}; make room" in message
    left = assert_whole(folder, written)
    assert not list(folder.glob(".*"))  # no temporary files
    again = Caching(folder).found
    assert (again["report"]["reused"], again["latents"]) == (left, latents)


def test_an_image_that_vanishes_after_the_survey_is_named_and_the_others_are_cached(folder, unbroken):
    gone = folder / "3.png"
    caching = Caching(folder, [Strike(FILLED, 1, "before", mishap=gone.unlink)])  # once threads load, one may have read it by then
    assert caching.code == 2
    assert caching.printed.splitlines() == [f"{gone}: is gone (a broken link, or removed since the folder was listed)"]
    assert assert_whole(folder, unbroken[1]) == len(SIZES) - 1


def test_two_processes_fill_one_folder(folder, unbroken):
    latents, written = unbroken
    together = start_together()
    both = [Caching(folder, together=together) for _ in range(2)]
    assert [caching.found["latents"] for caching in both] == [latents, latents]
    assert all(sum(caching.found["report"]["encoded"].values()) == len(SIZES) for caching in both)  # neither was first
    assert assert_whole(folder, written) == len(SIZES)
    assert not list(folder.glob(".*"))


def test_one_of_two_processes_is_killed_and_the_other_does_not_mind(folder, unbroken):
    latents, written = unbroken
    together = start_together()
    killed, other = Caching(folder, [Strike(WRITTEN, 2, "half-way")], together), Caching(folder, together=together)
    assert killed.code == -KILL
    assert other.found["latents"] == latents
    assert assert_whole(folder, written) == len(SIZES)
