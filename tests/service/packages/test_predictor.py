"""The predictor: a package is started, kept warm, replaced, and ended when nobody asks; what goes wrong is told."""
from __future__ import annotations

import base64
import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from service.executors.local import LocalExecutor
from service.packages import predictor as module
from service.packages.predictor import Answer, NotWanted, Predictor, PredictorFailed, PredictorRules, Runnable
from tests.service.executors.jobs import wait_for
from tests.service.packages.fake_packages import fake_package

RULES = PredictorRules(python=Path(sys.executable).absolute(), start_seconds=60, prediction_seconds=60)


@pytest.fixture
def predictor(tmp_path: Path) -> Iterator[Predictor]:
    predictor = Predictor(LocalExecutor(tmp_path / "runs", "auto", (tmp_path,)), RULES)
    yield predictor
    predictor.stop()


def package(tmp_path: Path, name: str = "one", **more: object) -> Runnable:
    return Runnable(name, fake_package(tmp_path / name, **more))  # type: ignore[arg-type]


def shown(answer: Answer) -> str:
    [picture] = answer.output
    return base64.b64decode(picture.partition(",")[2]).decode(errors="replace")


def test_what_is_warm_stays_and_another_takes_its_place(predictor: Predictor, tmp_path: Path) -> None:
    one, two = package(tmp_path), package(tmp_path, "two")
    first, second = (shown(predictor.predict(one, f"p{number}", {"prompt": "a frog"})) for number in range(2))
    assert first == second and "picture of a frog by" in first  # the same process
    assert shown(predictor.predict(two, "p3", {"prompt": "a frog"})) != first
    assert shown(predictor.predict(one, "p4", {"prompt": "a frog"})) != first  # it was put away for the other


def test_inputs_and_the_base_reach_the_package(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    runnable = Runnable("one", fake_package(tmp_path / "one"), tmp_path / "base")
    answer = predictor.predict(runnable, "p", {"prompt": "--w 1\n'\"", "seed": 3})
    facts = json.loads(answer.logs)
    assert facts == {"inputs": {"prompt": "--w 1\n'\"", "seed": 3}, "base": str(tmp_path / "base")}
    assert (answer.status, answer.error) == ("succeeded", None)


@pytest.mark.parametrize(("prompt", "told"), [("fail", "no frog"), ("refuse", "width: Input should be 128")])
def test_what_the_package_says_is_wrong(predictor: Predictor, tmp_path: Path, prompt: str, told: str) -> None:
    answer = predictor.predict(package(tmp_path), "p", {"prompt": prompt})
    assert (answer.status, answer.output, answer.error) == ("failed", [], told)


def test_one_that_dies_is_started_again(predictor: Predictor, tmp_path: Path) -> None:
    one = package(tmp_path)
    with pytest.raises(PredictorFailed, match="the package ended while it drew: error: killed by a frog"):
        predictor.predict(one, "p", {"prompt": "die"})
    assert predictor.predict(one, "q", {"prompt": "a frog"}).status == "succeeded"


def test_what_it_said_last_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes its log may be slow, and it is known to be written only when the package has ended."""
    log, status = tmp_path / "log", ["running"]

    def cancel(_handle: str, _grace: float) -> None:
        log.write_text("loaded\nerror: killed by a frog\n", encoding="utf-8")
        status[0] = "ended"

    def broken(request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            raise httpx.ReadError("the connection was reset")
        return httpx.Response(200, json={"status": "READY"})

    log.write_text("loaded\n", encoding="utf-8")
    executor = SimpleNamespace(status=lambda _: SimpleNamespace(state=status[0]), cancel=cancel)
    predictor = Predictor(executor, RULES)  # type: ignore[arg-type]
    client = httpx.Client(transport=httpx.MockTransport(broken), base_url="http://package")
    predictor._running = module._Running("one", "handle", tmp_path, log, client)
    monkeypatch.setattr(module, "END_GRACE_SECONDS", 0.0)
    with pytest.raises(PredictorFailed, match="the package ended while it drew: error: killed by a frog"):
        predictor.predict(Runnable("one", tmp_path), "p", {})


def test_one_that_cannot_start_says_why(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(PredictorFailed, match="could not be started: error: these weights are broken"):
        predictor.predict(package(tmp_path, broken=True), "p", {})
    with pytest.raises(PredictorFailed, match="gone from the disk"):
        predictor.predict(Runnable("none", tmp_path / "none"), "p", {})


def test_what_is_not_wanted_any_more_is_left(predictor: Predictor, tmp_path: Path) -> None:
    one, asked = package(tmp_path), threading.Event()

    def is_wanted() -> bool:
        was, _ = asked.is_set(), asked.set()
        return not was

    predictor.predict(one, "warm", {"prompt": "a frog"})
    with pytest.raises(NotWanted):
        predictor.predict(one, "p", {"prompt": "slow"}, is_wanted)
    assert predictor.predict(one, "q", {"prompt": "a frog"}).status == "succeeded"


def test_one_that_is_too_slow_is_ended(tmp_path: Path) -> None:
    predictor = Predictor(LocalExecutor(tmp_path / "runs", "never"), replace(RULES, prediction_seconds=0.5))
    try:
        with pytest.raises(PredictorFailed, match="it took longer than 0.5 seconds"):
            predictor.predict(package(tmp_path), "p", {"prompt": "slow"})
    finally:
        predictor.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this is how processes are found on POSIX systems")
def test_nobody_asks_and_it_ends_by_itself(tmp_path: Path) -> None:
    executor = LocalExecutor(tmp_path / "runs", "never")
    predictor = Predictor(executor, replace(RULES, idle_seconds=3.0))
    try:
        pid = int(shown(predictor.predict(package(tmp_path), "p", {"prompt": "a frog"})).rpartition(" ")[2])
        wait_for(lambda: not is_alive(pid))
        assert predictor.predict(Runnable("one", tmp_path / "one"), "q", {"prompt": "a frog"}).status == "succeeded"
    finally:
        predictor.stop()


def test_stop_leaves_no_process(tmp_path: Path) -> None:
    predictor = Predictor(LocalExecutor(tmp_path / "runs", "never"), RULES)
    pid = int(shown(predictor.predict(package(tmp_path), "p", {"prompt": "a frog"})).rpartition(" ")[2])
    predictor.stop()
    wait_for(lambda: not is_alive(pid))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
