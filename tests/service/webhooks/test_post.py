"""One attempt: what is sent, what is not followed, what is not waited for."""
from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import Any

import pytest

from service.intake.addresses import AddressRules
from service.webhooks import post as module
from service.webhooks.post import MOST_ANSWER_BYTES, post
from service.webhooks.sender import Answer

LOCAL = ip_network("127.0.0.0/8")


class Handler(BaseHTTPRequestHandler):
    seen: list[tuple[str, dict[str, str], bytes]] = []
    hold = threading.Event()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.seen.append((self.path, dict(self.headers), body))
        if self.path.startswith("/silent"):
            self.hold.wait(5)
            return
        status = int(self.path.split("/")[1].split("?")[0])
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/200")
        if status == 503:
            self.send_header("Retry-After", "7")
        if status == 200 and "endless" in self.path:
            self.end_headers()
            try:
                while not self.hold.is_set():
                    self.wfile.write(b"x" * MOST_ANSWER_BYTES)
            except OSError:
                return
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.seen, Handler.hold = [], threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Handler.hold.set()
    server.shutdown()
    server.server_close()


def rules(url: str, **changes: Any) -> AddressRules:
    values: dict[str, Any] = {"allow_http": True, "ports": (int(url.rsplit(":")[2].split("/")[0]),), "allow_private_nets": (LOCAL,)}
    return AddressRules(**{**values, **changes})


def test_the_body_and_the_query_arrive(server: str) -> None:
    answer = post(f"{server}/200?a=1&b=%20", '{"é": 1}', {"webhook-id": "x", "Content-Type": "application/json"}, rules(server))
    assert answer == Answer(200)
    path, headers, body = Handler.seen[0]
    assert (path, headers["webhook-id"], body.decode()) == ("/200?a=1&b=%20", "x", '{"é": 1}')


def test_redirects_are_not_followed(server: str) -> None:
    assert post(f"{server}/302", "{}", {}, rules(server)).status == 302
    assert len(Handler.seen) == 1


def test_patience_that_is_asked_for_is_told(server: str) -> None:
    assert post(f"{server}/503", "{}", {}, rules(server)) == Answer(503, retry_after="7")


def test_an_endless_answer_is_cut_off(server: str) -> None:
    assert post(f"{server}/200/endless", "{}", {}, rules(server)).status == 200


def test_who_says_nothing_is_not_waited_for(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOTAL_SECONDS", 0.2)
    assert post(f"{server}/silent", "{}", {}, rules(server)) == Answer(None, "no answer within 0.2 seconds")


def test_nobody_there(server: str) -> None:
    answer = post("http://127.0.0.1:1/", "{}", {}, rules("http://h:1/"))
    assert answer == Answer(None, "no answer: ConnectError")


def test_addresses_inside_are_not_asked(server: str) -> None:
    answer = post(f"{server}/200", "{}", {}, rules(server, allow_private_nets=()))
    assert answer.status is None
    assert "not of the public Internet" in str(answer.error)
    assert Handler.seen == []
