"""Downloads: redirects, limits, broken and lying servers, resuming; nothing half-written stays, and nobody is asked who must not be."""
from __future__ import annotations

import base64
import io
import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
from scripted_server import CERTIFICATE, CERTIFIED_HOST, ScriptedServer, answer, dripping, serving, stalling
from zip_making import Raw, zip_bytes

from service.intake.addresses import AddressRules, FetchFailed, ForbiddenAddress
from service.intake.download import _Watch
from service.intake.fetch import fetch
from service.intake.target import FetchRules
from service.storage import space
from service.storage.space import DiskFull
from tests.service.waiting import wait_until

ZIP = zip_bytes([Raw("1.png", bytes(range(256)) * 40, method=0)])
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


def rules_for(server: ScriptedServer, **changes: object) -> FetchRules:
    addresses = AddressRules(allow_http=True, ports=(server.port,), allow_private_nets=LOOPBACK, resolver=lambda host, port: ["127.0.0.1"])
    return replace(FetchRules(addresses, idle_seconds=20, total_seconds=20, reserve_bytes=0, sleep=lambda seconds: None), **changes)


def url_of(server: ScriptedServer, path: str = "/a.zip") -> str:
    return f"http://{CERTIFIED_HOST}:{server.port}{path}"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "input.zip"


def failure(place: Path, url: str, rules: FetchRules, kind: type[Exception] = FetchFailed) -> str:
    with pytest.raises(kind) as caught:
        fetch(url, place, rules)
    assert list(place.parent.iterdir()) == []  # not even half of it
    assert "\n" not in str(caught.value) and ("127.0.0.1" not in str(caught.value) or "127.0.0.1" in url)
    return str(caught.value)


def test_a_file_is_fetched_whole(place: Path) -> None:
    with serving(answer(ZIP)) as server:
        fetch(url_of(server), place, rules_for(server))
    assert place.read_bytes() == ZIP and list(place.parent.iterdir()) == [place]
    lines = server.requests[0].lower().split("\r\n")
    assert lines[0] == "get /a.zip http/1.1" and f"host: {CERTIFIED_HOST}:{server.port}" in lines
    assert not any(line.startswith(("cookie", "authorization", "range")) for line in lines)


def test_a_chunked_body_without_a_length(place: Path) -> None:
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (ZIP[:3], ZIP[3:5000], ZIP[5000:])) + b"0\r\n\r\n"
    with serving(answer(chunked, length=-1, Transfer_Encoding="chunked")) as server:
        fetch(url_of(server), place, rules_for(server))
    assert place.read_bytes() == ZIP


def trusting() -> httpx.HTTPTransport:
    return httpx.HTTPTransport(verify=ssl.create_default_context(cadata=CERTIFICATE), trust_env=False)


def test_tls_is_with_the_name_although_the_connection_is_to_the_address(place: Path) -> None:
    with serving(answer(ZIP), tls=True) as server:
        rules = rules_for(server)
        fetch(url_of(server).replace("http:", "https:"), place, replace(rules, transport=trusting))
        assert server.names == [CERTIFIED_HOST] and place.read_bytes() == ZIP
        place.unlink()
        assert "certificate" in failure(place, url_of(server).replace("http:", "https:"), rules)
        other = url_of(server).replace("http:", "https:").replace(CERTIFIED_HOST, "other.test")
        assert "certificate" in failure(place, other, replace(rules, transport=trusting))
    assert len(server.requests) == 1


def test_a_name_is_looked_up_once_for_each_request(place: Path) -> None:
    """DNS rebinding: the second answer would be an address where nobody may go."""
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    with serving(answer(ZIP)) as server:
        rules = rules_for(server)
        fetch(url_of(server), place, replace(rules, addresses=replace(rules.addresses, resolver=rebinding)))
        assert asked == [CERTIFIED_HOST] and place.read_bytes() == ZIP
        place.unlink()
        message = failure(place, url_of(server), replace(rules, addresses=replace(rules.addresses, resolver=rebinding)), ForbiddenAddress)
    assert "not of the public Internet" in message and len(server.requests) == 1


