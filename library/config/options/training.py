"""Options about how training proceeds: optimizer, learning rate schedule, length and precision."""

from __future__ import annotations

from dataclasses import dataclass

from library.config.declare import option
from library.config.kinds import Numbers
from library.config.scripts import FULL, NETWORK


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """The optimizer and its learning rates."""

    optimizer_type: str = option(
        "",
        "Optimizer: AdamW (if left out), AdamW8bit, Lion, Prodigy, AdaFactor, ..., or any class such as package.module.Class.",
    )
    optimizer_args: tuple[str, ...] | None = option(
        None, "Arguments of the optimizer, as key=value, for example weight_decay=0.01."
    )
    learning_rate: float = option(2e-6, "Learning rate; for a LoRA, 1e-4 is a usual start.", least=0)
    unet_lr: float | None = option(
        None, "Learning rate of the U-Net part; left out: learning_rate; 0 leaves the part out.", least=0, scripts=NETWORK
    )
    text_encoder_lr: tuple[float, ...] | None = option(
        None,
        "Learning rate of the text encoder part (one, or one for each encoder); left out: learning_rate; 0 leaves it out.",
        least=0,
        scripts=NETWORK,
    )
    learning_rate_te: float | None = option(
        None, "Learning rate of the text encoder; left out: learning_rate; 0 leaves it as it is.", least=0, scripts=FULL
    )
    learning_rate_te1: float | None = option(
        None, "The same for the first of two text encoders; left out: learning_rate_te.", least=0, scripts=FULL
    )
    learning_rate_te2: float | None = option(None, "The same for the second text encoder.", least=0, scripts=FULL)
    block_lr: Numbers | None = option(
        None, "Learning rates of the 23 blocks of an SDXL U-Net, separated by commas; 0 leaves a block as it is.", least=0, scripts=FULL
    )
    max_grad_norm: float = option(1.0, "Gradients are scaled down to this norm; 0 leaves them as they are.", least=0)
    fused_backward_pass: bool = option(
        False, "Step each tensor as soon as its gradient is there, which saves memory (AdaFactor). Clips tensor by tensor."
    )
    fused_optimizer_groups: int | None = option(
        None, "The same for any optimizer, in about this many groups of tensors; 4 to 10 is usual.", least=1
    )


@dataclass(frozen=True, kw_only=True)
class SchedulerOptions:
    """How the learning rate changes during training. Counts are optimizer steps."""

    lr_scheduler: str = option(
        "constant",
        "Schedule: constant, constant_with_warmup, linear, cosine, cosine_with_restarts, polynomial, inverse_sqrt, "
        "cosine_with_min_lr, warmup_stable_decay, piecewise_constant or adafactor.",
    )
    lr_scheduler_type: str = option("", "A scheduler class instead: a name in torch.optim.lr_scheduler, or package.module.Class.")
    lr_scheduler_args: tuple[str, ...] | None = option(None, "Arguments of the scheduler, as key=value.")
    lr_warmup_steps: int | float = option(
        0, "Steps in which the learning rate rises from 0: a count, or a part of all steps (0.1 or 10%).", least=0
    )
    lr_decay_steps: int | float = option(
        0, "Steps in which it falls at the end (warmup_stable_decay): a count, or a part of all steps.", least=0
    )
    lr_scheduler_num_cycles: int = option(1, "Number of restarts (cosine_with_restarts) or of cycles.", least=1)
    lr_scheduler_power: float = option(1.0, "Exponent of the polynomial schedule.", least=0)
    lr_scheduler_timescale: int | None = option(
        None, "Time scale of inverse_sqrt in steps; left out: the warm-up steps.", least=1
    )
    lr_scheduler_min_lr_ratio: float | None = option(
        None, "Lowest learning rate as a part of the highest (cosine_with_min_lr needs it, warmup_stable_decay).", least=0, most=1
    )


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Length, reproducibility, precision and memory."""

    max_train_steps: int = option(1600, "Number of optimizer steps in all, also for a resumed run.", least=1)
    max_train_epochs: int | None = option(None, "Number of epochs; given, it decides instead of max_train_steps.", least=1)
    seed: int | None = option(None, "Seed of everything random; left out, one is drawn and printed.", least=0)
    gradient_accumulation_steps: int = option(1, "Batches per optimizer step and process.", least=1)
    gradient_checkpointing: bool = option(False, "Compute parts of the forward pass twice to save memory.")
    mixed_precision: str = option(
        "no", "Precision of the computation; trained weights stay in float32.", choices=("no", "fp16", "bf16")
    )
    full_fp16: bool = option(False, 'Keep trained weights and gradients in float16 too; with mixed_precision = "fp16".')
    full_bf16: bool = option(False, 'Keep trained weights and gradients in bfloat16 too; with mixed_precision = "bf16".')
    ema: bool = option(False, "Average the trained weights over the steps (EMA), and save the average.")
    ema_decay: float = option(
        0.9999, "Weight of the average so far at each step; the first steps have less.", least=0, most=1
    )
    ema_samples: bool = option(False, "Draw sample pictures with the average too, not with the weights as they are.")
    dry_run: bool = option(
        False, "Check everything, print the plan, write a report of the pictures as a web page and stop; no model is loaded."
    )
    debug_dataset: bool = option(False, "Do the same, then show batch after batch as training gets them, instead of training.")
