"""What a person should look at before training on a dataset, the gravest first, and what can be done about it."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from library.data.image_files import BadImage
from library.data.report import DataReport, DatasetReport

SMALL_SHARE = 0.1  # of the pictures: fewer enlarged ones are not worth a word
MUCH_CROPPED = 0.15  # of the area, on average


@dataclass(frozen=True)
class Advice:
    """One remark. `dataset` counts from 1."""

    grave: bool  # something is lost or wrong; else it may be meant
    dataset: int
    kind: str  # what it is about: the page has an anchor for it
    finding: str
    remedy: str


def advice_on(report: DataReport, undecodable: Sequence[BadImage] = ()) -> list[Advice]:
    """Remarks on all datasets."""
    found = [remark for number, dataset in enumerate(report.datasets, 1) for remark in _remarks(number, dataset)]
    if undecodable:
        finding = f"{_pictures(len(undecodable))} damaged inside: training would stop there"
        found.insert(0, Advice(True, 1, "undecodable", finding, "Mend or remove them, or give --on_bad_image skip."))
    return sorted(found, key=lambda remark: not remark.grave)


def _remarks(number: int, report: DatasetReport) -> Iterator[Advice]:
    yield from _on_files(number, report)
    if report.is_foreign:
        return  # nothing is known of its pictures
    yield from _on_captions(number, report)
    yield from _on_shapes(number, report)


def _on_files(number: int, report: DatasetReport) -> Iterator[Advice]:
    if report.skipped:
        remedy = "The reasons are below. Mend the files, or remove them."
        yield Advice(True, number, "left-out", f"{_pictures(len(report.skipped))} left out as bad", remedy)
    alike = report.lookalikes or []
    leaked = sum(found.leaks for found in alike)
    copies = sum(found.exact and not found.leaks for found in alike)
    near = len(alike) - leaked - copies
    if leaked:
        finding = f"{_pictures(leaked)} held out, and (nearly) the same as one that is trained on"
        remedy = "The validation loss will look better than it is. Remove one of each pair."
        yield Advice(True, number, "look-alikes", finding, remedy)
    if copies:
        finding = f"{_pictures(copies)} there twice, byte by byte"
        remedy = "Each copy counts like one more repeat. Remove copies; if a picture is to count more, use num_repeats."
        yield Advice(True, number, "look-alikes", finding, remedy)
    if near:
        remedy = "Keep the best one of each pair, unless the small differences are what is to be learned."
        yield Advice(False, number, "look-alikes", f"{_pictures(near)} nearly the same as another one", remedy)


def _on_captions(number: int, report: DatasetReport) -> Iterator[Advice]:
    captions = report.captions
    if captions.missing:
        finding = f"{_pictures(len(captions.missing))} without a caption"
        remedy = (
            "Write captions (into the metadata file, where there is one), set class_tokens, or see whether caption_extension is right: "
            "these are trained on the empty text."
        )
        yield Advice(True, number, "captions", finding, remedy)
    if captions.empty:
        remedy = "Fill them, or delete them so that class_tokens are used."
        finding = "1 caption file is empty" if len(captions.empty) == 1 else f"{len(captions.empty)} caption files are empty"
        yield Advice(False, number, "captions", finding, remedy)


def _on_shapes(number: int, report: DatasetReport) -> Iterator[Advice]:
    total, settings = report.total, report.settings
    if total.upscaled > SMALL_SHARE * total.images:
        finding = f"{total.upscaled} of {_pictures(total.images)} smaller than what is trained: enlarged, hence soft"
        remedy = "Use larger originals, a lower resolution, or bucket_no_upscale with enable_bucket."
        yield Advice(False, number, "buckets", finding, remedy)
    if total.cropped_share > MUCH_CROPPED:
        remedy = "Check below that what matters is inside." if settings["enable_bucket"] else "enable_bucket keeps the pictures' shapes."
        yield Advice(False, number, "buckets", f"{total.cropped_share:.0%} of the pictures' area is cropped away on average", remedy)
    small = [counts for counts in report.buckets.values() if counts.entries < report.samples_per_batch]
    if small and settings["batch_size"] > 1:
        finding = f"{len(small)} of {len(report.buckets)} buckets cannot fill a batch of {settings['batch_size']}"
        remedy = "Their batches are smaller. A larger bucket_reso_steps, a smaller batch or more repeats make fewer of them."
        yield Advice(False, number, "buckets", finding, remedy)


def _pictures(count: int) -> str:
    return "1 picture is" if count == 1 else f"{count} pictures are"
