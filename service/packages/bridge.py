"""Runs a package's server and stands in front of it: `python -I -S bridge.py ADDRESS IDLE_SECONDS`, in the package's folder.

The server may sit in a sandbox without a network: ADDRESS is the path of a socket that both sides see (HOST:PORT where the system has
no such sockets). It ends with the server, and when nobody has asked anything for so long. Standard library only.
"""
from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

BLOCK_BYTES = 1 << 16
TICK_SECONDS = 0.5
END_SECONDS = 10.0  # that the server gets to end by itself
PREDICTOR = "predict.py:Predictor"
LOOPBACK = "127.0.0.1"


class Bridge:
    """Forwards connections to a port of the loopback, and knows how long it has had none."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open = 0
        self._last = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        return 0.0 if self._open else time.monotonic() - self._last

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. While the server is not there yet, it is closed at once: ask again."""
        self._open += 1
        try:
            there = await asyncio.open_connection(LOOPBACK, self._port)
            await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))
        except OSError:
            pass
        finally:
            self._open -= 1
            self._last = time.monotonic()
            writer.close()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side has nothing more to say."""
    with contextlib.suppress(OSError):
        while block := await reader.read(BLOCK_BYTES):
            writer.write(block)
            await writer.drain()
    writer.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def environment(port: int) -> dict[str, str]:
    """What cog's server reads: newer ones have no cog.yaml, and start `python` from the PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    own = {"PORT": str(port), "PATH": path, "COG_PREDICT_TYPE_STUB": PREDICTOR, "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **own}


async def run(address: str, idle_seconds: float) -> int:
    """The exit code of the server; 0 where it was idle."""
    port = free_port()
    bridge = Bridge(port)
    command = [sys.executable, "-m", "cog.server.http", "--host", LOOPBACK]
    server = await asyncio.create_subprocess_exec(*command, env=environment(port))
    if hasattr(signal, "SIGTERM") and os.name != "nt":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.terminate)
    listening = await listen(bridge, address)
    while server.returncode is None:
        if bridge.idle_seconds > idle_seconds:
            print("nobody has asked for a picture for a while: the package is put away", flush=True)
            await end(server)
            break
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(server.wait(), TICK_SECONDS)
    was_idle = listening.is_serving() and bridge.idle_seconds > idle_seconds
    listening.close()
    return 0 if was_idle else int(server.returncode or 0)


async def listen(bridge: Bridge, address: str) -> asyncio.AbstractServer:
    if hasattr(asyncio, "start_unix_server") and os.name != "nt":
        return await asyncio.start_unix_server(bridge.forward, address)
    host, _, port = address.rpartition(":")
    return await asyncio.start_server(bridge.forward, host, int(port))


async def end(server: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        server.terminate()
        try:
            await asyncio.wait_for(server.wait(), END_SECONDS)
        except asyncio.TimeoutError:
            server.kill()
            await server.wait()


def main(arguments: Sequence[str]) -> int:
    return asyncio.run(run(arguments[0], float(arguments[1])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
