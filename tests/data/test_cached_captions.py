"""Which caption each use of an image gets when encoded captions are cached: rates, variants, workers, and what is an error."""
from __future__ import annotations

from collections import Counter

import pytest
import torch

from library.data.dataset import TrainingDataset
from library.data.loader import make_loader
from library.data.order import TrainingOrder
from library.data.text_cache import check_captions_cacheable
from library.errors import UserError
from tests.data.test_text_cache import encode, entries, fill
from tests.data.tiny_datasets import SIZES, prepare, subset_of, write_images

EPOCHS = 120
TAGS = "one, two, three, four, five"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_images(tmp_path_factory.mktemp("captions"), [(64, 64)] * 4)
    for number in range(4):
        (folder / f"{number}.txt").write_text(f"{number}, {TAGS}", encoding="utf-8")
    return folder


def used(prepared, text_cache, epochs=EPOCHS, seed=1):
    """All batches of some epochs, without looking at pixels: latents are of no concern here."""
    dataset = TrainingDataset(prepared, seed, 100, 1.0, _NoLatents(), text_cache=text_cache)
    order = TrainingOrder(prepared, seed, 1, 0, 1)
    return [dataset.completed(dataset[place]) for place in order.places(1, epochs * order.steps_per_epoch)]


class _NoLatents:
    """In the place of a latent cache."""

    in_memory = False

    def read(self, place, flipped):
        from library.data.cache_file import Latents

        empty = torch.zeros(4, 16, 16).numpy()
        return Latents(empty, empty)


def captions_by_epoch(batches):
    found = {}
    for batch in batches:
        found.setdefault(batch.place.epoch, []).extend(batch.captions)
    return found


def assert_encodes_its_captions(batch):
    assert torch.equal(batch.conditioning.hidden_states, encode(batch.captions)["hidden_state"])


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("variants", [1, 4])
def test_the_rate_of_dropped_captions_is_exact_with_any_number_of_variants(folder, on_disk, variants):
    caption = {"caption_dropout_rate": 0.3, "shuffle_caption": variants > 1}
    prepared = prepare(subset_of(folder, num_repeats=2, caption=caption))
    cache, _ = fill(prepared, on_disk=on_disk, variants=variants)
    batches = used(prepared, cache)
    for batch in batches[:: len(batches) // 8]:
        assert_encodes_its_captions(batch)
    uses = [caption for batch in batches for caption in batch.captions]
    assert len(uses) == EPOCHS * 8
    share = uses.count("") / len(uses)
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / len(uses)) ** 0.5


def test_the_same_captions_are_dropped_as_without_a_cache(folder):
    caption = {"caption_dropout_rate": 0.4, "caption_dropout_every_n_epochs": 3, "caption_prefix": "a"}
    prepared = prepare(subset_of(folder, caption=caption))
    cache, _ = fill(prepared, on_disk=False)
    cached, plain = used(prepared, cache, 12), used(prepared, None, 12)
    assert [batch.captions for batch in cached] == [batch.captions for batch in plain]
    assert {"", f"a 0, {TAGS}"} < {caption for batch in cached for caption in batch.captions}


def test_every_nth_epoch_is_without_captions_and_no_other(folder):
    prepared = prepare(subset_of(folder, caption={"caption_dropout_every_n_epochs": 3}))
    cache, encoded = fill(prepared, on_disk=False)
    assert encoded.count("") == 1
    for epoch, captions in captions_by_epoch(used(prepared, cache, 9)).items():
        assert set(captions) == {""} if epoch % 3 == 0 else "" not in captions


def test_the_empty_text_is_cached_once_and_only_where_captions_are_dropped(tmp_path):
    one, two = write_images(tmp_path / "a", SIZES[:2]), write_images(tmp_path / "b", SIZES[:2])
    fill(prepare(subset_of(one), subset_of(two)))
    assert "_empty_caption_sd_te.npz" not in entries(one)
    prepared = prepare(subset_of(one), subset_of(two, caption={"caption_dropout_rate": 0.5}))
    cache, encoded = fill(prepared)
    assert encoded == [""] and entries(two).count("_empty_caption_sd_te.npz") == 1
    assert "_empty_caption_sd_te.npz" not in entries(one)
    assert fill(prepared)[1] == []
    assert "" in {caption for batch in used(prepared, cache, 10) for caption in batch.captions}


