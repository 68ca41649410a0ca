"""Keeps the shape that docs/architecture.md describes: sizes, the direction of imports, one loop, options that are used."""
from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from library.config.declare import options_of
from library.config.options import TOPICS

ROOT = Path(__file__).resolve().parents[1]
CODE_FOLDERS = ("library", "networks", "service", "tools", "finetune", "launcher", "benchmarks", "tests", "assets")
PACKAGES = ROOT / "service" / "packages" / "templates"  # programs of their own: copied into packages, run by cog, never imported
LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS = 400, 80, 8

# A module may import its own package and what stands in a line above. What shares a line, but for the first, stays apart.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("library.errors", "library.seeding", "library.types", "library.config"),
    ("library.checkpoint.temporary", "library.checkpoint.files", "library.checkpoint.hashes"),  # leaves that others may use
    ("library.diffusion", "library.data", "library.optim", "library.checkpoint", "networks"),
    ("library.families",),
    ("library.methods", "library.sampling", "library.review"),
    ("library.train",),
    ("library.preparation",),
    ("service",),
    ("tools", "finetune", "benchmarks"),
)
LIGHT = ("library.config", "library.errors", "library.seeding", "library.types")  # a mistake is told before anything heavy loads
HEAVY = ("torch", "diffusers", "transformers", "accelerate", "bitsandbytes", "onnxruntime", "cv2", "numpy", "PIL", "rich")
SLOW = ("fastapi", "sqlalchemy", "uvicorn", "httpx", "yaml", *HEAVY)  # what `tadpole --help` does not wait for
SERVICE_MAY_IMPORT = ("library.config", "library.errors")  # it starts the scripts as anybody would, and loads no torch
FORBIDDEN_WORDS = (r"\bTODO\b", r"\bFIXME\b", r"\bXXX\b", r"\bNotImplementedError\b", r"\bassert True\b")


@cache
def sources() -> dict[Path, ast.Module]:
    """Every Python file of the project, parsed."""
    paths = [*ROOT.glob("*.py"), *(path for folder in CODE_FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(paths)}


def product() -> dict[Path, ast.Module]:
    """The files that are no tests."""
    return {path: tree for path, tree in sources().items() if "tests" not in path.relative_to(ROOT).parts}


def name_of(path: Path) -> str:
    """library/train/loop.py -> library.train.loop"""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- sizes and words ---


def test_no_file_is_too_long() -> None:
    lengths = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{shown(path)} {node.name}", node


def test_no_function_is_too_long() -> None:
    lengths = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in functions()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def test_no_function_has_too_many_parameters() -> None:
    counts = {}
    for name, node in functions():
        arguments = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        counts[name] = len([argument for argument in arguments if argument not in ("self", "cls")])
    of_models = {f"{shown(path)} predict" for path in PACKAGES.glob("*/predict.py")}  # cog reads a model's inputs from these
    assert {name: count for name, count in counts.items() if count > MOST_PARAMETERS and name not in of_models} == {}


def test_every_module_says_what_lives_there() -> None:
    assert [shown(path) for path, tree in sources().items() if not ast.get_docstring(tree)] == []


def test_no_module_is_named_utils() -> None:
    assert [shown(path) for path in sources() if re.search(r"(^|_)(utils?|helpers?|misc|common)\b", path.stem)] == []


def test_no_two_test_files_share_a_name() -> None:
    """pytest knows a test module by its file name alone, and stops at the second of a name."""
    names = Counter(path.name for path in sources() if path.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_file_of_the_tests_hides_a_package() -> None:
    """pytest puts the folders of tests before everything: there, a tools.py would be what `import tools` finds."""
    packages = {path.name for path in ROOT.iterdir() if path.is_dir()} | {path.stem for path in ROOT.glob("*.py")}
    assert [shown(path) for path in (ROOT / "tests").rglob("*.py") if path.stem in packages] == []


@pytest.mark.parametrize("word", FORBIDDEN_WORDS)
def test_nothing_is_left_for_later(word: str) -> None:
    found = [shown(path) for path in sources() if path != Path(__file__) and re.search(word, path.read_text(encoding="utf-8"))]
    assert found == []


def test_no_function_takes_args() -> None:
    """Config stops at the door: below it, everything takes values."""
    takers = [name for name, node in functions() if any(argument.arg == "args" for argument in node.args.args)]
    assert [name for name in takers if not name.startswith("tests/")] == []


# --- imports ---


class Import(NamedTuple):
    """An import statement's module; whether it stands outside functions; whether only the type checker reads it."""

    module: str
    at_top: bool
    for_types: bool


@cache
def imports(path: Path) -> list[Import]:
    """Every import of a file. `from library import errors` counts as library.errors where that is a module."""
    found = []
    for node, at_top, for_types in _walk(sources()[path], True, False):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, at_top, for_types) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{shown(path)} line {node.lineno}: name the module in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [Import(name if name in modules() else node.module or "", at_top, for_types) for name in names]
    return found


@cache
def modules() -> dict[str, Path]:
    return {name_of(path): path for path in product() if PACKAGES not in path.parents}


def _walk(node: ast.AST, at_top: bool, for_types: bool) -> Iterator[tuple[ast.AST, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        yield child, at_top, for_types
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guarded = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        yield from _walk(child, at_top and not inside, for_types or guarded)


def place_of(module: str) -> tuple[int, str] | None:
    """The layer of a module and the name under which it stands there; the longest name counts."""
    places = [(number, name) for number, layer in enumerate(LAYERS) for name in layer if f"{module}.".startswith(f"{name}.")]
    return max(places, key=lambda place: len(place[1])) if places else None


def package_of(module: str) -> str:
    """library.data.images -> library.data; networks.lora -> networks"""
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] == "library" else 1])


