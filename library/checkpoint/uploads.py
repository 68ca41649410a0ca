"""Uploads of saved files, one after the other, from a thread of its own. A failure is reported, never fatal."""
from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from library.checkpoint.hub import Hub, is_final
from library.errors import UserError

if TYPE_CHECKING:
    from library.config.options import HubOptions

log = logging.getLogger(__name__)
PAUSES = (2.0, 10.0, 60.0)  # seconds before the second, third and fourth try
GLANCE = 0.2  # seconds between two looks at whether somebody asked to stop


class Report(Protocol):
    """Receives events: `uploaded`, `upload_retry`, `upload_failed`."""

    def __call__(self, event: str, **facts: Any) -> None: ...


class Uploads:
    """A queue of files for the hub. Who asked to stop waits for one try of each file, not for the next ones."""

    def __init__(self, hub: Hub, report: Report, wants_stop: Callable[[], bool], with_states: bool, in_background: bool):
        self.hub, self.with_states, self.in_background = hub, with_states, in_background
        self.pauses: Sequence[float] = PAUSES
        self._report, self._wants_stop = report, wants_stop
        self._changed = threading.Condition()  # guards the two lines below
        self._queue: deque[Path] = deque()  # the first one is being sent
        self._failed: dict[Path, None] = {}
        self._thread: threading.Thread | None = None

    def add(self, path: Path) -> None:
        """Send a file or folder that is complete."""
        with self._changed:
            self._failed.pop(path, None)
            self._queue.append(path)
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
            self._thread.start()

    def needs(self, path: Path) -> bool:
        """Whether the hub does not have it yet, so that it must stay here."""
        with self._changed:
            return path in self._queue or path in self._failed

    def wait(self) -> None:
        """Until everything is sent or has failed."""
        with self._changed:
            while self._queue:
                self._changed.wait(GLANCE)  # a wait with an end lets signals through on every system

    def finish(self) -> None:
        """Wait, and say what to do about the files that failed."""
        with self._changed:
            waiting = len(self._queue)
        if waiting:
            log.info("waiting for %d uploads", waiting)
        self.wait()
        for path in self._failed:
            log.warning("not on the hub: %s; once it can be reached: %s", path, self.hub.command(path))

    def _work(self) -> None:
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()  # they would tear the run's own apart
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                path = self._queue[0]
            succeeded = self._send(path)
            with self._changed:
                if not succeeded:
                    self._failed[path] = None
                self._queue.popleft()
                self._changed.notify_all()

    def _send(self, path: Path) -> bool:
        """Try a few times."""
        started = time.monotonic()
        for pause in (*self.pauses, None):
            try:
                self.hub.send(path)
            except Exception as error:  # the hub's own errors, those of the network and of the disk: the training is worth more
                reason = self.hub.reason(error)
                if pause is None or is_final(error) or self._wants_stop() or not path.exists():
                    self._report("upload_failed", path=str(path), reason=reason)
                    return False
                self._report("upload_retry", path=str(path), reason=reason, pause=pause)
                self._rest(pause)
            else:
                seconds = round(time.monotonic() - started, 1)
                self._report("uploaded", path=str(path), repo=self.hub.repo_id, place=self.hub.place(path), seconds=seconds)
                return True
        raise AssertionError("the last try either succeeds or fails")

    def _rest(self, seconds: float) -> None:
        """A pause that ends when somebody asks to stop."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._wants_stop():
            time.sleep(min(GLANCE, seconds))


def start_uploads(options: HubOptions, report: Report, wants_stop: Callable[[], bool]) -> Uploads | None:
    """The uploads that the options ask for. A token or a name that the hub refuses is told now; a hub that is away may come back."""
    if not options.huggingface_repo_id:
        return None
    hub = Hub(options)
    try:
        hub.open()
    except Exception as error:
        if is_final(error):
            advice = "give a token that may write there (--huggingface_token, HF_TOKEN, `hf auth login`), or another repository"
            raise UserError(f"huggingface_repo_id {hub.repo_id}: the hub refuses: {hub.reason(error)}; {advice}") from error
        log.warning("the hub cannot be reached yet (%s): the training begins, each upload tries again", hub.reason(error))
    return Uploads(hub, report, wants_stop, options.save_state_to_huggingface, options.async_upload)
