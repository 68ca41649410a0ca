"""From the command line to an exit code: reads the config, checks all that needs no model, then builds and trains."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from library.config.load import Settings, load_settings
from library.config.scripts import Script
from library.errors import UserError
from library.train.console import set_up_logging
from library.train.plan import make_plan
from library.train.signals import FINISHES_STEP, StopRequest

USER_MISTAKE = 2
STATUS_FILE = "TADPOLE_STATUS_FILE"  # launch.py reads from it the process to signal, and the exit code


def main(script: Script, argv: list[str] | None = None) -> NoReturn:
    """Run a training script and exit: 0 done, 2 the user's mistake, 130 / 143 stopped by a signal, 1 anything else."""
    write_status(f"pid {os.getpid()}")
    try:
        code = run(script, sys.argv[1:] if argv is None else argv)
    except UserError as error:
        for message in error.messages:
            print(f"error: {message}", file=sys.stderr)
        code = USER_MISTAKE
    write_status(f"exit {code}")
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def run(script: Script, argv: list[str]) -> int:
    settings = load_settings(script.name, argv)
    if settings is None:  # --output_config has written its file
        return 0
    try:
        return plan_and_train(script, settings)
    except UserError as error:
        raise UserError(*map(settings.placed, error.messages)) from error


def plan_and_train(script: Script, settings: Settings) -> int:
    looks_only = settings.training.dry_run or settings.training.debug_dataset
    stop_request = StopRequest("stopping" if looks_only else FINISHES_STEP)
    stop_request.listen()  # before the imports that take seconds: the launcher may die meanwhile
    set_up_logging(settings.logging, is_main())
    plan = make_plan(settings)
    if looks_only and not stop_request.wanted:
        from library.train.looking import look

        return look(plan, stop_request) if is_main() else 0
    if is_main():
        print("\n".join(plan.lines()), flush=True)
    if stop_request.wanted:
        return stop_request.exit_code
    from library.train.run import train_by_plan

    return train_by_plan(plan, stop_request)


def is_main() -> bool:
    """Whether this is the process that speaks, where the launcher has started several."""
    return os.environ.get("RANK", "0") == "0"


def write_status(line: str) -> None:
    if path := os.environ.get(STATUS_FILE):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
