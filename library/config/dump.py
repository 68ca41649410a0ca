"""Settings as a config file, and the options as a page: `python -m library.config.dump docs/options.md` writes the page."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

from library.config.declare import Option, options_of
from library.config.old_spellings import OLD_SPELLINGS
from library.config.options import TOPICS
from library.config.scripts import CACHING, SCRIPTS
from library.config.settings import OPTIONS, Settings, options_for


def settings_toml(settings: Settings, only_given: bool = False) -> str:
    """A config file that gives these settings again; without secrets and without what is not set."""
    sections, known = [], options_for(settings.script.name)
    for topic, options in TOPICS.items():
        names = [option.name for option in options_of(options) if option.name in known]
        names = [name for name in names if not only_given or settings.given(name)]
        lines = [f"{name} = {toml_value(settings.value(name))}" for name in names if _is_written(settings, name)]
        if lines:
            sections.append("\n".join((f"[{topic}]", *lines, "")))
    return "\n".join(sections)


def shown_to_others(settings: Settings) -> dict[str, bool | int | float | str]:
    """The options of a run as plain values for a tracker that others may see: without secrets, and without places on this machine."""
    shown = {}
    for name in options_for(settings.script.name):
        value, declared = settings.value(name), OPTIONS[name].declared
        if value is not None and not declared.secret and not declared.private:
            shown[name] = value if isinstance(value, (bool, int, float, str)) else toml_value(value)
    return shown


def _is_written(settings: Settings, name: str) -> bool:
    return settings.value(name) is not None and not OPTIONS[name].declared.secret


def toml_value(value: Any) -> str:
    """A value in TOML's notation: JSON's, which is TOML too but for one character."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False).replace("\x7f", "\\u007f")


def options_markdown() -> str:
    """The page docs/options.md."""
    lines = [
        "# Options",
        "",
        "Written by `python -m library.config.dump docs/options.md` from the declarations in `library/config/options/`.",
        "Every option is a flag (`--name value`) and a key of the file that `--config_file` names; flags override the file.",
        "Switches are written `--name` as flags and `name = true` in files.",
        "Dataset files have keys of their own: [dataset_config.md](dataset_config.md).",
    ]
    for topic, options in TOPICS.items():
        lines += ["", f"## {topic}", "", inspect.getdoc(options) or "", ""]
        lines += ["| option | value | default | meaning |", "|---|---|---|---|"]
        lines += [_row(option) for option in options_of(options)]
    return "\n".join([*lines, "", *_old_spellings(), "", *_matrix()]) + "\n"


def _old_spellings() -> list[str]:
    rows = [f"| `{old}` | `{new}` |" for old, new in OLD_SPELLINGS.items()]
    return ["## Old spellings", "", "They are understood, as flags and in files, and a line says what is written today.", "",
            "| old | today |", "|---|---|", *rows]  # fmt: skip


def _matrix() -> list[str]:
    """Which script takes what."""
    lines = ["## Options by script", "", "An option that a script cannot use is an error there that names the scripts that have it.", ""]
    scripts = [name for name in SCRIPTS if name not in CACHING]
    lines += [f"| option | {' | '.join(f'`{name}`' for name in scripts)} |", "|---" * (len(scripts) + 1) + "|"]
    only_caching = []
    for option in OPTIONS.values():
        cells = ["yes" if option.is_of(name) else "" for name in scripts]
        if any(cells):
            lines.append(f"| `{option.name}` | {' | '.join(cells)} |")
        else:
            only_caching.append(f"`{option.name}`")
    tools, own = (" and ".join(names) for names in ([f"`{name}`" for name in CACHING], only_caching))
    return [*lines, "", f"{tools} take all of these, so that they can share config files with a training, and {own}."]


def _row(option: Option) -> str:
    choices = [f"`{choice}`" for choice in option.declared.choices]
    meaning = option.declared.help + (f" One of {', '.join(choices)}." if choices else "")
    default = "" if option.default in (None, "") else f"`{toml_value(option.default)}`"
    return (
        "| "
        + " | ".join(cell.replace("|", "\\|") for cell in (f"`{option.name}`", option.kind.expected, default, meaning))
        + " |"
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(options_markdown(), encoding="utf-8", newline="\n")
