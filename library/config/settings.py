"""The settings of a run: every topic's options, and who said what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.config.declare import Option, options_of
from library.config.options import (
    TOPICS,
    DataOptions,
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

OPTIONS: dict[str, Option] = {option.name: option for topic in TOPICS.values() for option in options_of(topic)}
TOPIC_OF: dict[str, str] = {option.name: topic for topic, options in TOPICS.items() for option in options_of(options)}


@dataclass(frozen=True)
class Source:
    """Who gave an option: `file` is None for a flag; `place` is exact, for messages."""

    place: str
    file: str | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All options of a run by topic."""

    model: ModelOptions = ModelOptions()
    network: NetworkOptions = NetworkOptions()
    data: DataOptions = DataOptions()
    noise: NoiseOptions = NoiseOptions()
    loss: LossOptions = LossOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    scheduler: SchedulerOptions = SchedulerOptions()
    training: TrainingOptions = TrainingOptions()
    saving: SavingOptions = SavingOptions()
    sampling: SamplingOptions = SamplingOptions()
    logging: LoggingOptions = LoggingOptions()
    metadata: MetadataOptions = MetadataOptions()
    config_path: Path | None = None
    sources: Mapping[str, Source] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what the person should know, though it is no mistake

    def value(self, name: str) -> Any:
        return getattr(getattr(self, TOPIC_OF[name]), name)

    def given(self, name: str) -> str | None:
        """The file or the flag that gave an option, or None where its default holds."""
        source = self.sources.get(name)
        return (source.file or source.place) if source else None

    def where(self, name: str) -> str:
        """For messages: the file, table and key, or the flag, that gave an option."""
        source = self.sources.get(name)
        return source.place if source else f"{name} (default)"

    def changed(self, name: str) -> bool:
        """Whether an option has another value than its default. Unlike `given` this is the same for a dumped and reread run."""
        return self.value(name) != OPTIONS[name].default


def settings_of(values: Mapping[str, Any], **more: Any) -> Settings:
    """Settings with these options, by name, and defaults for the rest; `more` are other fields of Settings."""
    topics = {
        topic: options(**{option.name: values[option.name] for option in options_of(options) if option.name in values})
        for topic, options in TOPICS.items()
    }
    return Settings(**topics, **more)