def test_no_request_is_sent_to_a_forbidden_address(place: Path) -> None:
    with serving(answer(ZIP)) as server:
        closed = replace(rules_for(server), addresses=AddressRules(allow_http=True, ports=(server.port,)))
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"):
            failure(place, f"http://{host}:{server.port}/a.zip", closed)
    assert server.requests == []


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://[::1]/", "file:///etc/passwd", "ftp://pictures.test/", "//10.0.0.1/a",
        "http://user:pass@pictures.test/", "http://pictures.test:25/", "gopher://pictures.test/", "http://[", "data:application/zip;base64,UEsDBA==",
    ],
)  # fmt: skip
def test_a_redirect_is_checked_again(place: Path, location: str) -> None:
    with serving(answer(status="302 Found", Location=location)) as server:
        rules = rules_for(server)

        def resolver(host: str, port: int) -> list[str]:
            return ["127.0.0.1"] if host == CERTIFIED_HOST else [host]

        addresses = replace(rules.addresses, ports=(server.port, 80), resolver=resolver)
        failure(place, url_of(server), replace(rules, addresses=addresses))
    assert len(server.requests) == 1


def test_a_redirect_to_plain_http_is_refused_where_https_is_asked_for(place: Path) -> None:
    asked: list[str] = []

    def redirecting(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(301, headers={"Location": "http://example.com/a.zip"})

    addresses = AddressRules(resolver=lambda host, port: ["93.184.215.14"])
    message = failure(place, "https://example.com/a.zip", FetchRules(addresses, transport=lambda: httpx.MockTransport(redirecting)), ForbiddenAddress)
    assert message == "the URL redirects to another one, and there the URL has to begin with https://host"
    assert asked == ["https://93.184.215.14/a.zip"]


def test_three_redirects_are_followed_and_not_four(place: Path) -> None:
    moved = [answer(status=status, Location=f"/{status[:3]}", Set_Cookie="a=b") for status in ("301 Moved", "303 Other", "308 Moved")]
    with serving(*moved, answer(ZIP)) as server:
        fetch(url_of(server), place, rules_for(server))
        assert place.read_bytes() == ZIP and server.requests[3].startswith("GET /308 ")
        assert not any("cookie" in request.lower() for request in server.requests)
    place.unlink()
    with serving(*moved, answer(status="307 Again", Location="/x")) as server:
        assert "more than 3 times" in failure(place, url_of(server), rules_for(server))
        assert len(server.requests) == 4


# --- limits ---


def test_sizes_are_limited_by_what_is_told_and_by_what_comes(place: Path) -> None:
    endless = dripping(b"HTTP/1.1 200 OK\r\n\r\n" + ZIP[:100], bytes(500))
    for behaviour in (answer(ZIP, length=10**15), answer(ZIP), endless):
        with serving(behaviour) as server:
            assert "larger than 5000 bytes" in failure(place, url_of(server), rules_for(server, max_bytes=5000))
            assert len(server.requests) == 1


def test_a_full_disk_is_told_before_anything_comes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000 + 2 * len(ZIP) - 1

    monkeypatch.setattr(space.shutil, "disk_usage", lambda folder: Usage)
    with serving(answer(ZIP)) as server:
        failure(place, url_of(server), rules_for(server, reserve_bytes=1000), DiskFull)
        Usage.free += 1
        fetch(url_of(server), place, rules_for(server, reserve_bytes=1000))


@pytest.mark.parametrize(
    "behaviour",
    [
        stalling(),
        stalling(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + ZIP[:50]),
        stalling(b"HTTP/1.1 200 OK\r\nContent-"),
    ],
)
def test_a_server_that_stalls_is_left(place: Path, behaviour: Callable[..., None]) -> None:
    with serving(behaviour) as server:
        message = failure(place, url_of(server), rules_for(server, idle_seconds=0.1, retries=1))
        assert message == "the download failed 2 times; the last time the server sent nothing for 0.1 seconds"
        wait_until(lambda: len(server.requests) == 2)


@pytest.mark.parametrize(
    "behaviour",
    [
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + ZIP[:50], b"a"),
        dripping(b"HTTP/1.1 200 OK\r\nX-Long: ", b"a"),
    ],
)
def test_a_server_that_drips_is_left_when_the_time_is_over(place: Path, behaviour: Callable[..., None]) -> None:
    with serving(behaviour) as server:
        assert "longer than 0.3 seconds" in failure(place, url_of(server), rules_for(server, total_seconds=0.3))


