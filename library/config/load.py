"""Settings from defaults, then the config file, then the flags; every mistake in them is told at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from library.config.dump import settings_toml
from library.config.flags import read_flags
from library.config.names import FILE_OPTIONS, explain_unknown
from library.config.old_spellings import modern
from library.config.scripts import SCRIPTS, Script
from library.config.settings import OPTIONS, Settings, Source, options_for, settings_of
from library.config.text_files import read_toml
from library.config.values import value_from_file
from library.errors import UserError

__all__ = ["Settings", "load_settings"]


def load_settings(script_name: str, argv: list[str]) -> Settings | None:
    """The settings of a run of this script. None if `--output_config` asked only to write a config file, which is done then."""
    script = SCRIPTS[script_name]
    flags = read_flags(script, argv)
    path = _config_path(flags.config_file)
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    notes = list(flags.notes)
    mistakes = list(flags.mistakes)
    if path and not flags.output_config:
        try:
            _read_config(path, script, values, sources, notes, mistakes)
        except UserError as error:
            mistakes += error.messages
    if mistakes:
        raise UserError(*mistakes)
    values |= flags.values
    sources |= flags.sources
    for name in ("cache_latents", "cache_text_encoder_outputs"):
        if values.get(f"{name}_to_disk"):
            values[name] = True
            sources.setdefault(name, sources[f"{name}_to_disk"])
    settings = settings_of(values, script, config_path=path, sources=sources, notes=tuple(notes))
    if flags.output_config:
        _write_config(path, settings)
        return None
    return settings


def _config_path(written: str | None) -> Path | None:
    if not written:
        return None
    return Path(written if written.lower().endswith(".toml") else f"{written}.toml")


def _read_config(
    path: Path, script: Script, values: dict[str, Any], sources: dict[str, Source], notes: list[str], mistakes: list[str]
) -> None:
    """Flattens the file's tables; fills values and their sources."""
    options = options_for(script.name)
    for key, place, written in _entries(path, read_toml(path, "config file"), mistakes):
        try:
            name, written, new = modern(key, written)
        except ValueError as error:
            mistakes.append(f"{place}: {error}")
            continue
        if new is not None:
            notes.append(f'{place}: an old spelling of "{new.replace("=", " = ")}"')
        if written is None:
            continue
        if name not in options:
            mistakes.append(f"{place}: {_why_not(name, script)}")
        elif name in sources:
            mistakes.append(f"{place}: this key stands twice, also as {sources[name].place}")
        else:
            sources[name] = Source(place, str(path))
            try:
                values[name] = value_from_file(options[name], written)
            except ValueError as error:
                mistakes.append(f"{place}: {error}")


def _entries(path: Path, content: dict[str, Any], mistakes: list[str]) -> Iterator[tuple[str, str, Any]]:
    """(key, place, value) of the top level and of one level of tables."""
    for key, value in content.items():
        if key in ("general", "datasets") and isinstance(value, (dict, list)):
            mistakes.append(
                f"{path} [{key}]: this table belongs in a dataset file; name that file with --dataset_config FILE.toml"
            )
        elif isinstance(value, dict) and key not in OPTIONS:
            yield from ((inner, f"{path} [{key}] {inner}", item) for inner, item in value.items())
        else:
            yield key, f"{path} {key}", value


def _why_not(key: str, script: Script) -> str:
    if key in FILE_OPTIONS:
        return "this is a flag only; it cannot stand in a file"
    return explain_unknown(key, script)


def _write_config(path: Path | None, settings: Settings) -> None:
    """Writes what the flags say to a new file."""
    if path is None:
        raise UserError("--output_config: give --config_file NEW.toml too, the file to write")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(settings_toml(settings, only_given=True))
    except FileExistsError:
        raise UserError(f"--output_config: {path} exists already and is not overwritten; name a new file") from None
    except OSError as error:
        raise UserError(f"--output_config: {path} cannot be written ({error.strerror})") from None
    print(f"wrote {path}")
