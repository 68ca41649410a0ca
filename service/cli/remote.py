"""Asks the service over HTTP. What may be sent twice is tried again; every failure is one line."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from service.cli.access import Access
from service.cli.show import Advance

if TYPE_CHECKING:
    import httpx

TRIES = 4
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds
AGAIN = (429, 502, 503, 504)
ALREADY_THERE = (403, 409)  # an upload that is sent again after it had arrived
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0
BLOCK_BYTES = 1 << 18


class Failed(Exception):
    """The service refused, failed, or was not there: one line for the user, exit code 1."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class Remote:
    """A service, asked with one key. `transport` stands in for the network."""

    def __init__(self, access: Access, transport: httpx.BaseTransport | None = None, pause: Callable[[float], None] = time.sleep):
        import httpx  # a third of a second that `tadpole --help` does not need

        self._httpx, self.access, self._pause = httpx, access, pause
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        self._client = httpx.Client(
            base_url=access.server, headers={"Authorization": access.key}, timeout=timeout, transport=transport
        )
        self._keyless = httpx.Client(timeout=timeout, transport=transport)  # a signed URL needs no key, and may lead elsewhere

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()
        self._keyless.close()

    def get(self, path: str, **parameters: str | int) -> Any:
        return self._json(lambda: self._client.get(path, params=parameters))

    def post(self, path: str, content: object) -> Any:
        """Sent again, it is done once: all tries have one Idempotency-Key."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._json(lambda: self._client.post(path, json=content, headers=headers))

    def upload(self, url: str, source: Path, content_type: str, advance: Advance) -> None:
        """PUT a file to a signed URL."""
        headers = {"Content-Type": content_type, "Content-Length": str(source.stat().st_size)}
        sent = 0  # bytes that the bar has seen: after a break only what is more counts
        tries = 0

        def blocks() -> Iterator[bytes]:
            nonlocal sent
            done = 0
            with source.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    yield block
                    done += len(block)
                    advance(max(0, done - sent))
                    sent = max(sent, done)

        def put() -> httpx.Response:
            nonlocal tries
            tries += 1
            return self._keyless.put(url, content=blocks(), headers=headers)

        answer = self._tried(put)
        if answer.is_error and not (tries > 1 and answer.status_code in ALREADY_THERE):
            raise self._failed(answer)

    def download(self, url: str, destination: Path, begin: Callable[[int | None], AbstractContextManager[Advance]]) -> None:
        """GET a signed URL into a file, whole or not at all. `begin` is told the size, and gives a bar to advance."""
        part = destination.with_name(f".{destination.name}.part")
        try:
            with self._keyless.stream("GET", url) as answer:
                if answer.is_error:
                    answer.read()
                    raise self._failed(answer)
                length = answer.headers.get("content-length", "")
                with begin(int(length) if length.isdigit() else None) as advance, part.open("wb") as file:
                    for block in answer.iter_raw(BLOCK_BYTES):
                        file.write(block)
                        advance(len(block))
            part.replace(destination)
        except self._httpx.TransportError as error:
            raise Failed(f"the download broke off ({_reason(error)}): ask for it again") from None
        finally:
            part.unlink(missing_ok=True)

    def _json(self, send: Callable[[], httpx.Response]) -> Any:
        answer = self._tried(send)
        if answer.is_error:
            raise self._failed(answer)
        try:
            return answer.json()
        except ValueError:
            raise Failed(f"{self.access.server} does not answer as the service does: is --server right?") from None

    def _tried(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """The answer; asked again, ever later, while there is none or one that asks for patience."""
        for number in range(1, TRIES + 1):
            pause = min(FIRST_PAUSE * 2 ** (number - 1), LONGEST_PAUSE)
            try:
                answer = send()
            except self._httpx.ConnectError as error:  # nobody listens: that it starts in a moment is not likely
                raise Failed(
                    f"no service answers at {self.access.server} ({_reason(error)}): is it running, is --server right?"
                ) from None
            except self._httpx.TransportError as error:
                if number == TRIES:
                    raise Failed(f"the connection to {self.access.server} broke off ({_reason(error)})") from None
            else:
                if answer.status_code not in AGAIN or number == TRIES:
                    return answer
                told = answer.headers.get("retry-after", "")
                pause = min(float(told), LONGEST_PAUSE) if told.isdigit() else pause
            self._pause(pause)
        raise AssertionError("the last try returns or raises")

    def _failed(self, answer: httpx.Response) -> Failed:
        advice = ": tadpole login KEY stores another key" if answer.status_code == 401 else ""
        return Failed(f"{_detail(answer)}{advice}", answer.status_code)


def _detail(answer: httpx.Response) -> str:
    """What the answer says is wrong; an S3 store says it in XML, of which the code is enough."""
    try:
        content = answer.json()
    except ValueError:
        content = None
    if isinstance(content, dict):
        for name in ("message", "detail", "title"):
            if isinstance(content.get(name), str) and content[name].strip():
                return " ".join(content[name].split())
    return f"the server answers {answer.status_code} {answer.reason_phrase}".strip()


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
