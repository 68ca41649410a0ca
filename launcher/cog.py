"""The environment in .venv/cog, in which trained models draw: cog, which wants other libraries than the service, and all of .venv."""
from __future__ import annotations

import subprocess
from pathlib import Path

from launcher.base import ROOT, VENV, SetupError, python_of, say, venv_python
from launcher.environment import explain_failure, run_pip

COG = VENV / "cog"  # service/background.py looks for it there
REQUIREMENTS = ROOT / "requirements-cog.txt"
MARK = COG / "tadpole-setup.txt"  # the requirements that are installed
PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"


def set_up_cog() -> None:
    """Make .venv/cog, unless it is as it should be. Without it the service trains all the same, so a failure is only told."""
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if MARK.is_file() and MARK.read_text(encoding="utf-8") == wanted:
        return
    say(f"making the environment {COG}, in which trained models draw")
    try:
        install()
    except SetupError as error:
        say(f"warning: models can be trained, but not asked for pictures: {error}")
    else:
        MARK.write_text(wanted, encoding="utf-8")


def install() -> None:
    """What .venv has, torch above all, is used from there; pip installs the rest."""
    make = [str(venv_python()), "-m", "venv", "--clear", str(COG)]
    result = subprocess.run(make, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if result.returncode:
        raise SetupError(explain_failure(result.stdout))
    ours, own = (
        subprocess.run([str(python), "-c", PURELIB], capture_output=True, text=True, check=True).stdout.strip()
        for python in (venv_python(), python_of(COG))
    )
    (Path(own) / "ours.pth").write_text(f"{ours}\n", encoding="utf-8")
    run_pip(["install", "-r", str(REQUIREMENTS)], python_of(COG))
