"""Diffusers' models, imported as where bitsandbytes is not installed: its import takes seconds, for quantized models alone."""
import sys

from diffusers.utils import import_utils

_OPTIONAL = "bitsandbytes"
import_utils._bitsandbytes_available = False  # what Diffusers has found out when it was imported, perhaps for a scheduler
_IS_HIDDEN = _OPTIONAL not in sys.modules and not import_utils.is_bitsandbytes_available()

if _IS_HIDDEN:
    sys.modules[_OPTIONAL] = None  # type: ignore[assignment]  # from peft, which Diffusers imports: while this is here, it finds none
try:
    from diffusers import AutoencoderKL, UNet2DConditionModel
finally:
    if _IS_HIDDEN:
        del sys.modules[_OPTIONAL]  # for the optimizers that are its own

__all__ = ["AutoencoderKL", "UNet2DConditionModel"]
