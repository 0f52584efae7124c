"""What a layout yields, and what layouts share.

A layout is one file of this folder, `medbench/datasets/{layout}.py` (dashes become underscores), with
- `class Options(Strict)`: its own options in the registry; unknown keys are errors;
- `items(options, source) -> Iterator[Entry]`: the data set's rows in a fixed order. It keeps no image, and gives an image that is
  a file as its path: rows are checked before files are opened. Rows that the published protocol leaves out come as `Excluded`. A mistake
  in one row is yielded, not raised, where those after it can be read: all of a file are then said at once. A `Note` goes onto the card;
- `index_files(options, source) -> list[Path]`: the files and folders whose change must rerun `prepare`;
- where files may hold no row for training, `has_train(options, source) -> bool`, which opens no image.

A layout checks what only it can see: that its files can be read and have their columns, that paths stay inside the
folder. Rows as such (splits, labels, groups, texts, images) are checked by `prepare`, once for all layouts.
"""

import contextlib
import hashlib
import importlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

from pydantic import AfterValidator, ValidationError

from medbench import tasks
from medbench.config import Config, Strict, layouts, one_line, raw_dir
from medbench.errors import MedbenchError, choose
from medbench.jobs import files
from medbench.paths import SPLITS

__all__ = [
    "SPLITS", "SPLIT_WORDS", "ChoiceItem", "Demographics", "DiagnosisItem", "Embedded", "Entry", "Excluded", "Item", "Layout", "Note",
    "Skill", "Source", "Strict", "VqaItem", "folded", "folded_label",
]  # fmt: skip


SPLIT_WORDS = {
    **{name: name for name in SPLITS},
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
}
"""What people call a split, in lower case -> its name here."""


class Embedded(NamedTuple):
    """An encoded image that lies in no file of its own."""

    digest: str  # SHA-256 of `data`
    data: bytes


class Demographics(NamedTuple):
    """What a data set says of the person, in its own words and lower case; None where it is unknown."""

    sex: str | None = None  # male | female
    age_band: str | None = None  # one of AGE_BANDS
    race: str | None = None
    ethnicity: str | None = None
    language: str | None = None


AGE_BANDS = {18: "0-17", 40: "18-39", 60: "40-59", 80: "60-79", 200: "80+"}  # first age beyond -> band


class DiagnosisItem(NamedTuple):
    """One labelled image."""

    sample_id: str
    group_id: str  # patient, lesion, slide, ...: what must not be split apart
    split: str  # as given: `prepare` refuses all but train, val, test
    image: Path | Embedded
    place: str  # file and row for messages, without the folder: "labels.csv row 17"
    label: str  # as given: `prepare` refuses all but the declared classes
    demographics: Demographics = Demographics()
    is_drawn: bool = False  # the layout drew the split, which no file names: equal images are brought together

    @property
    def images(self) -> tuple[Path | Embedded, ...]:
        """The one."""
        return (self.image,)


class Skill(NamedTuple):
    """What a question asks for: `understanding`, `reasoning`, ...; and who says so.

    `source`: data (a person labelled the question), mapped (from another field of the data, by us), none.
    """

    name: str | None = None
    source: str = "none"


class VqaItem(NamedTuple):
    """One question about an image."""

    sample_id: str
    group_id: str
    split: str
    image: Path | Embedded
    place: str
    question: str
    answer: str
    answer_type: str  # as given: `prepare` refuses all but open and closed
    demographics: Demographics = Demographics()
    is_drawn: bool = False  # as above
    skill: Skill = Skill()

    @property
    def images(self) -> tuple[Path | Embedded, ...]:
        """The one."""
        return (self.image,)

    @property
    def is_yes_no(self) -> bool:
        """Whether the reference is yes or no. Derived; the official `answer_type` may disagree (SLAKE)."""
        return is_yes_no(self.answer)


_OPTIONS = r"(?:options?|answers?|choices?|statements?)"
_ONE = rf"\(?(?:(?i:{_OPTIONS}) \(?)?(?:[A-J]|[a-j](?=\)))\)?"
_SEVERAL = (
    rf"(?:{_ONE}(?:(?i: ?[+&] ?|/(?!\()|, ?(?:(?:and|or|nor|&) )?| (?:and|or|nor) ){_ONE})+"
    r"|[a-j](?: (?:and|or|nor) [a-j])+)"
)
_ARE = r"(?i: (?:are|is) (?:all |both )?(?:correct|right|true|incorrect|wrong|false))"
_QUANTITY = r"(?i:all|none|no|any|both|neither|either|everything|each)"
_POSITIONAL = re.compile(
    rf"^\W*(?:(?i:none (?:of|are|is)|(?:all|both|neither|either|any|each) of)\b"
    rf"|(?i:both|neither|either|all|none){_ARE}?\W*$"
    rf"|{_QUANTITY}(?i:(?: of)?(?: the)? (?:above(?: {_OPTIONS})?|{_OPTIONS})){_ARE}?\W*$"
    rf"|{_QUANTITY}(?i:(?: of)?(?: the)?(?: above)?,? (?:except|but)(?: for)?) (?:{_ONE}|{_SEVERAL})\W*$"
    rf"|(?i:only |both |neither |either )?{_SEVERAL}(?i: only)?{_ARE}?\W*$"
    rf"|(?i:only )(?:{_ONE}|[a-j])\W*$|(?:{_ONE}|[a-j])(?i: only)\W*$)"
)
"""Options that name others by their letters, or all of them: "all of the above", "A and C only", "neither A nor B"."""
_IMAGE, _LETTER = re.compile(r"\W*image \d\W*"), re.compile(r"\W*(?:(?i:fig(?:ure)?s?|images?|panels?)\.?\s)?[A-Z0-9]\W*")


