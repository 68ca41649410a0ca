"""Predictions: their board, and the room where they are drawn one after the other."""
from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service.background import make_predictor
from service.database.tables import Prediction, WebhookMessage
from service.keys import Caller
from service.packages.drawing_room import DrawingRoom, Sources
from service.packages.predictions import LEASE_SECONDS, NewPrediction, PredictionBoard
from service.problems import Problem
from service.services import Services
from service.webhooks.outbox import Outbox
from tests.service.packages.fake_packages import register


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(services: Services, clock: Clock) -> PredictionBoard:
    return PredictionBoard(services.database, Outbox(), clock)


def new(**more: Any) -> NewPrediction:
    values = {"version_id": "ab12", "model_id": "m", "model": "default/frogs", "inputs": {"prompt": "a frog"}, **more}
    return NewPrediction(**values)


# --- the board ---


def test_they_are_claimed_in_turn_and_once(board: PredictionBoard, caller: Caller, clock: Clock) -> None:
    made = []
    for _ in range(2):
        made.append(board.create(caller, new()).id)
        clock.now += 1
    claimed = [board.claim("a"), board.claim("b"), board.claim("c")]
    assert [found and found.id for found in claimed] == [*made, None]
    assert claimed[0] is not None and (claimed[0].state, claimed[0].started_at) == ("processing", clock.now)


def test_what_a_silent_worker_had_is_drawn_again_and_its_late_answer_counts_nothing(board: PredictionBoard, caller: Caller, clock: Clock) -> None:
    board.create(caller, new())
    first = board.claim("a")
    assert first is not None and board.claim("b") is None
    clock.now += LEASE_SECONDS / 2
    assert board.keep(first, "a")
    clock.now += LEASE_SECONDS * 0.75
    assert board.claim("b") is None
    clock.now += LEASE_SECONDS
    second = board.claim("b")
    assert second is not None and second.id == first.id
    assert not board.finish(first, "a", "failed", error="late")
    assert board.finish(second, "b", "succeeded", output=["k"], logs="x\0y")
    done = board.get(caller.project_id, first.id)
    assert (done.state, done.output, done.logs, done.error) == ("succeeded", ["k"], "xy", None)


def test_what_is_released_is_free_at_once(board: PredictionBoard, caller: Caller) -> None:
    board.create(caller, new())
    board.claim("a")
    board.release("a")
    assert board.claim("b") is not None


def test_cancel_and_finish_decide_once(board: PredictionBoard, caller: Caller) -> None:
    waiting, drawn = (board.create(caller, new()).id for _ in range(2))
    assert board.cancel(caller.project_id, waiting).state == "canceled"
    claimed = board.claim("a")
    assert claimed is not None and claimed.id == drawn
    board.cancel(caller.project_id, drawn)
    assert not board.is_wanted(claimed, "a") and not board.keep(claimed, "a")
    assert not board.finish(claimed, "a", "succeeded", output=["k"])
    assert board.cancel(caller.project_id, drawn).output is None


def test_webhooks_tell_what_happened_in_its_order(board: PredictionBoard, caller: Caller, services: Services, clock: Clock) -> None:
    board.show(lambda prediction: {"status": prediction.state})
    board.create(caller, new(webhook="https://example.com/hook", webhook_events=["start", "output", "completed"]))
    clock.now += 1
    board.create(caller, new(webhook="https://example.com/end", webhook_events=["completed"]))
    for _ in range(2):
        claimed = board.claim("a")
        assert claimed is not None
        board.finish(claimed, "a", "succeeded", output=["k"])
    with services.database.reading() as session:
        messages = session.scalars(select(WebhookMessage).order_by(WebhookMessage.number)).all()
    told = [(message.event, json.loads(message.body)["status"], message.url[-4:]) for message in messages]
    ours = [("start", "processing", "hook"), ("output", "succeeded", "hook"), ("completed", "succeeded", "hook")]
    assert told == [*ours, ("completed", "succeeded", "/end")]


