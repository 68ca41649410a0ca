"""A server on 127.0.0.1 that does what a test tells it to: answers, lies, stalls, breaks off."""
from __future__ import annotations

import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Of a host that exists in the tests only, signed by itself, valid until 2120.
KEY = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg8RlyhMgg5GaYsS9e
G8pPyhouOjL+/7Fu+aNFtEDJ2MqhRANCAASsJvh4O+tP2jkp8RscqD0iHndvPFey
dczlG9lyKrIbquAMwj1vxt1EgvZCswdVJVA8tmmvymQDoDUknm6oWO2C
-----END PRIVATE KEY-----
"""
CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIBbTCCAROgAwIBAgIBATAKBggqhkjOPQQDAjAYMRYwFAYDVQQDDA1waWN0dXJl
cy50ZXN0MCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjAYMRYwFAYD
VQQDDA1waWN0dXJlcy50ZXN0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAErCb4
eDvrT9o5KfEbHKg9Ih53bzxXsnXM5RvZciqyG6rgDMI9b8bdRIL2QrMHVSVQPLZp
r8pkA6A1JJ5uqFjtgqNMMEowDwYDVR0TAQH/BAUwAwEB/zAYBgNVHREEETAPgg1w
aWN0dXJlcy50ZXN0MB0GA1UdDgQWBBSo660SVp4G1+ouIndaTPD3KkGkUTAKBggq
hkjOPQQDAgNIADBFAiEAtRjgCjii8bGSMl/mkG/xvOb9/+8GSDBnf7LWO1KlNcUC
IEi39PLHzJ1gOeh/P8yoA7Efh/lpv/HY7/26k8F/ceN3
-----END CERTIFICATE-----
"""
CERTIFIED_HOST = "pictures.test"

Behaviour = Callable[[socket.socket, "ScriptedServer"], None]


class ScriptedServer:
    """Connection n behaves as behaviours[n] says, those after the last as the last. `requests` are the heads that came."""

    def __init__(self, behaviours: tuple[Behaviour, ...], tls: bool):
        self._behaviours, self._tls = behaviours, tls_context(self) if tls else None
        self.requests: list[str] = []
        self.names: list[str | None] = []  # that TLS clients asked for
        self.over = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            behaviour = self._behaviours[min(len(self._threads), len(self._behaviours)) - 1]
            self._threads.append(threading.Thread(target=self._serve, args=(connection, behaviour), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket, behaviour: Behaviour) -> None:
        with suppress(OSError), connection:  # the client left
            connection.settimeout(20)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            head = b""
            while b"\r\n\r\n" not in head:
                block = connection.recv(65536)
                if not block:
                    return
                head += block
            self.requests.append(head.decode("latin-1"))
            behaviour(connection, self)

    def close(self) -> None:
        self.over.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(20)


def tls_context(server: ScriptedServer) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "both.pem"
        path.write_text(KEY + CERTIFICATE, encoding="ascii")
        context.load_cert_chain(path)
    context.sni_callback = lambda connection, name, context: server.names.append(name)
    return context


@contextmanager
def serving(*behaviours: Behaviour, tls: bool = False) -> Iterator[ScriptedServer]:
    server = ScriptedServer(behaviours, tls)
    try:
        yield server
    finally:
        server.close()


def answer(body: bytes = b"", status: str = "200 OK", length: int | None = None, **headers: str) -> Behaviour:
    """A whole answer, then the end of the connection. length: what Content-Length says instead of the truth; -1: there is none."""

    def behave(connection: socket.socket, server: ScriptedServer) -> None:
        told = len(body) if length is None else length
        lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()), "Connection: close"]
        lines += [f"Content-Length: {told}"] if told >= 0 else []
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    return behave


def stalling(first: bytes = b"") -> Behaviour:
    """Some bytes, then nothing until the test is over."""

    def behave(connection: socket.socket, server: ScriptedServer) -> None:
        connection.sendall(first)
        server.over.wait(20)

    return behave


def dripping(first: bytes, drop: bytes) -> Behaviour:
    """Some bytes, then a few more again and again until the test is over."""

    def behave(connection: socket.socket, server: ScriptedServer) -> None:
        connection.sendall(first)
        while not server.over.wait(0.01):
            connection.sendall(drop)

    return behave