class ChoiceItem(NamedTuple):
    """One question with lettered options, about any number of images in the order in which it names them."""

    sample_id: str
    group_id: str
    split: str
    images: tuple[Path | Embedded, ...]
    place: str
    question: str
    options: tuple[str, ...]  # texts; the first has the letter A
    answer: str  # a letter
    skill: Skill = Skill()
    category: str = ""  # part of the data set: its file, subject, modality
    demographics: Demographics = Demographics()
    is_drawn: bool = False

    @property
    def is_positional(self) -> bool:
        """Whether an option speaks of others, by their place or all together: in another order it would say something else."""
        return any(_POSITIONAL.search(text) for text in self.options)

    @property
    def option_kind(self) -> str:
        """`image` or `letter` where all options are images, or letters and numbers that name what an image shows; else `text`."""
        for kind, pattern in (("image", _IMAGE), ("letter", _LETTER)):
            if all(pattern.fullmatch(text.strip()) for text in self.options):
                return kind
        return "text"


Item: TypeAlias = DiagnosisItem | VqaItem | ChoiceItem


class Excluded(NamedTuple):
    """A row of the files that the published protocol leaves out (another language, an unknown sex): counted, never a mistake."""

    reason: str
    place: str


class Note(NamedTuple):
    """What a person should know of how files were read, without a folder or a time: it stands on the card and in the log."""

    text: str


Entry: TypeAlias = Item | Excluded | Note | MedbenchError
"""What a layout yields; an error is of one row, and others may follow."""


class Source(NamedTuple):
    """The registry entry a layout reads: `raw_dir` is None where the data set is generated."""

    dataset: str
    task: str
    raw_dir: Path | None
    classes: tuple[str, ...]
    seed: int

    @property
    def rows(self) -> str:
        """What the task wants of a layout: `labels`, `questions`, or `choices`, which closed questions can become."""
        return tasks.get(self.task).rows

    @property
    def where(self) -> str:
        """The data set, for messages."""
        return f"data set {self.dataset}"

    def error(self, place: str, found: str, remedy: str) -> MedbenchError:
        """An expected error at a place of this data set: a file, a file and row, or an option."""
        return MedbenchError(f"{self.where}: {place}", found, remedy)

    @property
    def folder(self) -> Path:
        """`raw_dir`, for layouts that need one."""
        if self.raw_dir is None:
            raise self.error("raw_dir", "is not given, and this layout reads files", "set raw_dir in the registry entry")
        return self.raw_dir

    def inside(self, name: str, place: str, folder: Path | None = None) -> Path:
        """The file that a row names relative to `raw_dir`, or to a folder in it.

        Raises MedbenchError when the name would lead out of it, or no file can have it (a NUL, more than 255 bytes).

        Links in the folder may point anywhere: they are the user's own.
        """
        windows = PureWindowsPath(name)
        if not name or name.startswith("/") or windows.drive or windows.root or ".." in windows.parts:
            raise self.error(place, f"image path {name!r} leaves the folder or is empty", "give a path inside raw_dir")
        if not files.is_name(name):
            raise self.error(place, f"image path {name!r} can name no file", "write the name of the image, of at most 255 bytes")
        return (folder or self.folder) / name


def drawn_splits(items: Iterable[Item], share: float, source: Source) -> Iterator[Entry]:
    """Items without a split, with one: a seeded `share` of the groups for test, of every class or kind of answer alike."""
    found, first = list(items), dict[str, str]()
    groups = [first.setdefault(folded(item.group_id), item.group_id) for item in found]
    of_group = strata([(group, _kind(item)) for group, item in zip(groups, found, strict=True)])
    test = set(of_group) if share == 1 else held_out(of_group, share, f"{source.seed}/{source.dataset}/test")
    yield Note(f"no file names splits: {share:g} of the groups were drawn for test by the seed {source.seed}")
    for group, item in zip(groups, found, strict=True):
        yield item._replace(split="test" if group in test else "train", is_drawn=True)


def _kind(item: Item) -> str:
    if isinstance(item, DiagnosisItem):
        return item.label
    return item.answer_type if isinstance(item, VqaItem) else item.answer


