"""Makes a forked process what a fresh `python SCRIPT ARGUMENTS` is, but for what was imported before."""
from __future__ import annotations

import os
import runpy
import sys
import traceback
from pathlib import Path
from typing import NoReturn


def become(command: list[str], folder: str, environment: dict[str, str], stdout: str, stderr: str) -> NoReturn:
    """`stdout`, `stderr`: files, or one for both; nothing is to be read from stdin."""
    for descriptor, path in ((0, os.devnull), (1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).parent))
    code = 1
    try:
        runpy.run_path(command[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
