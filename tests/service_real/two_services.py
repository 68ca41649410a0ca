"""Two services on one PostgreSQL and one data folder, behind one public address: what an operator runs who wants one to be left."""
from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from service.webhooks.sender import LEASE_SECONDS
from tests.service_real.postgresql_server import Server
from tests.service_real.real_service import RealService, Receiver, archive_of_pictures, wait_for
from tests.service_real.small_trainer import TRAINER, SmallTrainer

PUBLIC = "https://train.example.org"  # what would share out requests; here, each test says which service gets one
EVENTS = ("start", "output", "completed")


class Pair:
    """`services` live; one that is killed is replaced by `begin_again`."""

    def __init__(self, folder: Path, server: Server, receiver: Receiver) -> None:
        self.folder, self.server, self.receiver, self.begun = folder, server, receiver, 1
        self.trainer = SmallTrainer(folder / "trainers")
        first = RealService(
            folder / "1", database_url=server.url, public_url=PUBLIC, trainers=str(folder / "trainers"), running_jobs=2,
            allow_http=True, allow_private_nets=["127.0.0.0/8"], allow_ports=[str(receiver.port)], queued_jobs_per_project=100,
        )  # fmt: skip
        self.services = [first]
        try:
            self.begin_again()
            made = first.post("/v1/models", {"owner": "default", "name": "frog"})
            assert made.status_code == 201, made.text
            self.pictures = self._upload(archive_of_pictures(folder))
        except BaseException:
            self.close()
            raise

    def begin_again(self) -> None:
        """One more, beside the one that lives."""
        self.begun += 1
        self.services.append(RealService(self.folder / str(self.begun), beside=self.services[0]))

    def close(self) -> None:
        for service in reversed(self.services):
            service.close()

    def _upload(self, archive: Path) -> str:
        """Asked for at one, sent to the other: the address under which jobs name it."""
        first, second = self.services
        given = first.post("/v1/upload/frog.zip", {}).json()
        sent = httpx.put(second.url + urlsplit(given["upload_url"]).path, content=archive.read_bytes(), timeout=60)
        assert sent.status_code == 200, sent.text
        return str(given["serving_url"])

    def ask(self, service: RealService, name: str, kind: str = "quick", **headers: str) -> httpx.Response:
        """Ask for a training of this name, which tells of all its events."""
        body = {
            "destination": "default/frog", "input": {"name": name, "kind": kind, "instance_data": self.pictures},
            "webhook": self.receiver.url(f"/{name}"), "webhook_events_filter": EVENTS,
        }  # fmt: skip
        return service.post("/v1/models/{}/versions/{}/trainings".format(*TRAINER.split(":")), body, **headers)

    def job(self, service: RealService, name: str, kind: str = "quick") -> str:
        answer = self.ask(service, name, kind)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def drives(self, service: RealService, job_id: str) -> bool:
        """Whether this service drives this job, which is running."""
        owned = "SELECT owner FROM jobs WHERE id = %s AND owner IS NOT NULL"
        ((owner,),) = wait_for(lambda: self.server.rows(owned, job_id), 60, "an owner")
        return f":{service.process.pid}:" in owner

    def runs(self, name: str) -> list[int]:
        """When it has begun: the processes that have trained under this name."""
        return wait_for(lambda: self.trainer.runs(name), 60, f"{name} to train")

    def told(self, name: str) -> list[tuple[str, str]]:
        """What has come to the webhook of this training, in order: state and message, when all that there is has come."""
        unsent = "SELECT 1 FROM outbox WHERE url = %s AND next_attempt_at IS NOT NULL"
        url = self.receiver.url(f"/{name}")
        wait_for(lambda: not self.server.rows(unsent, url), 2 * LEASE_SECONDS, "webhooks to be sent")
        found = [each for each in self.receiver.deliveries if each.path == f"/{name}"]
        return [(json.loads(each.body)["status"], each.headers["webhook-id"]) for each in found]

    def ended_right(self, name: str, job_id: str) -> Any:
        """It succeeded, ran once, and each of its events was told once; the job, which both services show alike."""
        shown = [service.over(job_id) for service in self.services]
        assert shown[0] == shown[-1]
        assert (shown[0]["state"], shown[0]["restarts"], shown[0]["error"]) == ("succeeded", 0, None)
        assert len(self.runs(name)) == 1
        told = self.told(name)
        assert [status for status, _ in told] == ["processing", "succeeded", "succeeded"]
        assert len({message for _, message in told}) == len(EVENTS)
        return shown[0]


@contextmanager
def two_services(folder: Path, server: Server) -> Iterator[Pair]:
    receiver = Receiver()
    try:
        pair = Pair(folder, server, receiver)
        try:
            yield pair
        finally:
            pair.close()
    finally:
        receiver.close()
