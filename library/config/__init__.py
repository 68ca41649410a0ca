"""Configuration: options declared once, config files, flags, dataset files. Imports no torch."""

from library.config.options import (
    DataOptions,
    FullOptions,
    LoggingOptions,
    LossOptions,
    MetadataOptions,
    ModelOptions,
    NetworkOptions,
    NoiseOptions,
    OptimizerOptions,
    SamplingOptions,
    SavingOptions,
    SchedulerOptions,
    TrainingOptions,
)

__all__ = [
    "DataOptions", "FullOptions", "LoggingOptions", "LossOptions", "MetadataOptions", "ModelOptions", "NetworkOptions", "NoiseOptions",
    "OptimizerOptions", "SamplingOptions", "SavingOptions", "SchedulerOptions", "TrainingOptions",
]  # fmt: skip
