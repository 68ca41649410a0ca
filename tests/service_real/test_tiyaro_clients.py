"""Tiyaro's clients against trainings of the embedded base: the samples of its document, and gql, with both generations of names."""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service_real.real_service import BASE, RealService, archive_of_pictures, needed_variable, real_service, run_client

CLIENT = Path(__file__).resolve().parent / "clients" / "tiyaro.py"
INPUT = {
    "name": "milky", "version": "1.0", "datasetS3ObjName": "milkyway.zip", "instance_prompt": 'a "mky" frog', "class_prompt": "a frog",
    "model": BASE, "max_train_steps": 2, "resolution": 64, "learning_rate": 1e-5, "num_class_images": 2, "mixed_precision": "no",
}  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealService]:
    with real_service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.mark.parametrize(
    ("way", "names"),
    [("requests", ["startTrainingJob", "getTrainedModels"]), ("gql", ["startRetrainingJob", "getRetrainedModels"])],
)
def test_the_whole_flow(way: str, names: list[str], service: RealService, tmp_path: Path) -> None:
    python = needed_variable("GQL_PYTHON", "run .ci/real, which installs gql")
    archive = archive_of_pictures(tmp_path)
    asked = {"way": way, "url": f"{service.url}/graphql", "key": service.key, "names": names, "archive": str(archive), "input": INPUT}
    answer = run_client([python, str(CLIENT)], asked, {})
    assert answer["status"]["statusEnum"] == "done", service.log(answer["job_id"])
    assert (answer["before"], answer["models_meanwhile"], answer["status"]["errMsg"]) == ("notfound", 0, None)
    assert json.loads(answer["status"]["jobInput"])["dreamboothInput"] == INPUT
    job = service.get(f"/v1/jobs/{answer['job_id']}")
    assert job["progress"]["step"] == 2 and job["output"]["files"]
    assert len(list((service.data / "jobs" / answer["job_id"] / "pictures" / "class").glob("*.png"))) == 2
