"""The environment in .venv: made, filled by pip, and left alone while it holds what is wanted."""
from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from launcher.base import GIB, ROOT, VENV, SetupError, say, venv_python
from launcher.torch_build import TORCH, choose_build, find_gpu, obtainable, torch_command

MARK = VENV / "tadpole-setup.json"  # what is installed
OLDEST, NEWEST = (3, 10), (3, 13)
SPACE_NEEDED = {"cpu": 4 * GIB, "cuda": 12 * GIB}

# The first pattern that is found in what pip or venv printed names the remedy.
REMEDIES = (
    (
        r"ensurepip is not|No module named '?(venv|ensurepip)|python3[\d.]*-venv",
        "this Python has no venv module: on Debian and Ubuntu, sudo apt install python{version}-venv; elsewhere, install "
        "Python from https://www.python.org/downloads/; then run this again",
    ),
    (r"No module named '?pip", "the environment is incomplete: delete {venv}, then run this again"),
    (
        r"No space left|Errno 28|ENOSPC|not enough space",
        "a disk is full: free some space, also where temporary files go (TMPDIR names another folder), then run this again",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerificationError",
        "a certificate is not trusted: set PIP_CERT to the file with your proxy's certificate, then run this again",
    ),
    (
        r"NewConnectionError|Name or service not known|getaddrinfo failed|Temporary failure in name|timed out|"
        r"Connection (refused|reset|aborted|broken)|ProxyError|from versions: none",
        "the package index cannot be reached: check the network, set HTTPS_PROXY or, for a mirror, PIP_INDEX_URL, "
        "then run this again",
    ),
    (
        r"No matching distribution|Could not find a version|Requires-Python",
        "a package has no build for this machine: try Python 3.11, or --torch cpu",
    ),
    (r"WinError 206|path is too long|long.?path", "a path is too long for Windows: move the project to C:\\tadpole, say"),
    (
        r"Permission denied|Access is denied|WinError 5|Errno 13",
        "a file cannot be written: close programs that use {venv}, or delete that folder, then run this again",
    ),
)


def set_up(asked: str | None = None, dev: bool = False, service: bool = False) -> None:
    """Make .venv hold what is wanted; does nothing, in well under a second, when it already does."""
    installed = read_mark()
    dev = dev or installed.get("dev", False)
    service = service or dev or installed.get("service", False)  # tests test the service, too
    build, reason = _settle_build(asked, installed)
    if installed == wanted_setup(build, dev, service):
        return
    check_space(build)
    say(f"build of torch: {build} ({reason})")
    if not (asked or installed):
        build = obtainable(build, platform.system())
    is_fresh = not venv_python().exists()
    if is_fresh:
        make_venv()
    MARK.unlink(missing_ok=True)  # from here on the environment is neither the old nor the new one
    if (installed.get("torch"), installed.get("build")) != (TORCH, build):
        install_torch(build, is_fresh)
    run_pip(["install", *(part for name in requirement_files(dev, service) for part in ("-r", str(ROOT / name)))])
    MARK.write_text(json.dumps(wanted_setup(build, dev, service), indent=1), encoding="utf-8")
    say(f"the environment is ready: {VENV}")


def read_mark() -> dict[str, Any]:
    """What the environment holds; nothing if it is missing or was left half-made."""
    try:
        return json.loads(MARK.read_text(encoding="utf-8")) if venv_python().exists() else {}
    except (OSError, ValueError):
        return {}


def wanted_setup(build: str, dev: bool, service: bool = False) -> dict[str, Any]:
    """What the environment should hold; any change of it leads to a new installation."""
    digest = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in requirement_files(dev, service))).hexdigest()
    return {"torch": TORCH, "build": build, "dev": dev, "service": service, "requirements": digest}


def requirement_files(dev: bool, service: bool = False) -> list[str]:
    more = {"requirements-service.txt": service, "requirements-dev.txt": dev}
    return ["requirements.txt", *(name for name, is_wanted in more.items() if is_wanted)]


def _settle_build(asked: str | None, installed: dict[str, Any]) -> tuple[str, str]:
    """The build to have, and why: the one that is asked for, else the one that is there, else what fits the machine."""
    if installed and not asked:
        return installed["build"], "as before"
    return choose_build(platform.system(), platform.machine(), None if asked else find_gpu(), asked)


def check_python(version: tuple[int, ...]) -> None:
    if not OLDEST <= version[:2] <= NEWEST:
        program = "py -3.11" if os.name == "nt" else "python3.11"
        raise SetupError(
            f"Python {version[0]}.{version[1]} is not supported, 3.10 to 3.13 are: install Python 3.11 "
            f"(https://www.python.org/downloads/) and start this file with it: {program} launch.py {' '.join(sys.argv[1:])}"
        )


def check_space(build: str) -> None:
    needed, free = SPACE_NEEDED["cuda" if build.startswith(("cu", "rocm")) else "cpu"], shutil.disk_usage(ROOT).free
    if free < needed:
        raise SetupError(
            f"{free / GIB:.1f} GiB are free on the disk of {ROOT}, {needed / GIB:.0f} GiB are needed: free some space, "
            "or move the project to a larger disk"
        )


def make_venv() -> None:
    check_python(sys.version_info[:2])
    say(f"making the environment {VENV} with Python {platform.python_version()}")
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if result.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        raise SetupError(explain_failure(result.stdout))


def install_torch(build: str, is_fresh: bool) -> None:
    if not is_fresh:  # pip takes any build of the right version for the one that is wanted
        run_pip(["uninstall", "--yes", "torch"])
    say("installing torch, which is large: this can take some minutes")
    run_pip(torch_command(venv_python(), build)[3:])


def run_pip(arguments: list[str], python: Path | None = None) -> None:
    """Run the environment's pip (or that of another Python), telling in short what it does; SetupError with the remedy if it fails."""
    say("pip " + " ".join(arguments))
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    process = subprocess.Popen(
        [str(python or venv_python()), "-m", "pip", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace",
    )  # fmt: skip
    output = []
    for line in process.stdout or ():
        output.append(line)
        if re.match(r"\s*(Collecting|Downloading|Installing|ERROR)", line):
            say("  " + line.strip()[:140])
    if process.wait():
        raise SetupError(explain_failure("".join(output)))


def explain_failure(output: str) -> str:
    """The remedy for what pip or venv printed, and their last words."""
    last_line = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "no message")
    for pattern, remedy in REMEDIES:
        if re.search(pattern, output, re.IGNORECASE):
            version = f"{sys.version_info[0]}.{sys.version_info[1]}"
            return f"{remedy.format(version=version, venv=VENV)} (the last words were: {last_line[:200]})"
    return f"the installation failed: {last_line}"
