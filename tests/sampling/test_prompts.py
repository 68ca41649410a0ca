"""Files of sample prompts: every form and switch, and the mistakes, each with its place."""
from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.errors import UserError
from library.sampling.prompts import SamplePrompt, parse_line, read_prompts


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def line(write, text):
    return read_prompts(write("prompts.txt", text))[0]


def mistake(path):
    with pytest.raises(UserError) as caught:
        read_prompts(path)
    return str(caught.value)


def test_defaults(write):
    prompt = line(write, "a frog")
    assert prompt == SamplePrompt("a frog", "", 512, 512, None, 30, 7.5, "ddim", where=prompt.where)
    assert read_prompts(write("p.txt", "a frog"), "euler_a")[0].sample_sampler == "euler_a"


def test_every_switch(write, tmp_path, caplog):
    image = tmp_path / "control image.png"
    image.write_bytes(b"")
    prompt = line(
        write,
        "a frog, sitting --w 640 --h 384 --d 42 --s 12 --l 4.5 --g 3.5 --n bad, blurry --ss Euler_A "
        f"--cn {image} --ctr 0.25 --rcfg 1 --fs 3.1",
    )
    assert prompt == SamplePrompt(
        "a frog, sitting", "bad, blurry", 640, 384, 42, 12, 4.5, "euler_a", str(image), 3.5, 0.25, 1.0, 3.1, prompt.where
    )
    assert "line 1: flow_shift changes nothing" in caplog.text
    assert len(caplog.records) == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("d 5 frogs", {"prompt": "d 5 frogs", "seed": None}),
        ("w 640", {"prompt": "w 640", "width": 512}),
        ("a frog --d -5", {"seed": -5}),
        ("a frog --l -1.5e0", {"scale": -1.5}),
        ("a frog --w   640   --h  384  ", {"prompt": "a frog", "width": 640, "height": 384}),
        ("a frog\t--W\t640", {"prompt": "a frog", "width": 640}),
        ("100% frog -- well-fed --d 1", {"prompt": "100% frog -- well-fed", "seed": 1}),
        ("frog--w 640", {"prompt": "frog--w 640", "width": 512}),
        ("a --- b", {"prompt": "a --- b"}),
        ("--d 3", {"prompt": "", "seed": 3}),
        ("a frog --n", {"negative_prompt": ""}),
        ("a frog --n d 7, w 8", {"negative_prompt": "d 7, w 8", "seed": None, "width": 512}),
        ("a frog --w 517 --h 10", {"width": 512, "height": 64}),
        ("a frog --w -9", {"width": 64}),
        ("a frog --s 0", {"sample_steps": 1}),
        ("a frog --s 5000", {"sample_steps": 1000}),
        ("a frog --d 1 --d 2", {"seed": 2}),
    ],
)
def test_lines(write, text, expected):
    prompt = line(write, text)
    assert {key: getattr(prompt, key) for key in expected} == expected


def test_comments_blank_lines_and_windows_line_ends(tmp_path):
    path = tmp_path / "prompts.TXT"
    path.write_bytes("\ufeff# first\r\n\r\n  a frog \r\n#b\r\n水蛙 --d 1\r\n".encode())
    prompts = read_prompts(path)
    assert [prompt.prompt for prompt in prompts] == ["a frog", "水蛙"]
    assert prompts[1].where.endswith("line 5")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a frog --x 5", "unknown switch --x"),
        ("a frog --w512", "unknown switch --w512"),
        ("a frog --nonsense", "unknown switch --nonsense"),
        ("a frog --w wide", "--w needs a whole number, not 'wide'"),
        ("a frog --w 512.5", "--w needs a whole number"),
        ("a frog --d", "--d needs a whole number, not ''"),
        ("a frog --l high", "--l needs a number"),
        ("a frog --fs three", "--fs needs a number"),
        ("a frog --ss", "--ss needs a value"),
        ("a frog --ss eulr", "there is no sampler 'eulr'; did you mean \"euler\"?"),
        ("a frog --cn nowhere.png", "nowhere.png: no such file"),
    ],
)
def test_mistakes_in_lines(write, text, words):
    path = write("prompts.txt", f"a good one\n\n{text}\n")
    assert mistake(path).startswith(f"{path}, line 3: ")
    assert words in mistake(path)


def test_all_mistakes_at_once(write):
    with pytest.raises(UserError) as caught:
        read_prompts(write("prompts.txt", "a --x 1\nb --y 2\nc"))
    assert len(caught.value.messages) == 2


def test_toml(write):
    text = """
    [prompt]
    width = 256
    negative_prompt = "blurry"
    scale = 5
    [[prompt.subset]]
    prompt = "a frog --w 9"
    seed = -1
    [[prompt.subset]]
    prompt = "a pond"
    width = 320
    sample_sampler = "k_euler"
    """
    first, second = read_prompts(write("prompts.toml", text))
    assert (first.prompt, first.width, first.seed, first.negative_prompt, first.scale) == ("a frog --w 9", 256, -1, "blurry", 5)
    assert (second.prompt, second.width, second.sample_sampler) == ("a pond", 320, "k_euler")
    only = read_prompts(write("only.toml", '[prompt]\nprompt = "a frog"'))
    assert [prompt.prompt for prompt in only] == ["a frog"]


def test_json(write):
    first, second = read_prompts(write("prompts.json", ["a frog --d 3", {"prompt": "a pond", "height": 100}]))
    assert (first.prompt, first.seed) == ("a frog", 3)
    assert (second.prompt, second.height) == ("a pond", 96)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.toml", '[[prompt.subset]]\npromt = "a"', 'unknown key promt; did you mean "prompt"?'),
        ("p.toml", '[[prompt.subset]]\nwidth = "512"', "width must be a whole number, not '512'"),
        ("p.toml", "[[prompt.subset]]\nscale = true", "scale must be a number, not True"),
        ("p.toml", "[[prompt.subset]]\nprompt = 3", "prompt must be text, not 3"),
        ("p.toml", 'prompt = "a frog"', "prompt must be a table"),
        ("p.toml", "[prompts]\na = 1", "unknown key prompts"),
        ("p.toml", "[prompt]\nsubset = 3", "subset must be a list of tables"),
        ("p.toml", "[prompt", "line 1: not valid TOML"),
        ("p.toml", "", "there is no prompt in this file"),
        ("p.json", "[1]", "expected a list of texts or objects"),
        ("p.json", "{}", "expected a list of texts or objects"),
        ("p.json", "[", "not valid JSON"),
        ("p.json", '[{"seed": 1.5}]', "entry 1: seed must be a whole number"),
        ("p.txt", "# nothing\n", "there is no prompt in this file"),
        ("p.csv", "a frog", "ends in .txt, .toml or .json"),
    ],
)
def test_mistakes_in_files(write, name, content, words):
    path = write(name, content)
    assert mistake(path).startswith(str(path))
    assert words in mistake(path)


def test_missing_file(tmp_path):
    assert "there is no such file of sample prompts" in mistake(tmp_path / "nowhere.txt")
    assert "there is no such file of sample prompts" in mistake(tmp_path / "nowhere.xyz")


@given(st.text(alphabet="ab -wdnss05.\t,", max_size=30))
def test_any_line_is_read_or_refused(text):
    try:
        values = parse_line(text, "here")
    except UserError as error:
        assert str(error).startswith("here: ")
    else:
        assert values["prompt"] == values["prompt"].strip()


def test_no_heavy_import():
    code = "import sys, library.sampling.prompts; assert not {'torch', 'diffusers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
