"""Building and publishing: a LoRA as attention processors, the package, its version."""
from __future__ import annotations

import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from library.config.tool import run_tool
from service.database.tables import Job
from service.jobs.board import NewJob
from service.jobs.handing_over import Building, Publishing
from service.jobs.stages import StageFailed
from service.jobs.workshop import Workshop
from service.keys import Caller
from service.services import Services
from service.training import from_cerebrium, from_replicate, from_tiyaro
from service.training.job_folder import JobFolder
from tools.attn_procs import AttnProcsOptions, attn_procs

BASE = "runwayml/stable-diffusion-v1-5"
LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
REPLICATE = {"instance_prompt": "a cjw frog", "class_prompt": "a frog", "instance_data": "https://example.com/p.zip"}
TIYARO = {"name": "pets/frog", "version": "1.0", "desc": "Frogs.", "datasetS3ObjName": "f.zip", "class_prompt": "a frog", "instance_prompt": "a cjw frog"}
CEREBRIUM = {"name": "frog", "hf_model_path": BASE, "train_prompt": "a cjw frog"}
MODEL_FILES = ("weights/unet/diffusion_pytorch_model.safetensors", "weights/model_index.json")


@pytest.fixture
def workshop(services: Services) -> Workshop:
    (services.settings.data_dir / "base").mkdir()
    (services.settings.data_dir / "models.toml").write_text(f'[models."{BASE}"]\npath = "base"\n', encoding="utf-8")
    return services.workshop


