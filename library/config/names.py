"""Names that are no options of this script: what to tell the person who wrote one."""

from __future__ import annotations

from library.config.datasets.keys import KEYS, RENAMED
from library.config.scripts import SCRIPTS, Script
from library.config.settings import OPTIONS, options_for
from library.config.spelling import closest

FILE_OPTIONS = ("config_file", "output_config")  # flags that say where options are read from or written to

IMPOSSIBLE = {
    "fp16_master_weights_and_gradients": "under DeepSpeed trained weights are float32 and computed in bfloat16: delete it",
    "cpu_offload_checkpointing": "the U-Nets of Stable Diffusion cannot do this: delete it; gradient_checkpointing saves memory too",
}

# Options of scripts of the interface that do not exist here.
OTHER_SCRIPTS = {
    "flux_train_network.py": "ae apply_t5_attn_mask blocks_to_swap clip_l controlnet_model_name_or_path discrete_flow_shift "
    "guidance_scale logit_mean logit_std mode_scale model_prediction_type model_type sigmoid_scale split_mode t5xxl "
    "t5xxl_max_token_length timestep_sampling weighting_scheme",
    "sd3_train_network.py": "apply_lg_attn_mask clip_g clip_g_dropout_rate clip_l_dropout_rate enable_scaled_pos_embed "
    "pos_emb_random_crop_rate save_clip save_t5xxl t5_dropout_rate t5xxl_device t5xxl_dtype training_shift",
}
_SCRIPT_OF = {name: script for script, names in OTHER_SCRIPTS.items() for name in names.split()}


def explain_unknown(name: str, script: Script) -> str:
    """What to say of a flag (without its dashes) or a key that this script does not have."""
    if name in IMPOSSIBLE:
        return IMPOSSIBLE[name]
    if name in _SCRIPT_OF:
        return f"this is an option of {_SCRIPT_OF[name]}, not of {script.name}"
    if name in OPTIONS:
        takers = " and ".join(taker for taker in SCRIPTS if OPTIONS[name].is_of(taker))
        return f"this is an option of {takers}, not of {script.name}; delete it"
    if name in RENAMED.values():
        option = next(old for old, new in RENAMED.items() if new == name)
        return f'unknown option; did you mean "{option}"? ("{name}" is a key of dataset files)'
    if name in KEYS:
        return "this key belongs in a dataset file; name that file with --dataset_config FILE.toml"
    guess = closest(name, (*options_for(script.name), *FILE_OPTIONS)) or closest(name, (*_SCRIPT_OF, *OPTIONS))
    return f'unknown option; did you mean "{guess}"?' if guess else f"unknown option; `python {script.name} --help` lists all"
