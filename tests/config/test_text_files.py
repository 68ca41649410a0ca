"""Files as editors save them: encodings, line ends, and mistakes in TOML and JSON with their line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from library.config.text_files import read_json, read_table_file, read_toml

Mistakes = Callable[..., list[str]]


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa = 'x'\n", b"a = 'x'\r\n", b"\xef\xbb\xbf\r\n# note\r\na = 'x'"])
def test_windows_editors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    assert read_toml(path, "config file") == {"a": "x"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_refused_by_name(tmp_path: Path, mistakes: Mistakes, encoding: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes("a = 1\n".encode(encoding))
    (message,) = mistakes(read_toml, path, "config file")
    assert message == f"{path}: this config file is stored as UTF-16 or is not text; save it as UTF-8"


def test_other_encodings_are_refused_with_their_line(tmp_path: Path, mistakes: Mistakes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes("a = 1\nb = 'Fröschlein'\n".encode("cp1252"))
    (message,) = mistakes(read_toml, path, "config file")
    assert message.startswith(f"{path}, line 2: this config file is not stored as UTF-8")


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (
            'a = 1\nb = "C:\\hoge"\n',
            2,
            r"""write 'C:\folder' in single quotes, or "C:\\folder" with two backslashes: b = "C:\hoge""" + '"',
        ),
        ('b = "C:\\Users\\me"\n', 1, "in single quotes"),
        ("a = 1\n\nb = \n", 3, "Invalid value"),
        ("a = 1\na = 2\n", 2, "this key stands twice in its table: a = 2"),
        ("[t]\na = 1\n[t]\nb = 1\n", 3, "this table stands twice in the file"),
        ("flip = True\n", 1, "write true or false in small letters"),
        ("a = 1\nname = frog\n", 2, "text must stand in quotes"),
        ("name = /data/frog\n", 1, "text must stand in quotes"),
        ("just words\n", 1, "just words"),
        ("a = 'x\n", 1, "a = 'x"),
        ("[network\ndim = 1\n", 1, "[network"),
    ],
)
def test_toml_mistake_names_line_and_remedy(tmp_path: Path, mistakes: Mistakes, text: str, line: int, expected: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    (message,) = mistakes(read_toml, path, "config file")
    assert message.startswith(f"{path}, line {line}: not valid TOML: ")
    assert expected in message


def test_toml_that_never_ends(tmp_path: Path, mistakes: Mistakes) -> None:
    path = tmp_path / "run.toml"
    path.write_text("a = [1, 2\n", encoding="utf-8")
    (message,) = mistakes(read_toml, path, "config file")
    assert "not valid TOML" in message
    path.write_text("a = " + "[" * 5000 + "]" * 5000, encoding="utf-8")
    (message,) = mistakes(read_toml, path, "config file")
    assert "nested too deeply" in message


def test_lists_of_mixed_types_are_toml(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("a = [1, 'x', 2.5]\n", encoding="utf-8")
    assert read_toml(path, "config file") == {"a": [1, "x", 2.5]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1,\n "b": }', ", line 2: not valid JSON"),
        ('{"a": 1, "a": 2}', '"a" stands twice'),
        ('{"a": NaN}', "NaN is not a number"),
        (r'{"a": "C:\hoge"}', '"C:/folder"'),
        ("[" * 100_000, "JSON"),
    ],
)
def test_json_mistakes(tmp_path: Path, mistakes: Mistakes, text: str, expected: str) -> None:
    path = tmp_path / "data.json"
    path.write_text(text, encoding="utf-8")
    (message,) = mistakes(read_json, path, "dataset file")
    assert message.startswith(str(path))
    assert expected in message or "nested too deeply" in message


def test_files_that_are_not_there_or_not_files(tmp_path: Path, mistakes: Mistakes) -> None:
    (message,) = mistakes(read_toml, tmp_path / "no" / "run.toml", "config file")
    assert f"nor a folder {tmp_path / 'no'}" in message
    folder = tmp_path / "run.toml"
    folder.mkdir()
    (message,) = mistakes(read_toml, folder, "config file")
    assert message == f"{folder}: expected a config file, but this is a folder"
    (message,) = mistakes(read_table_file, tmp_path / "data.yaml", "dataset file")
    assert "ends in .toml or .json" in message
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    (message,) = mistakes(read_table_file, tmp_path / "list.json", "dataset file")
    assert "one object" in message
