"""The docs speak of what there is: links lead somewhere, tests that they name exist, keys and events are all told of."""
from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from library.config.datasets.keys import DATASET, GENERAL, KEYS, SUBSET, kind_of_subsets
from library.config.datasets.schema import check_table
from library.config.settings import OPTIONS
from library.config.text_files import read_toml
from library.config.values import value_from_file

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The names that headings of a page can be linked by."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        other = page.parent / path if path else page
        if not other.exists() or (anchor and anchor not in anchors(other)):
            broken.append(target)
    assert broken == []


def test_the_tests_that_prove_differences_exist() -> None:
    missing = []
    for path, names in re.findall(r"`(tests/[\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", text_of("docs/differences.md")):
        defined = set(re.findall(r"def test_(\w+)", text_of(path)))
        missing += [f"{path}: {name}" for name in re.findall(r"`(\w+)`", names) if name not in defined]
    assert missing == []


def test_every_difference_that_was_mended_names_its_test() -> None:
    mended = text_of("docs/differences.md").split("## Chosen differently")[0]
    rows = [line for line in mended.splitlines() if line.startswith("|") and not line.startswith(("|---", "| in sd-scripts"))]
    assert len(rows) > 30
    assert [row for row in rows if "`tests/" not in row] == []


def test_every_key_of_dataset_files_is_told_of() -> None:
    page = text_of("docs/dataset_config.md")
    assert [name for name in KEYS if f"`{name}`" not in page] == []


def test_every_key_of_dataset_files_has_an_example(tmp_path: Path) -> None:
    written: set[str] = set()
    for block in toml_blocks("docs/dataset_config.md", tmp_path):
        datasets = block["datasets"]
        tables = [block.get("general", {}), *datasets, *(subset for dataset in datasets for subset in dataset["subsets"])]
        written.update(name for table in tables for name in table)
    assert sorted(KEYS.keys() - written) == []


def test_every_example_of_a_dataset_file_is_named() -> None:
    page = text_of("docs/dataset_config.md")
    examples = [path.name for path in (ROOT / "examples").glob("*_dataset.toml")]
    assert len(examples) > 4
    assert [name for name in examples if f"(../examples/{name})" not in page] == []


def written_events() -> set[str]:
    """The first argument of every `events.write` and `report` in the code."""
    names = set()
    for path in (ROOT / "library").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            asks = node.func.attr in ("report", "_report") or ast.unparse(node.func).endswith("events.write")
            if asks and isinstance(node.args[0], ast.Constant):
                names.add(str(node.args[0].value))
    return names


def test_every_event_is_told_of() -> None:
    told = set(re.findall(r"^\| `(\w+)` \|", text_of("docs/output_folder.md").split("### events.jsonl")[1], re.MULTILINE))
    assert written_events() - told == set()
    assert len(written_events()) > 10


def toml_blocks(name: str, folder: Path) -> list[dict[str, Any]]:
    """The examples of a page, parsed."""
    blocks = re.findall(r"```toml\n(.*?)```", text_of(name).replace("\n   ", "\n"), re.DOTALL)
    files = [folder / f"{number}.toml" for number in range(len(blocks))]
    for file, block in zip(files, blocks, strict=True):
        file.write_text(block, encoding="utf-8")
    return [read_toml(file, "example") for file in files]


@pytest.mark.parametrize("name", ["README.md", "docs/train_network.md", "docs/train_db.md", "docs/fine_tune.md"])
def test_examples_of_config_files_hold(name: str, tmp_path: Path) -> None:
    blocks = toml_blocks(name, tmp_path)
    assert blocks
    for block in blocks:
        flat = {key: value for key, value in block.items() if not isinstance(value, dict)}
        for table in (value for value in block.values() if isinstance(value, dict)):
            flat |= table
        for key, value in flat.items():
            value_from_file(OPTIONS[key], value)


def test_examples_of_dataset_files_hold(tmp_path: Path) -> None:
    blocks = toml_blocks("docs/dataset_config.md", tmp_path)
    blocks += [read_toml(path, "example") for path in sorted((ROOT / "examples").glob("*_dataset.toml"))]
    assert len(blocks) > 4
    mistakes: list[str] = []
    for block in blocks:
        check_table(block.get("general", {}), GENERAL, "example", mistakes)
        for dataset in block["datasets"]:
            kind = kind_of_subsets(dataset["subsets"])
            check_table({key: value for key, value in dataset.items() if key != "subsets"}, DATASET, "example", mistakes, kind)
            for subset in dataset["subsets"]:
                check_table(subset, SUBSET, "example", mistakes, kind)
    assert mistakes == []
