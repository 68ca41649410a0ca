"""Which images use latents that another tool cached beside them, and which of the possible files holds those."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from library.data.borrowed_file import Shape, Unfit, is_anothers, possible_files, read_sample, why_unfit
from library.data.cache_file import Latents, file_facts
from library.data.entry_file import UNREADABLE, digest
from library.data.records import ImageRecord, Place
from library.errors import UserError

if TYPE_CHECKING:
    from library.config.datasets import SubsetSettings


@dataclass
class Borrowed:
    """Found once, at the start of a run; a file that is changed after that is not used any more."""

    suffix: str  # of our own entries
    _held: dict[Place, tuple[int, int]] = field(default_factory=dict)  # number of the file, digest of its facts

    def __contains__(self, place: Place) -> bool:
        return place in self._held

    def __iter__(self) -> Iterator[Place]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def number(self, place: Place) -> int:
        """Which of the possible files it is: all that one tool made in one go have the same."""
        return self._held[place][0]

    def borrow(self, place: Place, record: ImageRecord, subset: SubsetSettings, shape: Shape, own_name: bool) -> str | None:
        """Take the first file that fits; if there are files and none does, say why. `own_name`: ours there is another tool's."""
        reasons = []
        for number, path in enumerate(possible_files(record, self.suffix)):
            if not (own_name if number == 0 else is_anothers(path)):
                continue
            facts = _facts(path)  # before looking inside: if the file is replaced after this, it is known to be another
            if facts is None:
                continue
            reason = why_unfit(path, record, subset, shape)
            if reason is None:
                self._held[place] = number, digest(facts)
                return None
            reasons.append(f"in another tool's cache, {reason}")
        return reasons[0] if reasons else None

    def borrow_alike(self, place: Place, record: ImageRecord, number: int) -> None:
        """Take the file with this number, which was found to fit elsewhere."""
        facts = _facts(possible_files(record, self.suffix)[number])
        if facts is not None:
            self._held[place] = number, digest(facts)

    def give_back(self, place: Place) -> None:
        del self._held[place]

    def read(self, place: Place, record: ImageRecord, flipped: bool, masked: bool) -> Latents:
        """An image's latents, or those of its mirror image: as a posterior without any deviation."""
        number, expected = self._held[place]
        path = possible_files(record, self.suffix)[number]
        if digest(_facts(path) or "") != expected:
            raise UserError(f"latent cache {path} was changed or removed while this run uses it; start the run again")
        try:
            return read_sample(path, flipped, masked)
        except (Unfit, *UNREADABLE) as error:
            raise UserError(f"latent cache {path} cannot be read ({error}); start the run again: it is made anew") from error


def _facts(path: Path) -> str | None:
    """What tells whether a file is still the same one; None if it is gone."""
    try:
        return str(file_facts(path))
    except OSError:
        return None
