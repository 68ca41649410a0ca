"""What to write when the memory of the GPU, or that of the machine, is used up."""

from __future__ import annotations

from library.config.load import Settings

NO_MEMORY = ("OutOfMemoryError", "MemoryError")  # torch's for GPUs, and Python's
OF_THE_MACHINE = "DefaultCPUAllocator"  # torch says RuntimeError there


class OutOfMemory(Exception):
    """A run needs more memory than there is: one line that says what would need less."""


def out_of_memory(error: Exception, settings: Settings) -> OutOfMemory | None:
    """What is told of this error; None: it is another one."""
    if type(error).__name__ not in NO_MEMORY and OF_THE_MACHINE not in str(error):
        return None
    said = (str(error).splitlines() or [""])[0] or "the system gives no more"
    return OutOfMemory(f"memory is used up ({said}); what needs less: {', '.join(_remedies(settings))}")


def _remedies(settings: Settings) -> list[str]:
    """What the run does not do yet, the cheapest first."""
    if settings.script.method == "caching":
        return ["a smaller vae_batch_size", "smaller pictures (resolution)"]
    remedies = []
    if not settings.training.gradient_checkpointing:
        remedies.append("gradient_checkpointing = true")
    if not settings.data.cache_latents:
        remedies.append("cache_latents = true")
    if settings.training.mixed_precision == "no":
        remedies.append('mixed_precision = "bf16"')
    return [*remedies, "a smaller train_batch_size (gradient_accumulation_steps makes up for it)", "a smaller resolution"]