def folded(text: str) -> str:
    """Equal for what a reader takes for one word: case, spaces, how an umlaut is encoded, and characters without a width do not count."""
    if not text.isascii():
        text = "".join(character for character in unicodedata.normalize("NFKC", text) if unicodedata.category(character) != "Cf")
    return " ".join(text.casefold().split())


def folded_label(text: str) -> str:
    """As `folded`; a number is what a spreadsheet shows: 1.0 is 1."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", folded(text))


class Layout(Protocol):
    """The module of a layout."""

    Options: type[Strict]

    def items(self, options: Any, source: Source) -> Iterator[Entry]:
        """The rows, in a fixed order."""

    def index_files(self, options: Any, source: Source) -> list[Path]:
        """What must rerun `prepare` when it changes."""


def module_name(layout: str) -> str:
    """`hub-vqa` -> `medbench.datasets.layouts.hub_vqa`."""
    return f"medbench.datasets.layouts.{layout.replace('-', '_')}"


def load_layout(layout: str) -> Layout:
    """The module of a layout by its name in the registry. Raises MedbenchError for one that has no file."""
    if layout not in layouts():
        raise MedbenchError(f"layout {layout}", "has no file in medbench/datasets/layouts", f"add it, or {choose(layout, layouts())}")
    return cast(Layout, importlib.import_module(module_name(layout)))


def read_options(layout: str, options: Mapping[str, Any], dataset: str) -> Strict:
    """A layout's options, checked, defaults filled in. Raises MedbenchError: one line that names data set and key."""
    try:
        return load_layout(layout).Options.model_validate(dict(options))
    except ValidationError as error:
        raise one_line(f"data set {dataset}: options of layout {layout}", error) from None


def with_test_only(config: Config) -> Config:
    """The configuration with `test_only` set for data sets of the run whose files hold no row for training.

    What is wrong with files is left to `prepare`.
    """
    found = dict(config.datasets)
    for dataset in config.run.datasets:
        entry = config.datasets[dataset]
        layout = load_layout(entry.layout)
        if entry.test_only or not hasattr(layout, "has_train"):
            continue
        with contextlib.suppress(MedbenchError, OSError):
            source = Source(dataset, entry.task, raw_dir(config, dataset), entry.classes, config.run.seed)
            options = read_options(entry.layout, entry.options, dataset)
            kinds = {files.irregular(path) for path in layout.index_files(options, source)} if source.folder.is_dir() else {"nothing"}
            if not kinds <= {None, "a folder"}:
                continue  # reading a pipe waits without end
            if not layout.has_train(options, source):
                found[dataset] = entry.model_copy(update={"test_only": True})
    return config._replace(datasets=found)


def age_band(age: str) -> str | None:
    """The band of an age in years; None where it is blank, negative or no number."""
    try:
        years = float(age)
    except ValueError:
        return None
    return next((band for beyond, band in AGE_BANDS.items() if 0 <= years < beyond), None)


def known(value: str) -> str | None:
    """A demographic attribute in lower case; None where it says that it is unknown."""
    text = value.strip().lower()
    return None if text in ("", "-1", "-1.0", "nan", "unknown", "none", "not available") else text


def one_of(choices: Collection[str]) -> AfterValidator:
    """For an option: refuses what is not among `choices`."""

    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return AfterValidator(check)


def is_yes_no(answer: str) -> bool:
    """Whether an answer is yes or no, whatever its case and final full stop."""
    return answer.strip().rstrip(".").lower() in ("yes", "no")


def embed(data: bytes) -> Embedded:
    """Encoded bytes with their digest."""
    return Embedded(hashlib.sha256(data).hexdigest(), data)


def held_out(strata: Mapping[str, str], share: float, key: str) -> set[str]:
    """Choose about `share` of the groups, from every stratum alike. `strata`: group -> stratum; `key` seeds the choice.

    At least one group of a stratum is chosen and at least one left, where it has two. Groups are ordered by a
    digest of `key` and their name: the choice is equal on every machine, whatever the order of the rows.
    """
    members: dict[str, list[str]] = {}
    for group, stratum in strata.items():
        members.setdefault(stratum, []).append(group)
    chosen: set[str] = set()
    for groups in members.values():
        groups.sort(key=lambda group: hashlib.sha256(f"{key}\0{group}".encode()).digest())
        chosen.update(groups[: min(max(round(share * len(groups)), 1), len(groups) - 1)])
    if not chosen and len(members) > 1:  # every stratum is a single group: better a choice across strata than none
        return held_out(dict.fromkeys(strata, ""), share, key)
    return chosen


def strata(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Group -> its most frequent label (of equally frequent ones the first in order). `pairs`: group and label of every row."""
    counts: dict[str, dict[str, int]] = {}
    for group, label in pairs:
        of_group = counts.setdefault(group, {})
        of_group[label] = of_group.get(label, 0) + 1
    return {group: min(found, key=lambda label: (-found[label], label)) for group, found in counts.items()}
