"""Random BLIP and GIT models of a few thousand weights, in folders as transformers writes them."""
from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import BlipConfig, BlipForConditionalGeneration, GitConfig, GitForCausalLM

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[MASK]", "[SEP]"]
WORDS = [*SPECIAL, "a", "frog", "on", "the", "green", "leaf", "with", "red", "hat", "and", "blue", "sky"]
PAD, START, END = (WORDS.index(word) for word in ("[PAD]", "[CLS]", "[SEP]"))
BLIP_START = len(WORDS)  # unknown to the tokenizer, as in the published models
SIDE = 32
TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
VISION = {**TRANSFORMER, "image_size": SIDE, "patch_size": 16}
COMMON_PROCESSOR = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
    "resample": 3,
}


def tiny_blip(folder: Path, processor: str = "BlipImageProcessor") -> Path:
    """A BLIP captioner."""
    text = {
        **TRANSFORMER,
        "vocab_size": len(WORDS) + 2,
        "max_position_embeddings": 64,
        "encoder_hidden_size": 16,
        "bos_token_id": BLIP_START,
        "pad_token_id": PAD,
        "sep_token_id": END,
        "eos_token_id": END,
    }
    _save(folder, BlipForConditionalGeneration, BlipConfig(text_config=text, vision_config=VISION, projection_dim=16))
    _write(folder / "preprocessor_config.json", {"image_processor_type": processor, "size": {"height": SIDE, "width": SIDE}})
    return folder


def tiny_git(folder: Path) -> Path:
    """A GIT captioner."""
    tokens = {"bos_token_id": START, "eos_token_id": END, "pad_token_id": PAD}
    config = GitConfig(vision_config=VISION, **TRANSFORMER, vocab_size=len(WORDS), max_position_embeddings=64, **tokens)
    _save(folder, GitForCausalLM, config)
    crop = {"do_center_crop": True, "crop_size": {"height": SIDE, "width": SIDE}, "size": {"shortest_edge": SIDE}}
    _write(folder / "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor", **crop})
    return folder


def _save(folder: Path, model_class: type, config: object) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    weights = dict(model.named_parameters())
    bias = weights["output.bias" if model_class is GitForCausalLM else "text_decoder.cls.predictions.bias"]
    bias.data[[number for number in range(len(bias)) if not END <= number < len(WORDS)]] = -1e4  # words, and now and then an end
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True}, common={})


def _write(path: Path, content: dict, common: dict = COMMON_PROCESSOR) -> None:
    path.write_text(json.dumps({**common, **content}), encoding="utf-8")
