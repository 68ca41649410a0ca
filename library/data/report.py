"""What a person should know of the data before training: images, repeats, buckets, crops, captions, files left out."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

from library.data.lookalikes import Lookalike
from library.data.records import ImageRecord, PreparedDataset, Size
from library.data.wording import shortened

_LISTED = 5  # images without a caption, and pairs of images that look alike, that are named


@dataclass
class ImageCounts:
    """Sums over some images."""

    images: int = 0
    regularisation_images: int = 0  # of `images`
    entries: int = 0  # per epoch: images times repeats, regularisation included
    upscaled: int = 0
    cropped_shares: float = 0.0  # sum over images of the share of the area that is cropped away
    aspect_errors: float = 0.0  # sum over images of |width/height of the bucket - that of the image|
    without_caption: int = 0  # neither a caption nor class tokens, or an empty caption file
    lookalikes: int = 0  # look like an earlier image of the dataset; 0 too if nobody compared them

    @classmethod
    def sum_of(cls, parts: Iterable[ImageCounts]) -> ImageCounts:
        """All of them together."""
        return cls(*map(sum, zip(*map(astuple, parts), strict=True)))

    def add(self, record: ImageRecord, images: int) -> None:
        """Count so many images of the same size, bucket and repeats as this one."""
        self.images += images
        self.regularisation_images += images * record.is_reg
        self.entries += 0 if record.is_reg else images * record.num_repeats
        self.upscaled += images * is_enlarged(record)
        self.cropped_shares += images * cropped_share(record)
        self.aspect_errors += images * abs(record.bucket[0] / record.bucket[1] - record.size[0] / record.size[1])

    @property
    def cropped_share(self) -> float:
        """Mean share of an image's area that is cropped away, 0..1."""
        return self.cropped_shares / max(1, self.images)


@dataclass
class CaptionCounts:
    """Where captions come from."""

    files: int = 0
    class_tokens: int = 0  # no file, the class tokens instead
    missing: list[str] = field(default_factory=list)  # paths of images that have neither
    empty: list[str] = field(default_factory=list)  # paths of images whose caption file is empty

    @classmethod
    def of(cls, prepared: PreparedDataset) -> CaptionCounts:
        without = [record for record in prepared.records if not record.has_caption]
        missing = [record.path for record in without if prepared.settings.subsets[record.subset].class_tokens is None]
        empty = [record.path for record in prepared.records if record.has_caption and not record.caption]
        return cls(len(prepared.records) - len(without), len(without) - len(missing), missing, empty)


@dataclass
class DatasetReport:
    """One dataset. All counts are per epoch and for all processes together."""

    settings: dict[str, Any]
    total: ImageCounts
    buckets: dict[Size, ImageCounts]  # sorted
    captions: CaptionCounts
    train_entries: int
    regularisation_entries: int
    samples_per_batch: int  # class pictures beside the others included
    skipped: list[tuple[str, str]]  # (path, reason)
    notes: list[str]
    lookalikes: list[Lookalike] | None  # None: nobody compared the images
    is_foreign: bool = False  # a class of the user's makes batches, which are counted as images


@dataclass
class DataReport:
    """All datasets of a run."""

    datasets: list[DatasetReport]

    def lines(self) -> list[str]:
        """The report as a person reads it."""
        return [line for number, dataset in enumerate(self.datasets, 1) for line in _dataset_lines(number, dataset)]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return {"datasets": [_as_json(dataset) for dataset in self.datasets]}


def data_report(
    prepared: Sequence[PreparedDataset], lookalikes: Sequence[list[Lookalike]] | None = None
) -> DataReport:
    """Counts of every dataset and bucket. `lookalikes`: by dataset, if somebody compared the images."""
    return DataReport(
        [_report_dataset(dataset, lookalikes[number] if lookalikes else None) for number, dataset in enumerate(prepared)]
    )


def is_enlarged(record: ImageRecord) -> bool:
    """Whether the image has fewer pixels than are trained on, in one direction at least."""
    return record.resized[0] > record.size[0] or record.resized[1] > record.size[1]


def cropped_share(record: ImageRecord) -> float:
    """The share of the image's area that is cropped away, 0..1."""
    return 1 - _area(record.bucket) / _area(record.resized)


