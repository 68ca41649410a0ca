"""A training as it goes on: server-sent events with the parts of its page that have changed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import anyio
from anyio.to_thread import run_sync
from markupsafe import escape

from service.database.tables import Job
from service.jobs.routes import log_of
from service.jobs.states import FINAL
from service.log_feed import KEEP_ALIVE_SECONDS
from service.logs import READ_AT_ONCE
from service.page.loss import LossFollower, as_columns, thinned
from service.page.rendering import to_html, without_ages
from service.page.sessions import Visit
from service.page.training_facts import facts_of, gallery_of
from service.services import Services
from service.training.job_folder import JobFolder

POLL_SECONDS = 1.0
# What is pressed or has the focus is lost when its part is replaced. So STATUS and DELIVERIES, which have buttons, come when these change:
# FIGURES, which change each second, stand beside them, and AGES ("3 min ago") are words that a script puts in.
SAY, STATUS, FIGURES, REMARKS, SAMPLES, FILES, DELIVERIES = "say", "status", "figures", "remarks", "samples", "files", "deliveries"
AGES, LOSS, LOG, END = "ages", "loss", "log", "end"


class LiveTraining:
    """What somebody who looks at a training has seen, and what is new. Each event has as its id where to go on after a break."""

    def __init__(self, services: Services, token: str, job_id: str, log_offset: int, after_step: int):
        self._services, self._token, self._job_id = services, token, job_id
        self._log_offset, self._step = log_offset, after_step
        self._loss: LossFollower | None = None
        self._sent: dict[str, str] = {}  # parts by event, as they were sent last, apart from ages
        self.is_over = False

    def look(self) -> list[str]:
        """The events since the last call; `is_over` afterwards: there will be no more."""
        visit = self._services.sessions.find(self._token)  # signed out, or the key revoked: nothing more is told
        job = visit and self._services.board.find(visit.caller.project_id, self._job_id)
        if not visit or not job:
            self.is_over = True
            return [self._event(END, "")]
        has_ended = job.state in FINAL  # asked before the rest is read: what is written before the end is sent
        events = self._new_log(has_ended) + self._new_loss()
        for name, (still, shown) in self._parts(visit, job).items():
            if self._sent.get(name) != still:
                self._sent[name] = still
                events.append(self._event(name, shown))
        if has_ended and self._log_offset >= log_of(self._services, self._job_id).size():
            self.is_over = True
            events.append(self._event(END, ""))
        return events

    def _parts(self, visit: Visit, job: Job) -> dict[str, tuple[str, str]]:
        """By event: what has to change for the part to be sent again, and the part."""
        facts = facts_of(self._services, visit, job)
        shown = {
            SAY: str(escape(facts.spoken)),
            STATUS: to_html("parts/status.html.jinja", visit, facts=facts),
            FIGURES: to_html("parts/figures.html.jinja", visit, facts=facts),
            REMARKS: to_html("parts/remarks.html.jinja", visit, facts=facts),
            SAMPLES: to_html("parts/samples.html.jinja", visit, job=job, gallery=gallery_of(self._services, job)),
            FILES: to_html("parts/files.html.jinja", visit, job=job),
        }
        if job.webhook:
            deliveries = self._services.deliveries.listed(job.project_id, job.id)
            shown[DELIVERIES] = to_html("parts/deliveries.html.jinja", visit, job=job, deliveries=deliveries)
        parts: dict[str, tuple[str, str]] = {}
        ages: dict[str, str] = {}
        for name, html in shown.items():
            still, found = without_ages(html)
            parts[name] = still, html
            ages |= found
        told = json.dumps(ages)
        return parts | {AGES: (told, told)}

    def _new_log(self, to_the_end: bool) -> list[str]:
        part = log_of(self._services, self._job_id).read(self._log_offset, READ_AT_ONCE, to_the_end)
        if part.next_offset == self._log_offset:
            return []
        self._log_offset = part.next_offset
        lines = part.text.removesuffix("\n").split("\n")
        return [self._event(LOG, "".join(f"<span>{escape(line)}\n</span>" for line in lines))]

    def _new_loss(self) -> list[str]:
        if self._loss is None:
            self._loss = LossFollower(JobFolder(self._services.settings.jobs_dir / self._job_id), self._step)
        points = self._loss.read()
        if not points:
            return []
        self._step = points[-1].step
        return [self._event(LOSS, json.dumps(as_columns(thinned(points))))]

    def _event(self, name: str, data: str) -> str:
        lines = "".join(f"data: {line}\n" for line in data.replace("\r", " ").split("\n"))
        return f"event: {name}\nid: {self._log_offset}-{self._step}\n{lines}\n"


def place_after(last_event_id: str, log_offset: int, after_step: int) -> tuple[int, int]:
    """Where to go on: by the id of the last event that came through, or by the address."""
    offset, _, step = last_event_id.partition("-")
    if offset.isdecimal() and step.isdecimal() and len(last_event_id) < 32:
        return int(offset), int(step)
    return log_offset, after_step


async def follow_training(live: LiveTraining, poll_seconds: float = POLL_SECONDS) -> AsyncIterator[str]:
    silent_seconds = 0.0
    while True:
        events = await run_sync(live.look)
        for event in events:
            yield event
        if live.is_over:
            return
        silent_seconds = 0.0 if events else silent_seconds + poll_seconds
        if silent_seconds >= KEEP_ALIVE_SECONDS:
            silent_seconds = 0.0
            yield ": still here\n\n"
        await anyio.sleep(poll_seconds)
