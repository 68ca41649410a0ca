"""What Cerebrium's client puts into its archive beside the pictures: finetune_config.yaml, read as a stranger's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from service.intake.zip_directory import BadArchive
from service.intake.zip_reader import ZipLimits, ZipReader

CONFIG = "finetune_config.yaml"
LARGEST_CONFIG = 64 << 10  # bytes
DEEPEST = 20  # tables and lists in one another: the parser looks through all that are open at each of its steps


def read_config(archive: Path) -> dict[str, Any]:
    """The configuration in the archive. Raises BadArchive."""
    with ZipReader(archive, ZipLimits()) as reader:
        found = [entry for entry in reader.entries if entry.name == CONFIG]
        if not found:
            raise BadArchive(f"the archive has no {CONFIG}")
        content = reader.read(found[0], LARGEST_CONFIG)
    if content is None:
        raise BadArchive(f"{CONFIG} is longer than {LARGEST_CONFIG} bytes")
    return parse_config(content)


def parse_config(content: bytes) -> dict[str, Any]:
    """Neither deep, nor with references: a few lines of them stand for more than any memory holds."""
    try:
        _check_shape(content)
        config = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise BadArchive(f"{CONFIG} is no YAML") from None
    if not isinstance(config, dict):
        raise BadArchive(f"{CONFIG} is no table of names and values")
    return {str(name): value for name, value in config.items()}


def _check_shape(content: bytes) -> None:
    depth = 0
    for event in yaml.parse(content, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise BadArchive(f"{CONFIG} has references (*name); write the values themselves")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise BadArchive(f"{CONFIG} has more than {DEEPEST} tables and lists in one another")
