"""The store on the disk: objects are whole or absent, and replaced as a whole."""
from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.storage import incoming, space
from service.storage.local import LocalStore
from service.storage.space import DiskFull
from service.storage.store import NoSuchObject, StoredObject, TooLarge

SECRET = bytes(range(32))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "storage", "https://train.example/tadpole/", SECRET, reserve_bytes=0, clock=lambda: 1000.0)


def put(store: LocalStore, key: str, data: bytes) -> StoredObject:
    with store.receiving(1 << 20) as place:
        place.write(data)
        return store.put(key, place)


def files_of(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "storage").rglob("*") if path.is_file())


def test_what_is_put_can_be_read(store: LocalStore, tmp_path: Path) -> None:
    stored = put(store, "jobs/1/input.zip", b"content")
    assert stored == StoredObject("jobs/1/input.zip", 7, hashlib.md5(b"content").hexdigest())
    assert store.head("jobs/1/input.zip") == stored == store.uploaded("jobs/1/input.zip", max_bytes=7)
    with store.open("jobs/1/input.zip") as file:
        assert file.read() == b"content"
    store.download("jobs/1/input.zip", tmp_path / "copy.zip")
    assert (tmp_path / "copy.zip").read_bytes() == b"content"
    (tmp_path / "result").write_bytes(b"more")
    assert store.save("jobs/1/output.zip", tmp_path / "result").size == 4 and (tmp_path / "result").exists()


