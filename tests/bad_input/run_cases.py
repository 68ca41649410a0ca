"""Mistakes in how a run trains, what it draws, where it writes and from where it goes on."""
from __future__ import annotations

from tests.bad_input import bad_files
from tests.bad_input.bad_files import Copied
from tests.bad_input.table import IMAGES, Case

LEARNING = [
    Case("unknown optimizer", ("optimizer_type", '"AdamV"', "did you mean"), config={"optimizer_type": "AdamV"}),
    Case(
        "optimizer of a package that is not there", ("optimizer_type", "nobody", "pip install"),
        config={"optimizer_type": "nobody.Optimizer"},
    ),
    Case(
        "optimizer is something else", ("optimizer_type", '"torch.nn.Linear"', "not an optimizer"),
        config={"optimizer_type": "torch.nn.Linear"},
    ),
    Case(
        "unknown optimizer argument", ("optimizer_args", "weight_decoy", "weight_decay"),
        config={"optimizer_args": ["weight_decoy=0.1"]},
    ),
    Case("optimizer argument of a wrong type", ("optimizer_args", "betas", "2 values"), config={"optimizer_args": ["betas=0.9"]}),
    Case(
        "optimizer argument that is refused", ("optimizer_args", "AdamW", "-1"),
        config={"optimizer_args": ["weight_decay=-1.0"]},
    ),
    Case(
        "optimizer argument without a value", ("optimizer_args", "weight_decay", "key=value"),
        config={"optimizer_args": ["weight_decay"]},
    ),
    Case("two optimizers", ("use_8bit_adam", "optimizer_type"), config={"use_8bit_adam": True, "optimizer_type": "Lion"}),
    Case("learning rate as an argument", ("optimizer_args", "lr", "learning_rate"), config={"optimizer_args": ["lr=0.1"]}),
    Case("unknown scheduler", ("lr_scheduler", '"cosin"', "did you mean cosine"), config={"lr_scheduler": "cosin"}),
    Case("unknown scheduler class", ("lr_scheduler_type", '"StepL"', "StepLR"), config={"lr_scheduler_type": "StepL"}),
    Case(
        "scheduler that needs an argument", ("piecewise_constant", "step_rules", "lr_scheduler_args"),
        config={"lr_scheduler": "piecewise_constant"},
    ),
    Case("scheduler class that needs an argument", ("StepLR", "step_size"), config={"lr_scheduler_type": "StepLR"}),
    Case(
        "scheduler that needs an option", ("cosine_with_min_lr", "lr_scheduler_min_lr_ratio"),
        config={"lr_scheduler": "cosine_with_min_lr"},
    ),
    Case(
        "unknown scheduler argument", ("lr_scheduler_args", "gama", "gamma"),
        config={"lr_scheduler_type": "StepLR", "lr_scheduler_args": ["step_size=1", "gama=2"]},
    ),
    Case(
        "option that the scheduler does not use", ("lr_scheduler_num_cycles = 3", "constant"),
        config={"lr_scheduler": "constant", "lr_scheduler_num_cycles": 3},
    ),
    Case("scheduler of another optimizer", ("adafactor", "AdaFactor"), config={"lr_scheduler": "adafactor"}),
]  # fmt: skip


def prompts(name: str, expected: tuple[str, ...], content: str | bytes, file: str = "prompts.txt") -> Case:
    return Case(
        name, (f"{{here}}/{file}", *expected), {"sample_prompts": f"{{here}}/{file}", "sample_every_n_steps": 1}, {file: content}
    )


