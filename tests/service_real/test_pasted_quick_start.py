"""The quick start of docs/service.md, pasted into bash as it stands there, but for the address and the number of steps."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageStat

from service.training.first_models import write_first_models
from tests.service_real.real_service import ROOT, RealService, needed_variable, real_service

QUICK_START = (ROOT / "docs/service.md").read_text(encoding="utf-8").split("## Quick start")[1].split("\n## ")[0]
CLIENTS, KEY, TIYARO, REPLICATE, CURL, CEREBRIUM = re.findall(r"```(?:bash|python)\n(.*?)```", QUICK_START, re.DOTALL)
SERVER, STEPS = "http://127.0.0.1:8600", "2"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealService]:
    python = needed_variable("COG_PYTHON", "run .ci/real, which installs cog")
    with real_service(tmp_path_factory.mktemp("service"), cog_python=python) as service:
        models = service.data / "models.toml"
        models.unlink()
        assert write_first_models(models)  # as the first start of a new user does
        yield service


@pytest.fixture(scope="module")
def checkout(service: RealService, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, with the environment for clients in it."""
    folder = tmp_path_factory.mktemp("user") / "tadpole"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "output", "tests", "__pycache__"))
    paste(CLIENTS, folder, service)
    return folder


def paste(code: str, folder: Path, service: RealService) -> str:
    """What the terminal shows. A key is what the second block is there for."""
    assert KEY == "export TADPOLE_API_KEY=tadpole_...\n"
    text = re.sub(r'(max_train_steps"?: )\d+', rf"\g<1>{STEPS}", code.replace(SERVER, service.url))
    start = ". clients/bin/activate\n" if (folder / "clients").exists() else ""
    environment = {**os.environ, "TADPOLE_API_KEY": service.key, "TADPOLE_URL": service.url, "HOME": str(folder.parent)}
    environment.pop("PYTHONPATH", None)
    ended = subprocess.run(["bash", "-e", "-c", start + text], cwd=folder, env=environment, capture_output=True, text=True, timeout=540)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def assert_drawn(path: Path) -> None:
    """A picture, and not of one colour."""
    with Image.open(path) as picture:
        assert picture.size == (64, 64) and ImageStat.Stat(picture.convert("L")).stddev[0] > 5


@pytest.mark.parametrize(("name", "code"), [("tiyaro_frog", TIYARO), ("replicate_frog", REPLICATE)])
def test_in_python(name: str, code: str, service: RealService, checkout: Path) -> None:
    assert f"`python {name}.py`" in QUICK_START
    paste(f"cat > {name}.py <<'END OF FILE'\n{code}END OF FILE\npython {name}.py\n", checkout, service)
    assert_drawn(checkout / f"{name}.png")


def test_by_curl(service: RealService, checkout: Path) -> None:
    assert paste(CURL, checkout, service).count("succeeded") == 2
    assert_drawn(checkout / "curl_frog.png")


def test_by_the_command_line(service: RealService, checkout: Path) -> None:
    assert "succeeded" in paste(CEREBRIUM, checkout, service)
    assert (checkout / "tadpole_frog/model.safetensors").is_file()
    for number in range(4):
        assert_drawn(checkout / f"tadpole_frog/samples/{number}.png")
