"""The rows of a data set, checked without opening an image, so that a mistake in the last row shows at once."""

import contextlib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import NamedTuple

from medbench import tasks
from medbench.datasets import texts
from medbench.datasets.ingest import key_of
from medbench.datasets.layouts import (
    SPLIT_WORDS,
    SPLITS,
    ChoiceItem,
    DiagnosisItem,
    Embedded,
    Entry,
    Excluded,
    Item,
    Note,
    Source,
    VqaItem,
    folded,
    folded_label,
)
from medbench.errors import SHOWN, MedbenchError, first, together
from medbench.jobs import digests, limits

ANSWER_TYPES = ("open", "closed")
MISSING = ("nan", "na", "n/a", "#n/a", "#na", "<na>", "null", "missing", "-", "?")  # words for a value that is not there
UNNAMED = (*MISSING, "nat", "none", "unknown", "anonymous", "0", "-1")
HALF = re.compile("[\ud800-\udfff]")  # JSON can hold it, no table can
_RELEASED = Embedded("", b"")


class Row(NamedTuple):
    """An item whose images are released; `images` are what identifies them (`ingest.key_of`)."""

    item: Item
    images: tuple[str, ...]


class Drop(NamedTuple):
    """A row that is left out."""

    reason: str  # missing-image, broken-image, empty-answer, ...: what the card counts under
    split: str
    place: str  # file and row
    detail: str
    file: str = ""  # the image's, for messages alone: a card names no folder


