"""Files are whole or absent, whatever fails and whenever."""
from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from library.checkpoint import files, temporary
from library.checkpoint.files import atomic_directory, atomic_write, free_space_check, remove, set_aside, writable_check
from library.checkpoint.temporary import remove_leftovers, temporary_path
from library.errors import UserError

Killer = Callable[[int, Callable[[], None]], bool]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_has_its_name_and_nothing_else_is_left(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "new" / "a.json") as temporary_file:
        assert temporary_file.suffix == ".json"
        assert temporary_file.parent == tmp_path / "new"
        temporary_file.write_bytes(b"whole")
    assert names(tmp_path / "new") == ["a.json"]
    assert (tmp_path / "new" / "a.json").read_bytes() == b"whole"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "rights"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_have_the_rights_that_new_files_get_whoever_writes_them(tmp_path: Path, umask: int, rights: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "a.safetensors") as temporary_file:
            save_file({"a": torch.zeros(1)}, temporary_file)
        with atomic_directory(tmp_path / "state") as temporary_folder:
            save_file({"a": torch.zeros(1)}, temporary_folder / "a.safetensors")
            (temporary_folder / "b.json").write_text("{}", encoding="utf-8")
    finally:
        os.umask(before)
    written = ("a.safetensors", "state/a.safetensors", "state/b.json")
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in written] == [rights] * 3


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(error), atomic_write(tmp_path / "a") as temporary_file:
        temporary_file.write_bytes(b"ha")
        raise error
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize(("owner", "call"), [(os, "fsync"), (Path, "replace")])
def test_a_full_disk_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, call: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(owner, call, full)
    with pytest.raises(OSError, match="No space"), atomic_write(tmp_path / "a") as temporary_file:
        temporary_file.write_bytes(b"new")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_bytes_reach_the_disk_before_the_name_and_that_before_the_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def noting_replace(source: Path, target: Path) -> None:
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    with atomic_write(tmp_path / "a") as temporary_file:
        temporary_file.write_bytes(b"x")
    assert events == (["file", "rename", "folder"] if sys.platform != "win32" else ["file", "rename"])


def test_a_file_system_without_fsync_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(descriptor: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", cannot)
    with atomic_write(tmp_path / "a") as temporary_file:
        temporary_file.write_bytes(b"x")
    assert names(tmp_path) == ["a"]


def test_a_rename_is_tried_again_where_windows_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals, waits, replace = [1, 2, 3], [], Path.replace

    def refusing(source: Path, target: Path) -> None:
        if refusals:
            refusals.pop()
            raise PermissionError(13, "in use")
        replace(source, target)

    monkeypatch.setattr(Path, "replace", refusing)
    monkeypatch.setattr(files.sys, "platform", "win32")
    (tmp_path / "a").write_bytes(b"x")
    files.replace(tmp_path / "a", tmp_path / "b", wait=waits.append)
    assert names(tmp_path) == ["b"]
    assert waits == [0.05, 0.1, 0.2]


def test_long_names_fit(tmp_path: Path) -> None:
    name = "蛙" * 80 + ".npz"  # 244 bytes
    with atomic_write(tmp_path / name) as temporary_file:
        temporary_file.write_bytes(b"x")
    assert names(tmp_path) == [name]


def test_a_folder_appears_whole_and_never_replaces_another(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "state") as folder:
        (folder / "a").write_bytes(b"x")
        assert not (tmp_path / "state").exists()
    assert names(tmp_path / "state") == ["a"]
    with pytest.raises(FileExistsError), atomic_directory(tmp_path / "state") as folder:
        (folder / "b").write_bytes(b"x")
    assert names(tmp_path) == ["state"]
    assert names(tmp_path / "state") == ["a"]


def test_set_aside_finds_a_free_dated_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.time, "strftime", lambda _: "20240131-235959")
    for content in ("first", "second"):
        (tmp_path / "last.safetensors").write_text(content, encoding="utf-8")
        set_aside(tmp_path / "last.safetensors")
    (tmp_path / "v1.5-state").mkdir()
    assert set_aside(tmp_path / "v1.5-state") == tmp_path / "v1.5-state.20240131-235959"
    assert set_aside(tmp_path / "last.safetensors") is None
    assert names(tmp_path) == [
        "last.20240131-235959-2.safetensors",
        "last.20240131-235959.safetensors",
        "v1.5-state.20240131-235959",
    ]
    assert (tmp_path / "last.20240131-235959.safetensors").read_text(encoding="utf-8") == "first"


