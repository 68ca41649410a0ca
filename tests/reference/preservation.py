"""Losses with output preservation in plain PyTorch, written from the definition alone; imports nothing of the project.

Two whole models in the place of one model and a network that is switched off; one sample at a time.
"""
import copy

import torch


def merged(model, prefix, adapters):
    """A copy of the model with low-rank adapters added to its weights, which are named prefix_path_to_layer."""
    changed = copy.deepcopy(model)
    for path, layer in changed.named_modules():
        name = f"{prefix}_{path.replace('.', '_')}"
        if f"{name}.lora_up.weight" not in adapters:
            continue
        up, down = adapters[f"{name}.lora_up.weight"], adapters[f"{name}.lora_down.weight"]
        scale = float(adapters[f"{name}.alpha"]) / down.shape[0]
        delta = torch.einsum("or,ri->oi", up.flatten(1), down.flatten(1)) * scale
        layer.weight.data = layer.weight.data + delta.view_as(layer.weight)
    return changed


def predict(unet, encoder, tokenizer, noisy, timestep, caption):
    ids = tokenizer(caption, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    return unet(noisy[None], timestep[None], encoder(ids).last_hidden_state).sample[0]


def losses(trained, base, tokenizer, samples):
    """trained, base: (U-Net, text encoder). samples: dicts of noisy, timestep, noise, caption, marked, mask [h, w], weight (of the
    sample and its timestep), and of prompt and prompt_weight (of the class). One number for each."""
    found = []
    for sample in samples:
        noisy, timestep = sample["noisy"], sample["timestep"]
        target = predict(*base, tokenizer, noisy, timestep, sample["caption"]) if sample["marked"] else sample["noise"]
        error = (predict(*trained, tokenizer, noisy, timestep, sample["caption"]) - target) ** 2
        loss = (error * sample["mask"]).mean() * sample["weight"]
        if sample["prompt"] is not None:
            texts = (tokenizer, noisy, timestep, sample["prompt"])
            drift = (predict(*trained, *texts) - predict(*base, *texts)) ** 2
            loss = loss + drift.mean() * sample["prompt_weight"]
        found.append(loss)
    return torch.stack(found)