@pytest.fixture
def make(services: Services, workshop: Workshop, caller: Caller) -> Callable[..., tuple[Job, JobFolder]]:
    """A job that has been trained: a whole model, or the weights of a LoRA."""

    def job(api: str, read: Any, inputs: dict[str, Any], lora: dict[str, torch.Tensor] | None = None, **details: Any) -> tuple[Job, JobFolder]:
        resolved = workshop.resolve(read(inputs))
        made = services.board.create(caller, NewJob(api, inputs.get("name", ""), inputs, resolved.to_json(), details))
        folder = workshop.folder(made)
        (folder.stage("building")).mkdir(parents=True)
        if lora is None:
            (folder.output / "model" / "unet").mkdir(parents=True)
            (folder.output / "model" / "model_index.json").write_text("{}", encoding="utf-8")
            (folder.output / "model" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
        else:
            folder.output.mkdir(parents=True)
            save_file(lora, folder.output / "model.safetensors")
        return made, folder

    return job


def lora(name: str = LAYER, alpha: float = 2.0) -> dict[str, torch.Tensor]:
    return {
        f"{name}.lora_down.weight": torch.ones(4, 8),
        f"{name}.lora_up.weight": torch.ones(8, 4),
        f"{name}.alpha": torch.tensor(alpha),
    }


def built(workshop: Workshop, job: Job) -> dict[str, Any]:
    """What the stage says at its end; its process, if it has one, runs here."""
    stage = Building(workshop)
    spec = stage.begin(job, lambda: False)
    if spec is not None:
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(spec.argv, cwd=spec.cwd, capture_output=True, text=True)
        spec.log.write_text(done.stdout + done.stderr, encoding="utf-8")
        assert done.returncode == 0, done.stderr
    return stage.end(job)


def published(workshop: Workshop, job: Job) -> dict[str, Any]:
    stage = Publishing(workshop)
    stage.begin(job, lambda: False)
    return stage.end(job)["output"]


def package_of(services: Services, job: Job, version: str) -> Path:
    found = services.registry.by_id(job.project_id, version.rpartition(":")[2])
    assert found is not None
    return services.settings.data_dir / found.version.folder


def test_a_whole_model(workshop: Workshop, make: Any, services: Services) -> None:
    job, _ = make("replicate", from_replicate.read, REPLICATE, destination="default/mine")
    assert built(workshop, job) == {"warnings": []}
    output = published(workshop, job)
    assert [file["name"] for file in output["files"]] == ["output.zip"] and output["version"].startswith("default/mine:")
    package = package_of(services, job, output["version"])
    assert all((package / name).is_file() for name in MODEL_FILES) and "Painter(\"text\")" in (package / "predict.py").read_text(encoding="utf-8")
    assert published(workshop, job)["version"] == output["version"]  # once more changes nothing


def test_of_what_is_canceled_nothing_is_left_for_others(workshop: Workshop, make: Any, services: Services) -> None:
    job, _ = make("replicate", from_replicate.read, REPLICATE, destination="default/mine")
    built(workshop, job)
    version = published(workshop, job)["version"]
    package = package_of(services, job, version)
    (package.parent / f".draft-{job.id}").mkdir()  # of a service that was killed
    for _ in range(2):  # once more changes nothing
        Publishing(workshop).take_back(job)
        assert services.registry.by_id(job.project_id, version.rpartition(":")[2]) is None
        assert list(package.parent.iterdir()) == []
    Building(workshop).take_back(job)
    assert "version" not in published(workshop, job)


def test_the_client_chooses_the_template_and_leaves_notes(workshop: Workshop, make: Any, services: Services) -> None:
    job, _ = make("dreambooth", from_replicate.read, REPLICATE, model="default/mine", template_version="img2img", notes="green")
    built(workshop, job)
    found = services.registry.by_id(job.project_id, published(workshop, job)["version"].rpartition(":")[2])
    assert found is not None and (found.version.template, found.version.notes, found.version.job_id) == ("img2img", "green", job.id)
    assert found.version.card["inputs"]["required"] == ["image"]


def test_a_model_of_tiyaro_keeps_its_name_and_version(workshop: Workshop, make: Any, services: Services) -> None:
    job, _ = make("tiyaro", from_tiyaro.read, TIYARO)
    built(workshop, job)
    published(workshop, job)
    found = services.registry.find(job.project_id, "default", "pets/frog", "1.0")
    assert found is not None and (found.version.job_id, found.model.description, found.version.card["desc"]) == (job.id, "Frogs.", "Frogs.")


def test_a_lora_is_attention_processors_too(workshop: Workshop, make: Any, services: Services) -> None:
    job, folder = make("cerebrium", from_cerebrium.read, CEREBRIUM, lora())
    assert built(workshop, job) == {"warnings": []}
    with zipfile.ZipFile(folder.result / "output.zip") as archive:
        names = set(archive.namelist())
        archive.extractall(folder.root / "unpacked")
    weights = {f"checkpoints/final/attn_procs/pytorch_lora_weights.{kind}" for kind in ("safetensors", "bin")}
    assert names == {"model.safetensors", *weights}
    processors = torch.load(folder.root / "unpacked" / "checkpoints/final/attn_procs/pytorch_lora_weights.bin", weights_only=True)
    place = "mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora"
    assert processors.keys() == {f"{place}.down.weight", f"{place}.up.weight"}
    torch.testing.assert_close(processors[f"{place}.up.weight"], torch.full((8, 4), 0.5))  # alpha 2 of rank 4
    package = package_of(services, job, published(workshop, job)["version"])
    assert json.loads((package / "weights" / "base.json").read_text(encoding="utf-8")) == {"model": BASE, "revision": "main"}


def test_a_lora_that_cannot_be_written_so_is_told(workshop: Workshop, make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    job, folder = make("cerebrium", from_cerebrium.read, CEREBRIUM, lora("lora_te_layer"))
    stage = Building(workshop)
    spec = stage.begin(job, lambda: False)
    assert spec is not None
    with pytest.raises(SystemExit):
        run_tool(AttnProcsOptions, attn_procs, spec.argv[2:])  # as the process does
    spec.log.write_text(capsys.readouterr().err, encoding="utf-8")
    told = stage.explain(job, None)  # type: ignore[arg-type]
    assert "could not be written as attention processors" in told and "adapters of other layers" in told
    assert not folder.attention_processors.exists()


def test_what_no_package_can_be_built_of_is_handed_over_all_the_same(workshop: Workshop, make: Any, services: Services) -> None:
    job, _ = make("dreambooth", from_replicate.read, REPLICATE, model="default/mine", template_version="controlnet")
    [warning] = built(workshop, job)["warnings"]
    assert warning.startswith("no package was built: the template controlnet needs a ControlNet")
    output = published(workshop, job)
    assert [file["name"] for file in output["files"]] == ["output.zip"] and "version" not in output


def test_the_base_of_a_lora_is_a_folder(services: Services, workshop: Workshop, make: Any) -> None:
    job, _ = make("cerebrium", from_cerebrium.read, CEREBRIUM, lora())
    (services.settings.data_dir / "base").rmdir()
    (services.settings.data_dir / "base").touch()
    [warning] = Building(workshop).end(job)["warnings"]
    assert "needs its base in Diffusers layout" in warning


@pytest.mark.parametrize(("code", "told"), [(5, "could not be packed: Input/output error"), (28, "No space left on device")])
def test_a_disk_that_takes_nothing_fails_the_job(code: int, told: str, workshop: Workshop, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes of one that is full is told alike of all stages, and not here."""
    job, _ = make("replicate", from_replicate.read, REPLICATE, destination="default/mine")

    def fails(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("service.jobs.handing_over.pack", fails)
    with pytest.raises(OSError if code == 28 else StageFailed, match=told):
        Building(workshop).begin(job, lambda: False)