def test_the_same_request_makes_one(board: PredictionBoard, caller: Caller, services: Services) -> None:
    twice = replace(caller, idempotency_key="k")
    assert board.create(twice, new()).id == board.create(twice, new()).id != board.create(caller, new()).id


def test_no_endless_queue(board: PredictionBoard, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.packages.predictions.MOST_WAITING", 2)
    board.create(caller, new())
    board.create(caller, new())
    with pytest.raises(Problem, match="2 predictions of this project wait already"):
        board.create(caller, new())


# --- the room ---


@pytest.fixture
def room(services: Services) -> Iterator[DrawingRoom]:
    settings = replace(services.settings, cog_python=Path(sys.executable), sandbox="never")
    models = services.settings.data_dir / "models.toml"
    sources = Sources(settings.data_dir, models, services.store, services.workshop.rules, lambda project_id: lambda url: None)
    room = DrawingRoom(services.predictions, services.registry, make_predictor(settings), sources, "test")
    yield room
    room.stop()


def drawn(services: Services, caller: Caller, room: DrawingRoom, registered: Any, **inputs: Any) -> Prediction:
    asked = new(version_id=registered.version.id, model_id=registered.model.id, inputs=inputs)
    made = services.predictions.create(caller, asked)
    assert room.turn()
    return services.predictions.get(caller.project_id, made.id)


def test_pictures_lie_in_the_store(services: Services, caller: Caller, room: DrawingRoom) -> None:
    registered = register(services)
    done = drawn(services, caller, room, registered, prompt="a frog", seed=None)
    assert (done.state, done.output, done.error) == ("succeeded", [f"predictions/{done.id}/0.png"], None)
    with services.store.open(done.output[0]) as file:
        assert b"picture of a frog" in file.read()
    assert json.loads(done.logs)["inputs"] == {"prompt": "a frog"}
    found = services.registry.by_id(caller.project_id, registered.version.id)
    assert found is not None and found.model.run_count == 1
    assert not room.turn()


def test_failures_are_told(services: Services, caller: Caller, room: DrawingRoom) -> None:
    registered = register(services)
    failed = drawn(services, caller, room, registered, prompt="fail")
    assert (failed.state, failed.error, failed.logs) == ("failed", "no frog", "looked\n")
    died = drawn(services, caller, room, registered, prompt="die")
    assert died.state == "failed" and "killed by a frog" in str(died.error)
    services.registry.remove(registered)
    assert drawn(services, caller, room, registered, prompt="a frog").error == "this version has been deleted"


def test_a_package_that_was_changed_is_not_run(services: Services, caller: Caller, room: DrawingRoom) -> None:
    registered = register(services)
    (services.settings.data_dir / registered.version.folder / "predict.py").touch()
    error = drawn(services, caller, room, registered, prompt="a frog").error
    assert error == "the package of this version was changed on the disk: predict.py"


def test_pictures_that_are_named_are_fetched_here(services: Services, caller: Caller, room: DrawingRoom) -> None:
    registered = register(services, template="img2img")
    done = drawn(services, caller, room, registered, prompt="a", image="data:image/png;base64,aGk=")
    assert json.loads(done.logs)["inputs"]["image"] == "data:image/png;base64,aGk="
    refused = drawn(services, caller, room, registered, prompt="a", image="http://169.254.169.254/latest")
    assert refused.state == "failed" and str(refused.error).startswith("image: ")


def test_the_base_of_a_lora_is_the_one_that_is_registered(services: Services, caller: Caller, room: DrawingRoom) -> None:
    data = services.settings.data_dir
    (data / "base").mkdir()
    registered = register(services, template="lora", base={"model": "me/base", "revision": "main"})
    gone = drawn(services, caller, room, registered, prompt="a")
    assert gone.error == "its base me/base (main) is not registered here any more"
    (data / "models.toml").write_text('[models."me/base"]\npath = "base"\n', encoding="utf-8")
    assert json.loads(drawn(services, caller, room, registered, prompt="a").logs)["base"] == str(data / "base")
