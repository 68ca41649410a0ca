"""The file that completes a state folder; finding the folder to go on from, and whether it is whole. Reads no tensors."""
from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.checkpoint.best import Best
from library.checkpoint.dataset_facts import DatasetIdentity
from library.checkpoint.files import write_text
from library.checkpoint.hashes import file_sha256
from library.checkpoint.identity import BaseModel, RunIdentity
from library.checkpoint.ledger import STATE_FILE
from library.checkpoint.naming import DEFAULT_NAMES, SavePoint
from library.errors import UserError

if TYPE_CHECKING:
    from library.config.options import SavingOptions

VERSION = 1  # of train_state.json; raised when an older program could no longer read it
LATEST = "latest"
KEYS = {"current_epoch", "current_step", "saved_at", "seed", "run", "processes", "options", "base_model", "dataset", "files"}


@dataclass(frozen=True)
class FoundState:
    """A complete state folder."""

    folder: Path
    current_step: int  # optimizer steps done
    current_epoch: int  # 1-based: the epoch that this step belongs to
    identity: RunIdentity
    best: Best | None = None  # None: nothing was measured
    skipped: tuple[str, ...] = ()  # newer folders that were passed over, and why


def write_train_state(folder: Path, point: SavePoint, identity: RunIdentity, best: Best | None = None) -> None:
    """Completes a state folder: this file comes last and vouches for all others."""
    files = {path.name: {"size": path.stat().st_size, "sha256": file_sha256(path)} for path in sorted(folder.iterdir())}
    facts = {
        "version": VERSION,
        "current_epoch": point.epoch,
        "current_step": point.step,
        "saved_at": time.time(),
        "seed": identity.seed,
        "run": identity.lineage,
        "processes": identity.processes,
        "options": identity.options,
        "base_model": asdict(identity.base_model),
        "dataset": asdict(identity.dataset),
        "best": best and asdict(best),
        "files": files,
    }
    write_text(folder / STATE_FILE, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def find_state(resume: str, options: SavingOptions) -> FoundState:
    """The state that --resume names, checked file by file; UserError if it is not there or not whole."""
    if resume != LATEST:
        folder = Path(resume)
        return _found(folder, _read_facts(folder))
    output_dir = Path(options.output_dir or ".")
    candidates, skipped = _candidates(output_dir, options.output_name)
    for facts, folder in candidates:
        try:
            return _found(folder, facts, tuple(skipped))
        except UserError as error:
            skipped += error.messages
    raise UserError(
        f"--resume latest: no complete state folder of {options.output_name or 'this output'} in {output_dir}: name a folder, "
        "or leave --resume out and add --save_state to have states saved",
        *skipped,
    )


def _candidates(output_dir: Path, output_name: str | None) -> tuple[list[tuple[dict[str, Any], Path]], list[str]]:
    """The state folders of this output name, newest first, and what is wrong with those that cannot be read."""
    readable: list[tuple[dict[str, Any], Path]] = []
    skipped: list[str] = []
    pattern = _state_pattern(output_name)
    for folder in sorted(output_dir.iterdir()) if output_dir.is_dir() else []:
        if not folder.is_dir() or not pattern.fullmatch(folder.name):
            continue
        try:
            readable.append((_read_facts(folder), folder))
        except UserError as error:
            skipped += error.messages
    return sorted(readable, key=lambda item: (item[0]["saved_at"], item[0]["current_step"]), reverse=True), skipped


def _state_pattern(output_name: str | None) -> re.Pattern[str]:
    """Names of state folders, and of those that were set aside when their name was taken."""
    final, epoch, step = (re.escape(output_name or DEFAULT_NAMES[moment]) for moment in ("final", "epoch", "step"))
    return re.compile(rf"(?:{final}|{epoch}-\d{{6,}}|{step}-step\d{{8,}})-state(?:\.\d{{8}}-\d{{6}}(?:-\d+)?)?")


def _read_facts(folder: Path) -> dict[str, Any]:
    if folder.is_file():
        raise UserError(f"--resume {folder} is a file: name a state folder, or start from the file with --network_weights")
    if not folder.is_dir():
        raise UserError(f"--resume {folder}: there is no such folder")
    try:
        facts = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} is not a complete state folder: it has no {STATE_FILE}: resume from another") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / STATE_FILE} cannot be read ({error}): resume from another state folder") from error
    version = facts.get("version") if isinstance(facts, dict) else None
    if version is None:
        raise UserError(f"{folder} is the state of another program: start from its weights (--network_weights, --initial_step)")
    if version != VERSION:
        raise UserError(f"{folder} was written by another version of Tadpole (state version {version}, this one reads {VERSION})")
    if missing := KEYS - facts.keys():
        raise UserError(f"{folder / STATE_FILE} lacks {', '.join(sorted(missing))}: resume from another state folder")
    return facts


def _found(folder: Path, facts: dict[str, Any], skipped: tuple[str, ...] = ()) -> FoundState:
    problems = [problem for name, expected in facts["files"].items() if (problem := _file_problem(folder / name, expected))]
    if problems:
        raise UserError(f"{folder} is not a complete state folder: {', '.join(problems)}: resume from another")
    dataset = facts["dataset"]
    identity = RunIdentity(
        lineage=facts["run"],
        seed=facts["seed"],
        processes=facts["processes"],
        options=facts["options"],
        base_model=BaseModel(**facts["base_model"]),
        dataset=DatasetIdentity(**{**dataset, "batch_sizes": tuple(dataset["batch_sizes"])}),
    )
    best = Best(**facts["best"]) if facts.get("best") else None  # states of before there was one
    return FoundState(folder, facts["current_step"], facts["current_epoch"], identity, best, skipped)


def _file_problem(path: Path, expected: Mapping[str, Any]) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    if path.stat().st_size != expected["size"]:
        return f"{path.name} has {path.stat().st_size} bytes instead of {expected['size']}"
    return None if file_sha256(path) == expected["sha256"] else f"{path.name} is damaged"
