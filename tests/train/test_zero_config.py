"""What DeepSpeed is told: the options, else the answers of `accelerate config`; the loop's own business stays the loop's."""

from __future__ import annotations

import json

from library.train.zero import engine_config


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
