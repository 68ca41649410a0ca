"""What is encoded before training: latents and captions, by the model's own encoders, on all processes together."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, Protocol

import torch
from torch import nn

from library.config.load import Settings
from library.config.text_settings import text_settings
from library.data.cache import CacheSettings, LatentCache
from library.data.cache_fill import fill_cache
from library.data.records import PreparedDataset
from library.data.text_cache import TextCache, TextCacheSettings
from library.data.text_cache_fill import fill_text_cache
from library.data.validation import with_held_out
from library.data.weights_fingerprint import weights_fingerprint
from library.families.base import Family
from library.families.encoding import PictureEncoder
from library.train.console import CountBar
from library.train.runtime import Runtime
from library.types import Parts

log = logging.getLogger(__name__)


class CachePlan(Protocol):
    """What caching asks of a plan."""

    @property
    def settings(self) -> Settings: ...

    @property
    def family(self) -> Family: ...

    @property
    def prepared(self) -> list[PreparedDataset]: ...


@dataclass(frozen=True)
class Caches:
    """What is cached; None where nothing is."""

    latents: LatentCache | None
    text: TextCache | None

    def needless(self, parts: Parts) -> list[nn.Module]:
        """The modules that nothing is left to be encoded by."""
        vae = [parts.vae] if self.latents is not None else []
        return [*vae, *(parts.text_encoders if self.text is not None else [])]


def picture_encoder(family: Family, parts: Parts, report: Callable[..., None]) -> PictureEncoder:
    """Encodes pictures with the model's VAE; should that be widened, there is an event."""

    def on_widened(paths: list[str], precision: str) -> None:
        report("vae_widened", images=paths, precision=precision)

    return PictureEncoder(parts.vae, partial(family.encode_images, parts), on_widened)


def fill_caches(plan: CachePlan, parts: Parts, runtime: Runtime, encode: PictureEncoder) -> Caches:
    """Encode what is to be cached and missing, and say what was done. Every process must call this."""
    data = plan.settings.data
    with runtime.failing_together():
        latents = _latent_cache(plan, parts, runtime, encode) if data.cache_latents else None
        text = _text_cache(plan, parts, runtime) if data.cache_text_encoder_outputs else None
    if latents is not None:
        latents.share_borrowed(runtime.merged(latents.borrowed_by_path()))
    for cache in (latents, text):
        if cache is not None:
            _report(cache, runtime)
    return Caches(latents, text)


def _latent_cache(plan: CachePlan, parts: Parts, runtime: Runtime, encode: PictureEncoder) -> LatentCache:
    data, family = plan.settings.data, plan.family
    settings = CacheSettings(
        suffix=family.latent_cache_suffix,
        on_disk=data.cache_latents_to_disk,
        vae_batch_size=data.vae_batch_size,
        skip_cache_check=data.skip_cache_check,
        vae_fingerprint=weights_fingerprint(parts.vae) if data.cache_latents_to_disk else "",
        vae_scale=family.vae_scale,
        channels=family.channels,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )

    with torch.no_grad(), _progress("images encoded", runtime) as on_progress:
        return fill_cache(with_held_out(plan.prepared), encode, settings, on_progress)


def _text_cache(plan: CachePlan, parts: Parts, runtime: Runtime) -> TextCache:
    data, family = plan.settings.data, plan.family
    text = text_settings(plan.settings.model)
    layout = family.text_layout(parts)
    settings = TextCacheSettings(
        on_disk=data.cache_text_encoder_outputs_to_disk,
        batch_size=data.text_encoder_batch_size,
        skip_cache_check=data.skip_cache_check,
        layout=layout,
        variants=data.caption_variants,
        source=_text_source(plan.settings, parts) if data.cache_text_encoder_outputs_to_disk else {},
        rank=runtime.rank,
        world_size=runtime.world_size,
    )

    def encode(captions: list[str]) -> dict[str, torch.Tensor]:
        with runtime.autocast():
            return layout.split(family.encode_text(parts, captions, text))

    with torch.no_grad(), _progress("captions encoded", runtime) as on_progress:
        return fill_text_cache(with_held_out(plan.prepared), encode, settings, on_progress)


@contextmanager
def _progress(what: str, runtime: Runtime) -> Iterator[Callable[[int, int], None]]:
    """What is called between two encodings: it tells how many are done, and raises Stopped if somebody asked for it."""
    with ExitStack() as stack:
        bar: CountBar | None = None

        def on_progress(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                bar = stack.enter_context(CountBar(what, total, runtime.is_main))
            bar.advance(done - bar.done)
            runtime.stop_request.check()

        yield on_progress


def _text_source(settings: Settings, parts: Parts) -> dict[str, Any]:
    """What encoded captions depend on besides their text."""
    return {
        "encoder": [weights_fingerprint(encoder) for encoder in parts.text_encoders],
        "tokenizer": [_tokenizer_fingerprint(tokenizer) for tokenizer in parts.tokenizers],
        "precision": settings.training.mixed_precision,
        **asdict(text_settings(settings.model)),
    }


def _tokenizer_fingerprint(tokenizer: Any) -> str:
    """Of its vocabulary and of the ids that it puts around a text."""
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    text = json.dumps([sorted(tokenizer.get_vocab().items()), ends])
    return blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


def _report(cache: LatentCache | TextCache, runtime: Runtime) -> None:
    report = cache.report
    if cache.settings.on_disk:  # else each process makes the same
        first, *others = runtime.gathered(report)
        report = first.with_those_of(others)
    for line in report.lines():
        log.info("%s", line)