def test_no_room_is_said_with_numbers(tmp_path: Path) -> None:
    free_space_check(tmp_path / "not" / "yet", 1)
    with pytest.raises(UserError, match=r"no room on the disk of .*: 1024\.0 TiB are needed, .* are free"):
        free_space_check(tmp_path, 1 << 50)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    writable_check(tmp_path / "new" / "folder")
    assert names(tmp_path / "new" / "folder") == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="output_dir .*file.* cannot be written"):
        writable_check(tmp_path / "file" / "folder")


def leftover(path: Path, **changes: str) -> Path:
    """A temporary file of another process; `changes` replace parts of its name."""
    found = temporary.TEMPORARY_NAME.match(temporary_path(path).name)
    assert found is not None
    parts = {**found.groupdict(), **changes}
    target = path.with_name(f".{path.stem}.tmp-{parts['machine']}-{parts['pid']}-{parts['process']}-0{path.suffix}")
    target.write_bytes(b"half")
    return target


def test_leftovers_of_dead_processes_go(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = leftover(tmp_path / "a.safetensors", pid=str(ended.pid))
    forerunner = leftover(tmp_path / "b.safetensors", process="00000000")  # had our process id, in a container say
    assert remove_leftovers(tmp_path) == [dead, forerunner]
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="it cannot be waited for without reaping")
def test_leftovers_of_a_process_that_nobody_reaps_go(tmp_path: Path) -> None:
    """As in a container whose first process is no init."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        dead = leftover(tmp_path / "a.safetensors", pid=str(ended.pid))
        assert remove_leftovers(tmp_path) == [dead]


def test_leftovers_that_may_be_in_use_stay(tmp_path: Path) -> None:
    ours = leftover(tmp_path / "a.safetensors")
    parent = leftover(tmp_path / "b.safetensors", pid=str(os.getppid()))
    elsewhere = leftover(tmp_path / "c.safetensors", machine="0abc")
    users_own = tmp_path / ".notes.tmp-draft"
    users_own.write_bytes(b"x")
    assert remove_leftovers(tmp_path) == []
    assert names(tmp_path) == sorted(path.name for path in (ours, parent, elsewhere, users_own))


def test_another_machines_leftovers_go_when_nobody_wrote_for_an_hour(tmp_path: Path) -> None:
    elsewhere = leftover(tmp_path / "c.safetensors", machine="0abc")
    os.utime(elsewhere, (1e9, 1e9))
    assert remove_leftovers(tmp_path) == [elsewhere]


def test_killed_at_any_instant_a_file_is_the_old_or_the_new_one(tmp_path: Path, killed_before: Killer) -> None:
    old, new = b"old" * 1000, b"new" * 1000
    seen, path = set(), tmp_path / "a.bin"

    def write() -> None:
        with atomic_write(path) as temporary_file:
            temporary_file.write_bytes(new)

    path.write_bytes(old)
    for dealing in range(1, 100):
        killed = killed_before(dealing, write)
        seen.add(path.read_bytes())
        remove_leftovers(tmp_path)
        assert names(tmp_path) == ["a.bin"]
        if not killed:
            break
    assert seen == {old, new}
    assert dealing > 5


def test_killed_at_any_instant_a_folder_is_whole_or_absent(tmp_path: Path, killed_before: Killer) -> None:
    path = tmp_path / "state"

    def write() -> None:
        with atomic_directory(path) as folder:
            for name in ("a", "b"):
                (folder / name).write_bytes(name.encode() * 1000)
        remove(path)

    seen = set()
    for dealing in range(1, 100):
        killed = killed_before(dealing, write)
        seen.add(tuple((file.name, file.stat().st_size) for file in sorted(path.iterdir())) if path.exists() else None)
        remove_leftovers(tmp_path)
        remove(path)
        assert names(tmp_path) == []
        if not killed:
            break
    assert seen == {None, (("a", 1000), ("b", 1000))}
    assert dealing > 10
