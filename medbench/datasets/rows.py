"""The rows of a data set, checked without opening an image, so that a mistake in the last row shows at once."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from medbench.datasets.ingest import key_of
from medbench.datasets.layouts import SPLITS, Embedded, Excluded, Item, Source, VqaItem
from medbench.jobs import limits

ANSWER_TYPES = ("open", "closed")
HALF = re.compile("[\ud800-\udfff]")  # JSON can hold it, no table can
_RELEASED = Embedded("", b"")


class Row(NamedTuple):
    """An item whose image is released; `image` is what identifies it (`ingest.key_of`)."""

    item: Item
    image: str


class Drop(NamedTuple):
    """A row that is left out."""

    reason: str  # missing-image, broken-image, empty-answer, ...: what the card counts under
    split: str
    place: str  # file and row
    detail: str


class Reader:
    """Reads items once: keeps their rows, and hands their images on."""

    def __init__(self, source: Source, max_drops: float, allow_group_overlap: bool, expected: Mapping[str, int] | None = None) -> None:
        """`max_drops`: the share of rows that may be dropped. `expected`: split -> rows."""
        self.source, self.max_drops, self.allow_group_overlap, self.expected = source, max_drops, allow_group_overlap, expected or {}
        self.rows: list[Row] = []
        self.drops: list[Drop] = []
        self.excluded: dict[str, list[str]] = {}  # reason -> places of the rows that the published protocol leaves out
        self.first: dict[str, Item] = {}  # image key -> the first item that uses it
        self.n_read: int | None = None  # known when all rows are read
        self._characters = 0
        self._places: dict[str, str] = {}
        self._groups: dict[str, tuple[str, str]] = {}

    def images(self, items: Iterable[Item | Excluded]) -> Iterator[tuple[str, Path | Embedded]]:
        """Every distinct image with its key: embedded ones as they pass, files when all rows are checked.

        Raises MedbenchError for the first row that has an unknown split, label or answer type, a sample id that stands already, or a
        group that stands in another split; and when more rows than `max_drops` have an empty text, train or test is empty, or a split has
        another number of rows than expected.
        """
        files: list[str] = []
        for item in items:
            if isinstance(item, Excluded):
                self.excluded.setdefault(item.reason, []).append(item.place)
                continue
            self._check(item)
            if empty := _empty_text(item):
                self.drop(self.drops, item, f"empty-{empty}", f"the {empty} is empty")
                continue
            key, released = key_of(item.image), item._replace(image=_RELEASED)
            self.rows.append(Row(released, key))
            if key in self.first:
                continue
            self.first[key] = released
            if isinstance(item.image, Embedded):
                yield key, item.image
            else:
                files.append(key)
        self.n_read = len(self.rows) + len(self.drops)
        self._check_budget(self.drops)
        check_splits([row.item.split for row in self.rows], {"train", "test"}, self.source)
        self._check_counts()
        for key in files:
            yield key, Path(key)

    def drop(self, drops: list[Drop], item: Item, reason: str, detail: str) -> None:
        """Count a row as dropped. Raises MedbenchError when those are more than allowed."""
        drops.append(Drop(reason, item.split, item.place, detail))
        if self.n_read is not None or not self.max_drops:
            self._check_budget(drops)

    def _check_counts(self) -> None:
        found = Counter([*(row.item.split for row in self.rows), *(drop.split for drop in self.drops)])
        for split, n in self.expected.items():
            if found[split] != n:
                remedy = "check that the files are complete and official, or set allow_counts: true"
                raise self.source.error(f"split {split}", f"has {found[split]} rows, {n} are expected", remedy)

    def _check_budget(self, drops: list[Drop]) -> None:
        allowed = int(self.max_drops * (self.n_read or 0))
        if len(drops) > allowed:
            more = f" (drop {len(drops)}; max_drops {self.max_drops} admits {allowed} of {self.n_read} rows)" if self.max_drops else ""
            raise self.source.error(drops[-1].place, drops[-1].detail + more, "fix the row or raise max_drops")

    def _check(self, item: Item) -> None:
        self._characters += _check_texts(item, self.source)
        if self._characters > limits.MAX_VALUES_CHARACTERS:
            found = f"all texts up to here have more than {limits.MAX_VALUES_CHARACTERS} characters"
            raise self.source.error(item.place, found, "shorten them, or make two data sets")
        _check_values(item, self.source)
        if item.sample_id in self._places:
            found = f"sample id {item.sample_id!r} stands already in {self._places[item.sample_id]}"
            raise self.source.error(item.place, found, "remove one of them, or give every row an id")
        self._places[item.sample_id] = item.place
        split, place = self._groups.setdefault(item.group_id, (item.split, item.place))
        if split != item.split and not self.allow_group_overlap:
            found = f"group {item.group_id!r} is in {item.split} here and in {split} in {place}"
            raise self.source.error(item.place, found, "fix the splits, or set allow_group_overlap where the set is published so")


def check_splits(found: Collection[str], needed: Collection[str], source: Source) -> None:
    """Raise MedbenchError when a needed split has no row."""
    for split in SPLITS:
        if split in needed and split not in found:
            raise source.error(
                f"split {split}", "is empty", "give it rows: train and test need some, val is cut from train where it has none"
            )


def _check_texts(item: Item, source: Source) -> int:
    """The characters of all texts of an item. Raises MedbenchError for one that is too long, or that no table can hold."""
    texts = {name: value for name, value in item._asdict().items() if isinstance(value, str)}
    for name, value in texts.items():
        if len(value) > limits.MAX_VALUE_CHARACTERS:
            found = f"{name} has {len(value)} characters, at most {limits.MAX_VALUE_CHARACTERS} are read"
            raise source.error(item.place, found, "shorten it")
        if not value.isascii() and HALF.search(value):
            raise source.error(item.place, f"{name} {value!r} holds half of a surrogate pair", "write the character whole, as UTF-8")
    return sum(map(len, texts.values()))


def _check_values(item: Item, source: Source) -> None:
    if item.split not in SPLITS:
        raise source.error(item.place, f"split {item.split!r} is unknown", f"write one of {', '.join(SPLITS)}")
    if isinstance(item, VqaItem):
        if item.answer_type not in ANSWER_TYPES:
            raise source.error(item.place, f"answer type {item.answer_type!r} is unknown", f"write one of {', '.join(ANSWER_TYPES)}")
    elif item.label not in source.classes:
        raise source.error(
            item.place, f"label {item.label!r} is not among the classes {', '.join(source.classes)}", "fix the row or declare the class"
        )


def _empty_text(item: Item) -> str | None:
    """Which text of a question is empty, if any."""
    if isinstance(item, VqaItem):
        return "question" if not item.question.strip() else "answer" if not item.answer.strip() else None
    return None


def chosen_groups(items: Iterable[Item | Excluded], sizes: Mapping[str, int | None], key: str) -> set[tuple[str, str]]:
    """(split, group) of a seeded draw: groups in the order of a digest, as many as hold no more samples than `sizes` says; at least one."""
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for item in items:
        if not isinstance(item, Excluded) and item.split in counts:
            counts[item.split][item.group_id] += 1
    chosen: set[tuple[str, str]] = set()
    for split, groups in counts.items():
        left = sizes.get(split)
        for group in sorted(groups, key=lambda group: hashlib.sha256(f"{key}\0{group}".encode()).digest()):
            if left is None or groups[group] <= left or not any(of == split for of, _ in chosen):
                chosen.add((split, group))
                left = None if left is None else left - groups[group]
    return chosen


def drawn(items: Iterable[Item | Excluded], chosen: Collection[tuple[str, str]]) -> Iterator[Item | Excluded]:
    """The items of the chosen groups; the others count as excluded."""
    for item in items:
        if isinstance(item, Excluded) or (item.split, item.group_id) in chosen or item.split not in SPLITS:
            yield item
        else:
            yield Excluded("not drawn", item.place)
