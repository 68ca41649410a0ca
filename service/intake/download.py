"""A download over the network: each address checked and pinned, each redirect again, broken ones resumed, all of it within a time."""
from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from service.intake.addresses import AddressRules, FetchFailed, ForbiddenAddress, checked_url, pinned
from service.intake.target import Target

_REDIRECTS = (301, 302, 303, 307, 308)
_WORTH_ANOTHER_TRY = (408, 425, 429, 500, 502, 503, 504)
_FIRST_WAIT_SECONDS = 1.0  # doubled at each retry
_HEADERS = {"User-Agent": "tadpole-service", "Accept": "*/*", "Accept-Encoding": "identity"}
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class _Broken(Exception):
    """A failure that another try may mend; the text is for the person who gave the URL."""


def download(url: str, target: Target) -> None:
    """Fills the target. Raises FetchFailed, ForbiddenAddress or DiskFull."""
    rules = target.rules
    first = checked_url(url, rules.addresses)  # before anything is looked up
    with rules.transport() as transport, _Watch(target.remaining_seconds()) as watch:
        for attempt in range(rules.retries + 1):
            try:
                return _attempt(transport, first, target, watch)
            except (_Broken, httpx.TransportError) as error:
                problem = _words(error, target)
            remaining = target.remaining_seconds()
            if attempt < rules.retries:
                rules.sleep(min(_FIRST_WAIT_SECONDS * 2**attempt, remaining))
    raise FetchFailed(f"the download failed {rules.retries + 1} times; the last time {problem}")


def _attempt(transport: httpx.BaseTransport, url: httpx.URL, target: Target, watch: _Watch) -> None:
    for _ in range(target.rules.redirects + 1):
        with _answer(transport, url, target, watch) as response:
            if response.status_code not in _REDIRECTS:
                return _take(response, target)
            location = response.headers.get("location", "")
        url = _redirected(url, location, target.rules.addresses)
    raise FetchFailed(f"the URL redirects more than {target.rules.redirects} times")


def _redirected(url: httpx.URL, location: str, rules: AddressRules) -> httpx.URL:
    try:
        return checked_url(str(url.join(location)), rules)
    except (httpx.InvalidURL, ValueError):
        raise FetchFailed("the URL redirects to something that is no URL") from None
    except ForbiddenAddress as error:
        raise ForbiddenAddress(f"the URL redirects to another one, and there {error}") from None


@contextmanager
def _answer(transport: httpx.BaseTransport, url: httpx.URL, target: Target, watch: _Watch) -> Iterator[httpx.Response]:
    """The answer from the first checked address that can be reached."""
    rules = target.rules
    ways = pinned(url, rules.addresses)
    timeout = httpx.Timeout(rules.idle_seconds, connect=rules.connect_seconds).as_dict()
    resuming = {"Range": f"bytes={target.size}-", "If-Range": target.version} if target.size and target.version else {}
    for number, way in enumerate(ways, 1):
        extensions = {**way.extensions, "trace": watch.trace, "timeout": timeout}
        request = httpx.Request("GET", way.url, headers={**_HEADERS, **way.headers, **resuming}, extensions=extensions)
        try:
            response = transport.handle_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if number == len(ways):
                raise
            continue
        try:
            yield response
        finally:
            response.close()
        return


def _take(response: httpx.Response, target: Target) -> None:
    """The body of an answer that is no redirect, behind what the target has already or in its place."""
    status = response.status_code
    if status == 416 or (status == 206 and not _continues(response, target)):
        target.restart()
        raise _Broken("the server could not go on where it had stopped")
    if status in _WORTH_ANOTHER_TRY:
        raise _Broken(f"the server answered {status}")
    if status not in (200, 206):
        raise FetchFailed(f"the server answers {status} to this URL")
    if status == 200:
        target.restart(_version(response.headers))
    length = response.headers.get("content-length", "")
    if length.isdecimal():
        target.expect(target.size + int(length))
    for block in response.iter_raw():
        target.write(block)


def _continues(response: httpx.Response, target: Target) -> bool:
    found = _RANGE.fullmatch(response.headers.get("content-range", ""))
    return bool(target.size) and found is not None and int(found[1]) == target.size


def _version(headers: Mapping[str, str]) -> str:
    """What If-Range may hold: a strong ETag, else the date; without either a broken download begins anew."""
    etag = headers.get("etag", "")
    return etag if etag.startswith('"') else headers.get("last-modified", "")


def _words(error: Exception, target: Target) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"the server sent nothing for {target.rules.idle_seconds:g} seconds"
    if "CERTIFICATE" in str(error):
        return "the certificate of the server was not valid"
    if isinstance(error, httpx.ConnectError):
        return "there was no connection to the server"
    return str(error) if isinstance(error, _Broken) else "the connection broke off"


class _Watch:
    """Cuts the connection when the time is over. A server that sends a letter a second never runs into an idle timeout."""

    def __init__(self, seconds: float):
        self._timer = threading.Timer(seconds, self._cut)
        self._socket: socket.socket | None = None
        self._is_over = False

    def __enter__(self) -> _Watch:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def trace(self, event: str, details: dict[str, Any]) -> None:
        """What httpx tells of a request."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = details["return_value"].get_extra_info("socket")
            if self._is_over:  # it was, before there was a connection
                self._cut()

    def _cut(self) -> None:
        self._is_over = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
