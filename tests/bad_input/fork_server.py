"""Runs scripts in processes forked from one that has imported what is slow: requests on stdin, exit codes on stdout.

python fork_server.py "everything" | "all but torch"
"""
from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]


def serve(imported: str) -> None:
    sys.path.insert(0, str(ROOT))
    if imported == "everything":
        _import_everything()
    else:
        import library.train.app  # noqa: F401

        assert "torch" not in sys.modules
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(request)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _import_everything() -> None:
    import torch._dynamo  # noqa: F401  making the first optimizer imports it, which takes as long as torch itself
    import transformers.optimization  # noqa: F401
    from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: F401
    from transformers import CLIPTextModel  # noqa: F401

    import library.train.run  # noqa: F401


def _run(request: dict[str, Any]) -> NoReturn:
    """Behaves like a fresh `python SCRIPT ARGUMENTS`."""
    for descriptor, path in ((0, os.devnull), (1, request["stdout"]), (2, request["stderr"])):
        os.dup2(os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = request["command"]
    code = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
