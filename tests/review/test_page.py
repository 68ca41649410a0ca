"""The page shows what training gets, is whole by itself, bounded in size, and lets no text become markup."""
from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from library.config.datasets import DatasetSettings, SubsetSettings
from library.data.dataset import TrainingDataset
from library.data.foreign_batches import ForeignDataset
from library.data.lookalikes import Lookalike, compare_pictures
from library.data.order import TrainingOrder
from library.data.pixels import fixed_pixels
from library.data.records import ImageRecord, PreparedDataset
from library.data.report import data_report
from library.errors import UserError
from library.review import cards
from library.review.advice import advice_on
from library.review.cards import Card, CardMaker, Entry, choose, evenly_chosen
from library.review.looked_at import LookedAtDataset
from library.review.page import Page, write_page
from library.types import SampleRef
from tests.data.test_foreign import prepared_of
from tests.data.tiny_datasets import prepare, subset_of, write_image, write_images

STEPS = 100


def page_of(prepared, dataset=None, world_size=1, **facts) -> Page:
    dataset = dataset or LookedAtDataset(prepared, 5, STEPS, 0.5)
    comparison = compare_pictures(prepared)
    report = data_report(prepared, comparison.lookalikes)
    orders = [TrainingOrder(prepared, 5, 1, rank, world_size) for rank in range(world_size)]
    maker = CardMaker(prepared, orders, dataset.__getitem__, comparison.lookalikes)
    values = {
        "name": "toad", "made_at": "today", "version": "1", "figures": {"steps": "1 to 9"}, "notes": ["a note"],
        "prepared": prepared, "report": report, "advice": advice_on(report), "undecodable": comparison.undecodable,
        "sheets": maker.sheets(), "pairs": [maker.pairs(number) for number in range(len(prepared))],
    }  # fmt: skip
    return Page(**{**values, **facts})


class Reader(HTMLParser):
    """The elements of a page, their attributes, and the text inside each class."""

    VOID = {"meta", "link", "img", "input", "rect", "circle", "path", "br"}

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], "elements that are not closed"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        name = (dict(attributes).get("class") or "").split(" ")[0]
        if tag not in self.VOID:
            self._open.append(name)
            self.texts.setdefault(name, []).append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert tag not in self.VOID
        self._open.pop()

    def handle_data(self, data):
        for name in self._open:
            if name:
                self.texts[name][-1] += data

    def values(self, attribute: str) -> list[str]:
        return [found[attribute] or "" for _, found in self.elements if attribute in found]


@pytest.fixture
def prepared(tmp_path):
    images = write_images(tmp_path / "a", alpha=True)
    (images / "3.txt").write_text("", encoding="utf-8")
    write_image(images / "6.png", (96, 96), 0)
    options = {"num_repeats": 3, "flip_aug": True, "alpha_mask": True, "caption": {"shuffle_caption": True}}
    return prepare(subset_of(images, **options), subset_of(write_images(tmp_path / "b"), is_reg=True))


def test_it_is_whole_by_itself_and_runs_nothing(prepared):
    html = page_of(prepared).as_html()
    found = Reader(html)
    assert html.startswith("<!doctype html>")
    assert all(value.startswith(("data:", "#")) for name in ("src", "href") for value in found.values(name))
    assert "url(" not in html and "@import" not in html
    assert not {"script", "iframe", "object", "form"} & {tag for tag, _ in found.elements}
    assert "default-src 'none'" in html


def test_links_lead_somewhere_and_names_are_used_once(prepared):
    found = Reader(page_of(prepared).as_html())
    ids = found.values("id")
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in found.values("href") if value.startswith("#")} <= set(ids)
    assert len([tag for tag, _ in found.elements if tag == "h1"]) == 1


def test_cards_show_what_training_gets_in_the_first_epoch(prepared):
    page = page_of(prepared)
    dataset = TrainingDataset(prepared, 5, STEPS, 0.5)
    order = TrainingOrder(prepared, 5, 1, 0, 1)
    got = {}
    for place in order.places(1, order.steps_per_epoch):
        for ref, caption, flipped in zip(place.samples, dataset[place].captions, dataset[place].flipped, strict=True):
            got[ref] = (caption, flipped)
    shown = [card for of_bucket in page.sheets[0].values() for card in of_bucket]
    assert len(shown) == 13 and {card.flipped for card in shown} == {True, False}
    for card in shown:
        index = prepared[0].records.index(card.record)
        entry = prepared[0].entries(1).index(index)
        assert (card.caption, card.flipped) == got[SampleRef(0, entry)]
        expected = fixed_pixels(card.record, prepared[0].settings.subsets[card.record.subset])
        expected = expected.mirrored() if card.flipped else expected
        assert card.size == card.record.bucket == expected.image.shape[1::-1]
        picture = np.asarray(decoded(card.picture)).astype(int)
        size = picture.shape[1::-1]
        wanted = np.asarray(Image.fromarray(expected.image).resize(size, Image.Resampling.BICUBIC)).astype(int)
        assert abs(picture - wanted).mean() < 12
        assert (card.mask is None) == card.record.is_reg
        if card.mask and size == card.size:
            assert abs(np.asarray(decoded(card.mask))[..., 3] - (255 - expected.weights.astype(int)) / 2).max() < 1.5


