"""What can be asked of launch.py: demo, test, serve, doctor, setup, or a script."""
from __future__ import annotations

import argparse
import os
import signal
import subprocess
import time
from collections.abc import Sequence

from launcher.base import ROOT, SetupError, say, venv_python
from launcher.cog import set_up_cog
from launcher.doctor import doctor
from launcher.environment import set_up
from launcher.training import accelerate_command, train

USER_MISTAKE = 2
COMMANDS = ("demo", "test", "serve", "doctor", "setup")


def main(arguments: Sequence[str], usage: str) -> int:
    """Do what is asked; the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage)
        return 0 if arguments else USER_MISTAKE
    try:
        if arguments[0] in COMMANDS:
            return run_command(arguments[0], arguments[1:])
        return run_script(arguments)
    except SetupError as error:
        say(f"error: {error}")
        return USER_MISTAKE


def run_command(command: str, arguments: Sequence[str]) -> int:
    if command == "serve":
        set_up(service=True)
        set_up_cog()
        return serve(arguments)
    parser = argparse.ArgumentParser(prog=f"launch.py {command}", allow_abbrev=False)
    if command != "doctor":
        parser.add_argument("--torch", metavar="BUILD", help="cpu, cu126, cu130, ...: this build of torch, not the one that fits")
    if command == "setup":
        parser.add_argument("--dev", action="store_true", help="also what the tests need")
    if command == "test":
        options, rest = parser.parse_known_args(arguments)  # what is left is pytest's
    else:
        options, rest = parser.parse_args(arguments), []
    if command == "doctor":
        return doctor()
    started = time.monotonic()
    set_up(options.torch, dev=command == "test" or getattr(options, "dev", False))
    if command == "setup":
        say(f"set up in {time.monotonic() - started:.1f} s")
        return 0
    return demo() if command == "demo" else test(rest)


def demo() -> int:
    say("training a LoRA on the pictures in assets/frog; this takes a few minutes")
    return train(accelerate_command(ROOT / "train_network.py", ["--config_file", "examples/frog_lora.toml"]), folder=ROOT)


def test(options: Sequence[str]) -> int:
    return subprocess.run([str(venv_python()), "-m", "pytest", "-n", str(os.cpu_count() or 1), *options], cwd=ROOT).returncode


def serve(options: Sequence[str]) -> int:
    """The service, in the folder where the user is: its data goes there."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen([str(venv_python()), "-m", "service.serve", *options], env=environment)
    for name in ("SIGTERM", "SIGHUP"):  # a Ctrl-C in the terminal reaches the service by itself
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, _frame: process.send_signal(number))
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            pass  # it is ending


def run_script(arguments: Sequence[str]) -> int:
    """Options of accelerate launch, a script of this project, the script's own options."""
    place = next((index for index, argument in enumerate(arguments) if argument.endswith(".py")), None)
    if place is None:
        raise SetupError(f"'{arguments[0]}' is none of {', '.join(COMMANDS)}, nor is there a script: see python launch.py --help")
    script = ROOT / arguments[place]
    if not script.is_file():
        raise SetupError(f"there is no script {arguments[place]} in {ROOT}: see python launch.py --help")
    set_up()
    return train(accelerate_command(script, arguments[place + 1 :], arguments[:place]))
