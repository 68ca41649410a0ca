"""The quick start of docs/service.md says what the service takes: its queries, inputs, versions, paths and commands. tests/service_real runs it."""
from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import FastAPI
from graphql import build_schema, parse, validate

from service.cli.app import main
from service.packages.templates import read_templates
from service.trainers import OUR_NAME, OUR_VERSION
from service.training import from_cerebrium, from_replicate, from_tiyaro
from service.training.first_models import EMBEDDED
from service.views.tiyaro_models import NAMES

ROOT = Path(__file__).resolve().parents[2]
QUICK_START = (ROOT / "docs/service.md").read_text(encoding="utf-8").split("## Quick start")[1].split("\n## ")[0]


def block(heading: str) -> str:
    """The code below a heading."""
    found = re.search(rf"### {heading}.*?```\w+\n(.*?)```", QUICK_START, re.DOTALL)
    assert found, heading
    return found[1]


def dictionaries(code: str) -> list[dict[str, Any]]:
    """Those that a Python block writes down; what is computed in them is None."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            found.append({key.value: value.value if isinstance(value, ast.Constant) else None for key, value in pairs if isinstance(key, ast.Constant)})
    return found


def the_one_with(name: str, code: str) -> dict[str, Any]:
    (found,) = [entry for entry in dictionaries(code) if name in entry]
    return found


def files(code: str) -> dict[str, str]:
    """What `cat > NAME <<END` writes in a bash block; what bash fills in is named."""
    written = re.findall(r"cat > (\S+) <<END\n(.*?)\nEND\n", code, re.DOTALL)
    return {name: re.sub(r"\$\(.*?\)\"(?=,?\n)", 'filled in"', content) for name, content in written}


def test_tiyaros_queries_and_inputs() -> None:
    code = block("Tiyaro")
    schema = build_schema((ROOT / "service/views/tiyaro.graphql").read_text(encoding="utf-8"))
    queries = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant) and re.match(r"(query|mutation) ", str(node.value))]
    assert len(queries) == 5
    for query in queries:
        assert validate(schema, parse(query)) == [], query
    assert from_tiyaro.read(the_one_with("class_prompt", code)).resolution == 64
    drawing = {NAMES.get(name, name) for name in the_one_with("prompt", code)}
    assert drawing <= read_templates().known["txt2img"].inputs["properties"].keys()


def test_inputs_of_replicates_client() -> None:
    code = block("Replicate: the official API")
    assert from_replicate.read({**the_one_with("class_prompt", code), "instance_data": "https://x.test/frog.zip"}).resolution == 64
    assert f'"{OUR_NAME}:{OUR_VERSION}"' in code
    assert the_one_with("prompt", code).keys() <= read_templates().known["txt2img"].inputs["properties"].keys()


def test_requests_of_curl(app: FastAPI) -> None:
    code = block("Replicate: the experimental")
    training, drawing = (json.loads(files(code)[name]) for name in ("training.json", "drawing.json"))
    assert training.keys() == {"model", "input"} and drawing.keys() == {"version", "input"}
    assert from_replicate.read(training["input"]).resolution == 64
    assert drawing["input"].keys() <= read_templates().known["txt2img"].inputs["properties"].keys()
    asked = {"/v1/" + re.sub(r"\$\w+|frog\.zip", "ID", path) for path in re.findall(r"(?:api|wait_for) (\w[\w./$]+)(?=[ \n])", code)}
    known = {re.sub(r"\{\w+\}", "ID", path) for path in app.openapi()["paths"]}
    assert len(asked) == 5 and asked <= known


def test_the_configuration_and_the_commands_of_cerebrium(capsys: pytest.CaptureFixture[str]) -> None:
    code = block("Cerebrium")
    config = yaml.safe_load(files(code)["frog.yaml"])
    assert (ROOT / config["train_image_dir"]).is_dir() and config["hf_model_path"] == EMBEDDED
    assert from_cerebrium.read(config).resolution == 64
    commands = [shlex.split(line) for line in re.findall(r"tadpole ([\w-]+ [^|\n]*)", code)]
    assert len(commands) == 4
    for name, *words in commands:
        assert main([name, "--help"]) == 0
        told = capsys.readouterr().out
        assert [word for word in words if word.startswith("-") and word not in told] == []
