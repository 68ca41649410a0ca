"""Mistakes in what is written, in the config, the dataset file or the flags: told before torch is imported."""
from __future__ import annotations

from tests.bad_input import bad_files
from tests.bad_input.table import IMAGES, Case

RUN = "{here}/run.toml"
DATA = "{here}/data.toml"
IN_A_FILE = {"train_data_dir": None, "dataset_config": DATA}
SUBSET = f'[[datasets.subsets]]\nimage_dir = "{{here}}/{IMAGES}"\n'

CONFIG_FILE = [
    Case(
        "config file missing", ("{here}/rum.toml", "no such config file", f'did you mean "{RUN}"'),
        flags=("--config_file", "{here}/rum"),
    ),
    Case("config file is a folder", (RUN, "this is a folder"), files={"run.toml": None, "./run.toml": bad_files.folder}),
    Case("config in UTF-16", (RUN, "UTF-16", "save it as UTF-8"), files={"run.toml": "seed = 1\n".encode("utf-16")}),
    Case(
        "config in Latin-1", (f"{RUN}, line 2", "UTF-8"),
        files={"run.toml": 'seed = 1\noutput_name = "größe"\n'.encode("latin-1")},
    ),
    Case(
        "backslash in double quotes", (f"{RUN}, line 2", r"C:\hoge", "backslash", "single quotes"),
        files={"run.toml": 'seed = 1\ntrain_data_dir = "C:\\hoge"\n'},
    ),
    Case(
        "backslash n in double quotes", (f"{RUN} train_data_dir", r"'C:\new'", "single quotes"),
        config={"train_data_dir": "C:\new"},
    ),
    Case(
        "bad TOML", (f"{RUN}, line 3", "not valid TOML", "output_name = frog", "quotes"),
        files={"run.toml": "\nseed = 1\noutput_name = frog\n"},
    ),
    Case(
        "TOML left open", (f"{RUN}, line 3", "not valid TOML"),
        files={"run.toml": 'seed = 1\noptimizer_args = ["a=1",\nlearning_rate = 1\n'},
    ),
    Case("key twice", (f"{RUN}, line 2", "twice"), files={"run.toml": "seed = 1\nseed = 2\n"}),
    Case("key in two tables", (f"{RUN} [b] seed", "twice", "[a] seed"), files={"run.toml": "[a]\nseed = 1\n[b]\nseed = 2\n"}),
    Case("misspelt key", (f"{RUN} learning_rat", "unknown", '"learning_rate"'), config={"learning_rat": 1e-4}),
    Case(
        "misspelt key in a table", (f"{RUN} [network] netwrok_dim", '"network_dim"'),
        files={"run.toml": "[network]\nnetwrok_dim = 4\n"},
    ),
    Case(
        "wrong type", (f"{RUN} learning_rate", "a number", 'the text "1e-4"', "learning_rate = 1e-4"),
        config={"learning_rate": "1e-4"},
    ),
    Case("whole number wanted", (f"{RUN} max_train_steps", "2.5"), config={"max_train_steps": 2.5}),
    Case("switch as text", (f"{RUN} flip_aug", "true or false", "flip_aug = true"), config={"flip_aug": "true"}),
    Case("too large", (f"{RUN} network_dropout", "1.5", "at most 1"), config={"network_dropout": 1.5}),
    Case("too small", (f"{RUN} max_train_steps", "0", "at least 1"), config={"max_train_steps": 0}),
    Case("bad choice", (f"{RUN} loss_type", '"huger"', 'did you mean "huber"'), config={"loss_type": "huger"}),
    Case(
        "dataset table in the config", (f"{RUN} [datasets]", "--dataset_config"),
        files={"run.toml": "[[datasets]]\nresolution = 64\n"},
    ),
    Case("key of a dataset file", (f"{RUN} class_tokens", "dataset file", "--dataset_config"), config={"class_tokens": "frog"}),
    Case(
        "known key that no model here can use", (f"{RUN} cpu_offload_checkpointing", "delete it"), config={"cpu_offload_checkpointing": True},
    ),
    Case("key of another script", (f"{RUN} train_text_encoder", "fine_tune.py"), config={"train_text_encoder": True}),
    Case("two mistakes at once", (f"{RUN} seed", f"{RUN} sed", "--sead"), config={"seed": "x", "sed": 1}, flags=("--sead", "2")),
]  # fmt: skip

FLAGS = [
    Case("unknown flag", ("--learning_rat", 'did you mean "learning_rate"'), flags=("--learning_rat", "1")),
    Case("one dash", ("-seed", "two dashes"), flags=("-seed", "1")),
    Case(
        "known flag that does not apply", ("--fp16_master_weights_and_gradients", "delete it"), flags=("--fp16_master_weights_and_gradients",),
    ),
    Case("flag of another script", ("--block_lr", "sdxl_train.py"), flags=("--block_lr", "1")),
    Case("flag of a wrong type", ("--network_dim", "'four'", "whole number"), flags=("--network_dim", "four")),
    Case("flag without its value", ("command line", "--network_dim"), flags=("--network_dim",)),
    Case("value after a switch", ("'yes'", "--flip_aug takes no value"), flags=("--flip_aug", "yes")),
    Case("config exists already", ("--output_config", RUN, "not overwritten"), flags=("--output_config",)),
]

