"""File names are taken apart and put together as pathlib does it, in a fraction of the time."""
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.data.folders import file_name, split_name, within

NAMES = st.text("aB._ é", min_size=1, max_size=8).filter(lambda name: name.strip(". "))


@given(NAMES)
def test_names_are_split_as_paths_are(name):
    assert split_name(name) == (Path(name).stem, Path(name).suffix)


@pytest.mark.parametrize("folder", [".", "", "a", "a/b/", "/", "/a b"])
def test_paths_are_joined_as_pathlib_joins_them(folder):
    names = ["1.png", "a b.txt"]
    assert within(Path(folder), names) == [str(Path(folder) / name) for name in names]
    assert [file_name(path) for path in within(Path(folder), names)] == names