PROMPTS = [
    Case(
        "prompt file missing", ("{here}/prompt.txt", "no such file of sample prompts"),
        config={"sample_prompts": "{here}/prompt.txt"},
    ),
    prompts("prompt file empty", ("no prompt",), "# nothing\n"),
    prompts("prompt file in UTF-16", ("UTF-16",), "frog".encode("utf-16")),
    prompts("prompt file of another kind", (".txt, .toml or .json",), "frog", "prompts.csv"),
    prompts("bad prompt switch", ("line 2", "--q", "--w"), "frog\nfrog --q 7\n"),
    prompts("bad value of a prompt switch", ("line 1", "--s", "whole number", "'many'"), "frog --s many\n"),
    prompts("unknown sampler", ("line 1", "eule"), "frog --ss eule\n"),
    prompts(
        "bad key in a prompt table", ("[[prompt.subset]] 1", "widht", '"width"'),
        '[prompt]\n[[prompt.subset]]\nwidht = 64\n', "prompts.toml",
    ),
]  # fmt: skip

PLACES = [
    Case("output folder is a file", ("output_dir", "{here}/out", "cannot be written"), files={"out": "a file in its place"}),
    Case(
        "output folder in a file", ("output_dir", "{here}/run.toml/out", "cannot be written"),
        config={"output_dir": "{here}/run.toml/out"},
    ),
    Case(
        "output folder of an impossible name", ("output_dir", "cannot be written"),
        config={"output_dir": "{here}/" + "o" * 300},
    ),
    Case("full disk", ("no room", "{here}/out", "0 bytes are free"), environment={"TESTS_FREE_BYTES": "0"}),
    Case(
        "log folder is a file", ("logging_dir", "{here}/run.toml", "cannot be written"),
        config={"logging_dir": "{here}/run.toml"},
    ),
    Case(
        "log file in no folder", ("console_log_file", "{here}/run.toml/log", "cannot be written"),
        config={"console_log_file": "{here}/run.toml/log"},
    ),
]  # fmt: skip


def resume(name: str, expected: tuple[str, ...], change: bad_files.Maker = lambda path: None, **config: object) -> Case:
    """Goes on, to step 4, from the state after step 2 of the run in the folder of the models, which is changed before."""
    return Case(
        name, ("{here}/state", *expected), {"resume": "{here}/state", "max_train_steps": 4, **config}, {"state": Copied("state", change)}
    )


RESUMES = [
    Case("state missing", ("--resume", "{here}/state", "no such folder"), config={"resume": "{here}/state"}),
    Case("state is a file", ("--resume", "{here}/run.toml", "is a file"), config={"resume": "{here}/run.toml"}),
    Case("no state to resume", ("--resume latest", "{here}/out", "no complete state"), config={"resume": "latest"}),
    Case("state of another program", ("{here}/data", "train_state.json"), config={"resume": "{here}/data"}),
    resume("state of another run", ("seed", "2", "1"), seed=2),
    resume("state of another network", ("network_dim", "8", "set network_dim = 2"), network_dim=8),
    resume("state of another optimizer", ("optimizer_type", '"Lion"'), optimizer_type="Lion"),
    resume("state of another model", ("base model", "other"), pretrained_model_name_or_path="{models}/other"),
    Case(
        "state of other pictures", ("{here}/state", "data has changed", "3 images here, 2"), {"resume": "{here}/state", "max_train_steps": 4},
        {"state": Copied("state"), f"{IMAGES}/c.png": bad_files.picture},
    ),
    resume("state is incomplete", ("not a complete state", "train_state.json"), bad_files.without("train_state.json")),
    resume("state lacks a file", ("optimizer.bin is missing",), bad_files.without("optimizer.bin")),
    resume("state is damaged", ("model.safetensors is damaged",), bad_files.within("model.safetensors", bad_files.damaged)),
    resume("state is torn", ("train_state.json", "cannot be read"), bad_files.within("train_state.json", bad_files.truncated)),
    resume("steps are done already", ("max_train_steps", "2 are done already"), max_train_steps=2),
    resume("steps contradict the state", ("initial_step", "1 steps", "says 2"), initial_step=1),
]  # fmt: skip

CASES = [*LEARNING, *PROMPTS, *PLACES, *RESUMES]
