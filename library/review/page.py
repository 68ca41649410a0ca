"""The report as a web page that needs nothing but itself: no scripts, no other files; and the same figures as JSON."""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from library.checkpoint.files import atomic_write
from library.data.image_files import BadImage
from library.data.records import PreparedDataset, Size
from library.data.report import DataReport, DatasetReport
from library.errors import UserError
from library.review.advice import Advice
from library.review.cards import STRONG_CROP, Card, Sheets

FORMAT = 1  # of the JSON; it grows when a field changes its meaning or goes
LISTED = 200  # paths in a list of the page; the JSON holds all


@dataclass(frozen=True)
class Page:
    """All that the report says."""

    name: str  # of the run
    made_at: str
    version: str  # of this program
    figures: dict[str, str]  # of the run, for the person: {"steps": "1 to 1600"}
    notes: Sequence[str]
    prepared: Sequence[PreparedDataset]
    report: DataReport
    advice: Sequence[Advice]
    undecodable: Sequence[BadImage]
    sheets: Sheets
    pairs: Sequence[Sequence[tuple[Card, Card]]]  # of look-alikes, by dataset

    def as_html(self) -> str:
        datasets = self.report.datasets
        return _TEMPLATES.get_template("page.html.jinja").render(
            page=self,
            tiles=_tiles(datasets),
            has_masks=any(card.mask for sheet in self.sheets for cards in sheet.values() for card in cards),
            undecodable=[(error.path, error.reason) for error in self.undecodable],
            silent=[_without_caption(dataset) for dataset in datasets],
            alike=[[(pair.path, str(pair)) for pair in dataset.lookalikes or ()] for dataset in datasets],
            listed=LISTED,
            strong_crop=STRONG_CROP,
        )

    def as_dict(self) -> dict[str, Any]:
        """What a program can read; without the pictures."""
        return {
            "v": FORMAT,
            "name": self.name,
            "made_at": self.made_at,
            "version": self.version,
            "run": self.figures,
            "notes": list(self.notes),
            "advice": [asdict(remark) for remark in self.advice],
            "undecodable": [{"path": error.path, "reason": error.reason} for error in self.undecodable],
            **self.report.as_dict(),
        }


def write_page(page: Page, folder: Path, prefix: str) -> list[Path]:
    """Writes both files, in the place of those of an earlier look; their paths."""
    texts = {
        folder / f"{prefix}dataset_report.html": page.as_html(),
        folder / f"{prefix}dataset_report.json": json.dumps(page.as_dict(), ensure_ascii=False, indent=1) + "\n",
    }
    for path, text in texts.items():
        try:
            with atomic_write(path) as temporary:
                # File names may hold bytes that are no UTF-8: those are written as \udcXX, which is what JSON calls them.
                temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"the dataset report {path} cannot be written: {reason}; choose another output_dir") from error
    return list(texts)


def _tiles(datasets: Sequence[DatasetReport]) -> list[tuple[str, str, str]]:
    """(label, figure, remark) of all datasets together."""
    if all(dataset.is_foreign for dataset in datasets):
        return [("batches in an epoch", _count(sum(dataset.train_entries for dataset in datasets)), "")]
    totals = [dataset.total for dataset in datasets]
    images = sum(total.images for total in totals)
    regularisation = sum(total.regularisation_images for total in totals)
    cropped = sum(total.cropped_shares for total in totals) / max(1, images)
    alike = [pair for dataset in datasets for pair in dataset.lookalikes or ()]
    copies = sum(pair.exact for pair in alike)
    others = f"and {_count(regularisation)} for regularisation" if regularisation else ""
    return [
        ("training pictures", _count(images - regularisation), others),
        ("in an epoch", _count(sum(total.entries for total in totals)), "repeats counted"),
        ("buckets", _count(sum(len(dataset.buckets) for dataset in datasets)), ""),
        ("cropped away", _percent(cropped), "of the area, on average"),
        ("enlarged", _count(sum(total.upscaled for total in totals)), ""),
        ("without caption", _count(sum(total.without_caption for total in totals)), ""),
        ("look-alikes", _count(len(alike)), f"{_count(copies)} of them exact copies" if copies else ""),
        ("left out", _count(sum(len(dataset.skipped) for dataset in datasets)), ""),
    ]


def _without_caption(dataset: DatasetReport) -> list[tuple[str, str]]:
    empty = [(path, "its caption file is empty") for path in dataset.captions.empty]
    return [(path, "") for path in dataset.captions.missing] + empty


def _count(number: int) -> str:
    """12345 as 12 345, with spaces that no line breaks at."""
    return f"{number:,}".replace(",", "\u202f")


def _percent(share: float) -> str:
    return "0\u202f%" if share == 0 else "<\u202f1\u202f%" if share < 0.01 else f"{share:.0%}".replace("%", "\u202f%")


def _size(size: Size) -> str:
    return f"{size[0]}\u202f×\u202f{size[1]}"


def _name(path: str) -> str:
    return PurePath(path).name


def _make_templates() -> Environment:
    """Everything that is put into the page is escaped, unless a template says otherwise; none does."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"count": _count, "percent": _percent, "size": _size, "name": _name}
    return templates


_TEMPLATES = _make_templates()
