"""Weights of 8 bits, another attention, compilation: what they change of a run, and what is said where they cannot work."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

from library.config.options import MemoryOptions
from library.errors import UserError
from library.train.memory import bytes_of_weight, check_memory_options, keep_in_8_bits, prepare_model
from library.train.runtime import Runtime
from library.train.signals import StopRequest
from tests.tiny_models import tiny_sd1_parts
from tests.train.runs import Workshop, make_workshop, tensors_hash


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("memory"), max_train_steps=3, max_data_loader_n_workers=0)


def losses(workshop: Workshop, name: str) -> list[float]:
    return [event["loss"] for event in workshop.events(name) if event["event"] == "step"]


def test_inner_layers_hold_8_bits_and_the_rest_stays():
    parts = tiny_sd1_parts()
    prepare_model(parts, MemoryOptions(fp8_base=True))
    assert parts.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_k.weight.dtype == torch.float8_e4m3fn
    assert parts.unet.down_blocks[0].resnets[0].conv1.weight.dtype == torch.float8_e4m3fn
    assert parts.unet.down_blocks[0].resnets[0].norm1.weight.dtype == torch.float32
    assert parts.unet.conv_in.weight.dtype == parts.unet.conv_out.weight.dtype == torch.float32
    text = parts.text_encoders[0].text_model
    assert text.encoder.layers[0].mlp.fc1.weight.dtype == torch.float8_e4m3fn
    assert text.embeddings.token_embedding.weight.dtype == torch.float32
    assert {parameter.dtype for parameter in parts.vae.parameters()} == {torch.float32}


def test_the_u_net_alone():
    parts = tiny_sd1_parts()
    prepare_model(parts, MemoryOptions(fp8_base_unet=True))
    assert parts.unet.down_blocks[0].resnets[0].conv1.weight.dtype == torch.float8_e4m3fn
    assert {parameter.dtype for parameter in parts.text_encoders[0].parameters()} == {torch.float32}


def test_what_is_trained_keeps_its_precision():
    linear = torch.nn.Sequential(torch.nn.Linear(2, 2))
    keep_in_8_bits(linear)
    assert linear[0].weight.dtype == torch.float32
    keep_in_8_bits(linear.requires_grad_(False))
    assert linear[0].weight.dtype == torch.float8_e4m3fn


def test_the_plan_counts_8_bits():
    assert bytes_of_weight(MemoryOptions(fp8_base_unet=True), "unet", 2) == 1
    assert bytes_of_weight(MemoryOptions(fp8_base_unet=True), "text_encoder", 2) == 2
    assert bytes_of_weight(MemoryOptions(fp8_base=True), "text_encoder", 2) == 1
    assert bytes_of_weight(MemoryOptions(fp8_base=True), "vae", 2) == 2


@pytest.mark.skipif(os.name == "nt", reason="the processes of these tests are forked")
def test_a_run_with_8_bits_is_near_to_one_without(workshop):
    for name, options in {"wide": {}, "narrow": {"fp8_base": True}}.items():
        outcome = workshop.train(name, mixed_precision="bf16", **options)
        assert outcome.code == 0, outcome.output
    wide, narrow = losses(workshop, "wide"), losses(workshop, "narrow")
    assert narrow != wide
    assert narrow == pytest.approx(wide, rel=0.05)
    with safe_open(workshop.output("narrow") / "toad.safetensors", "pt") as file:
        assert file.metadata()["ss_fp8_base"] == "True"
        up = [name for name in file.keys() if name.endswith("lora_up.weight")]  # noqa: SIM118  a file of tensors is no mapping
        assert any(file.get_tensor(name).abs().max() > 0 for name in up)


@pytest.mark.skipif(os.name == "nt", reason="the processes of these tests are forked")
def test_a_compiled_run_ends_with_the_same_weights(workshop):
    for name, options in {"plain": {}, "compiled": {"torch_compile": True, "dynamo_backend": "eager"}}.items():
        outcome = workshop.train(name, max_train_steps=1, **options)
        assert outcome.code == 0, outcome.output
    hashes = {tensors_hash(workshop.output(name) / "toad.safetensors") for name in ("plain", "compiled")}
    assert len(hashes) == 1


def test_a_backend_that_is_not_there():
    with pytest.raises(UserError, match="torch_compile: tvm does not work on this machine .* dynamo_backend"):
        check_memory_options(MemoryOptions(torch_compile=True, dynamo_backend="tvm"), "no")


def test_xformers_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "xformers.ops", None)
    with pytest.raises(UserError, match="pip install xformers, or write sdpa instead"):
        check_memory_options(MemoryOptions(xformers=True), "no")


def test_xformers_has_no_operator(monkeypatch):
    def refuse(*_):
        raise ValueError("No operator found for `memory_efficient_attention_forward` with inputs:\n more")

    monkeypatch.setitem(sys.modules, "xformers.ops", SimpleNamespace(memory_efficient_attention=refuse))
    with pytest.raises(UserError, match=r"no attention for \w+ in torch.float16 \(No operator found .*; write sdpa instead"):
        check_memory_options(MemoryOptions(xformers=True), "fp16")


def test_xformers_is_tried_forward_and_backward(monkeypatch):
    widths = []

    def attention(query, key, value):
        widths.append(query.shape[-1])
        return query * value

    monkeypatch.setitem(sys.modules, "xformers.ops", SimpleNamespace(memory_efficient_attention=attention))
    check_memory_options(MemoryOptions(xformers=True), "bf16")
    assert widths == [40, 80, 160]


@pytest.mark.parametrize("local_rank, device", [("0", "cuda:0"), ("1", "cuda:1"), ("3", "cuda:1")])
def test_what_is_tried_is_tried_on_the_gpu_of_this_process(monkeypatch, local_rank, device):
    devices = []

    def on_cpu(make):
        def made(*sizes, device="cpu", **more):
            devices.append(device)
            return make(*sizes, **more)

        return made

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "zeros", on_cpu(torch.zeros))
    monkeypatch.setattr(torch, "ones", on_cpu(torch.ones))
    monkeypatch.setattr(torch, "compile", lambda function, backend: function)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    attention = SimpleNamespace(memory_efficient_attention=lambda query, key, value: query * value)
    monkeypatch.setitem(sys.modules, "xformers.ops", attention)
    check_memory_options(MemoryOptions(xformers=True), "no")
    check_memory_options(MemoryOptions(torch_compile=True), "no")
    assert devices == [device] * 4


def test_how_long_processes_wait():
    waits = [Runtime("no", 1, StopRequest(), timeout_minutes=minutes).accelerator.init_handler.timeout for minutes in (7, None)]
    assert [wait.total_seconds() / 60 for wait in waits] == [7, 120]  # PyTorch's 10 would end runs whose first process draws samples
