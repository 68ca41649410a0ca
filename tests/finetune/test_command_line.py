"""The tools' flags against the facts of the interface (finetune_flags.json), and what they say of mistakes."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from library.config.declare import options_of
from library.config.old_spellings import OLD_NAMES
from library.config.tool import build_parser, is_positional, read_tool_options, run_tool
from library.errors import UserError
from tests.finetune.tool_runs import TOOLS, make_images

ROOT = Path(__file__).parents[2]
FACTS = json.loads(Path(__file__).with_name("finetune_flags.json").read_text(encoding="utf-8"))
# There it takes a text and uses it as a switch.
DIFFERENT = {("prepare_buckets_latents.py", "alpha_mask")}
PAIRS = [(script, fact) for script, facts in FACTS.items() for fact in facts if fact["dest"] not in OLD_NAMES]


def test_every_tool_is_there() -> None:
    assert FACTS.keys() == TOOLS.keys()


@pytest.mark.parametrize("script", FACTS)
def test_tool_has_the_options_of_the_interface_and_no_others(script: str) -> None:
    declared = [option.name for option in options_of(TOOLS[script][0])]
    assert sorted(declared) == sorted(fact["dest"] for fact in FACTS[script] if fact["dest"] not in OLD_NAMES)
    places = [option.name for option in options_of(TOOLS[script][0]) if is_positional(option)]
    assert places == [fact["dest"] for fact in FACTS[script] if not fact["flags"]]


@pytest.mark.parametrize(("script", "fact"), PAIRS, ids=lambda value: value if isinstance(value, str) else value["dest"])
def test_option_is_declared_as_the_interface_has_it(script: str, fact: dict) -> None:
    option = next(option for option in options_of(TOOLS[script][0]) if option.name == fact["dest"])
    assert is_positional(option) == fact["required"]
    if (script, option.name) in DIFFERENT:
        assert option.default is False
        return
    default = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
    assert is_positional(option) or default == fact["default"]
    assert option.kind.name == fact["type"]
    assert list(option.declared.choices) == (fact["choices"] or [])
    assert (option.default is False) == (fact["action"] == "store_true")


@pytest.mark.parametrize("script", FACTS)
def test_old_spelling_of_caption_extension_is_taken(script: str) -> None:
    if not any(fact["dest"] == "caption_extention" for fact in FACTS[script]):
        return
    places = [option.name for option in options_of(TOOLS[script][0]) if is_positional(option)]
    options = read_tool_options(TOOLS[script][0], [*places, "--caption_extention", "cap"])
    assert options.caption_extension == "cap"


@pytest.mark.parametrize("script", FACTS)
def test_help_explains_every_option(script: str) -> None:
    shown = build_parser(TOOLS[script][0]).format_help()
    for option in options_of(TOOLS[script][0]):
        assert option.name in shown
        assert option.declared.help.endswith(".")
    assert "caption_extention" not in shown


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["a"], "the following arguments are required: out_json"),
        (["a", "b.json", "--fullpath"], 'unknown option; did you mean "full_path"?'),
        (["a", "b.json", "c"], "'c': unexpected"),
        (["", "b.json"], "train_data_dir: this is empty"),
        (["a", "b.json", "--caption_extension"], "expected one argument"),
    ],
)
def test_mistakes_on_the_command_line(flags: list[str], said: str) -> None:
    with pytest.raises(UserError, match="(?s)") as raised:
        read_tool_options(TOOLS["merge_captions_to_metadata.py"][0], flags)
    assert said in str(raised.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(UserError) as raised:
        read_tool_options(TOOLS["make_captions.py"][0], ["a", "--batch_size", "0", "--top_p", "much", "--beams", "3"])
    assert raised.value.messages == (
        '--beams: unknown option; did you mean "num_beams"?; --help lists all',
        "'3': unexpected; put names with spaces in quotes",
        "--batch_size: 0 is too small: at least 1",
        "--top_p: expected a number, found 'much'",
    )


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    options = TOOLS["clean_captions_and_tags.py"][0]
    for work, argv, code in (
        (lambda _: None, ["a", "b"], 0),
        (lambda _: None, ["a"], 2),
        (interrupted, ["a", "b"], 130),
    ):
        with pytest.raises(SystemExit) as stopped:
            run_tool(options, work, argv)
        assert stopped.value.code == code
    assert "the same command does the rest" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("merge_captions_to_metadata.py", ["nowhere", "out.json"]),
        ("merge_dd_tags_to_metadata.py", ["images", "out.txt"]),
        ("clean_captions_and_tags.py", ["nowhere.json", "out.json"]),
        ("make_captions.py", ["nowhere"]),
        ("make_captions_by_git.py", ["nowhere"]),
        ("tag_images_by_wd14_tagger.py", ["images", "--tag_replacement", "a,b,c"]),
        ("prepare_buckets_latents.py", ["images", "nowhere.json", "out.json", "model"]),
    ],
)
def test_script_runs_from_any_folder_and_says_one_line(tmp_path: Path, script: str, flags: list[str]) -> None:
    make_images(tmp_path / "images", "a.png")
    done = subprocess.run(
        [sys.executable, str(ROOT / "finetune" / script), *flags], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "images"]