class Reader:
    """Reads items once: keeps their rows, and hands their images on."""

    def __init__(self, source: Source, max_drops: float, allow_group_overlap: bool, expected: Mapping[str, int] | None = None) -> None:
        """`max_drops`: the share of rows that may be dropped. `expected`: split -> rows."""
        self.source, self.max_drops, self.allow_group_overlap, self.expected = source, max_drops, allow_group_overlap, expected or {}
        self.rows: list[Row] = []
        self.drops: list[Drop] = []
        self.excluded: dict[str, list[str]] = {}  # reason -> places of the rows that the published protocol leaves out
        self.notes: dict[str, None] = {}  # texts, each once, in order
        self.changed_texts: dict[str, list[str]] = {}  # how a text was changed -> places
        self.first: dict[str, Item] = {}  # image key -> the first item that uses it
        self.stamps: dict[str, list[int]] = {}  # of each image file, before it is read
        self.n_read: int | None = None  # known when all rows are read
        self._errors: list[MedbenchError] = []
        self._characters = 0
        self._places: dict[str, str] = {}
        self._groups: dict[str, _Group] = {}  # by the folded name

    def images(self, items: Iterable[Entry]) -> Iterator[tuple[str, Path | Embedded]]:
        """Every distinct image with its key: embedded ones as they pass, files when all rows are checked.

        Raises MedbenchError that names all rows with an unknown split, label or answer type, a sample id that stands already, or a
        group that stands in another split; and when more rows than `max_drops` have an empty text, a token of a model or no image file,
        train or test is empty, or a split has another number of rows than expected.
        """
        files: list[str] = []
        for item in items:
            if isinstance(item, MedbenchError):
                self._errors.append(item)
            elif isinstance(item, Excluded):
                self.excluded.setdefault(item.reason, []).append(item.place)
            elif isinstance(item, Note):
                self.notes[item.text] = None
            else:
                for key, image in self._take(item):
                    if isinstance(image, Path):
                        files.append(key)
                    elif not self._errors:
                        yield key, image
        self.n_read = len(self.rows) + len(self.drops)
        self._note_groups()
        self.stamps = {key: stamp for key in files if (stamp := _stamp(key))}
        gone = set(files) - set(self.stamps)
        lost = [(row, name) for row in self.rows if (name := next((name for name in row.images if name in gone), None))]
        self.require_budget([*self.drops, *(missing(row, name) for row, name in lost)])
        check_splits([row.item.split for row in self.rows], needed_splits(row.item.split for row in self.rows) - {"val"}, self.source)
        self._check_counts()
        for key in files:
            yield key, Path(key)

    def _take(self, item: Item) -> list[tuple[str, Path | Embedded]]:
        """Keep the row of an item; of its images, with their keys, those that no earlier row has."""
        self._characters += sum(len(value) for _, value in _texts(item))
        if self._characters > limits.MAX_VALUES_CHARACTERS:
            found = f"all texts up to here have more than {limits.MAX_VALUES_CHARACTERS} characters"
            raise self.source.error(item.place, found, "shorten them, or make two data sets")
        try:
            self._check(item)
        except MedbenchError as error:
            self._errors.append(error)
            return []
        item = item._replace(group_id=self._groups[folded(item.group_id)].name)
        if not isinstance(item, DiagnosisItem):
            item = self._without_tokens(item)
        if fault := _unusable_text(item):
            self.drops.append(Drop(fault[0], item.split, item.place, fault[1]))
            return []
        keys = tuple(map(key_of, item.images))
        released: Item = item._replace(images=()) if isinstance(item, ChoiceItem) else item._replace(image=_RELEASED)
        self.rows.append(Row(released, keys))
        new = {key: image for key, image in zip(keys, item.images, strict=True) if key not in self.first}
        self.first |= dict.fromkeys(new, released)
        return list(new.items())

    def _without_tokens(self, item: VqaItem | ChoiceItem) -> VqaItem | ChoiceItem:
        cleaned: VqaItem | ChoiceItem = item._replace(
            question=texts.without_image_tokens(item.question), answer=texts.without_image_tokens(item.answer)
        )
        if isinstance(cleaned, ChoiceItem):
            cleaned = cleaned._replace(options=tuple(map(texts.without_image_tokens, cleaned.options)))
        if cleaned != item:
            self.changed_texts.setdefault("a token for an image was removed", []).append(item.place)
        return cleaned

    def _note_groups(self) -> None:
        """A group may be called like a value that is missing, and two like each other; more often it is a mistake."""
        for name, n in Counter(row.item.group_id for row in self.rows).items():
            if n > 1 and folded(name) in UNNAMED:
                self.notes[f"{n} rows have the group {name!r}: they count as one patient"] = None
        merged = [f"{group.name!r} and {group.other!r}" for group in self._groups.values() if group.other]
        if merged:
            self.notes[f"groups that are written in several ways count as one: {first(merged, limit=3)}"] = None
        alike: dict[str, _Group] = {}
        pairs = [(alike.setdefault(_without_zeros(name), group), group) for name, group in self._groups.items()]
        apart = [f"{one.name!r} in {one.split} and {other.name!r} in {other.split}" for one, other in pairs if one.split != other.split]
        if apart:
            said = f"groups of two splits differ in leading zeros or an apostrophe alone: {first(apart, limit=3)}"
            self.notes[f"{said}; where they are one patient, write it in one way"] = None

    def _check_counts(self) -> None:
        found = Counter([*(row.item.split for row in self.rows), *(drop.split for drop in self.drops)])
        for split, n in self.expected.items():
            if found[split] != n:
                remedy = "check that the files are complete and official, or set allow_counts: true"
                raise self.source.error(f"split {split}", f"has {found[split]} rows, {n} are expected", remedy)

    def require_budget(self, drops: Sequence[Drop]) -> None:
        """Raise MedbenchError that names the wrong rows, and the dropped ones where those are more than allowed."""
        allowed = int(self.max_drops * (self.n_read or 0))
        errors = [*self._errors, *(self._excess(drops, allowed) if len(drops) > allowed else [])]
        if errors:
            raise together(self.source.where, errors)

    def _excess(self, drops: Sequence[Drop], allowed: int) -> list[MedbenchError]:
        share = f"the share of rows that may be left out (now {self.max_drops:g}: {allowed} of {self.n_read})"
        remedy = f"fix the row or raise max_drops, {share}"
        found = [
            drop.detail + (f": {drop.file}{_alike(drop.file) if number < SHOWN else ''}" if drop.file else "")
            for number, drop in enumerate(drops)
        ]
        return [self.source.error(drop.place, said, remedy) for drop, said in zip(drops, found, strict=True)]

    def _check(self, item: Item) -> None:
        _check_texts(item, self.source)
        _check_values(item, self.source)
        if item.sample_id in self._places:
            found = f"sample id {item.sample_id!r} stands already in {self._places[item.sample_id]}"
            raise self.source.error(item.place, found, "remove one of them, or give every row an id")
        self._places[item.sample_id] = item.place
        key = folded(item.group_id)
        group = self._groups.setdefault(key, _Group(item.group_id, item.split, item.place))
        if group.name != item.group_id:
            self._groups[key] = group._replace(other=group.other or item.group_id)
        if group.split != item.split and not self.allow_group_overlap:
            spelt = "" if group.name == item.group_id else f", written {group.name!r}: case, spaces and unseen characters do not count"
            found = f"group {item.group_id!r} is in {item.split} here and in {group.split} in {group.place}{spelt}"
            raise self.source.error(item.place, found, "fix the splits, or set allow_group_overlap where the set is published so")


