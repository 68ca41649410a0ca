"""Draws the predictions that wait, one after the other, in the background."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from library.errors import UserError
from service.database.tables import Prediction
from service.intake.addresses import FetchFailed, ForbiddenAddress
from service.intake.fetch import fetch
from service.intake.target import FetchRules
from service.packages.cog_package import changes
from service.packages.predictions import FAILED, SUCCEEDED, PredictionBoard
from service.packages.predictor import Answer, NotWanted, Predictor, PredictorFailed, Runnable
from service.packages.registry import Registered, Registry
from service.storage.space import DiskFull
from service.storage.store import Store
from service.training.models import read_models

POLL_SECONDS = 0.5
BEAT_SECONDS = 10.0
STOP_SECONDS = 10.0
LARGEST_PICTURE = 16 << 20  # bytes, of one that a request names
PICTURE = re.compile(r"data:image/(png|jpeg|webp);base64,")
log = logging.getLogger("service.predictions")


@dataclass(frozen=True)
class Sources:
    """Where packages, and what they draw from, are."""

    data_dir: Path
    models_file: Path
    store: Store
    rules: FetchRules
    own_content: Callable[[str], Callable[[str], BinaryIO | None]]  # of a project: its own files by their URLs


class CannotDraw(Exception):
    """One line for the client."""


class DrawingRoom:
    """`start` has it work in the background; `turn` is one prediction of that."""

    def __init__(self, board: PredictionBoard, registry: Registry, predictor: Predictor, sources: Sources, owner: str):
        self._board, self._registry, self._predictor, self._sources = board, registry, predictor, sources
        self._owner = f"{owner}:predictions"
        self._whole: set[str] = set()  # versions whose files were compared with their manifest
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="predictions", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is being drawn is left to whoever comes next."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)
        self._predictor.stop()
        self._board.release(self._owner)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                is_idle = not self.turn()
            except Exception:  # the database is away
                log.exception("the predictions that wait could not be asked for")
                is_idle = True
            if is_idle:
                self._stopping.wait(POLL_SECONDS)

    def turn(self) -> bool:
        """Draw what has waited longest; False: nothing waits."""
        prediction = self._board.claim(self._owner)
        if prediction is None:
            return False
        try:
            answer = self._drawn(prediction)
            output = self._kept(prediction, answer)
        except NotWanted:
            return True
        except (CannotDraw, PredictorFailed, FetchFailed, ForbiddenAddress, DiskFull) as error:
            self._board.finish(prediction, self._owner, FAILED, error=str(error))
            return True
        except Exception as error:
            log.exception("prediction %s failed", prediction.id)
            reason = f"the service made a mistake while drawing ({type(error).__name__}); its log says which"
            self._board.finish(prediction, self._owner, FAILED, error=reason)
            return True
        state = SUCCEEDED if answer.status == "succeeded" else FAILED
        error_text = None if state == SUCCEEDED else answer.error or "the package gave up"
        self._board.finish(prediction, self._owner, state, output=output or None, logs=answer.logs, error=error_text)
        return True

    def _drawn(self, prediction: Prediction) -> Answer:
        registered = self._registry.by_id(prediction.project_id, prediction.version_id)
        if registered is None:
            raise CannotDraw("this version has been deleted")
        package = self._package(registered)
        inputs = self._with_pictures(prediction, registered.version.card["inputs"]["properties"])
        return self._predictor.predict(package, prediction.id, inputs, self._watch(prediction))

    def _watch(self, prediction: Prediction) -> Callable[[], bool]:
        """Whether it is still wanted; as long as somebody asks that, the prediction is kept."""
        kept_at = time.monotonic()

        def is_wanted() -> bool:
            nonlocal kept_at
            if self._stopping.is_set():
                return False
            if time.monotonic() - kept_at < BEAT_SECONDS:
                return self._board.is_wanted(prediction, self._owner)
            kept_at = time.monotonic()
            return self._board.keep(prediction, self._owner)

        return is_wanted

    def _package(self, registered: Registered) -> Runnable:
        """The package, as its manifest has it: what was changed on the disk is not the version that was asked for."""
        version = registered.version
        folder = self._sources.data_dir / version.folder
        if not folder.is_dir():
            raise CannotDraw("the package of this version is gone from the disk")
        if version.id not in self._whole:
            changed = changes(folder)
            if changed:
                raise CannotDraw(f"the package of this version was changed on the disk: {', '.join(changed[:3])}")
            self._whole.add(version.id)
        named = folder / "weights" / "base.json"
        return Runnable(version.id, folder, self._base(json.loads(named.read_text(encoding="utf-8"))) if named.is_file() else None)

    def _base(self, named: Mapping[str, str]) -> Path:
        """The folder of a LoRA's base."""
        try:
            model = read_models(self._sources.models_file).models.get(named["model"])
        except UserError as error:
            raise CannotDraw(f"the operator's list of base models cannot be read: {error}") from None
        path = None if model is None else {"main": model.path, **model.revisions}.get(named["revision"])
        if path is None:
            raise CannotDraw(f"its base {named['model']} ({named['revision']}) is not registered here any more")
        return path

    def _with_pictures(self, prediction: Prediction, fields: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The inputs; pictures that they name by URL are fetched here, as packages have no network."""
        inputs = {name: value for name, value in prediction.inputs.items() if value is not None}
        for name, value in inputs.items():
            if fields.get(name, {}).get("format") == "uri" and isinstance(value, str) and value[:5].lower() != "data:":
                inputs[name] = self._fetched(prediction.project_id, name, value)
        return inputs

    def _fetched(self, project_id: str, name: str, url: str) -> str:
        rules = replace(
            self._sources.rules, own_content=self._sources.own_content(project_id), max_bytes=LARGEST_PICTURE, is_archive=False
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture"
            try:
                fetch(url, path, rules)
            except (FetchFailed, ForbiddenAddress) as error:
                raise CannotDraw(f"{name}: {error}") from None
            return f"data:application/octet-stream;base64,{base64.b64encode(path.read_bytes()).decode()}"

    def _kept(self, prediction: Prediction, answer: Answer) -> list[str]:
        """The pictures in the store: their keys."""
        keys = []
        with tempfile.TemporaryDirectory() as folder:
            for number, uri in enumerate(answer.output):
                kind = PICTURE.match(uri)
                if kind is None:
                    raise CannotDraw("the package answered with something else than pictures")
                path = Path(folder) / f"{number}.{kind[1]}"
                try:
                    path.write_bytes(base64.b64decode(uri[kind.end() :], validate=True))
                except (binascii.Error, ValueError):
                    raise CannotDraw("the package answered with a picture that is no base64") from None
                keys.append(self._sources.store.save(f"predictions/{prediction.id}/{path.name}", path).key)
        return keys
