"""The options by topic; `TOPICS` maps each attribute of `Settings` to its class."""

from library.config.options.data import DataOptions
from library.config.options.deepspeed import DeepSpeedOptions
from library.config.options.embedding import EmbeddingOptions
from library.config.options.hub import HubOptions
from library.config.options.memory import MemoryOptions
from library.config.options.model import FullOptions, ModelOptions, NetworkOptions
from library.config.options.objective import LossOptions, NoiseOptions
from library.config.options.output import LoggingOptions, MetadataOptions, SamplingOptions, SavingOptions
from library.config.options.training import OptimizerOptions, SchedulerOptions, TrainingOptions
from library.config.options.validation import ValidationOptions

TOPICS: dict[str, type] = {
    "model": ModelOptions,
    "network": NetworkOptions,
    "embedding": EmbeddingOptions,
    "full": FullOptions,
    "data": DataOptions,
    "noise": NoiseOptions,
    "loss": LossOptions,
    "optimizer": OptimizerOptions,
    "scheduler": SchedulerOptions,
    "training": TrainingOptions,
    "validation": ValidationOptions,
    "memory": MemoryOptions,
    "sharing": DeepSpeedOptions,
    "saving": SavingOptions,
    "hub": HubOptions,
    "sampling": SamplingOptions,
    "logging": LoggingOptions,
    "metadata": MetadataOptions,
}

__all__ = [
    "DataOptions", "DeepSpeedOptions", "EmbeddingOptions", "FullOptions", "HubOptions", "LoggingOptions", "LossOptions",
    "MemoryOptions", "MetadataOptions", "ModelOptions", "NetworkOptions", "NoiseOptions", "OptimizerOptions",
    "SamplingOptions", "SavingOptions", "SchedulerOptions", "TOPICS", "TrainingOptions", "ValidationOptions",
]  # fmt: skip