class _Group(NamedTuple):
    """What must not be split apart, as its first row has it; `other`: another way in which it is written."""

    name: str
    split: str
    place: str
    other: str = ""


def _without_zeros(group: str) -> str:
    """Equal for `7`, `007`, `7.0` and the `'7` of a spreadsheet's text."""
    return re.sub(r"(?<![\d.])0+(?=\d)", "", re.sub(r"(?<=\d)\.0+$", "", group.lstrip("'")))


def _stamp(path: str) -> list[int] | None:
    """Of what is there, broken links apart."""
    with contextlib.suppress(OSError, ValueError):
        return digests.stamp(path)
    return None


def _alike(path: str) -> str:
    """A file beside one that is not there, which differs in its ending or in case alone."""
    with contextlib.suppress(OSError):
        stem = Path(path).stem.casefold()
        near = sorted(name for name in os.listdir(Path(path).parent) if Path(name).stem.casefold() == stem and name != Path(path).name)
        return f" (there is {near[0]})" if near else ""
    return ""


def missing(row: Row, file: str) -> Drop:
    """A row of which an image file is not there."""
    return Drop("missing-image", row.item.split, row.item.place, "the image file does not exist", file)


def tidied(items: Iterable[Entry], source: Source) -> Iterator[Entry]:
    """The items with what people write in several ways as medbench has it: splits, labels and answer types whatever their case."""
    choices = tasks.get(source.task).closed_options
    classes: dict[str, str | None] = {}
    for name in source.classes:
        classes[folded_label(name)] = None if folded_label(name) in classes else name  # two classes that differ in case alone stay apart
    for item in items:
        if isinstance(item, VqaItem) and choices:
            yield _as_choice(item, choices)
        elif isinstance(item, VqaItem):
            answer_type = item.answer_type.strip().lower()
            yield item._replace(split=_split(item.split), group_id=item.group_id.strip(), answer_type=answer_type)
        elif isinstance(item, DiagnosisItem):
            label = item.label if item.label in source.classes else classes.get(folded_label(item.label)) or item.label
            yield item._replace(split=_split(item.split), group_id=item.group_id.strip(), label=label)
        elif isinstance(item, ChoiceItem):
            yield item._replace(split=_split(item.split), group_id=item.group_id.strip())
        else:
            yield item


def _as_choice(item: VqaItem, options: Callable[[str, str], tuple[tuple[str, ...], str] | None]) -> ChoiceItem | Excluded:
    """A closed question with its options; others have none."""
    if item.answer_type.strip().lower() != "closed":
        return Excluded("open question", item.place)
    found = options(item.question, item.answer)
    if found is None:
        return Excluded("closed question that names no options", item.place)
    texts, letter = found
    return ChoiceItem(
        item.sample_id, item.group_id.strip(), _split(item.split), (item.image,), item.place, item.question, texts, letter, item.skill,
        demographics=item.demographics, is_drawn=item.is_drawn,
    )  # fmt: skip


def _split(name: str) -> str:
    return SPLIT_WORDS.get(name.strip().lower(), name)


def needed_splits(found: Iterable[str]) -> set[str]:
    """Splits that must have rows: all, or test alone where nothing else has one, for models off the shelf."""
    return {"test"} if set(found) == {"test"} else set(SPLITS)


def check_splits(found: Collection[str], needed: Collection[str], source: Source) -> None:
    """Raise MedbenchError when a needed split has no row."""
    for split in SPLITS:
        if split in needed and split not in found:
            raise source.error(
                f"split {split}",
                "is empty",
                "give it rows: test needs some, train too unless test is all, and val is cut from train where it has none",
            )