def test_a_connection_that_comes_when_the_time_is_over_is_cut() -> None:
    ours, theirs = socket.socketpair()
    stream = Mock()
    stream.get_extra_info.return_value = ours
    with ours, theirs, _Watch(60) as watch:
        watch._cut()
        watch.trace("connection.connect_tcp.complete", {"return_value": stream})
        theirs.settimeout(20)
        assert theirs.recv(1) == b""


def test_headers_without_end_are_not_kept(place: Path) -> None:
    with serving(dripping(b"HTTP/1.1 200 OK\r\n", b"X-Long: " + b"a" * 60_000 + b"\r\n")) as server:
        assert "broke off" in failure(place, url_of(server), rules_for(server, retries=0))


# --- what comes ---


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>", "a web page"), (b"\n <!doctype html>", "a web page"), (b"%PDF-1.4", "something else"), (b"PK\x05\x06" + bytes(18), "nothing in it"),
        (b"", "nothing behind it"), (b"PK\x03", "nothing behind it"), (b"\x1f\x8b\x08" + bytes(50), "something else"),
    ],
)  # fmt: skip
def test_only_zip_archives_are_taken(place: Path, body: bytes, words: str) -> None:
    with serving(answer(body)) as server:
        assert words in failure(place, url_of(server), rules_for(server))


@pytest.mark.parametrize(("status", "asked"), [("404 Not Found", 1), ("403 Forbidden", 1), ("500 Broken", 3), ("429 Slow down", 3), ("206 Partial Content", 3)])
def test_what_may_get_better_is_tried_again(place: Path, status: str, asked: int) -> None:
    waited: list[float] = []
    with serving(answer(ZIP, status=status)) as server:
        failure(place, url_of(server), rules_for(server, retries=2, sleep=waited.append))
        assert len(server.requests) == asked and len(waited) == asked - 1
    assert waited == [1.0, 2.0][: len(waited)]


def range_of(request: str) -> tuple[str, str]:
    headers = dict(line.split(": ", 1) for line in request.lower().split("\r\n")[1:] if ": " in line)
    return headers.get("range", ""), headers.get("if-range", "")


def test_what_breaks_off_is_resumed(place: Path) -> None:
    first = answer(ZIP[:4000], length=len(ZIP), ETag='"v1"')
    second = answer(ZIP[4000:7000], "206 Partial Content", len(ZIP) - 4000, Content_Range=f"bytes 4000-{len(ZIP) - 1}/{len(ZIP)}", ETag='"v1"')
    third = answer(ZIP[7000:], "206 Partial Content", Content_Range=f"bytes 7000-{len(ZIP) - 1}/{len(ZIP)}", ETag='"v1"')
    with serving(first, second, third) as server:
        fetch(url_of(server), place, rules_for(server))
    assert place.read_bytes() == ZIP
    assert [range_of(request) for request in server.requests] == [("", ""), ("bytes=4000-", '"v1"'), ("bytes=7000-", '"v1"')]


def test_a_file_that_changed_meanwhile_begins_anew(place: Path) -> None:
    with serving(answer(ZIP[:4000], length=len(ZIP), Last_Modified="Sat, 21 Nov 2026 20:00:00 GMT"), answer(ZIP)) as server:
        fetch(url_of(server), place, rules_for(server))
    assert place.read_bytes() == ZIP and range_of(server.requests[1]) == ("bytes=4000-", "sat, 21 nov 2026 20:00:00 gmt")


@pytest.mark.parametrize("etag", [{}, {"ETag": 'W/"v1"'}])
def test_without_a_name_for_what_came_it_begins_anew(place: Path, etag: dict[str, str]) -> None:
    with serving(answer(ZIP[:4000], length=len(ZIP), **etag), answer(ZIP)) as server:
        fetch(url_of(server), place, rules_for(server))
    assert place.read_bytes() == ZIP and range_of(server.requests[1]) == ("", "")


