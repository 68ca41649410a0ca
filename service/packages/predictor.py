"""Runs packages: one at a time, kept warm for the next prediction, ended when nobody asks; in a sandbox as jobs are."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from service.executors.base import Executor, Limits, Spec
from service.identifiers import new_id
from service.packages.bridge import LOOPBACK, free_port

BRIDGE = Path(__file__).with_name("bridge.py")
ASK_SECONDS = 0.2
TELL_BYTES = 2000  # of the end of a log, where a package fails to start
END_GRACE_SECONDS = 5.0
STAGE = "prediction"
READY = "READY"


class PredictorFailed(Exception):
    """The package could not be run: one line for the client."""


class NotWanted(Exception):
    """The prediction was canceled."""


@dataclass(frozen=True)
class Runnable:
    """A package, and what it reads besides itself."""

    version_id: str
    folder: Path
    base: Path | None = None  # of a LoRA


@dataclass(frozen=True)
class Answer:
    """What a package answered. status: succeeded, failed, canceled."""

    status: str
    output: list[str]  # data: URIs
    logs: str
    error: str | None


@dataclass(frozen=True)
class PredictorRules:
    """How packages are run."""

    python: Path  # of the environment that has cog
    idle_seconds: float = 300.0
    start_seconds: float = 300.0
    prediction_seconds: float = 600.0
    device: str | None = None
    limits: Limits = Limits(seconds=30 * 24 * 3600.0)


@dataclass(frozen=True)
class _Running:
    """The package that is warm."""

    version_id: str
    handle: str
    folder: Path
    log: Path
    client: httpx.Client


class Predictor:
    """`predict` may be called from several threads: one after the other has its turn."""

    def __init__(self, executor: Executor, rules: PredictorRules):
        self._executor, self._rules = executor, rules
        self._turn = threading.Lock()
        self._running: _Running | None = None

    def predict(
        self, package: Runnable, prediction_id: str, inputs: Mapping[str, Any], is_wanted: Callable[[], bool] = lambda: True
    ) -> Answer:
        """What the package answers. Raises PredictorFailed, or NotWanted as soon as `is_wanted` says no."""
        with self._turn:
            running = self._warm(package, is_wanted)
            return self._ask(running, prediction_id, inputs, is_wanted)

    def stop(self) -> str:
        """End what is warm; a prediction that runs fails. What it said last."""
        running, self._running = self._running, None
        if running is None:
            return ""
        self._executor.cancel(running.handle, END_GRACE_SECONDS)
        self._wait_for_its_end(running, 3 * END_GRACE_SECONDS)  # two models at once may be more than the memory holds
        running.client.close()
        told = _last_line(running.log)
        shutil.rmtree(running.folder, ignore_errors=True)
        return told

    def _wait_for_its_end(self, running: _Running, most_seconds: float) -> None:
        deadline = time.monotonic() + most_seconds
        while self._executor.status(running.handle).state in ("waiting", "running") and time.monotonic() < deadline:
            time.sleep(ASK_SECONDS)

    # --- the server ---

    def _warm(self, package: Runnable, is_wanted: Callable[[], bool]) -> _Running:
        running = self._running
        if running is not None and running.version_id == package.version_id and self._health(running) == READY:
            return running
        self.stop()
        if not package.folder.is_dir():
            raise PredictorFailed("the package of this version is gone from the disk")
        self._running = running = self._start(package)
        deadline = time.monotonic() + self._rules.start_seconds
        while self._health(running) != READY:
            status = self._executor.status(running.handle)
            if status.state in ("ended", "lost") or time.monotonic() > deadline:
                reason = status.reason or f"it was not ready after {self._rules.start_seconds:g} seconds"
                told = _last_line(running.log)
                self.stop()
                raise PredictorFailed(f"the package could not be started: {told or reason}")
            if not is_wanted():
                raise NotWanted
            time.sleep(ASK_SECONDS)
        return running

    def _start(self, package: Runnable) -> _Running:
        """The socket's path has to be short, so its folder is none of the service's."""
        folder = Path(tempfile.mkdtemp(prefix="tadpole-"))
        is_windows = os.name == "nt"
        address = f"{LOOPBACK}:{free_port()}" if is_windows else str(folder / "socket")
        argv = (str(self._rules.python), "-I", "-S", str(BRIDGE), address, str(self._rules.idle_seconds))
        environment = {"BASE_MODEL_PATH": str(package.base)} if package.base else {}
        readable = tuple(path for path in (package.folder, package.base) if path is not None)
        log = folder / "log"
        spec = Spec(
            job_id=new_id(), stage=STAGE, argv=argv, cwd=package.folder, environment=environment, log=log, folder=folder,
            device=self._rules.device, limits=self._rules.limits, readable=readable,
        )  # fmt: skip
        # No connection is kept: an open one would count as somebody who asks.
        limits = httpx.Limits(max_keepalive_connections=0)
        transport = httpx.HTTPTransport(uds=None if is_windows else address, limits=limits)
        url = f"http://{address}" if is_windows else "http://package"
        client = httpx.Client(transport=transport, base_url=url, timeout=httpx.Timeout(10.0, read=None))
        return _Running(package.version_id, self._executor.submit(spec), folder, log, client)

    def _health(self, running: _Running) -> str:
        """As cog says it; empty: nobody answers."""
        try:
            return str(running.client.get("/health-check", timeout=5.0).json()["status"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return ""

    # --- one prediction ---

    def _ask(self, running: _Running, prediction_id: str, inputs: Mapping[str, Any], is_wanted: Callable[[], bool]) -> Answer:
        """The question waits in a thread of its own; meanwhile this one sees whether it is wanted, and not too slow."""
        found: list[Answer | BaseException] = []

        def question() -> None:
            try:
                found.append(_answer(running.client.put(f"/predictions/{prediction_id}", json={"input": dict(inputs)})))
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=question, name=f"prediction-{prediction_id}", daemon=True)
        thread.start()
        deadline = time.monotonic() + self._rules.prediction_seconds
        end_by, reason = float("inf"), ""
        while thread.is_alive():
            thread.join(ASK_SECONDS)
            now = time.monotonic()
            if thread.is_alive() and not reason and (not is_wanted() or now > deadline):
                reason = "canceled" if now <= deadline else f"it took longer than {self._rules.prediction_seconds:g} seconds"
                end_by = now + END_GRACE_SECONDS
                self._cancel(running, prediction_id)
            if thread.is_alive() and now > end_by:
                self.stop()  # it does not listen
                break
        if reason == "canceled":
            raise NotWanted
        if reason:
            raise PredictorFailed(reason)
        answer = found[0]
        if isinstance(answer, Answer):
            return answer
        if not isinstance(answer, httpx.HTTPError):
            self.stop()
            raise answer
        self._wait_for_its_end(running, END_GRACE_SECONDS)  # by itself, so that what it says last is the reason
        told = self.stop()
        raise PredictorFailed(f"the package ended while it drew: {told or type(answer).__name__}") from None

    def _cancel(self, running: _Running, prediction_id: str) -> None:
        with suppress(httpx.HTTPError):  # then it is ended by force
            running.client.post(f"/predictions/{prediction_id}/cancel", timeout=5.0)


def _answer(response: httpx.Response) -> Answer:
    """cog's answer; what it does not take is the client's mistake, in its words."""
    try:
        content = response.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return Answer("failed", [], "", f"the package answered {response.status_code} and no JSON")
    if response.status_code == 422:
        return Answer("failed", [], "", _refusal(content.get("detail")))
    output = content.get("output")
    pictures = [output] if isinstance(output, str) else [text for text in output or [] if isinstance(text, str)]
    status = content.get("status") if content.get("status") in ("succeeded", "canceled") else "failed"
    error = content.get("error") or (None if status != "failed" else f"the package answered {response.status_code}")
    return Answer(str(status), pictures, str(content.get("logs") or ""), None if error is None else str(error))


def _refusal(detail: object) -> str:
    """FastAPI's list of what is wrong, in one line."""
    found = detail if isinstance(detail, list) else []
    told = [f"{'.'.join(map(str, entry['loc'][2:]))}: {entry['msg']}" for entry in found if isinstance(entry, dict) and "loc" in entry]
    return "; ".join(told) or "the package does not take these inputs"


def _last_line(log: Path) -> str:
    """What a program says before it ends."""
    try:
        text = log.read_bytes()[-TELL_BYTES:].decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("{")]
    return lines[-1][:500] if lines else ""
