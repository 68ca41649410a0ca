"""A run: the pieces put together as the plan says, handed to the loop, and tidied up after it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from library.checkpoint.state import TrainingObjects, load_state, load_weights
from library.checkpoint.uploads import start_uploads
from library.config.text_settings import text_settings
from library.diffusion.schedule import scaled_linear_schedule
from library.diffusion.training_loss import DiffusionTraining
from library.errors import UserError
from library.methods.base import Method
from library.optim.average import WeightAverage
from library.optim.chain import parameters_of
from library.optim.optimizers import build_optimizer
from library.optim.schedulers import build_scheduler
from library.train.batch_loss import BatchLoss
from library.train.batches import make_batches
from library.train.caching import picture_encoder
from library.train.class_images import draw_class_images
from library.train.console import ProgressBar
from library.train.loop import NotFinite, train
from library.train.loss_splits import LossSplits, named_folders
from library.train.memory import prepare_model
from library.train.method import load_dtype, make_method
from library.train.plan import Plan
from library.train.reactions import Reactions
from library.train.record import RunRecord
from library.train.runtime import Runtime
from library.train.samples import SampleDrawer
from library.train.saving import make_saver
from library.train.signals import Stopped, StopRequest
from library.train.trackers import TENSORBOARD, Tracker, start_trackers, tracker_names
from library.train.validate import Validator
from library.train.watch import ValidationWatch
from library.types import Batch

log = logging.getLogger(__name__)
FAILED = 1
HINT = (
    'Try a lower learning rate, max_grad_norm = 1.0, mixed_precision = "bf16" instead of "fp16", or no_half_vae; '
    "and look at these pictures"
)


class Run:
    """Everything that lives as long as a run. Made once, run once."""

    def __init__(self, plan: Plan, stop_request: StopRequest):
        settings = plan.settings
        self.plan, self.stop_request = plan, stop_request
        training = settings.training
        sixteen_bit_weights, timeout = training.full_fp16 or training.full_bf16, settings.memory.ddp_timeout
        self.runtime = Runtime(training.mixed_precision, plan.seed, stop_request, sixteen_bit_weights, timeout, plan.sharing)
        self.record = RunRecord(plan, self.runtime)
        self.trackers: list[Tracker] = []
        uploads = None
        with self.runtime.failing_together():
            if self.runtime.is_main:
                uploads = start_uploads(settings.hub, self.record.report, lambda: stop_request.wanted)
                self.trackers += start_trackers(plan)

        self.parts = plan.family.load(settings.model, load_dtype(settings, self.runtime), self.runtime.device)
        self.encode_pictures = picture_encoder(plan.family, self.parts, self.record.report)
        draw_class_images(plan, self.parts, self.runtime, self.record)
        self.method: Method = make_method(settings, plan.family, plan.seed, self.runtime)
        self.method.attach(self.parts, plan.family.name)
        prepare_model(self.parts, settings.memory)
        modules, sharing = self.method.modules(), self.runtime.sharing
        if plan.resume is not None:
            load_weights(plan.resume.folder, modules)
        sharing.shard(self.parts.unet)
        self.optimizer = build_optimizer(settings.optimizer, self.method.parameter_groups(), plan.seed)
        self.scheduler = build_scheduler(settings.scheduler, self.optimizer, plan.length.last_step)
        self.average = WeightAverage(parameters_of(self.optimizer), training.ema_decay) if training.ema else None
        self.best = replace(plan.validation.best) if plan.validation else None
        scaler, stored = self.runtime.accelerator.scaler, sharing.stored(self.optimizer)
        objects = TrainingObjects(modules, stored, self.scheduler, scaler, self.average, self.best)
        self.saver = make_saver(plan, self.runtime, self.record, self.method, objects, self.average, uploads)
        self.stepped = sharing.begin(self.optimizer, modules, self.parts.unet)
        if plan.resume is not None:
            for note in load_state(plan.resume, objects):
                log.info("%s", note)

        self.samples = SampleDrawer(
            plan, self.parts, self.method, self.runtime, self.record.report, self.trackers,
            self.average if training.ema_samples else None,
        )  # fmt: skip
        self.splits = LossSplits(named_folders(plan.prepared), self.runtime.sum_everywhere)

    def run(self) -> int:
        """Train; the exit code of the process."""
        plan, length = self.plan, self.plan.length
        self.record.events.write(
            "start",
            step=length.first_step - 1,
            last_step=length.last_step,
            steps_per_epoch=length.steps_per_epoch,
            processes=self.runtime.world_size,
            seed=plan.seed,
            resumed_from=plan.resume and plan.resume.folder,
        )
        progress = ProgressBar(length.first_step, length.last_step, self.runtime.is_main)
        reactions = Reactions(
            self.record.events, self.trackers, progress, self.optimizer, self.saver, plan.settings.sampling,
            self.average, self.samples.draw, self.splits, length.steps_per_epoch, last_step=length.first_step - 1,
        )  # fmt: skip
        with self._saving_what_is_there(reactions):
            batches, batch_loss = make_batches(plan, self.parts, self.runtime, self.encode_pictures), self._batch_loss()
            reactions.watch = self._make_watch(batches.held_out, batch_loss, progress)
            self.samples.draw_first()
            self.method.train()
            with progress:
                if plan.resume is None or not reactions.make_up():
                    train(
                        batches.training, batch_loss, self.method, self.stepped, self.scheduler,
                        self.runtime, plan.settings.optimizer.max_grad_norm, reactions,
                    )  # fmt: skip
        return self._finish(reactions)

    def _batch_loss(self) -> BatchLoss:
        settings, family = self.plan.settings, self.plan.family
        schedule = scaled_linear_schedule(settings.noise.zero_terminal_snr)
        diffusion = DiffusionTraining(schedule, family.objective, settings.noise, settings.loss)
        return BatchLoss(
            family, self.parts, diffusion, self.runtime, self.encode_pictures, text_settings(settings.model),
            self.plan.seed, self.method, self.splits.observe,
        )  # fmt: skip

    def _make_watch(
        self, held_out: Callable[[], Iterator[Batch]], batch_loss: BatchLoss, progress: ProgressBar
    ) -> ValidationWatch | None:
        validation, best = self.plan.validation, self.best
        if validation is None or best is None:
            return None
        validator = Validator(held_out, validation, batch_loss, self.method, self.optimizer, self.average, self.runtime)
        return ValidationWatch(validation, validator, best, self.saver, self.record.report, self.trackers, progress)

    @contextmanager
    def _saving_what_is_there(self, reactions: Reactions) -> Iterator[None]:
        """Where the run cannot go on, the weights of the last whole step are kept."""
        try:
            yield
        except Stopped:  # before the first step
            pass
        except NotFinite as error:
            saved = self._save_interrupted(reactions.last_step)
            self.record.events.write(
                "not_finite", message=str(error), last_finite_step=error.last_finite_step, images=error.image_paths
            )
            self._end(reactions.last_step, finished=False, saved=saved)
            pictures = ", ".join(dict.fromkeys(error.image_paths))
            raise RunFailed(
                f"{error}; the last finite step is {error.last_finite_step}; the batch held {pictures}. {HINT}"
            ) from error
        except UserError:
            # Of one process alone, perhaps: then the others' parts cannot be had.
            saved = not self.runtime.sharing.in_parts and self._save_interrupted(reactions.last_step)
            self._end(reactions.last_step, finished=False, saved=saved)
            raise

    def _save_interrupted(self, step: int) -> bool:
        return step < self.plan.length.first_step or self.saver.save_interrupted(step)

    def _finish(self, reactions: Reactions) -> int:
        step, saved = reactions.last_step, reactions.last_save_succeeded
        stopped = step < self.saver.length.last_step  # which early stopping brings forward
        if stopped:
            saved = self._save_interrupted(step)
            self.record.report("stopped", step=step, reason=self.stop_request.reason or "another process was asked to stop")
        sheet = self.samples.write_sheet()
        self._end(step, finished=not stopped, saved=saved)
        if self.runtime.is_main:
            print(self._summary(sheet), flush=True)
        self.runtime.barrier()
        self.runtime.close()
        if stopped:
            return self.stop_request.exit_code or 143
        return 0 if saved else FAILED

    def _end(self, step: int, finished: bool, saved: bool) -> None:
        self.saver.finish()
        self.record.events.write("end", step=step, finished=finished, saved=saved)
        self.record.events.close()
        for tracker in self.trackers:
            tracker.finish()

    def _summary(self, sheet: Path | None) -> str:
        ledger, options = self.saver.ledger, self.plan.settings.logging
        last: dict[bool, Path] = {entry.moment == "best": ledger.absolute(entry) for entry in ledger.entries("weights")}
        folder = Path(options.logging_dir or "") if TENSORBOARD in tracker_names(options) else None
        return self.record.summary(last.get(False), last.get(True), self.samples.folder, sheet, folder)


class RunFailed(Exception):
    """The run could not go on, through nobody's mistake in the config; the message is for the person."""


def train_by_plan(plan: Plan, stop_request: StopRequest) -> int:
    """Build and run what the plan says; the exit code."""
    try:
        return Run(plan, stop_request).run()
    except Stopped:  # while class pictures were drawn: nothing is trained yet
        return stop_request.exit_code or 143
    except RunFailed as error:
        log.error("%s", error)
        return FAILED