@pytest.mark.parametrize("told", ["bytes 0-9/10", "bytes 4001-9000/9001", "bytes */10000", "nonsense", ""])
def test_a_range_that_does_not_fit_is_not_believed(place: Path, told: str) -> None:
    wrong = answer(ZIP[4000:], "206 Partial Content", Content_Range=told)
    with serving(answer(ZIP[:4000], length=len(ZIP), ETag='"v1"'), wrong, answer(ZIP)) as server:
        fetch(url_of(server), place, rules_for(server))
    assert place.read_bytes() == ZIP and range_of(server.requests[2]) == ("", "")


def test_the_next_address_is_tried(place: Path) -> None:
    with serving(answer(ZIP)) as server:
        rules = rules_for(server)
        addresses = replace(rules.addresses, resolver=lambda host, port: ["127.0.0.2", "127.0.0.1"])
        fetch(url_of(server), place, replace(rules, addresses=addresses, retries=0, connect_seconds=2))
    assert place.read_bytes() == ZIP


def test_nobody_there(place: Path) -> None:
    with serving(answer(ZIP)) as server:
        pass
    assert "no connection" in failure(place, url_of(server), rules_for(server, retries=1))


# --- without the network ---


def test_data_uris(place: Path) -> None:
    fetch("data:application/zip;base64," + base64.b64encode(ZIP).decode(), place)
    assert place.read_bytes() == ZIP
    fetch("DATA:," + "".join(f"%{byte:02x}" for byte in ZIP), place)
    assert place.read_bytes() == ZIP


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("data:application/zip;base64", "no comma"),
        ("data:;base64,?!", "no base64"),
        ("data:;base64,äöü=", "no base64"),
        ("data:,", "nothing behind it"),
        ("data:text/html,<html>", "a web page"),
        ("data:;base64," + base64.b64encode(ZIP + bytes(1 << 20)).decode(), "at most 1048576 bytes"),
        ("data:," + "a" * (5 << 20), "at most 1048576 bytes"),
    ],
)
def test_data_uris_that_are_none(place: Path, url: str, words: str) -> None:
    assert words in failure(place, url, FetchRules())


def test_our_own_urls_are_never_asked_for(place: Path) -> None:
    """Also where they lead to an address that is forbidden; caps hold all the same."""
    own = FetchRules(own_content=lambda url: io.BytesIO(ZIP) if url == "http://127.0.0.1:8600/v1/files/x" else None)
    fetch("http://127.0.0.1:8600/v1/files/x", place, own)
    assert place.read_bytes() == ZIP
    place.unlink()
    assert "larger than" in failure(place, "http://127.0.0.1:8600/v1/files/x", replace(own, max_bytes=100))
    failure(place, "http://127.0.0.1:8600/v1/files/y", own, ForbiddenAddress)


def test_two_who_fetch_to_the_same_place_do_not_disturb_each_other(place: Path) -> None:
    """A service that stops may be at it while the one that goes on with its job is."""
    url = "http://127.0.0.1:8600/v1/files/x"

    def meanwhile(_url: str) -> io.BytesIO:
        fetch(url, place, FetchRules(own_content=lambda _url: io.BytesIO(ZIP)))
        return io.BytesIO(ZIP)

    fetch(url, place, FetchRules(own_content=meanwhile))
    assert place.read_bytes() == ZIP and list(place.parent.iterdir()) == [place]


def test_what_may_be_any_file_is_taken_as_it_is(place: Path) -> None:
    fetch("data:image/png;base64,iVBORw==", place, FetchRules(is_archive=False))
    assert place.read_bytes() == b"\x89PNG"
    place.unlink()
    assert "no zip archive" in failure(place, "data:image/png;base64,iVBORw==", FetchRules())


def test_what_may_be_any_file_is_something(place: Path) -> None:
    assert failure(place, "data:,", FetchRules(is_archive=False)) == "the URL gives no file: there is nothing behind it"
