"""Which service the command line asks, with which key; `login`."""
from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from library.errors import UserError
from service.cli.access import Access, checked_server, find_access, remember

KEY, OTHER = "tadpole_abc_Secret1", "tadpole_def_Secret2"


def write(home: Path, name: str, text: str) -> None:
    path = home / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_what_is_given_counts_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, ".tadpole/config.yaml", f"server: https://stored.example\napi_key: {KEY}\n")
    assert find_access(None, None) == Access("https://stored.example", KEY)
    monkeypatch.setenv("TADPOLE_URL", "https://variable.example/")
    monkeypatch.setenv("TADPOLE_API_KEY", OTHER)
    assert find_access(None, None) == Access("https://variable.example", OTHER)
    assert find_access("http://flag.example:1/", KEY) == Access("http://flag.example:1", KEY)


def test_without_anything_it_is_this_machine(home: Path) -> None:
    assert find_access(None, KEY) == Access("http://127.0.0.1:8600", KEY)
    with pytest.raises(UserError, match="no API key: tadpole login KEY"):
        find_access(None, None)


@pytest.mark.parametrize("name", ["api_key", "dev_api_key"])
def test_the_file_of_cerebriums_command_line(home: Path, name: str) -> None:
    write(home, ".cerebrium/config.yaml", f"{name}: {KEY}\n")
    assert find_access(None, None).key == KEY


def test_a_key_for_cerebrium_itself_is_told_to_nobody(home: Path) -> None:
    write(home, ".cerebrium/config.yaml", "api_key: private-0123456789\n")
    with pytest.raises(UserError, match="no API key"):
        find_access(None, None)


def test_a_stored_key_goes_to_no_other_service(home: Path) -> None:
    write(home, ".tadpole/config.yaml", f"server: https://stored.example\napi_key: {KEY}\n")
    assert find_access("https://stored.example/", None).key == KEY
    with pytest.raises(UserError, match="the stored key is for https://stored.example, not for https://other.example"):
        find_access("https://other.example", None)


@pytest.mark.parametrize("text", ["", "127.0.0.1:8600", "ftp://example.org", "https://", "https://me:secret@example.org", "http://a b", "http://a?b"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UserError, match="is no address of a service"):
        checked_server(text)


@pytest.mark.parametrize("key", ["", "secret", "tadpole_a_b c", "tadpole_ä_b", "Bearer tadpole_a_b"])
def test_what_is_no_key(home: Path, key: str) -> None:
    with pytest.raises(UserError, match="no API key"):
        find_access(None, key)


@pytest.mark.parametrize("text", ["a: [", "- a\n- b\n", "just words\n", "\x00"])
def test_a_spoilt_file_is_told(home: Path, text: str) -> None:
    write(home, ".tadpole/config.yaml", text)
    with pytest.raises(UserError, match=r"config.yaml.*mend or remove"):
        find_access(None, None)


def test_an_empty_file_says_nothing(home: Path) -> None:
    write(home, ".tadpole/config.yaml", "")
    assert find_access(None, KEY).server == "http://127.0.0.1:8600"


def test_a_key_is_in_no_text_of_its_access() -> None:
    assert KEY not in repr(Access("http://a", KEY))


def test_what_else_stands_in_the_file_stays(home: Path) -> None:
    write(home, ".tadpole/config.yaml", "server: http://old.example\nmine: 1\n")
    path = remember(Access("http://new.example", KEY))
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {"server": "http://new.example", "api_key": KEY, "mine": 1}
    assert [entry.name for entry in path.parent.iterdir()] == ["config.yaml"]
    if os.name != "nt":
        assert path.stat().st_mode & 0o777 == 0o600


def test_login_stores_a_key_that_opens(tadpole, server: str, key: str, home: Path) -> None:
    ended = tadpole("login", key, "--server", server)
    assert (ended.code, ended.err) == (0, "") and key not in ended.out
    assert yaml.safe_load((home / ".tadpole" / "config.yaml").read_text(encoding="utf-8")) == {"server": server, "api_key": key}
    assert tadpole("get-training-jobs") == (0, "there are no trainings yet\n", "")


def test_login_mends_what_is_stored(tadpole, server: str, key: str, home: Path) -> None:
    write(home, ".tadpole/config.yaml", "server: nowhere\napi_key: old\n")
    assert tadpole("login", key).code == 2
    assert tadpole("login", key, "--server", server).code == 0
    assert tadpole("get-training-jobs").code == 0


def test_login_stores_no_key_that_opens_nothing(tadpole, server: str, home: Path) -> None:
    assert tadpole("login", "tadpole_abc_wrong", "--server", server).code == 1
    assert tadpole("login", "hello", "--server", server).code == 2
    assert tadpole("login", "--server", server).err == "error: the API key is missing: write login KEY\n"
    assert not (home / ".tadpole").exists()
