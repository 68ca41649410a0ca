"""Reads the rules by which captions and tags are cleaned from a .toml file."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from library.config.spelling import did_you_mean
from library.config.text_files import read_toml
from library.errors import UserError
from library.preparation.cleaning import CleanRules, Substitution


def read_rules(path: Path) -> CleanRules:
    """The rules of a file; UserError with all mistakes in it."""
    reader = _Reader(path, read_toml(path, "file of cleaning rules"))
    rules = CleanRules(
        caption_replace=reader.substitutions("captions", "replace"),
        tag_remove=reader.patterns("tags", "remove"),
        tag_replace=reader.substitutions("tags", "replace"),
        only_first_of=tuple(tuple(choices) for choices in reader.lists("tags", "only_first_of")),
        underscores_to_spaces=reader.switch("tags", "underscores_to_spaces"),
    )
    reader.check_all_read()
    return rules


class _Reader:
    """Takes values out of the file's tables and collects what is wrong with them."""

    def __init__(self, path: Path, tables: dict[str, Any]):
        self._path, self._tables = path, tables
        self._known: dict[str, set[str]] = {}
        self._mistakes: list[str] = []

    def switch(self, table: str, key: str) -> bool:
        value = self._take(table, key, False)
        if not isinstance(value, bool):
            self._complain(table, key, "expected true or false")
        return value is True

    def patterns(self, table: str, key: str) -> tuple[re.Pattern[str], ...]:
        texts = self._texts(table, key, self._take(table, key, []))
        return tuple(pattern for text in texts if (pattern := self._compiled(table, key, text)))

    def substitutions(self, table: str, key: str) -> tuple[Substitution, ...]:
        found = []
        for pair in self.lists(table, key):
            if len(pair) != 2:
                self._complain(table, key, f"expected ['pattern', 'replacement'], found {pair}")
            elif pattern := self._compiled(table, key, pair[0]):
                try:
                    pattern.sub(pair[1], "")  # reads the replacement, though nothing is replaced
                    found.append((pattern, pair[1]))
                except (re.error, IndexError) as error:
                    self._complain(table, key, f"the replacement '{pair[1]}' does not fit '{pair[0]}': {error}")
        return tuple(found)

    def lists(self, table: str, key: str) -> list[list[str]]:
        value = self._take(table, key, [])
        if not isinstance(value, list) or not all(isinstance(item, list) for item in value):
            self._complain(table, key, "expected a list of lists, such as [['a', 'b'], ['c', 'd']]")
            return []
        return [self._texts(table, key, item) for item in value]

    def check_all_read(self) -> None:
        """UserError with all mistakes, tables and keys that nothing reads among them."""
        for table, content in self._tables.items():
            if table not in self._known or not isinstance(content, dict):
                self._mistakes.append(f"{self._path} [{table}]: unknown table{did_you_mean(table, self._known)}")
                continue
            for key in content.keys() - self._known[table]:
                self._complain(table, key, f"unknown key{did_you_mean(key, self._known[table])}")
        if self._mistakes:
            raise UserError(*self._mistakes)

    def _take(self, table: str, key: str, default: Any) -> Any:
        self._known.setdefault(table, set()).add(key)
        content = self._tables.get(table, {})
        return content.get(key, default) if isinstance(content, dict) else default

    def _texts(self, table: str, key: str, value: Any) -> list[str]:
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return value
        self._complain(table, key, f"expected a list of texts, found {value}")
        return []

    def _compiled(self, table: str, key: str, text: str) -> re.Pattern[str] | None:
        try:
            return re.compile(text, re.IGNORECASE)
        except re.error as error:
            self._complain(table, key, f"'{text}' is no regular expression: {error}")
            return None

    def _complain(self, table: str, key: str, problem: str) -> None:
        self._mistakes.append(f"{self._path} [{table}] {key}: {problem}")
