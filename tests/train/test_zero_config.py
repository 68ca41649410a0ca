"""What DeepSpeed is told: the options, else the answers of `accelerate config`; the loop's own business stays the loop's."""

from __future__ import annotations

import json
from types import SimpleNamespace

import torch

from library.train.zero import _PartsInFile, engine_config


def test_options_become_the_configuration():
    asked = {
        "zero_stage": 3, "offload_optimizer_device": "cpu", "offload_param_device": "nvme", "offload_param_nvme_path": "/fast",
        "zero3_save_16bit_model": True, "zero3_init_flag": True,
    }  # fmt: skip
    config = engine_config(asked, 0.5, 4)
    zero = config["zero_optimization"]
    assert zero["stage"] == 3
    assert zero["offload_optimizer"]["device"] == "cpu"
    assert zero["offload_param"] == {"device": "nvme", "nvme_path": "/fast"}
    assert zero["stage3_gather_16bit_weights_on_model_save"] is True
    assert config["gradient_clipping"] == 0.5
    assert (config["train_batch_size"], config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]) == (4, 1, 1)
    assert not config["fp16"]["enabled"] and not config["bf16"]["enabled"]
    assert config["zero_allow_untrusted_optimizer"] and "auto" not in json.dumps(config).replace("steps_per_print", "")


def test_the_answers_of_accelerate_config_fill_what_no_option_says(monkeypatch):
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "cpu")
    config = engine_config({"zero_stage": 1}, 1.0, 2)
    assert config["zero_optimization"]["stage"] == 1
    assert config["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert engine_config({}, 1.0, 2)["zero_optimization"]["stage"] == 3


def test_a_configuration_file_is_taken(monkeypatch, tmp_path):
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 1, "reduce_bucket_size": 1000, "stage3_prefetch_bucket_size": "auto"}, "gradient_clipping": 9.0}), encoding="utf-8")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    config = engine_config({}, 0.25, 2)
    assert config["zero_optimization"]["reduce_bucket_size"] == 1000
    assert config["gradient_clipping"] == 0.25
    assert "stage3_prefetch_bucket_size" not in config["zero_optimization"]


def test_the_parts_of_an_optimizer_are_gathered_on_the_cpu(monkeypatch):
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
    optimizer.state[weight] = {"momentum_buffer": torch.ones(2)}
    made, used = [], []

    def gather(mine, everybodys, group):
        used.append(group)
        everybodys[:] = [mine, "the part of the other"]

    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "new_group", lambda backend: made.append(backend) or "on the CPU")
    monkeypatch.setattr(torch.distributed, "gather_object", gather)
    stored = _PartsInFile(optimizer)
    zero = SimpleNamespace(single_partition_of_fp32_groups=[weight])
    stored.engine = SimpleNamespace(optimizer=zero, zero_optimization_stage=lambda: 2)
    for _ in range(2):
        stored.gather(2)
    assert (made, used) == (["gloo"], ["on the CPU"] * 2)
    mine, other = stored.state_dict()["parts"]
    assert mine["numbers"][0]["momentum_buffer"].tolist() == [1.0, 1.0]
    assert other == "the part of the other"
