"""The same training as requests of the APIs: curl, GraphQL, a configuration for the command line, and the trainer's run.toml."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from service.services import Services
from service.training import from_cerebrium, from_replicate, from_tiyaro
from service.training.fields import REQUIRED, Field
from service.training.job_files import shown_run
from service.training.resolved import ResolvedRequest

KEY = "$TADPOLE_KEY"
WHOLE_MODEL_ONLY = "This API trains whole models; for a LoRA take the command line, or this page."


@dataclass(frozen=True)
class ShownRequest:
    """One way to ask for it. `left_out`: what this API has no words for."""

    id: str
    title: str
    text: str
    note: str = ""
    left_out: tuple[str, ...] = ()


def shown_requests(services: Services, project: str, resolved: ResolvedRequest) -> list[ShownRequest]:
    is_lora = resolved.request.method == "lora"
    url = services.settings.url
    return [
        ShownRequest("curl", "curl", "", WHOLE_MODEL_ONLY) if is_lora else _curl(url, project, resolved),
        ShownRequest("graphql", "GraphQL", "", WHOLE_MODEL_ONLY) if is_lora else _graphql(url, resolved),
        *([_configuration(resolved)] if is_lora else []),
        ShownRequest("toml", "run.toml", shown_run(resolved), "What the trainer is given here; paths are shown by their names."),
    ]


def _curl(url: str, project: str, resolved: ResolvedRequest) -> ShownRequest:
    name = _plain(resolved.request.name)
    inputs = {**_words(from_replicate.FIELDS, resolved, {"instance_data"}), "instance_data": "SERVING_URL"}
    body = json.dumps({"input": inputs, "model": f"{project}/{name}"}, indent=2, ensure_ascii=False)
    text = "\n".join([
        "# 1. A place for the pictures",
        f'curl -sX POST -H "Authorization: Token {KEY}" {shlex.quote(f"{url}/v1/upload/{name}.zip")}',
        "# 2. The pictures, to the upload_url of that answer",
        f'curl -X PUT -H "Content-Type: application/zip" --data-binary @{name}.zip "UPLOAD_URL"',
        "# 3. The training, with the serving_url of that answer",
        f'curl -X POST -H "Authorization: Token {KEY}" -H "Content-Type: application/json" \\',
        f"  {shlex.quote(f'{url}/v1/trainings')} --data-binary {shlex.quote(body)}",
    ])  # fmt: skip
    return ShownRequest("curl", "curl", text, "Replicate's DreamBooth API.", _missing(from_replicate.FIELDS, resolved))


def _graphql(url: str, resolved: ResolvedRequest) -> ShownRequest:
    name = _plain(resolved.request.name)
    words = {**_words(from_tiyaro.FIELDS, resolved, set()), "version": resolved.request.version or "1", "datasetS3ObjName": f"{name}.zip"}
    order = [field.name for field in from_tiyaro.FIELDS if field.name in words]
    fields = ",\n".join(f"      {field}: {json.dumps(words[field], ensure_ascii=False)}" for field in order)
    text = "\n".join([
        f"# POST to {url}/graphql, with the header authorization: {KEY}",
        "# 1.",
        "mutation { newJobID(jobType: dreambooth) }",
        f"# 2. PUT {name}.zip to the address that this answers",
        f'query {{ getJobInputURL(jobID: "JOB_ID", objName: {json.dumps(name + ".zip")}) }}',
        "# 3.",
        "mutation {",
        '  startTrainingJob(jobID: "JOB_ID", input: {',
        "    jobType: dreambooth",
        "    dreamboothInput: {",
        fields,
        "    }",
        "  })",
        "}",
    ])  # fmt: skip
    return ShownRequest("graphql", "GraphQL", text, "Tiyaro's training API.", _missing(from_tiyaro.FIELDS, resolved))


def _configuration(resolved: ResolvedRequest) -> ShownRequest:
    """JSON values are YAML, too."""
    settings = _words(from_cerebrium.CONFIG, resolved, {"training_type"})
    settings |= {"hf_model_path": resolved.base.model.name, "train_image_dir": "pictures"}
    arguments = _words(from_cerebrium.TRAINING_ARGS, resolved, set())
    if resolved.with_prior_preservation:
        arguments["num_prior_class_images"] = resolved.request.num_class_images
    lines = ["training_type: diffuser", *(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in settings.items())]
    lines += ["training_args:", *(f"  {name}: {json.dumps(value)}" for name, value in arguments.items())]
    note = "The command line: tadpole train --config-file config.yaml"
    fields = (*from_cerebrium.CONFIG, *from_cerebrium.TRAINING_ARGS)
    said = {"with_prior_preservation", "num_class_images", "train_text_encoder"}  # by the prompt of the class, and by the method
    return ShownRequest("config", "config.yaml", "\n".join(lines), note, _missing(fields, resolved, said))


def _words(fields: Iterable[Field], resolved: ResolvedRequest, without: set[str]) -> dict[str, Any]:
    """What has to be said in this API's words: what is needed, and what is not so by its default."""
    asked = _asked(resolved)
    found = {}
    for field in fields:
        value = asked.get(field.target or "")
        if field.target == "class_prompt" and value is None and field.default is REQUIRED:
            value = asked["instance_prompt"]  # it is asked for, and has no effect: no class is kept
        decides = field.target == "num_train_epochs" and asked["max_train_steps"] is None
        if field.name not in without and value is not None and (value != field.default or decides):
            found[field.name] = value
    return found


def _missing(fields: Iterable[Field], resolved: ResolvedRequest, said: Set[str] = frozenset()) -> tuple[str, ...]:
    """What this API has no words for, and was changed."""
    known = {field.target for field in fields}
    plain = type(resolved.request)(method=resolved.request.method, instance_prompt="").to_json()
    ours = {"method", "warnings", "version", "instance_data", "class_data", "name", "advanced"}
    changed = [name for name, value in _asked(resolved).items() if name not in known | ours | said and value != plain[name]]
    return (*changed, *(f"advanced.{name}" for name in resolved.request.advanced))


def _asked(resolved: ResolvedRequest) -> Mapping[str, Any]:
    return resolved.request.to_json()


def _plain(name: str | None) -> str:
    """A name without folders: those of models of this API have none."""
    return (name or "my-model").replace("/", "-")
