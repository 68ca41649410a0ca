"""Which of several places a dataset's value comes from: its own table, the tables above it, the run's options."""

from __future__ import annotations

import dataclasses
from typing import Any

from library.config.datasets.keys import KEYS
from library.config.settings import Settings


@dataclasses.dataclass(frozen=True)
class Layers:
    """Tables from the innermost to the outermost, each with its place, above the run's options.

    The first table that has a key decides, whatever it says: false, 0 and "" override what is further out.
    """

    tables: tuple[tuple[str, dict[str, Any]], ...]
    settings: Settings

    def is_written(self, name: str) -> bool:
        """Whether one of the tables has this key."""
        return any(name in table for _, table in self.tables)

    def value(self, name: str) -> Any:
        for _, table in self.tables:
            if name in table:
                return table[name]
        twin = KEYS[name].twin
        return self.settings.value(twin) if twin else KEYS[name].option.default

    def is_given(self, name: str) -> bool:
        """Whether a table or an option says what a value is; else it is the default."""
        twin = KEYS[name].twin
        return self.is_written(name) or bool(twin and self.settings.given(twin))

    def where(self, name: str) -> str:
        """The place that decided on a value."""
        for place, table in self.tables:
            if name in table:
                return f"{place} {name}"
        twin = KEYS[name].twin
        source = self.settings.where(twin) if twin else name
        return f"{self.tables[0][0]}, {source}" if self.tables else source

    def below(self, place: str, table: dict[str, Any]) -> Layers:
        """These layers with one more table inside."""
        return dataclasses.replace(self, tables=((place, table), *self.tables))
