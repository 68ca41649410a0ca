"""Fields of a client: what each takes, and what is said of the rest, all at once."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.training import from_cerebrium, from_replicate, from_tiyaro
from service.training.fields import BadInput, Choice, Field, Flag, Name, Number, Text, Whole, read_fields, schema_of


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        (Whole(1, 10), 3, 3),
        (Whole(1, 10), 3.0, 3),
        (Whole(1, 10), "3", 3),
        (Number(above=0, most=1), "5e-4", 0.0005),
        (Number(above=0, most=1), 1, 1.0),
        (Flag(), False, False),
        (Choice(("no", "fp16")), "fp16", "fp16"),
        (Text(), "  a frog ", "a frog"),
        (Text(), 'a "frog" --w 64 \\n 蛙 👩\u200d🚀', 'a "frog" --w 64 \\n 蛙 👩\u200d🚀'),
        (Text(), "x" * 1000, "x" * 1000),
        (Text(has_lines=True), "a\nfrog\tand more\n", "a\nfrog\tand more"),
        (Name(), "runwayml/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"),
    ],
)
def test_taken(check, value, expected):
    assert check.read(value) == expected
    assert type(check.read(value)) is type(expected)


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (Whole(1, 10), 11, "11 is not between 1 and 10"),
        (Whole(1, 10), 2.5, "2.5 is not a whole number"),
        (Whole(1, 10), True, "True is not a number"),
        (Whole(1, 10), "three", "'three' is not a number"),
        (Whole(1, 10), 10**400, "this number is too large"),
        (Whole(64, 2048, 8), 100, "100 is not a multiple of 8; write 96, for example"),
        (Number(above=0), 0, "0 is not above 0"),
        (Number(below=1), 1.0, "1.0 is not below 1"),
        (Number(most=1), 2, "2 is more than 1"),
        (Number(), float("nan"), "too large"),
        (Number(), "1e999", "too large"),
        (Number(), [1], r"\[1\] is not a number"),
        (Flag(), "true", "'true' is neither true nor false"),
        (Flag(), 1, "1 is neither true nor false"),
        (Choice(("a", "b")), ["a"], "is none of a, b"),
        (Text(), "", "it has 0 characters; write 1 to 1000"),
        (Text(), "   ", "it has 0 characters"),
        (Text(), "x" * 1001, "it has 1001 characters"),
        (Text(), "a\nfrog", "a line break or another control character"),
        (Text(), "a\x00frog", "control character"),
        (Text(has_lines=True), "a\x00frog", "there is a control character in it; write plain text"),
        (Text(), "a\u2028frog", "control character"),
        (Text(), "a\ud800frog", "control character"),
        (Text(), 7, "7 is not a text"),
        (Name(), "../etc/passwd", "is no name"),
        (Name(), "/etc/passwd", "is no name"),
        (Name(), "a/../b", "is no name"),
        (Name(), "a//b", "is no name"),
        (Name(), "a/b/", "is no name"),
        (Name(), "a\n", "is no name"),
        (Name(), "C:\\model", "is no name"),
        (Name(), "x" * 129, "is no name"),
    ],
)
def test_refused(check, value, message):
    with pytest.raises(ValueError, match=message):
        check.read(value)


@pytest.mark.parametrize("check", [Whole(1, 10), Number(), Flag(), Choice(("a",)), Text(), Name()])
def test_a_number_of_thousands_of_digits(check):
    """Python refuses to write it."""
    with pytest.raises(ValueError, match="this number"):
        check.read(10**5000)


FIELDS = (
    Field("prompt", "prompt", Text()),
    Field("steps", "steps", Whole(1, 9), 5, aliases=("max_steps",)),
    Field("verbose", None, Flag(), False),
)


def test_defaults_aliases_and_null():
    found = read_fields({"prompt": "a frog", "max_steps": 2, "verbose": None}, FIELDS)
    assert (found.values, found.given, found.problems) == ({"prompt": "a frog", "steps": 2}, {"prompt", "max_steps"}, [])
    assert read_fields({"prompt": "a frog", "steps": None}, FIELDS).values["steps"] == 5


def test_every_problem_at_once_by_the_name_that_was_written():
    problems = read_fields({"steps": 1, "max_steps": 2, "verbose": "yes", "promt": "a frog", "optimizer_type": "os.system"}, FIELDS).problems
    assert {problem.field: problem.message for problem in problems} == {
        "prompt": "this is needed and missing",
        "max_steps": "this is the same as steps, which is given too; remove one of them",
        "verbose": "'yes' is neither true nor false",
        "promt": 'there is no such input; did you mean "prompt"?',
        "optimizer_type": "there is no such input",
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("reader", [from_tiyaro, from_replicate, from_cerebrium])
@given(st.data())
def test_whatever_is_sent_is_a_request_or_a_list_of_problems(reader, data):
    fields = [*from_cerebrium.CONFIG, *from_cerebrium.TRAINING_ARGS] if reader is from_cerebrium else reader.FIELDS
    names = st.sampled_from([*(field.name for field in fields), "training_args"]) | st.text(max_size=10)
    try:
        request = reader.read(data.draw(st.dictionaries(names, JSON, max_size=8)))
    except BadInput as error:
        assert error.problems
        assert all(problem.message and "\n" not in problem.message for problem in error.problems)
    else:
        assert type(request).from_json(json.loads(json.dumps(request.to_json()))) == request


def test_the_schema_says_the_same():
    schema = schema_of(from_replicate.FIELDS)
    assert schema["required"] == ["instance_prompt", "class_prompt", "instance_data"]
    assert schema["properties"]["seed"] == {"type": "integer", "minimum": 0, "maximum": 2**31 - 1, "default": 1337, "x-order": 7}
    assert schema["properties"]["learning_rate"] | {"x-order": 0} == {
        "type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 1e-6, "x-order": 0,
    }  # fmt: skip
    assert schema["properties"]["lr_scheduler"]["enum"][0] == "linear"
