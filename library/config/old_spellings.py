"""Spellings that people's notes and older files hold, and what is written today."""

from __future__ import annotations

from typing import Any

# An option, or an option=value -> the same today. A switch may stand for a value of another option.
OLD_SPELLINGS = {
    "caption_extention": "caption_extension",
    "diffusers_xformers": "xformers",
    "scheduler_args": "lr_scheduler_args",
    "use_8bit_adam": "optimizer_type=AdamW8bit",
    "use_lion_optimizer": "optimizer_type=Lion",
    "lr_scheduler=adafactor_scheduler": "lr_scheduler=adafactor",
}
OLD_NAMES = {old: new.partition("=")[0] for old, new in OLD_SPELLINGS.items() if "=" not in old}


def is_old_switch(name: str) -> bool:
    """Whether an option was a switch and is now a value of another one."""
    return name in OLD_NAMES and "=" in OLD_SPELLINGS[name]


def modern(name: str, written: Any) -> tuple[str, Any, str | None]:
    """The option and what is written for it today, and what today's spelling is called if this is an old one.

    A value of None: a switch that was off, which stands for nothing.
    """
    new = OLD_SPELLINGS.get(f"{name}={written}") or OLD_SPELLINGS.get(name)
    if new is None:
        return name, written, None
    option, _, value = new.partition("=")
    if not is_old_switch(name):
        return option, value or written, new
    if not isinstance(written, bool):
        raise ValueError(f"expected true or false, found {written!r}; write {option} = \"{value}\"")
    return option, value if written else None, new