@pytest.mark.parametrize("variants", [2, 7])
def test_all_variants_are_used_about_equally(folder, variants):
    prepared = prepare(subset_of(folder, num_repeats=4, caption={"shuffle_caption": True, "keep_tokens": 1}))
    cache, _ = fill(prepared, on_disk=False, variants=variants)
    uses = Counter(caption for batch in used(prepared, cache) for caption in batch.captions)
    for index in range(4):
        renderings = Counter(cache._rendering((0, index), number) for number in range(variants))  # two may be alike
        assert len(renderings) > variants / 2 and list(renderings) == cache.captions((0, index))
        assert all(text.startswith(f"{index}, ") for text in renderings)
        assert {tuple(sorted(text.split(", "))) for text in renderings} == {tuple(sorted(f"{index}, {TAGS}".split(", ")))}
        for text, times in renderings.items():
            expected = EPOCHS * 4 * times / variants
            assert abs(uses[text] - expected) < 5 * expected**0.5


def test_dropped_tags_and_wildcards_have_their_rates_over_many_variants(folder):
    prepared = prepare(subset_of(folder, caption={"caption_tag_dropout_rate": 0.25, "enable_wildcard": True}))
    for record in prepared[0].records:
        record.caption = f"{record.caption}, {{red|green}}"
    cache, _ = fill(prepared, on_disk=False, variants=300)
    texts = [cache._rendering((0, index), number) for index in range(4) for number in range(300)]
    tags = Counter(tag for text in texts for tag in text.split(", "))
    for tag in TAGS.split(", "):
        assert abs(tags[tag] / len(texts) - 0.75) < 0.06
    assert abs(tags["red"] - tags["green"]) < 120 and 0.69 < (tags["red"] + tags["green"]) / len(texts) < 0.81


def test_a_use_is_a_function_of_seed_epoch_and_entry(folder):
    prepared = prepare(subset_of(folder, num_repeats=3, caption={"shuffle_caption": True}))
    cache, _ = fill(prepared, on_disk=False, variants=5)
    first, again, other = (
        [batch.captions for batch in used(prepared, cache, 4, seed)] for seed in (1, 1, 2)
    )  # fmt: skip
    assert first == again != other
    by_epoch = list(captions_by_epoch(used(prepared, cache, 2)).values())
    assert sorted(by_epoch[0]) != sorted(by_epoch[1])
    of_one_image = [text for text in by_epoch[0] if "0" in text.split(", ")]
    assert len(of_one_image) == 3


@pytest.mark.parametrize("on_disk", [False, True])
def test_workers_and_a_resumed_run_get_the_same_batches(folder, on_disk):
    prepared = prepare(subset_of(folder, num_repeats=2, caption={"shuffle_caption": True, "caption_dropout_rate": 0.3}))
    cache, _ = fill(prepared, on_disk=on_disk, variants=3)
    dataset = TrainingDataset(prepared, 5, 100, 1.0, _NoLatents(), text_cache=cache)
    order = TrainingOrder(prepared, 5, 1, 0, 1)

    def batches(first, workers):
        return list(make_loader(dataset, order.places(first, 12), workers))

    here = batches(1, 0)
    for other in (batches(1, 2), here[:6] + batches(7, 0)):
        assert [batch.captions for batch in other] == [batch.captions for batch in here]
        assert all(
            torch.equal(one.conditioning.hidden_states, two.conditioning.hidden_states)
            for one, two in zip(other, here, strict=True)
        )
    for batch in here:
        assert_encodes_its_captions(batch)


def test_captions_that_no_cache_can_hold_are_named(folder):
    both = prepare(
        subset_of(folder, caption={"token_warmup_step": 5}),
        subset_of(folder, caption={"shuffle_caption": True, "caption_tag_dropout_rate": 0.1}),
    )
    with pytest.raises(UserError) as caught:
        check_captions_cacheable(both, 1)
    warm_up, varying = caught.value.messages
    assert "token_warmup_step depends on the step" in warm_up and "drop token_warmup_step" in warm_up
    assert "shuffle_caption and caption_tag_dropout_rate" in varying and "--caption_variants" in varying
    with pytest.raises(UserError) as caught:
        check_captions_cacheable(both, 8)
    assert caught.value.messages == (warm_up,)
    check_captions_cacheable(prepare(subset_of(folder, caption={"caption_dropout_rate": 0.5, "caption_prefix": "x"})), 1)
