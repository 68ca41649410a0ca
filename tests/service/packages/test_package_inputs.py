"""The inputs of a package: read from its signature, and checked before it is started."""
from __future__ import annotations

import pytest

from library.errors import UserError
from service.packages.inputs import inputs_of, mistakes_in, openapi_of

SOURCE = '''
KINDS = ["a", "b"]
class Predictor(BasePredictor):
    def setup(self): ...
    def predict(
        self,
        image: Path = Input(description="A picture."),
        prompt: str = Input(description="Words.", default="", max_length=5),
        kind: str = Input(default="a", choices=KINDS),
        width: int = Input(default=64, choices=[64, 128]),
        steps: int = Input(default=5, ge=1, le=10),
        scale: float = Input(default=1.5, ge=0, le=2),
        seed: Optional[int] = Input(default=None, ge=0),
        noise: float | None = Input(default=None),
    ) -> List[Path]: ...
'''


def test_a_signature_is_a_schema() -> None:
    schema = inputs_of(SOURCE, "predict.py")
    assert schema["required"] == ["image"]
    assert schema["properties"]["image"] == {"x-order": 0, "title": "Image", "type": "string", "format": "uri", "description": "A picture."}
    assert schema["properties"]["kind"]["enum"] == ["a", "b"]
    assert schema["properties"]["steps"] == {"x-order": 4, "title": "Steps", "type": "integer", "default": 5, "minimum": 1, "maximum": 10}
    assert schema["properties"]["seed"] == {"x-order": 6, "title": "Seed", "type": "integer", "minimum": 0, "nullable": True}
    assert schema["properties"]["noise"] == {"x-order": 7, "title": "Noise", "type": "number", "nullable": True}
    assert openapi_of(schema, "frogs")["components"]["schemas"]["Input"] == schema


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def predict(): ...", "there is no class Predictor"),
        ("class Predictor:\n def predict(self, a: set = Input()): ...", "line 2, a: its type is set"),
        ("class Predictor:\n def predict(self, a=Input()): ...", "its type is not said"),
        ("class Predictor:\n def predict(self, a: int = 3): ...", "write = Input"),
        ("class Predictor:\n def predict(self, a: int): ...", "write = Input"),
        ("class Predictor:\n def predict(self, a: int = Input(ge=least())): ...", r"least\(\) is no plain value"),
        ("class Predictor:\n def predict(self, a: int = Input(default=None)): ...", r"write Optional\[int\]"),
        ("class Predictor(", "this is no Python"),
    ],
)
def test_what_cannot_be_read_is_told(source: str, told: str) -> None:
    with pytest.raises(UserError, match=f"mine.py.*{told}"):
        inputs_of(source, "mine.py")


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({}, {}),
        ({"prompt": "abcde", "kind": "b", "width": 128, "steps": 10, "scale": 2, "seed": None, "noise": None}, {}),
        ({"prompt": "abcdef"}, {"prompt": "this has 0 to 5 characters"}),
        ({"prompt": 3}, {"prompt": "this is a text"}),
        ({"kind": "c"}, {"kind": "this is one of a, b"}),
        ({"width": 65}, {"width": "this is one of 64, 128"}),
        ({"width": True}, {"width": "this is a whole number"}),
        ({"steps": 11}, {"steps": "this is 1 to 10"}),
        ({"steps": 2.5}, {"steps": "this is a whole number"}),
        ({"scale": "1"}, {"scale": "this is a number"}),
        ({"scale": float("nan")}, {"scale": "this is 0 to 2"}),
        ({"image": 3}, {"image": "this is a URL of a file, or a data: URI"}),
        ({"image": None}, {"image": "this is missing"}),
    ],
)
def test_mistakes_of_a_request(values: dict[str, object], wrong: dict[str, str]) -> None:
    assert mistakes_in({"image": "https://example.com/a.png", **values}, inputs_of(SOURCE, "predict.py")) == wrong


def test_unknown_inputs_are_named_with_those_that_there_are() -> None:
    wrong = mistakes_in({"image": "data:,", "Prompt": "a"}, inputs_of(SOURCE, "predict.py"))
    assert wrong == {"Prompt": "there is no such input; there are image, prompt, kind, width, steps, scale, seed, noise"}
