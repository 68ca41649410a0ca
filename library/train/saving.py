"""The saver of a run: what it writes, under which metadata, and how much room it needs."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from library.checkpoint.dataset_facts import dataset_facts
from library.checkpoint.hashes import model_hashes
from library.checkpoint.ledger import Ledger, inherited_entries
from library.checkpoint.metadata import TrainingFacts, file_metadata
from library.checkpoint.naming import Kind, SavePoint
from library.checkpoint.saver import Saver, Sources, Write
from library.checkpoint.state import TrainingObjects, write_state
from library.checkpoint.uploads import Uploads
from library.config.settings import Settings
from library.methods.base import Method
from library.methods.pivotal import PivotalMethod
from library.optim.average import WeightAverage
from library.optim.optimizers import evaluation_weights, optimizer_description
from library.train.plan import Plan, check_space
from library.train.record import RunRecord
from library.train.runtime import Runtime

WORDS = "textual-inversion"  # as modelspec calls a file of vectors
BYTES_OF_WEIGHT = 4
BYTES_OF_PRECISION = {"float": 4, "fp16": 2, "bf16": 2}
ARTEFACTS = {"adapter": "lora", "full": None, "embedding": WORDS}  # by method
BYTES_OF_STATE = 12  # of a trained weight with two moments


def make_saver(
    plan: Plan, runtime: Runtime, record: RunRecord, method: Method, objects: TrainingObjects, average: WeightAverage | None,
    uploads: Uploads | None,
) -> Saver:  # fmt: skip
    """Checks the room on the disk, too."""
    identity, facts = plan.identity, training_facts(plan, record)

    def averaged(write: Write) -> Write:
        def write_average(path: Path, dtype: torch.dtype | None, metadata: dict[str, str]) -> None:
            with evaluation_weights(objects.optimizer), average.in_place() if average else nullcontext():
                write(path, dtype, metadata)

        return write_average

    def write_folder(folder: Path, point: SavePoint) -> None:
        write_state(folder, objects, point, identity)

    def metadata(point: SavePoint, kind: Kind) -> dict[str, str]:
        best_loss = objects.best.loss if objects.best and point.moment == "best" else None
        own = replace(facts, artefact=WORDS) if kind == "words" else facts
        return file_metadata(own, point, time.time(), best_loss)

    written: dict[Kind, Write] = {"weights": averaged(method.write)}
    trained = sum(parameter.numel() for group in objects.optimizer.param_groups for parameter in group["params"])
    saved = sum(plan.family.parameter_counts().values()) if plan.settings.script.method == "full" else trained
    state_bytes = BYTES_OF_STATE + (BYTES_OF_WEIGHT if average else 0)
    expected: dict[Kind, int] = {"weights": _bytes_of_weight(plan.settings) * saved, "state": state_bytes * trained}
    if isinstance(method, PivotalMethod):
        written["words"], expected["words"] = averaged(method.write_words), _bytes_of_weight(plan.settings) * method.word_size
    check_space(plan, expected)
    ledger = Ledger(record.folder, plan.output_dir, identity.lineage, inherited_entries(plan.runs_folder, identity.lineage))
    sources = Sources(written, write_folder, metadata, method.has_nan, runtime.sharing.whole)
    return Saver(plan.settings.saving, plan.length, ledger, sources, record.report, expected, runtime.is_main, uploads)


def _bytes_of_weight(settings: Settings) -> int:
    sixteen = settings.training.full_fp16 or settings.training.full_bf16
    return BYTES_OF_PRECISION[settings.saving.save_precision or ("fp16" if sixteen else "float")]


def training_facts(plan: Plan, record: RunRecord) -> TrainingFacts:
    """What the metadata tells of the run."""
    settings, family = plan.settings, plan.family
    artefact = ARTEFACTS[settings.script.method]
    hashed = artefact == "lora" and not settings.network.no_metadata  # hashing a large model takes seconds
    return TrainingFacts(
        settings=settings,
        session_id=int(plan.identity.lineage[:8], 16),
        started_at=record.started_at,
        seed=plan.seed,
        length=plan.length,
        batches_per_epoch=-(-plan.batches_per_epoch // plan.world_size),
        total_batch_size=plan.effective_batch,
        datasets=tuple(dataset_facts(prepared) for prepared in plan.prepared),
        optimizer_description=optimizer_description(settings.optimizer),
        base_model_version=family.base_model_version,
        architecture=family.modelspec_architecture,
        artefact=artefact,
        prediction_type=family.objective,
        default_resolution=(family.default_resolution, family.default_resolution),
        held_out_images=plan.validation.held_out if plan.validation else 0,
        model_hashes=model_hashes(settings.model.pretrained_model_name_or_path or "") if hashed else None,
        vae_hashes=model_hashes(settings.model.vae) if hashed and settings.model.vae else None,
    )