def _check_texts(item: Item, source: Source) -> None:
    """Raise MedbenchError for a text that is too long, or that no table can hold."""
    for name, value in _texts(item):
        if len(value) > limits.MAX_VALUE_CHARACTERS:
            found = f"{name} has {len(value)} characters, at most {limits.MAX_VALUE_CHARACTERS} are read"
            raise source.error(item.place, found, "shorten it")
        if not value.isascii() and HALF.search(value):
            raise source.error(item.place, f"{name} {value!r} holds half of a surrogate pair", "write the character whole, as UTF-8")


def _texts(item: Item) -> list[tuple[str, str]]:
    """Names and texts of an item's fields, options included."""
    fields = [(name, value) for name, value in item._asdict().items() if isinstance(value, str)]
    return [*fields, *(("option", text) for text in item.options)] if isinstance(item, ChoiceItem) else fields


def _check_values(item: Item, source: Source) -> None:
    if item.split not in SPLITS:
        raise source.error(item.place, f"split {item.split!r} is unknown", f"write one of {', '.join(SPLITS)}")
    if not folded(item.group_id):
        raise source.error(item.place, "the group is empty", "name the patient, or repeat the image where samples are independent")
    if isinstance(item, VqaItem):
        if item.answer_type not in ANSWER_TYPES:
            raise source.error(item.place, f"answer type {item.answer_type!r} is unknown", f"write one of {', '.join(ANSWER_TYPES)}")
    elif isinstance(item, ChoiceItem):
        if source.rows != "choices":
            raise source.error(item.place, f"is a lettered question, the task is {source.task}", "set task: mcq")
        _check_choice(item, source)
    elif item.label not in source.classes:
        raise source.error(
            item.place, f"label {item.label!r} is not among the classes {', '.join(source.classes)}", "fix the row or declare the class"
        )


def _check_choice(item: ChoiceItem, source: Source) -> None:
    if not 2 <= len(item.options) <= len(ascii_uppercase):
        raise source.error(item.place, f"has {len(item.options)} options", f"give it 2 to {len(ascii_uppercase)}")
    if item.answer not in list(ascii_uppercase[: len(item.options)]):
        found = f"answer {item.answer!r} is none of the letters A to {ascii_uppercase[len(item.options) - 1]}"
        raise source.error(item.place, found, "fix the row")


def _unusable_text(item: Item) -> tuple[str, str] | None:
    """Why the texts of a question cannot be used, if so: reason for the card, and what is wrong."""
    if isinstance(item, DiagnosisItem):
        return None
    options = [("option", text) for text in item.options] if isinstance(item, ChoiceItem) else []
    for name, text in (("question", item.question), ("answer", item.answer), *options):
        if not text.strip():
            return f"empty-{name}", f"the {name} is empty"
        if token := texts.token_of_a_turn(text):
            return "model-token", f"the {name} holds {token!r}, which some models take for the end or begin of a turn"
    return None


def chosen_groups(items: Iterable[Entry], sizes: Mapping[str, int | None], key: str) -> set[tuple[str, str]]:
    """(split, folded group) of a seeded draw.

    Groups in the order of a digest, as many as hold no more samples than `sizes` says; at least one.
    """
    counts, names = {split: Counter[str]() for split in SPLITS}, dict[str, str]()
    for item in items:
        if isinstance(item, Item) and item.split in counts:
            counts[item.split][names.setdefault(folded(item.group_id), item.group_id)] += 1
    chosen: set[tuple[str, str]] = set()
    for split, groups in counts.items():
        left = sizes.get(split)
        for group in sorted(groups, key=lambda group: hashlib.sha256(f"{key}\0{group}".encode()).digest()):
            if left is None or groups[group] <= left or not any(of == split for of, _ in chosen):
                chosen.add((split, folded(group)))
                left = None if left is None else left - groups[group]
    return chosen


def drawn(items: Iterable[Entry], chosen: Collection[tuple[str, str]]) -> Iterator[Entry]:
    """The items of the chosen groups; the others count as excluded."""
    for item in items:
        if not isinstance(item, Item) or (item.split, folded(item.group_id)) in chosen or item.split not in SPLITS:
            yield item
        else:
            yield Excluded("not drawn", item.place)
