"""The settings of a run: every topic's options, and who said what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from library.config.declare import Option, options_of
from library.config.options import (
    TOPICS,
    DataOptions,
    DeepSpeedOptions,
    EmbeddingOptions,
    FullOptions,
    HubOptions,
    LoggingOptions,
    LossOptions,
    MemoryOptions,
    MetadataOptions,
    ModelOptions,
    NetworkOptions,
    NoiseOptions,
    OptimizerOptions,
    SamplingOptions,
    SavingOptions,
    SchedulerOptions,
    TrainingOptions,
    ValidationOptions,
)
from library.config.scripts import CACHING, TRAIN_NETWORK, Script

OPTIONS: dict[str, Option] = {option.name: option for topic in TOPICS.values() for option in options_of(topic)}
TOPIC_OF: dict[str, str] = {option.name: topic for topic, options in TOPICS.items() for option in options_of(options)}


@cache
def options_for(script: str) -> dict[str, Option]:
    """The options of the script of this name, with their defaults and choices there."""
    return {name: option.as_in(script) for name, option in OPTIONS.items() if option.is_of(script) or script in CACHING}


@dataclass(frozen=True)
class Source:
    """Who gave an option: `file` is None for a flag; `place` is exact, for messages."""

    place: str
    file: str | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All options of a run by topic; those that its script does not take have their defaults."""

    model: ModelOptions = ModelOptions()
    network: NetworkOptions = NetworkOptions()
    embedding: EmbeddingOptions = EmbeddingOptions()
    full: FullOptions = FullOptions()
    data: DataOptions = DataOptions()
    noise: NoiseOptions = NoiseOptions()
    loss: LossOptions = LossOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    scheduler: SchedulerOptions = SchedulerOptions()
    training: TrainingOptions = TrainingOptions()
    validation: ValidationOptions = ValidationOptions()
    memory: MemoryOptions = MemoryOptions()
    sharing: DeepSpeedOptions = DeepSpeedOptions()
    saving: SavingOptions = SavingOptions()
    hub: HubOptions = HubOptions()
    sampling: SamplingOptions = SamplingOptions()
    logging: LoggingOptions = LoggingOptions()
    metadata: MetadataOptions = MetadataOptions()
    script: Script = TRAIN_NETWORK
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

    def placed(self, message: str) -> str:
        """A message that begins with the name of an option, with the place that gave the option in front of it."""
        name = message.split(" ", 1)[0].rstrip(":")
        return message.replace(name, self.where(name), 1) if name in self.sources else message

    def changed(self, name: str) -> bool:
        """Whether an option has another value than its default. Unlike `given` this is the same for a dumped and reread run."""
        option = options_for(self.script.name).get(name)
        return option is not None and self.value(name) != option.default


def settings_of(values: Mapping[str, Any], script: Script = TRAIN_NETWORK, **more: Any) -> Settings:
    """Settings with these options, by name, and the script's defaults for the rest; `more` are other fields of Settings."""
    values = {name: option.default for name, option in options_for(script.name).items()} | dict(values)
    topics = {
        topic: options(**{option.name: values[option.name] for option in options_of(options) if option.name in values})
        for topic, options in TOPICS.items()
    }
    return Settings(**topics, script=script, **more)
