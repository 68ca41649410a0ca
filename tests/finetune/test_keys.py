"""Which image a key of a metadata file means."""
from __future__ import annotations

from pathlib import Path

import pytest

from library.errors import UserError
from library.preparation.keys import ImageKeys

ROOT = Path("pictures")
IMAGES = [ROOT / name for name in ("a.png", "b.jpg", "a.b.png", "sub/a.png", "sub/c.webp", "sub/d.png", "sub/d.jpg")]


@pytest.mark.parametrize(
    ("key", "image"),
    [
        ("a.png", "a.png"),
        ("a", "a.png"),  # the folder itself goes before folders below
        ("./a.png", "a.png"),
        ("a.b", "a.b.png"),
        ("sub/a", "sub/a.png"),
        ("sub\\a.png", "sub/a.png"),
        ("sub/d.jpg", "sub/d.jpg"),
        ("c", "sub/c.webp"),  # by its bare name, as older files have it
        ("c.webp", "sub/c.webp"),
        (str((ROOT / "b.jpg").absolute()), "b.jpg"),
        (str((ROOT / "b").absolute()), "b.jpg"),
    ],
)
def test_key_means_image(key: str, image: str) -> None:
    keys = ImageKeys([key], ROOT, IMAGES, "meta.json")
    assert keys.key_of(ROOT / image, full_path=True) == key
    others = [other for other in IMAGES if other != ROOT / image]
    assert all(keys.key_of(other, full_path=False) == other.relative_to(ROOT).as_posix() for other in others)


@pytest.mark.parametrize("key", ["e", "e.png", "other/a.png", "/elsewhere/a.png", "sub", ""])
def test_keys_of_other_images_mean_nothing(key: str) -> None:
    keys = ImageKeys([key], ROOT, IMAGES, "meta.json")
    assert keys.key_of(ROOT / "a.png", full_path=False) == "a.png"


def test_new_images_get_unambiguous_keys() -> None:
    keys = ImageKeys([], ROOT, IMAGES, "meta.json")
    assert keys.key_of(ROOT / "sub/d.jpg", full_path=False) == "sub/d.jpg"
    assert keys.key_of(ROOT / "sub/d.jpg", full_path=True) == str((ROOT / "sub/d.jpg").absolute())


def test_ambiguous_stems_are_named() -> None:
    with pytest.raises(UserError) as raised:
        ImageKeys(["sub/d", "a"], ROOT, IMAGES, "meta.json")
    first, second = ROOT / "sub/d.png", ROOT / "sub/d.jpg"
    assert str(raised.value) == f'meta.json "sub/d": this could be "{first}", "{second}": write which, with its extension'


def test_bare_stems_in_several_folders_are_ambiguous() -> None:
    images = [ROOT / "x/e.png", ROOT / "y/e.png"]
    with pytest.raises(UserError, match='meta.json "e": this could be'):
        ImageKeys(["e"], ROOT, images, "meta.json")


def test_two_keys_of_one_image_are_named() -> None:
    with pytest.raises(UserError, match='meta.json: "a", "a.png" all mean ".*a.png": delete all but one'):
        ImageKeys(["a", "b", "a.png"], ROOT, IMAGES, "meta.json")
