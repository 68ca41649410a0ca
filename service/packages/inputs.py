"""The inputs of a package, read from the signature of its predict.py, which is not run for that: as JSON schema and as OpenAPI."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from library.errors import UserError

TYPES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "Path": {"type": "string", "format": "uri"},
}
CHECKS = {"ge": "minimum", "le": "maximum", "min_length": "minLength", "max_length": "maxLength", "choices": "enum"}


def inputs_of(source: str, name: str) -> dict[str, Any]:
    """The schema of what Predictor.predict takes. UserError, in which the file is called `name`, where it cannot be read."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise UserError(f"{name}, line {error.lineno}: this is no Python: {error.msg}") from None
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    function = _predict(tree)
    if function is None:
        raise UserError(f"{name}: there is no class Predictor with a method predict; cog needs it")
    arguments = function.args.args[1:]
    defaults = [None] * (len(arguments) - len(function.args.defaults)) + list(function.args.defaults)
    properties, required = {}, []
    for order, (argument, default) in enumerate(zip(arguments, defaults, strict=True)):
        field, is_required = _field(argument, default, constants, name)
        properties[argument.arg] = {"x-order": order, "title": argument.arg.replace("_", " ").capitalize(), **field}
        if is_required:
            required.append(argument.arg)
    return {"title": "Input", "type": "object", "properties": properties, **({"required": required} if required else {})}


def openapi_of(inputs: Mapping[str, Any], title: str) -> dict[str, Any]:
    """As much of cog's OpenAPI schema as programs read to draw a form."""
    output = {"title": "Output", "type": "array", "items": {"type": "string", "format": "uri"}}
    request = {"type": "object", "properties": {"input": {"$ref": "#/components/schemas/Input"}}, "required": ["input"]}
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/PredictionRequest"}}}, "required": True}
    answer = {"type": "object", "properties": {"output": {"$ref": "#/components/schemas/Output"}}}
    told = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/PredictionResponse"}}}, "description": "Done"}
    return {
        "openapi": "3.0.2",
        "info": {"title": title, "version": "1"},
        "paths": {"/predictions": {"post": {"summary": "Predict", "requestBody": body, "responses": {"200": told}}}},
        "components": {
            "schemas": {"Input": dict(inputs), "Output": output, "PredictionRequest": request, "PredictionResponse": answer}
        },
    }


def mistakes_in(values: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with a request, by input: what can be told before the package is started, which checks everything again."""
    known = inputs["properties"]
    wrong = {name: f"there is no such input; there are {', '.join(known)}" for name in values if name not in known}
    wrong |= {name: "this is missing" for name in inputs.get("required", ()) if values.get(name) is None}
    for name, value in values.items():
        if name in known and value is not None and (message := _mistake(value, known[name])):
            wrong[name] = message
    return wrong


def _mistake(value: object, field: Mapping[str, Any]) -> str | None:
    kind = field["type"]
    if kind in ("integer", "number"):
        return _number_mistake(value, field)
    if kind == "boolean":
        return None if isinstance(value, bool) else "this is true or false"
    if not isinstance(value, str):
        return "this is a URL of a file, or a data: URI" if field.get("format") == "uri" else "this is a text"
    if "enum" in field and value not in field["enum"]:
        return f"this is one of {', '.join(field['enum'])}"
    if len(value) > field.get("maxLength", len(value)) or len(value) < field.get("minLength", 0):
        return f"this has {field.get('minLength', 0)} to {field.get('maxLength', 'any number of')} characters"
    return None


def _number_mistake(value: object, field: Mapping[str, Any]) -> str | None:
    is_whole = field["type"] == "integer"
    if isinstance(value, bool) or not isinstance(value, int | float) or (is_whole and not isinstance(value, int)):
        return "this is a whole number" if is_whole else "this is a number"
    if "enum" in field and value not in field["enum"]:
        return f"this is one of {', '.join(map(str, field['enum']))}"
    least, most = field.get("minimum", value), field.get("maximum", value)
    return None if least <= value <= most else f"this is {field.get('minimum', 'any number')} to {field.get('maximum', 'any number')}"


def _predict(tree: ast.Module) -> ast.FunctionDef | None:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Predictor":
            return next((part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "predict"), None)
    return None


def _field(argument: ast.arg, default: ast.expr | None, constants: Mapping[str, ast.expr], name: str) -> tuple[dict[str, Any], bool]:
    """The schema of one input, and whether it must be given."""
    where = f"{name}, line {argument.lineno}, {argument.arg}"
    kind, may_be_none = _type(argument)
    if kind not in TYPES:
        raise UserError(f"{where}: its type is {kind or 'not said'}; write one of {', '.join(TYPES)}")
    if not isinstance(default, ast.Call) or ast.unparse(default.func) != "Input":
        raise UserError(f"{where}: write = Input(description=...) behind it")
    told = {word.arg: _value(word.value, constants, where) for word in default.keywords if word.arg}
    field = {**TYPES[kind], **({"description": told["description"]} if "description" in told else {})}
    field |= {CHECKS[key]: value for key, value in told.items() if key in CHECKS}
    if "default" not in told:
        return field, True
    if told["default"] is None and not may_be_none:
        raise UserError(f"{where}: its default is None, and cog answers 500 where it is left out; write Optional[{kind}]")
    return {**field, **({"nullable": True} if told["default"] is None else {"default": told["default"]})}, False


def _type(argument: ast.arg) -> tuple[str, bool]:
    """What is written as the type, without Optional[] or | None, and whether one of these was there."""
    written = ast.unparse(argument.annotation) if argument.annotation else ""
    kind = written.removesuffix(" | None")
    if kind.startswith("Optional["):
        kind = kind.removeprefix("Optional[").removesuffix("]")
    return kind, kind != written


def _value(node: ast.expr, constants: Mapping[str, ast.expr], where: str) -> Any:
    try:
        return ast.literal_eval(constants[node.id] if isinstance(node, ast.Name) and node.id in constants else node)
    except ValueError:
        raise UserError(f"{where}: {ast.unparse(node)} is no plain value; write it out") from None
