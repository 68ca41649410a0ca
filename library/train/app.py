"""From the command line to an exit code: reads the config, checks all that needs no model, then builds and trains."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from library.config.load import Settings, load_settings
from library.config.scripts import Script
from library.errors import UserError
from library.train.caching_plan import make_caching_plan
from library.train.console import set_up_logging
from library.train.out_of_memory import OutOfMemory, out_of_memory
from library.train.plan import make_plan
from library.train.signals import FINISHES_STEP, StopRequest
from library.train.status import write_exit, write_status

USER_MISTAKE = 2


def main(script: Script, argv: list[str] | None = None) -> NoReturn:
    """Run a script and exit: 0 done, 2 the user's mistake, 130 / 143 stopped by a signal, 1 anything else."""
    write_status(f"pid {os.getpid()}")
    try:
        code = run(script, sys.argv[1:] if argv is None else argv)
    except UserError as error:
        for message in error.messages:
            print(f"error: {message}", file=sys.stderr)
        code = USER_MISTAKE
    except OutOfMemory as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    write_exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def run(script: Script, argv: list[str]) -> int:
    settings = load_settings(script.name, argv)
    if settings is None:  # --output_config has written its file
        return 0
    stop_request = StopRequest(_answer_to_signals(settings))
    stop_request.listen()  # before the imports that take seconds: the launcher may die meanwhile
    try:
        set_up_logging(settings.logging, is_main())
        return (plan_and_cache if script.method == "caching" else plan_and_train)(settings, stop_request)
    except UserError as error:
        raise UserError(*map(settings.placed, error.messages)) from error
    except Exception as error:
        told = out_of_memory(error, settings)
        if told is None:
            raise
        raise told from error


def _answer_to_signals(settings: Settings) -> str:
    if _looks_only(settings):
        return "stopping"
    return "finishing what is being encoded" if settings.script.method == "caching" else FINISHES_STEP


def _looks_only(settings: Settings) -> bool:
    return settings.training.dry_run or settings.training.debug_dataset


def plan_and_train(settings: Settings, stop_request: StopRequest) -> int:
    plan = make_plan(settings)
    if _looks_only(settings) and not stop_request.wanted:
        from library.train.looking import look

        return look(plan, stop_request) if is_main() else 0
    if is_main():
        print("\n".join(plan.lines()), flush=True)
    if stop_request.wanted:
        return stop_request.exit_code
    from library.train.run import train_by_plan

    return train_by_plan(plan, stop_request)


def plan_and_cache(settings: Settings, stop_request: StopRequest) -> int:
    plan = make_caching_plan(settings)
    if is_main():
        print("\n".join(plan.lines()), flush=True)
    if settings.training.dry_run and is_main():
        print("dry run: everything is in order; nothing was encoded or written")
    if settings.training.dry_run or stop_request.wanted:
        return stop_request.exit_code
    from library.train.caching_run import cache_by_plan

    return cache_by_plan(plan, stop_request)


def is_main() -> bool:
    """Whether this is the process that speaks, where the launcher has started several."""
    return os.environ.get("RANK", "0") == "0"
