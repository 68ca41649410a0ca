"""What the operator does with the command line: keys in the service's own data, and serving."""
from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from service.services import Services
from service.settings import ServiceSettings


@pytest.fixture(autouse=True)
def database(monkeypatch: pytest.MonkeyPatch, settings: ServiceSettings, home: Path) -> None:
    """That of the test, wherever it is."""
    monkeypatch.setenv("TADPOLE_DATABASE_URL", str(settings.database_url))


def test_a_key_is_made_used_listed_and_revoked(tadpole, server: str, services: Services, settings: ServiceSettings) -> None:
    data = ("--data-dir", str(settings.data_dir))
    made = tadpole("keys", "create", "for a friend", "--scopes", "read,train", "--days", "2", *data)
    assert made.code == 0 and "shown only now" in made.err
    key = made.out.strip()
    assert re.fullmatch(r"tadpole_[a-z0-9]+_[A-Za-z0-9]{43}", key)
    assert tadpole("get-training-jobs", key, "--server", server).code == 0
    listed = tadpole("keys", "list", *data)
    assert "for a friend" in listed.out and "read,train" in listed.out and key not in listed.out
    (shown,) = json.loads(tadpole("keys", "list", "--json", *data).out)["keys"]
    assert (shown["name"], shown["scopes"], shown["revoked_at"]) == ("for a friend", ["read", "train"], None)
    assert shown["expires_at"] > shown["created_at"]
    assert tadpole("keys", "revoke", shown["id"], *data) == (0, f"the key {shown['id']} is revoked\n", "")
    assert tadpole("get-training-jobs", key, "--server", server).code == 1
    assert json.loads(tadpole("keys", "list", "--json", *data).out)["keys"][0]["revoked_at"]


def test_a_key_is_revoked_by_itself(tadpole, settings: ServiceSettings) -> None:
    data = ("--data-dir", str(settings.data_dir))
    key = tadpole("keys", "create", "mine", *data).out.strip()
    assert json.loads(tadpole("keys", "revoke", key, "--json", *data).out) == {"id": key.split("_")[1], "revoked": True}


def test_projects_are_apart(tadpole, settings: ServiceSettings) -> None:
    data = ("--data-dir", str(settings.data_dir))
    key_id = json.loads(tadpole("keys", "create", "mine", "--project", "frogs", "--json", *data).out)["key"].split("_")[1]
    assert tadpole("keys", "list", *data) == (1, "", "error: there is no project default\n")  # and none is made
    assert tadpole("keys", "revoke", key_id, *data).err == "error: there is no project default\n"
    assert tadpole("keys", "create", "other", *data).code == 0
    assert key_id not in tadpole("keys", "list", *data).out
    assert tadpole("keys", "revoke", key_id, *data) == (1, "", f"error: there is no key {key_id}\n")
    assert tadpole("keys", "revoke", key_id, "--project", "frogs", *data).code == 0


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--scopes", "read,fly"), 1, 'there is no scope "fly"'),
        (("--scopes", ","), 2, "--scopes: write read, train or admin"),
        (("--days", "0"), 2, "--days: 0.0 is not between"),
        (("--days", "nan"), 2, "--days: nan is not between"),
        (("--days", "soon"), 2, "--days"),
    ],
)
def test_keys_that_are_not_made(more: tuple[str, ...], code: int, said: str, tadpole, settings: ServiceSettings) -> None:
    ended = tadpole("keys", "create", "mine", *more, "--data-dir", str(settings.data_dir))
    assert (ended.code, ended.out) == (code, "") and said in ended.err and ended.err.count("\n") == 1


def test_a_folder_without_data_is_not_made(tadpole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TADPOLE_DATABASE_URL")
    (tmp_path / "empty").mkdir()
    for name in ("elsewhere", "empty"):
        ended = tadpole("keys", "create", "mine", "--data-dir", str(tmp_path / name))
        assert ended.code == 2 and "there is no service's data in" in ended.err
    assert not (tmp_path / "elsewhere").exists() and list((tmp_path / "empty").iterdir()) == []


def test_a_database_that_does_not_answer(tadpole, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "spoilt.sqlite3").write_bytes(b"no database at all" * 100)
    monkeypatch.setenv("TADPOLE_DATABASE_URL", f"sqlite:///{tmp_path / 'spoilt.sqlite3'}")
    ended = tadpole("keys", "list", "--data-dir", str(tmp_path))
    assert ended == (1, "", "error: the database does not answer as it should: DatabaseError\n")


def test_serve_takes_the_options_of_the_service(tadpole) -> None:
    ended = tadpole("serve", "--prot", "1")
    assert ended.code == 2 and "--prot: unknown option" in ended.err
