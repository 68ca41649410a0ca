"""What is told of the data, and what the order of the data depends on."""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from library.checkpoint.dataset_facts import dataset_facts, dataset_identity
from library.config.datasets.settings import DatasetSettings, SubsetSettings


@dataclass
class Record:
    path: str
    caption: str = ""
    size: tuple[int, int] = (100, 100)
    subset: int = 0
    is_reg: bool = False
    num_repeats: int = 1
    bucket: tuple[int, int] = (64, 64)


@dataclass
class Prepared:
    settings: DatasetSettings
    records: list[Record] = field(default_factory=list)

    def entries(self) -> list[int]:
        return [index for index, record in enumerate(self.records) for _ in range(record.num_repeats)]


def prepared(folder: str = "/data/20_sls frog") -> Prepared:
    frog = SubsetSettings(image_dir=Path(folder), num_repeats=2)
    reg = SubsetSettings(image_dir=Path("/data/1_frog"), is_reg=True)
    records = [
        Record(f"{folder}/a.png", "sls frog, Green,, ", size=(200, 100), bucket=(96, 64), num_repeats=2),
        Record(f"{folder}/b.png", "sls frog,green", num_repeats=2),
        Record("/data/1_frog/c.png", "frog", subset=1, is_reg=True, num_repeats=3),
    ]
    return Prepared(DatasetSettings(resolution=(64, 64), batch_size=4, subsets=(frog, reg)), records)


def test_facts() -> None:
    facts = dataset_facts(prepared())
    assert (facts.num_train_images, facts.num_reg_images) == (4, 3)
    assert [(subset.image_count, subset.tag_counts) for subset in facts.subsets] == [
        (2, {"sls frog": 2, "green": 2}),
        (1, {"frog": 1}),
    ]
    assert facts.bucket_counts == {(64, 64): 5, (96, 64): 2}
    assert facts.mean_aspect_error == 0.5 / 3


def test_the_identity_knows_names_and_counts() -> None:
    identity = dataset_identity([prepared()])
    assert (identity.images, identity.entries, identity.batch_sizes) == (3, 7, (4,))


def test_the_identity_changes_with_the_order_and_with_nothing_else() -> None:
    identity = dataset_identity([prepared()])
    moved = prepared("/elsewhere/frogs")
    moved.records[0].caption = "another"
    assert dataset_identity([moved]) == identity
    changes: list[dict[str, Any]] = [
        {"path": "/data/d.png"}, {"size": (1, 1)}, {"bucket": (64, 96)}, {"num_repeats": 3}, {"is_reg": True}, {"subset": 1},
    ]  # fmt: skip
    fingerprints = {identity.fingerprint}
    for change in changes:
        changed = prepared()
        changed.records[0] = replace(changed.records[0], **change)
        fingerprints.add(dataset_identity([changed]).fingerprint)
    other_batches = prepared()
    other_batches.settings = replace(other_batches.settings, batch_size=2)
    fingerprints.add(dataset_identity([other_batches]).fingerprint)
    fingerprints.add(dataset_identity([prepared(), prepared()]).fingerprint)
    assert len(fingerprints) == len(changes) + 3
