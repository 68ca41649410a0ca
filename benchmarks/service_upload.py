"""What an upload costs the service: bytes a second against those of the disk, and what its process holds in memory.

    python benchmarks/service_upload.py --output /tmp/upload

Sends 1 GB over loopback to the service's own storage in a process of its own, and writes as much to the same folder without it. The
memory is that of the whole process above what it held before; the processor time that of the process, sending not counted. Exit code 1
where a limit is exceeded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import uvicorn
from fastapi import FastAPI

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # to run as a script, without an installation

from service.storage.local import LocalStore
from service.storage.routes import UploadHooks, storage_router

ROOT = Path(__file__).resolve().parent.parent
BLOCK = os.urandom(1 << 20)
SECRET = bytes(32)
KEY = "jobs/benchmark/input.zip"
MOST_MORE_MEMORY = 32 << 20  # bytes above what the process held before
LEAST_OF_DISK = 0.5  # of the speed of a bare write with the same MD5; sender and receiver share the processor here


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.output)
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    figures = {
        "machine": platform.processor() or platform.machine(),
        "megabytes": options.megabytes,
        "disk_megabytes_per_second": round(options.megabytes / bare_write(options.output / "bare", options.megabytes), 1),
        **upload(options.output, options.megabytes),
    }
    print(json.dumps(figures, indent=2))
    (options.output / "service_upload.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    slow = figures["upload_megabytes_per_second"] < LEAST_OF_DISK * figures["disk_megabytes_per_second"]
    large = figures["more_memory_megabytes"] > MOST_MORE_MEMORY / 1e6
    for missed, name in ((slow, "slower than half the disk"), (large, "memory grows with the upload")):
        if missed:
            print(f"MISSED: {name}", file=sys.stderr)
    return int(slow or large)


def blocks(megabytes: int) -> Iterator[bytes]:
    return (BLOCK for _ in range(megabytes * 10**6 // len(BLOCK)))


def bare_write(path: Path, megabytes: int) -> float:
    """Seconds to write and flush as much, and to hash it, in a loop of a few lines."""
    start = time.perf_counter()
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("wb") as file:
        for block in blocks(megabytes):
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    path.unlink()
    return seconds


def upload(folder: Path, megabytes: int) -> dict[str, float]:
    """Figures of one upload to a fresh process."""
    command = [sys.executable, "-m", "benchmarks.service_upload", "--output", str(folder), "--serve"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            store = LocalStore(folder / "storage", address, SECRET)
            watched = psutil.Process(process.pid)
            wait_until_answered(store)
            before, busy_before = watched.memory_info().rss, sum(watched.cpu_times()[:2])
            peak = before

            def watching() -> Iterator[bytes]:
                nonlocal peak
                for number, block in enumerate(blocks(megabytes)):
                    if number % 16 == 0:
                        peak = max(peak, watched.memory_info().rss)
                    yield block

            length = str(megabytes * 10**6 // len(BLOCK) * len(BLOCK))
            start = time.perf_counter()
            url = store.put_url(KEY, max_bytes=2 * megabytes * 10**6)
            response = httpx.put(url, content=watching(), headers={"Content-Length": length}, timeout=600)
            seconds = time.perf_counter() - start
            response.raise_for_status()
            busy = sum(watched.cpu_times()[:2]) - busy_before
            store.delete(KEY)
        finally:
            process.terminate()
    return {
        "upload_megabytes_per_second": round(megabytes / seconds, 1),
        "processor_seconds": round(busy, 2),
        "memory_before_megabytes": round(before / 1e6, 1),
        "more_memory_megabytes": round((peak - before) / 1e6, 1),
    }


def wait_until_answered(store: LocalStore) -> None:
    """An upload of nothing: what is loaded at the first one counts as before."""
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.put(store.put_url(KEY, max_bytes=1), content=b"").raise_for_status()
            return
        except httpx.ConnectError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def serve(folder: Path) -> None:
    """The storage alone, at a free port that it prints."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = FastAPI()
        app.include_router(storage_router(LocalStore(folder / "storage", address, SECRET), UploadHooks()))
        print(address, flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off")).run([listener])


if __name__ == "__main__":
    sys.exit(main())