def _report_dataset(prepared: PreparedDataset, lookalikes: list[Lookalike] | None) -> DatasetReport:
    buckets: dict[Size, ImageCounts] = defaultdict(ImageCounts)
    alike: dict[tuple[Size, Size, bool, int], list[ImageRecord]] = defaultdict(list)  # those that are counted together
    for record in prepared.records:
        alike[record.bucket, record.size, record.is_reg, record.num_repeats].append(record)
    captions = CaptionCounts.of(prepared)
    silent = {*captions.missing, *captions.empty}
    copies = {found.path for found in lookalikes or ()}
    for (bucket, *_), records in alike.items():
        counts = buckets[bucket]
        counts.add(records[0], len(records))
        counts.without_caption += sum(record.path in silent for record in records)
        counts.lookalikes += sum(record.path in copies for record in records)
    for ring in prepared.regularisation_rings:
        buckets[prepared.records[ring.order[0]].bucket].entries += ring.slots
    settings = prepared.settings
    return DatasetReport(
        settings={
            "where": settings.where,
            "resolution": settings.resolution,
            "batch_size": settings.batch_size,
            "enable_bucket": settings.enable_bucket,
            "bucket_no_upscale": settings.bucket_no_upscale,
        },
        total=ImageCounts.sum_of(buckets.values()),
        buckets=dict(sorted(buckets.items())),
        captions=captions,
        train_entries=len(prepared.train_entries),
        regularisation_entries=prepared.regularisation_entry_count,
        samples_per_batch=prepared.samples_per_batch,
        skipped=prepared.skipped,
        notes=[*settings.notes, *prepared.notes],
        lookalikes=None if prepared.maker is not None else lookalikes,
        is_foreign=prepared.maker is not None,
    )


def _dataset_lines(number: int, report: DatasetReport) -> list[str]:
    width, height = report.settings["resolution"]
    training = report.total.images - report.total.regularisation_images
    lines = [
        f"dataset {number} ({width}x{height}, batch size {report.settings['batch_size']}): "
        f"{training} training images, {report.train_entries} with repeats"
    ]
    if report.total.regularisation_images:
        images = report.total.regularisation_images
        beside = ", as many in each batch as others" if report.samples_per_batch > report.settings["batch_size"] else ""
        lines.append(f"  {images} regularisation images, in turn, {report.regularisation_entries} an epoch{beside}")
    if report.settings["enable_bucket"]:
        mean_error = report.total.aspect_errors / max(1, report.total.images)
        lines.append(f"  {len(report.buckets)} buckets, mean aspect ratio error {mean_error:.3f}")
    else:
        lines.append(f"  no buckets: each image is resized to cover {width}x{height}, then cropped to it")
    for (bucket_width, bucket_height), counts in report.buckets.items():
        lines.append(
            f"  {bucket_width:>5}x{bucket_height:<5} {counts.images:>6} images {counts.entries:>7} an epoch"
            f"  {counts.upscaled:>6} enlarged  {counts.cropped_share:6.1%} cropped away"
            f"{f'  {counts.without_caption} without caption' if counts.without_caption else ''}"
            f"{f'  {counts.lookalikes} look-alikes' if counts.lookalikes else ''}"
        )
    return lines + _caption_lines(report.captions) + _lookalike_lines(report.lookalikes) + _remark_lines(report)


def _caption_lines(captions: CaptionCounts) -> list[str]:
    sources = f"{captions.files} from files, {captions.class_tokens} from class tokens, {len(captions.missing)} missing"
    lines = [f"  captions: {sources}"]
    for kind, paths in (("no caption", captions.missing), ("an empty caption file", captions.empty)):
        if paths:
            named = ", ".join(paths[:_LISTED]) + (", ..." if len(paths) > _LISTED else "")
            lines.append(f"  {len(paths)} {'image has' if len(paths) == 1 else 'images have'} {kind}: {named}")
    return lines


def _lookalike_lines(lookalikes: list[Lookalike] | None) -> list[str]:
    if lookalikes is None:
        return []
    copies = sum(found.exact for found in lookalikes)
    lines = [f"  look-alikes: {copies} exact copies, {len(lookalikes) - copies} near-duplicates"]
    lines += [f"    {found.path} {found}" for found in lookalikes[:_LISTED]]
    return lines + (["    ..."] if len(lookalikes) > _LISTED else [])


def _remark_lines(report: DatasetReport) -> list[str]:
    skipped = shortened([f"left out: {path}: {reason}" for path, reason in report.skipped], "images left out")
    return [f"  {line}" for line in (*skipped, *(f"note: {note}" for note in report.notes))]


def _as_json(report: DatasetReport) -> dict[str, Any]:
    buckets = [{"bucket": list(bucket), **_counts(counts)} for bucket, counts in report.buckets.items()]
    return {
        **report.settings,
        "resolution": list(report.settings["resolution"]),
        "train_entries": report.train_entries,
        "regularisation_entries": report.regularisation_entries,
        **_counts(report.total),
        "buckets": buckets,
        "captions": asdict(report.captions),
        "skipped": [{"path": path, "reason": reason} for path, reason in report.skipped],
        "notes": report.notes,
        "lookalikes": None if report.lookalikes is None else [asdict(found) for found in report.lookalikes],
    }


def _counts(counts: ImageCounts) -> dict[str, Any]:
    return {
        "images": counts.images,
        "regularisation_images": counts.regularisation_images,
        "entries": counts.entries,
        "upscaled": counts.upscaled,
        "cropped_share": counts.cropped_share,
        "mean_aspect_error": counts.aspect_errors / max(1, counts.images),
        "without_caption": counts.without_caption,
        "lookalikes": counts.lookalikes,
    }


def _area(size: Size) -> int:
    return size[0] * size[1]