COMBINATIONS = [
    Case(
        "nothing left to train", (f"{RUN} network_train_unet_only", "network_train_text_encoder_only"),
        config={"network_train_unet_only": True, "network_train_text_encoder_only": True},
    ),
    Case("scale without offset", (f"{RUN} adaptive_noise_scale", "noise_offset"), config={"adaptive_noise_scale": 0.01}),
    Case("samples without prompts", ("--sample_every_n_steps", "sample_prompts"), flags=("--sample_every_n_steps", "1")),
    Case("no base model", ("pretrained_model_name_or_path", "needed"), config={"pretrained_model_name_or_path": None}),
    Case("no network module", ("network_module", "needed", "networks.lora"), config={"network_module": None}),
    Case("no output folder", ("output_dir", "needed"), config={"output_dir": None}),
    Case("name with a folder in it", (f"{RUN} output_name", "output_dir"), config={"output_name": "a/b"}),
    Case("timesteps reversed", (f"{RUN} min_timestep", "max_timestep"), config={"min_timestep": 900, "max_timestep": 100}),
    Case("begins behind its end", (f"{RUN} initial_step", "max_train_steps"), config={"initial_step": 5}),
]  # fmt: skip

DATASETS = [
    Case("dataset file missing", (DATA, "no such dataset file"), config=IN_A_FILE),
    Case("dataset file in UTF-16", (DATA, "UTF-16"), config=IN_A_FILE, files={"data.toml": "[[datasets]]".encode("utf-16")}),
    Case(
        "dataset file of another kind", ("{here}/data.yaml", ".toml or .json"),
        config={"dataset_config": "{here}/data.yaml"}, files={"data.yaml": "a"},
    ),
    Case(
        "bad TOML in a dataset file", (f"{DATA}, line 2", "resolution 64"),
        config=IN_A_FILE, files={"data.toml": "[[datasets]]\nresolution 64\n"},
    ),
    Case(
        "bad JSON in a dataset file", ("{here}/data.json, line 2", "not valid JSON"), config={"dataset_config": "{here}/data.json"},
        files={"data.json": '{"datasets": [\n}'},
    ),
    Case(
        "misspelt keys in a dataset file",
        (f"{DATA} [[datasets]] 1 resolutoin", '"resolution"', f"{DATA} [[datasets]] 1 [[datasets.subsets]] 1 num_repeat", '"num_repeats"'),
        config=IN_A_FILE, files={"data.toml": f"[[datasets]]\nresolutoin = 64\n{SUBSET}num_repeat = 2\n"},
    ),
    Case(
        "wrong type in a dataset file", (f"{DATA} [general] flip_aug", "true or false"),
        config=IN_A_FILE, files={"data.toml": f"[general]\nflip_aug = 3\n[[datasets]]\n{SUBSET}"},
    ),
    Case(
        "key at the wrong level", ("[[datasets.subsets]] 1 batch_size", "belongs in [[datasets]]"),
        config=IN_A_FILE, files={"data.toml": f"[[datasets]]\n{SUBSET}batch_size = 2\n"},
    ),
    Case(
        "no image_dir", ("[[datasets.subsets]] 1 image_dir", "missing"),
        config=IN_A_FILE, files={"data.toml": "[[datasets]]\n[[datasets.subsets]]\n"},
    ),
    Case(
        "image_dir is not there", ("[[datasets.subsets]] 1 image_dir", "no folder", "{here}/nowhere"),
        config=IN_A_FILE, files={"data.toml": '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "{here}/nowhere"\n'},
    ),
    Case("no pictures named", ("--train_data_dir", "--dataset_config"), config={"train_data_dir": None}),
    Case("folder missing", (f"{RUN} train_data_dir", "no folder", "{here}/dada"), config={"train_data_dir": "{here}/dada"}),
    Case("folder is a file", (f"{RUN} train_data_dir", "is a file"), config={"train_data_dir": RUN}),
    Case(
        "folder without sub-folders", (f"{RUN} train_data_dir", "20_sls frog", "it has none"),
        config={"train_data_dir": f"{{here}}/{IMAGES}"},
    ),
    Case(
        "folder name without a number", (f"{RUN} train_data_dir", "{here}/set", "20_sls frog"),
        config={"train_data_dir": "{here}/set"}, files={"set/frog/a.png": bad_files.picture},
    ),
    Case("only regularisation pictures", ("reg_data_dir alone",), config={"train_data_dir": None, "reg_data_dir": "{here}/data"}),
    Case("no resolution", ("resolution is missing", "--resolution"), config={"resolution": None}),
    Case("resolution off the grid", (f"{RUN} resolution", "100", "multiple of 8"), config={"resolution": 100}),
    Case(
        "bucket below the resolution", (f"{RUN} max_bucket_reso", "64"),
        config={"enable_bucket": True, "max_bucket_reso": 64, "min_bucket_reso": 64, "resolution": 128},
    ),
]  # fmt: skip

CASES = [*CONFIG_FILE, *FLAGS, *COMBINATIONS, *DATASETS]
