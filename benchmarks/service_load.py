"""What the service bears while a job trains: status reads, a long queue, and many who follow a log.

    python benchmarks/service_load.py --output /tmp/service_load

The service is a process of its own with the embedded base. A read's time counts from when it was due, 200 times a second whether or not
the one before was answered, so that a service that stands still is not measured by one read. Exit code 1 where a limit is exceeded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent
QUEUED, FOLLOWERS = 1000, 100
READS_A_SECOND, READING_SECONDS, CONNECTIONS = 200, 30, 50
MOST_P99_MS = 100.0
LIMITS = {"queued_jobs_per_project": 2 * QUEUED, "creates_per_minute": 10**6, "calls_per_minute": 10**6}  # those of usual clients
ENDLESS = {"instance_prompt": "a photo of sls frog", "class_prompt": "a photo of a frog", "with_prior_preservation": False,
           "max_train_steps": 10_000, "resolution": 64, "learning_rate": 1e-6, "n_save_sample": 0}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="an empty folder, or one that is to be made")
    parser.add_argument("--queued", type=int, default=QUEUED)
    parser.add_argument("--seconds", type=float, default=READING_SECONDS, help="how long statuses are read")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    with (
        running_service(options.output / "data") as (url, key, process),
        httpx.Client(base_url=url, headers={"Authorization": key}, timeout=60) as client,
    ):
        pictures = upload(client, options.output / "frog.zip")
        training = create(client, pictures)
        wait_until_it_trains(client, training)
        began = time.perf_counter()
        jobs = [create(client, pictures) for _ in range(options.queued)]
        figures["queued"] = {"jobs": len(jobs), "created_a_second": round(len(jobs) / (time.perf_counter() - began), 1)}
        statuses = [f"/v1/trainings/{job}" for job in (training, *jobs)]
        before = busy(process)
        figures["reads"] = asyncio.run(read_steadily(url, key, statuses, options.seconds))
        figures["reads"]["processor_ms_a_read"] = round(1000 * (busy(process) - before) / figures["reads"]["reads"], 2)
        figures["reads_beside_followers"] = asyncio.run(read_and_follow(url, key, training, statuses, options.seconds))
        began = time.perf_counter()
        for job in (*jobs, training):
            client.post(f"/v1/jobs/{job}/cancel").raise_for_status()
        figures["queued"]["canceled_a_second"] = round(len(statuses) / (time.perf_counter() - began), 1)
        wait_until_over(client, training)
    print(json.dumps(figures, indent=2))
    (options.output / "service_load.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    missed = [name for name in ("reads", "reads_beside_followers") if figures[name]["p99_ms"] > MOST_P99_MS or figures[name]["errors"]]
    missed += ["followers"] * (figures["reads_beside_followers"]["followers_that_saw_every_line"] != FOLLOWERS)
    for name in missed:
        print(f"MISSED: {name}", file=sys.stderr)
    return int(bool(missed))


@contextmanager
def running_service(data: Path) -> Iterator[tuple[str, str, psutil.Process]]:
    """Its address, its first key, its process."""
    data.mkdir(parents=True)
    models = f'[models."runwayml/stable-diffusion-v1-5"]\npath = {json.dumps(str(ROOT / "assets" / "base"))}\n'
    (data / "models.toml").write_text(models, encoding="utf-8")
    command = [sys.executable, "-m", "service.serve", "--data_dir", str(data), "--port", "0"]
    command += [word for name, value in LIMITS.items() for word in (f"--{name}", str(value))]
    with (data.parent / "service.log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            while "startup complete" not in (text := Path(log.name).read_text(encoding="utf-8")):
                if process.poll() is not None:
                    sys.exit(text)
                time.sleep(0.2)
            url, key = (re.findall(pattern, text)[0] for pattern in (r"http://127\.0\.0\.1:\d+", r"tadpole_[a-z0-9]+_\w+"))
            yield url, key, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(60)


def busy(process: psutil.Process) -> float:
    """Seconds of the processor that it has taken."""
    return sum(process.cpu_times()[:2])


def upload(client: httpx.Client, archive: Path) -> str:
    """The address of a zip with the pictures of the embedded frog."""
    with zipfile.ZipFile(archive, "w") as file:
        for picture in sorted((ROOT / "assets" / "frog").glob("*/*.png")):
            file.write(picture, picture.name)
    places = client.post("/v1/upload/frog.zip").raise_for_status().json()
    httpx.put(places["upload_url"], content=archive.read_bytes(), timeout=60).raise_for_status()
    return str(places["serving_url"])


def create(client: httpx.Client, pictures: str) -> str:
    body = {"input": {**ENDLESS, "instance_data": pictures}, "model": "default/frog"}
    answer = client.post("/v1/trainings", json=body)
    if answer.status_code != 201:
        sys.exit(answer.text)
    return str(answer.json()["id"])


def wait_until_it_trains(client: httpx.Client, job: str) -> None:
    while not (found := client.get(f"/v1/jobs/{job}").raise_for_status().json())["progress"].get("step"):
        if found["completed_at"]:
            sys.exit(f"the training has ended: {found['error']}")
        time.sleep(0.5)


def wait_until_over(client: httpx.Client, job: str) -> None:
    while not client.get(f"/v1/jobs/{job}").raise_for_status().json()["completed_at"]:
        time.sleep(0.5)


class Connection:
    """GET requests over one kept connection: a client that costs less than what it measures."""

    def __init__(self, url: str, key: str):
        self._host, self._port = urlsplit(url).hostname, urlsplit(url).port
        self._headers = f"Host: {self._host}:{self._port}\r\nAuthorization: {key}\r\n\r\n"

    async def open(self) -> None:
        self.reader, self._writer = await asyncio.open_connection(self._host, self._port)

    async def ask(self, path: str) -> tuple[int, dict[str, str]]:
        """Status and headers; the body is still to be read."""
        self._writer.write(f"GET {path} HTTP/1.1\r\n{self._headers}".encode())
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        return int(status.split()[1]), {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    async def get(self, path: str) -> int:
        status, headers = await self.ask(path)
        await self.reader.readexactly(int(headers["content-length"]))
        return status

    def close(self) -> None:
        self._writer.close()


async def read_steadily(url: str, key: str, paths: list[str], seconds: float) -> dict[str, float]:
    """Milliseconds of reads that are due at a fixed rate, each from when it was due to its last byte."""
    connections = [Connection(url, key) for _ in range(CONNECTIONS)]
    for connection in connections:
        await connection.open()
    due: asyncio.Queue[tuple[float, str] | None] = asyncio.Queue()
    taken: list[float] = []
    errors = 0

    async def work(connection: Connection) -> None:
        nonlocal errors
        while (read := await due.get()) is not None:
            errors += await connection.get(read[1]) != 200
            taken.append(time.perf_counter() - read[0])

    workers = [asyncio.create_task(work(connection)) for connection in connections]
    start = time.perf_counter()
    for number in range(round(seconds * READS_A_SECOND)):
        when = start + number / READS_A_SECOND
        await asyncio.sleep(max(0.0, when - time.perf_counter()))
        due.put_nowait((when, paths[number * 7919 % len(paths)]))  # all over the queue
    for _ in workers:
        due.put_nowait(None)
    await asyncio.gather(*workers)
    for connection in connections:
        connection.close()
    percentiles = statistics.quantiles(taken, n=100)
    return {
        "reads": len(taken),
        "a_second": round(len(taken) / (time.perf_counter() - start), 1),
        "errors": errors,
        "median_ms": round(1000 * percentiles[49], 1),
        "p99_ms": round(1000 * percentiles[98], 1),
        "most_ms": round(1000 * max(taken), 1),
    }


async def read_and_follow(url: str, key: str, training: str, paths: list[str], seconds: float) -> dict[str, float]:
    """The same while many follow the log of the training from its first line on."""
    seen: list[list[bytes]] = [[] for _ in range(FOLLOWERS)]

    async def begin() -> Connection:
        connection = Connection(url, key)
        await connection.open()
        status, _ = await connection.ask(f"/v1/jobs/{training}/logs/stream")
        assert status == 200
        return connection

    async def follow(connection: Connection, lines: list[bytes]) -> None:
        try:
            while line := await connection.reader.readline():
                if line.startswith(b"data: "):
                    lines.append(line)
        finally:
            connection.close()

    connections = await asyncio.gather(*(begin() for _ in seen))
    following = [asyncio.create_task(follow(connection, lines)) for connection, lines in zip(connections, seen, strict=True)]
    figures = await read_steadily(url, key, paths, seconds)
    reached = max(map(len, seen))
    await asyncio.sleep(3)  # what the others are to catch up with
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    whole = seen[0][:reached]
    return {**figures, "lines": reached, "followers_that_saw_every_line": sum(lines[:reached] == whole for lines in seen)}


if __name__ == "__main__":
    sys.exit(main())