def decoded(uri: str) -> Image.Image:
    kind, content = uri.split(";base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert kind == f"data:{Image.MIME[picture.format]}"
    return picture


def test_badges_and_figures(prepared):
    text = Reader(page_of(prepared).as_html()).texts
    badges = " ".join(text["badges"])
    for badge in ("no caption", "regularisation", "flipped", "enlarged 1.3×"):
        assert badge in badges
    assert "1 caption file is empty" in " ".join(text["advice"])
    assert re.findall(r"\d+", text["tiles"][0])[:2] == ["7", "6"]


def test_look_alikes_are_shown_in_pairs(tmp_path):
    images = write_images(tmp_path / "a")
    for name in ("7.png", "8.png"):
        (images / name).write_bytes((images / "0.png").read_bytes())
    page = page_of(prepare(subset_of(images)))
    assert [[card.path for card in pair] for pair in page.pairs[0]] == [
        [str(images / "0.png"), str(images / name)] for name in ("7.png", "8.png")
    ]
    assert page.pairs[0][0][1].lookalike == Lookalike(str(images / "7.png"), str(images / "0.png"), True)
    assert page.as_html().count("copy of 0.png") == 4  # in its bucket and in the pair


def many(count: int, buckets: int = 1) -> list[PreparedDataset]:
    records = [
        ImageRecord(f"{number}.png", (64, 64), "x", True, 0, False, 1, (64, 64 * (1 + number % buckets)), (64, 64 * buckets))
        for number in range(count)
    ]
    return [PreparedDataset(DatasetSettings(resolution=(64, 64), subsets=(SubsetSettings(),)), records)]


@pytest.mark.parametrize(("count", "buckets"), [(10, 1), (5000, 1), (5000, 40), (3000, 900)])
def test_only_so_many_pictures_are_shown(count, buckets):
    chosen = choose(many(count, buckets))[0]
    numbers = [len(entries) for entries in chosen.values()]
    assert len(chosen) == min(count, buckets)
    assert max(numbers) <= cards.PER_BUCKET and sum(numbers) <= cards.PER_PAGE
    assert sum(numbers) >= min(count, 24)
    if buckets <= cards.PER_PAGE:
        assert min(numbers) >= 1


def test_pictures_are_chosen_evenly():
    entries = [Entry(SampleRef(0, number), many(1)[0].records[0]) for number in range(100)]
    assert [entry.ref.entry for entry in evenly_chosen(entries, 5)] == [0, 24, 49, 74, 99]
    assert evenly_chosen(entries, 100) == entries
    assert [entry.ref.entry for entry in evenly_chosen(entries, 1)] == [0]
    assert evenly_chosen(entries, 0) == []


def test_a_full_page_says_so(monkeypatch, prepared):
    monkeypatch.setattr(cards, "PER_PAGE", 1)
    html = page_of(prepared).as_html()
    assert "The pictures of this bucket are not shown" in html
    assert len(Reader(html).texts["caption"]) == 1 + 2  # a pair of look-alikes


def test_with_several_processes_each_picture_is_found(prepared):
    page = page_of(prepared, world_size=2)
    assert sum(len(of_bucket) for of_bucket in page.sheets[0].values()) == 13


def test_a_picture_that_cannot_be_read_is_told_in_its_place(prepared):
    record = prepared[0].records[0]
    Path(record.path).write_bytes(b"")
    page = page_of(prepared)
    assert [error.path for error in page.undecodable] == [record.path]
    assert "is empty (0 bytes)" in page.as_html()


def test_pictures_that_are_not_there_yet(tmp_path):
    subset = subset_of(tmp_path / "class", is_reg=True, class_prompt="a <frog>", num_class_images=3)
    prepared = prepare(subset_of(write_images(tmp_path / "a")), subset)
    prepared[0].records[0].path = "frog.npz"
    page = page_of(prepared)
    texts = " ".join(Reader(page.as_html()).texts["frame"])
    assert "only its cached latents are there" in texts and texts.count('to be drawn from "a <frog>"') == 3
    assert page.undecodable == []


def test_a_dataset_of_which_all_is_held_out(tmp_path):
    judges = prepare(subset_of(write_images(tmp_path / "judges"), validation_split=1.0), subset_of(write_images(tmp_path / "a")))
    judges[0].records.clear()
    judges[0].train_entries.clear()
    page = page_of(judges + prepare(subset_of(write_images(tmp_path / "b"))))
    assert page.sheets[0] == {} and len(page.sheets[1]) > 0
    assert "100\u202f% held out" in page.as_html()


@pytest.mark.parametrize("name", ["Plain", "Full"])
def test_a_class_of_the_users(name):
    prepared = [prepared_of(name)]
    page = page_of(prepared, ForeignDataset(prepared[0], 5, STEPS))
    found = Reader(page.as_html())
    assert len(found.texts["card"]) == (9 if name == "Plain" else 10)
    assert ("latents as colours" in " ".join(found.texts["badges"])) == (name == "Full")
    assert page.as_dict()["datasets"][0]["lookalikes"] is None
    assert "nothing is known of its pictures" in found.texts["fine"][0] and "scroll" not in found.texts


# --- text stays text ---

HOSTILE = '</p><script>alert(1)</script><img src=x onerror="alert(2)">&amp;\'"{{ 7 * 7 }}{% raw %}'


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"))), st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1))
def test_no_text_becomes_markup(caption, name):
    plain, found = (Reader(one_card(*texts)) for texts in (("caption", "name"), (caption, name)))
    assert [tag for tag, _ in found.elements] == [tag for tag, _ in plain.elements]
    assert [attributes.keys() - {"tabindex"} for _, attributes in found.elements] == [
        attributes.keys() - {"tabindex"} for _, attributes in plain.elements
    ]
    assert found.texts["caption"] == [caption or "trained on the empty text"]
    assert found.values("title") == [f"pictures/{name}"]


@pytest.mark.parametrize("field", ["caption", "name", "notes", "run", "skipped"])
def test_hostile_text_is_shown_as_it_is(field):
    hostile = HOSTILE.replace("/", "") if field == "name" else HOSTILE
    html = one_card(**{field: hostile})
    assert hostile not in html and "<script" not in html
    assert hostile in "\n".join(text for texts in Reader(html).texts.values() for text in texts)


def one_card(caption="a", name="b", notes="c", run="d", skipped="e") -> str:
    (prepared,) = many(1)
    prepared.notes.append(notes)
    prepared.skipped.append((skipped, skipped))
    card = Card(
        path=f"pictures/{name}", caption=caption, size=(64, 64), picture="data:x", mask=None, counting=None, shows_latents=False,
        flipped=False, loss_weight=1.0, record=prepared.records[0], lookalike=Lookalike("x", name, False),
    )  # fmt: skip
    report = data_report([prepared], [[]])
    page = Page(run, "today", "1", {run: run}, [notes], [prepared], report, [], [], [{(64, 64): [card]}], [[]])
    # The badge for an empty caption is an element of its own, with or without hostile text.
    return page.as_html().replace('<li class="grave">no caption</li>', "")


# --- files ---


def test_the_files(prepared, tmp_path):
    page = page_of(prepared)
    paths = write_page(page, tmp_path / "out", "toad_")
    assert [path.name for path in paths] == ["toad_dataset_report.html", "toad_dataset_report.json"]
    assert paths[0].read_text(encoding="utf-8") == page.as_html()
    found = json.loads(paths[1].read_text(encoding="utf-8"))
    assert found["v"] == 1 and found["run"] == {"steps": "1 to 9"} and found["notes"] == ["a note"]
    assert found["datasets"] == json.loads(json.dumps(page.report.as_dict()))["datasets"]
    assert [remark["kind"] for remark in found["advice"]] == [remark.kind for remark in page.advice]
    assert write_page(page, tmp_path / "out", "toad_") == paths  # those of an earlier look are replaced
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [path.name for path in paths]


def test_names_that_are_no_utf_8(prepared, tmp_path):
    prepared[0].skipped.append(("odd\udcff.png", "is empty"))
    html, figures = write_page(page_of(prepared), tmp_path, "")
    assert "odd\\udcff.png" in html.read_text(encoding="utf-8")
    assert json.loads(figures.read_text(encoding="utf-8"))["datasets"][0]["skipped"] == [{"path": "odd\udcff.png", "reason": "is empty"}]


def test_a_folder_that_cannot_be_written(prepared, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(UserError, match=re.escape("dataset_report.html cannot be written")):
        write_page(page_of(prepared), tmp_path / "file", "")