def heavy_libraries(module: str) -> frozenset[str]:
    """Which of HEAVY come with importing a module, directly or not."""
    return slow_libraries(module) & set(HEAVY)


@cache
def slow_libraries(module: str) -> frozenset[str]:
    """Which of SLOW do."""
    if module.split(".")[0] in SLOW:
        return frozenset([module.split(".")[0]])
    path = modules().get(module)
    read = [found.module for found in imports(path) if found.at_top and not found.for_types] if path else []
    return frozenset().union(*map(slow_libraries, read))


def test_there_are_no_import_cycles() -> None:
    """Those that an import inside a function would dodge count too; those that only a type checker follows do not."""
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done and module in modules():
            for imported in sorted({found.module for found in imports(modules()[module]) if not found.for_types} - {module}):
                visit(imported, (*trail, module))
            done.add(module)

    for module in sorted(modules()):
        visit(module, ())


def test_every_package_has_its_layer() -> None:
    packages = {package_of(name) for name in modules() if name.startswith(("library.", "networks"))}
    assert [package for package in sorted(packages) if place_of(package) is None] == []


def test_imports_run_one_way() -> None:
    wrong = []
    for name, path in modules().items():
        own = place_of(name)
        for module in {found.module for found in imports(path)} if own else ():
            other = place_of(module)
            if own is None or other is None or package_of(name) == package_of(module):
                continue
            if other[0] > own[0] or other[0] == own[0] > 0:
                wrong.append(f"{shown(path)} imports {module}")
    assert wrong == []


def test_an_import_is_hidden_in_a_function_only_to_put_off_what_is_heavy() -> None:
    hidden = [
        f"{shown(path)}: {found.module}"
        for name, path in modules().items()
        for found in imports(path)
        if not found.at_top and found.module in modules() and slow_libraries(found.module) <= slow_libraries(name)
    ]
    assert hidden == []


@pytest.mark.parametrize("package", LIGHT)
def test_the_config_loads_nothing_heavy(package: str) -> None:
    assert [name for name in modules() if f"{name}.".startswith(f"{package}.") and heavy_libraries(name)] == []


def test_the_service_stands_beside_the_trainer() -> None:
    """It knows the options and nothing else of ours; only what measures knows it; what is heavy runs as a process of its own."""
    service = {name: path for name, path in modules().items() if f"{name}.".startswith("service.")}
    ours = {name.split(".")[0] for name in modules()} - {"service"}
    read = {f"{name} imports {found.module}": found.module for name, path in service.items() for found in imports(path)}
    assert service
    foreign = {text: module for text, module in read.items() if module.split(".")[0] in ours and module != "library"}  # that is the version
    assert [text for text, module in foreign.items() if not f"{module}.".startswith(_dotted(SERVICE_MAY_IMPORT))] == []
    heavy = {text for text, module in read.items() if module.split(".")[0] in set(HEAVY) - {"PIL"}}  # PIL: in a process of its own
    assert sorted(heavy) == ["service.cli.show imports rich.console", "service.cli.show imports rich.progress"]  # of the command line
    others = {name: path for name, path in modules().items() if name not in service and not name.startswith("benchmarks.")}
    assert [name for name, path in others.items() for found in imports(path) if f"{found.module}.".startswith("service.")] == []


def test_the_command_line_starts_at_once() -> None:
    """Even `serve` and `keys` load their libraries when they are asked for."""
    commands = [name for name in modules() if f"{name}.".startswith("service.cli.")]
    assert "service.cli.app" in commands
    assert {name: slow_libraries(name) for name in commands if slow_libraries(name)} == {}


def _dotted(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}." for name in names)


# --- one loop, one declaration ---


def calls_of(method: str) -> list[str]:
    """The files that call anything's method of this name."""
    return [
        shown(path)
        for path, tree in product().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method
    ]


def test_there_is_one_training_loop() -> None:
    outside = [name for name in calls_of("backward") if not name.startswith("benchmarks/")]
    sharing = [f"library/train/{name}.py" for name in ("fsdp", "sharing", "zero")]  # that is asked by the runtime
    assert sorted(set(outside)) == sorted([*sharing, "library/train/loop.py", "library/train/runtime.py"])  # which the loop asks


# Options that no code asks for, and what answers them.
ANSWERED = {
    "sdpa": "this attention is used in any case, and check.py says so",
    "mem_eff_attn": "the attention that is used in any case holds no full matrix, and check.py says so",
    "ddp_gradient_as_bucket_view": "there is no DDP, and check.py says so",
    "ddp_static_graph": "there is no DDP, and check.py says so",
    "persistent_data_loader_workers": "workers live as long as the run in any case, and check.py says so",
    "skip_until_initial_step": "initial_step and initial_epoch set the place in the data order in any case",
}


def test_every_option_is_used() -> None:
    """A declared option is read somewhere outside library/config: `options.name`, or by name."""
    used: set[str] = set()
    for path, tree in product().items():
        if shown(path).startswith(("library/config/options", "library/config/check", "library/config/names", "benchmarks/")):
            continue
        constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | set(constants)
        if shown(path) == "library/checkpoint/modelspec.py":
            used |= {f"metadata_{name}" for name in constants}
    declared = {option.name for topic in TOPICS.values() for option in options_of(topic)}
    assert declared - used == ANSWERED.keys()
