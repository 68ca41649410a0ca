"""The store by default: files under a folder of the service, behind signed URLs of its own address."""
from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from service.storage.incoming import Incoming
from service.storage.signing import BadToken, ExpiredToken, Grant, read, sign
from service.storage.space import RESERVE_BYTES, full_is_told, part_of
from service.storage.store import (
    LONGEST_GET_SECONDS,
    LONGEST_PUT_SECONDS,
    PUT_SECONDS,
    NoSuchObject,
    StoredObject,
    TooLarge,
    checked_key,
    checked_seconds,
)

URL_PATH = "/storage/u/"
_BLOCK_BYTES = 1 << 20
_ATTEMPTS = 20  # against another process that replaces or deletes the same object just now


class LocalStore:
    """Each object is a folder of its key with one file, NUMBER-MD5. A new content gets the next number and one rename, so that
    a content and its MD5 belong together whenever the power goes, and nothing that somebody reads is overwritten.
    """

    def __init__(
        self,
        folder: Path,
        public_url: str,
        secret: bytes,
        reserve_bytes: int = RESERVE_BYTES,
        clock: Callable[[], float] = time.time,
    ):
        """secret: at least 32 random bytes, the same in all processes of the service."""
        if len(secret) < 32:
            raise ValueError("the secret of the store needs at least 32 bytes")
        self._objects, self._incoming = folder / "objects", folder / "incoming"
        self._public_url, self._secret = public_url.rstrip("/"), secret
        self._reserve_bytes, self._clock = reserve_bytes, clock

    # --- URLs ---

    def put_url(self, key: str, *, max_bytes: int, seconds: int = PUT_SECONDS) -> str:
        checked_seconds(seconds, LONGEST_PUT_SECONDS)
        return self._url(Grant(checked_key(key), "PUT", int(self._clock()) + seconds, max_bytes))

    def get_url(self, key: str, *, seconds: int, file_name: str | None = None) -> str:
        checked_seconds(seconds, LONGEST_GET_SECONDS)
        return self._url(Grant(checked_key(key), "GET", int(self._clock()) + seconds, file_name=file_name or key.split("/")[-1]))

    def _url(self, grant: Grant) -> str:
        return f"{self._public_url}{URL_PATH}{sign(grant, self._secret)}"

    def grant(self, token: str) -> Grant:
        """What a token of ours allows. Raises BadToken or ExpiredToken."""
        return read(token, self._secret, self._clock())

    def key_of_own_url(self, url: str) -> str | None:
        """The key that a URL of ours lets get at this moment; None for every other URL."""
        given, own = urlsplit(url), urlsplit(self._public_url + URL_PATH)
        if given[:2] != own[:2] or not given.path.startswith(own.path):
            return None
        try:
            grant = self.grant(given.path.removeprefix(own.path))
        except (BadToken, ExpiredToken):
            return None
        return grant.key if grant.method == "GET" else None

    # --- content ---

    @contextmanager
    def receiving(self, max_bytes: int, announced_bytes: int = 0, is_unpacked_later: bool = True) -> Iterator[Incoming]:
        """A place for a content that comes in; put() makes it an object. Raises TooLarge or DiskFull, also by what is announced."""
        with Incoming(self._incoming, max_bytes, announced_bytes, self._reserve_bytes, is_unpacked_later) as incoming:
            yield incoming

    def put(self, key: str, incoming: Incoming) -> StoredObject:
        """The object from now on. Whoever has the old content open reads it to its end."""
        md5 = incoming.finish()
        folder = self._folder(key)
        for attempt in range(_ATTEMPTS):
            older = self._files(key)
            number = int(older[-1].name.partition("-")[0]) + 1 if older else 1
            try:
                incoming.publish(folder / f"{number:08d}-{md5}")
                break
            except (FileNotFoundError, FileExistsError):  # the folder was deleted in between, or while it was made
                if attempt == _ATTEMPTS - 1:
                    raise
        for file in older:
            with suppress(OSError):  # still open, on Windows: the next one takes it away
                file.unlink()
        return StoredObject(key, incoming.size, md5)

    def save(self, key: str, source: Path) -> StoredObject:
        checked_key(key)
        size = source.stat().st_size
        with source.open("rb") as file, self.receiving(size, size, is_unpacked_later=False) as incoming:
            while block := file.read(_BLOCK_BYTES):
                incoming.write(block)
            return self.put(key, incoming)

    def path(self, key: str) -> Path:
        """The file with the object's content, never to be written to. Raises NoSuchObject."""
        found = self._files(key)
        if not found:
            raise NoSuchObject(key)
        return found[-1]

    def open(self, key: str) -> BinaryIO:
        for _ in range(_ATTEMPTS):
            with suppress(FileNotFoundError):  # replaced in between
                return self.path(key).open("rb")
        raise NoSuchObject(key)

    def download(self, key: str, destination: Path) -> None:
        with self.open(key) as source, full_is_told(), part_of(destination) as temporary, temporary.open("wb") as file:
            shutil.copyfileobj(source, file, _BLOCK_BYTES)

    def head(self, key: str) -> StoredObject | None:
        for _ in range(_ATTEMPTS):
            with suppress(FileNotFoundError):
                try:
                    path = self.path(key)
                except NoSuchObject:
                    return None
                return StoredObject(key, path.stat().st_size, path.name.partition("-")[2])
        return None

    def uploaded(self, key: str, *, max_bytes: int) -> StoredObject:
        found = self.head(key)
        if found is None:
            raise NoSuchObject(key)
        if found.size > max_bytes:
            self.delete(key)
            raise TooLarge(max_bytes)
        return found

    def delete(self, key: str) -> None:
        for file in self._files(key):
            with suppress(FileNotFoundError):
                file.unlink()
        folder = self._folder(key)
        while folder != self._objects:  # folders that are empty now
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def sweep(self, older_than_seconds: float) -> int:
        """Removes what uploads left that ended with the process; how many."""
        swept = 0
        for file in self._incoming.glob("*"):
            with suppress(FileNotFoundError):
                if file.stat().st_mtime < self._clock() - older_than_seconds:
                    file.unlink()
                    swept += 1
        return swept

    def _folder(self, key: str) -> Path:
        """A key may be the beginning of another one: the last part is marked."""
        *parents, name = checked_key(key).split("/")
        return self._objects.joinpath(*parents, f"{name}@")

    def _files(self, key: str) -> list[Path]:
        """The contents that lie there, the one that counts last."""
        try:
            return sorted(self._folder(key).iterdir())
        except FileNotFoundError:
            return []