def test_two_who_read_into_the_same_file_do_not_disturb_each_other(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that stops may be at it while the one that goes on with its job is."""
    put(store, "a", b"content")

    def meanwhile(*words: Any) -> None:
        monkeypatch.undo()
        store.download("a", tmp_path / "copy")
        shutil.copyfileobj(*words)

    monkeypatch.setattr(shutil, "copyfileobj", meanwhile)
    store.download("a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"content" and not list(tmp_path.glob("*.part"))


def test_keys_may_begin_alike(store: LocalStore) -> None:
    for key in ("a", "a/b", "a/b/c"):
        put(store, key, key.encode())
    store.delete("a/b")
    assert store.head("a/b") is None and store.path("a").read_bytes() == b"a" and store.path("a/b/c").read_bytes() == b"a/b/c"


def test_the_second_content_replaces_the_first_also_under_a_reader(store: LocalStore, tmp_path: Path) -> None:
    put(store, "a", b"first")
    with store.open("a") as reader:
        put(store, "a", b"second")
        assert reader.read() == b"first"
    assert store.path("a").read_bytes() == b"second" and len(files_of(tmp_path)) == 1
    put(store, "a", b"second")
    assert store.path("a").read_bytes() == b"second" and len(files_of(tmp_path)) == 1


def test_a_file_that_was_left_by_a_crash_does_not_count(store: LocalStore) -> None:
    """Killed between the rename and the removal of the older one."""
    put(store, "a", b"first")
    older = store.path("a")
    data = older.read_bytes()
    put(store, "a", b"second")
    older.write_bytes(data)
    assert store.path("a").read_bytes() == b"second"


def test_deleting_removes_everything(store: LocalStore, tmp_path: Path) -> None:
    put(store, "jobs/1/input.zip", b"x")
    for _ in range(2):
        store.delete("jobs/1/input.zip")
    assert not list((tmp_path / "storage/objects").iterdir())
    for action in (store.open, store.path, lambda key: store.download(key, tmp_path / "copy"), lambda key: store.uploaded(key, max_bytes=1)):
        with pytest.raises(NoSuchObject):
            action("jobs/1/input.zip")
    assert not (tmp_path / "copy").exists()


def test_what_is_not_finished_leaves_nothing(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), store.receiving(100) as place:
        place.write(b"half")
        raise RuntimeError("the connection broke")
    assert files_of(tmp_path) == []


def test_the_cap_holds(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(TooLarge), store.receiving(100, announced_bytes=101):
        pass
    with pytest.raises(TooLarge), store.receiving(100) as place:
        place.write(bytes(60))
        place.write(bytes(41))
    assert files_of(tmp_path) == []
    put(store, "a", bytes(100))
    with pytest.raises(TooLarge):
        store.uploaded("a", max_bytes=99)
    assert store.head("a") is None


def test_a_full_disk_is_told_before_and_while_something_comes(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 199

    monkeypatch.setattr(space.shutil, "disk_usage", lambda folder: Usage)
    monkeypatch.setattr(incoming, "_ROOM_IS_CHECKED_EVERY", 50)
    with pytest.raises(DiskFull), store.receiving(1000, announced_bytes=100):
        pass
    Usage.free = 200
    with store.receiving(1000, announced_bytes=100) as place:
        place.write(bytes(100))
        store.put("a", place)
    with pytest.raises(DiskFull), store.receiving(1000) as place:
        place.write(bytes(201))
    assert len(files_of(tmp_path)) == 1


def test_an_error_of_the_disk_itself_is_told_so(store: LocalStore, tmp_path: Path) -> None:
    class Full:
        closed = False

        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    with pytest.raises(DiskFull), store.receiving(100) as place:
        place._file.close()
        place._file = Full()
        place.write(b"x")
    assert files_of(tmp_path) == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "../a", "a/../b", "a//b", ".hidden", "a\\b", "C:a", "a\0", "a b", "a/.b", "ä", "a" * 200, "/".join("abcdefghi")])
def test_keys_that_are_paths_are_refused(store: LocalStore, key: str) -> None:
    for action in (
        lambda: store.put_url(key, max_bytes=1),
        lambda: store.get_url(key, seconds=1),
        lambda: store.open(key),
        lambda: store.head(key),
        lambda: store.delete(key),
    ):
        with pytest.raises(ValueError, match="no key"):
            action()


def test_urls_live_for_a_while_only(store: LocalStore) -> None:
    for seconds in (0, -1, 7 * 86400 + 1):
        with pytest.raises(ValueError, match="a URL lives"):
            store.put_url("a", max_bytes=1, seconds=seconds)
    with pytest.raises(ValueError, match="a URL lives"):
        store.get_url("a", seconds=86401)


def test_own_urls_are_known(store: LocalStore, tmp_path: Path) -> None:
    url = store.get_url("files/1", seconds=60)
    assert url.startswith("https://train.example/tadpole/storage/u/") and store.key_of_own_url(url) == "files/1"
    later = LocalStore(tmp_path, "https://train.example/tadpole", SECRET, clock=lambda: 1060.0)
    assert later.key_of_own_url(url) is None
    for other in (
        url[:-1], url.replace("https", "http"), url.replace("train.example", "evil.example"), url.replace("/tadpole", ""), "https://train.example/tadpole/",
        url.replace("//train", "//user@train"), store.put_url("files/1", max_bytes=1), "data:,", "",
    ):  # fmt: skip
        assert store.key_of_own_url(other) is None


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        LocalStore(tmp_path, "https://a", b"short")


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "storage", "https://a", SECRET, reserve_bytes=0)
    assert store.sweep(60) == 0
    left = tmp_path / "storage/incoming/left"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert store.sweep(3600) == 0 and store.sweep(-3600) == 1 and not left.exists()


def test_a_folder_that_is_deleted_while_it_is_made_is_made_again(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    make, missing = Path.mkdir, [FileExistsError]

    def mkdir(folder: Path, *given: object, **options: object) -> None:
        if missing and folder.name == "b@":
            raise missing.pop()  # what Python makes of it
        make(folder, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", mkdir)
    put(store, "a/b", b"content")
    assert store.path("a/b").read_bytes() == b"content" and not missing


def test_writers_deleters_and_readers_at_once(store: LocalStore, tmp_path: Path) -> None:
    """Whoever reads sees one whole content, and its own MD5."""
    mistakes: list[str] = []

    def write(letter: bytes) -> None:
        for number in range(20):
            put(store, "a/b", letter * (1000 + number))
            if number % 7 == 3:
                store.delete("a/b")

    def look() -> None:
        for _ in range(60):
            try:
                with store.open("a/b") as file:
                    data = file.read()
            except NoSuchObject:
                continue
            if len(set(data)) != 1 or not Path(file.name).name.endswith(hashlib.md5(data).hexdigest()):
                mistakes.append(file.name)

    with ThreadPoolExecutor() as threads:
        tasks = [*(threads.submit(write, letter) for letter in (b"x", b"y")), threads.submit(look)]
    for task in tasks:
        task.result()
    put(store, "a/b", b"last")
    assert mistakes == [] and store.path("a/b").read_bytes() == b"last"
    assert not list((tmp_path / "storage/incoming").iterdir())
