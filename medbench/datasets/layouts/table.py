"""Layout `table`: a CSV file (any delimiter and encoding), an xlsx sheet, a Parquet file of text columns or objects of JSON, beside images.

Diagnosis: `image, label, split, group`. Questions: `image, question, answer, answer_type, split, group`. Lettered questions (task mcq): as
questions, with the columns of the options in `choices`; the answer is a letter or an option's text. Further columns are ignored, except
`id` (a sample's name; without it diagnosis samples are named by their image, questions by their image and their number for it).
Without `split` groups are drawn, without `answer_type` what is answered by yes or no (in any known language) is closed. A header is row 1,
as in a spreadsheet.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from string import ascii_uppercase
from typing import Annotated, Literal, NamedTuple

import pyarrow as pa
from pydantic import Field

from medbench.config import expand_raw_dir
from medbench.datasets.layouts import (
    SPLIT_WORDS,
    ChoiceItem,
    DiagnosisItem,
    Entry,
    Item,
    Note,
    Source,
    Strict,
    VqaItem,
    drawn_splits,
)
from medbench.datasets.reading import as_text, parquet_rows, table_records
from medbench.errors import MedbenchError
from medbench.jobs import files
from medbench.metrics.evaluate_modules.vqa_strict.words import yes_or_no

NEEDED = {"labels": ("image", "label", "group"), "questions": ("image", "question", "answer", "group")}
OPTIONAL = {"labels": ("split", "id"), "questions": ("answer_type", "split", "id")}
OTHER_NAMES = {
    "image": ("filename", "file", "file_name", "path", "filepath", "image_path", "image_file", "img"),
    "label": ("class", "class_name"),
    "group": ("patient", "patient_id", "patientid", "subject", "subject_id", "subjectid"),
    "split": ("subset", "partition"),
}
READABLE = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating)
"""Types of columns of Parquet; numbers are read as spreadsheets show them."""
ERRORS = frozenset(("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#SPILL!", "#CALC!"))
"""What cells of spreadsheets hold whose formula fails, in exported tables too."""
TABLES = (".csv", ".tsv", ".tab", ".txt", ".parquet", ".pq", ".xlsx")
"""Endings of tables. JSON is one where it is named alone: many a folder has some that is about something else."""
Ours = Literal["image", "label", "question", "answer", "answer_type", "split", "group", "id"]


class Options(Strict):
    """`index`: the table's file in `raw_dir`; `columns`: our name of a column -> its name there; `image_root`: the folder that image paths
    are relative to, in `raw_dir` or elsewhere; `test`: share of the groups for test where there is no column `split` (1: all of them);
    `encoding` of a CSV whose own cannot be told; `sheet` of a spreadsheet, else the first that is not hidden; `ending` of image files,
    where the table leaves it out."""

    index: str = "labels.csv"
    columns: dict[Ours, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)
    image_root: str | None = None
    test: float = Field(0.3, gt=0, le=1)
    encoding: str | None = None
    sheet: str | None = None
    ending: str = ""
    choices: tuple[Annotated[str, Field(min_length=1)], ...] = Field((), max_length=26)  # columns of lettered options, in their order


class Line(NamedTuple):
    """One row by our names of its columns, of which optional ones may be absent."""

    place: str
    values: dict[str, str]


def index_files(options: Options, source: Source) -> list[Path]:
    """The table."""
    path = source.inside(options.index, "option index")
    if not path.exists():
        others = sorted(one.name for one in source.folder.iterdir() if one.suffix.lower() in TABLES)
        there = f" (tables there: {', '.join(others[:5])})" if others else ""
        raise source.error(options.index, f"does not exist in {source.folder}{there}", "put the table there or set options.index")
    return [path]


def items(options: Options, source: Source) -> Iterator[Entry]:
    """One item a row, in the table's order."""
    (path,) = index_files(options, source)
    folder = _image_root(options, source)
    asked: Counter[str] = Counter()
    without_split: list[Item] = []
    is_typed = True
    for line in _lines(path, options, source):
        if not isinstance(line, Line):
            yield line
            continue
        try:
            item = _item(line, folder, options.ending, asked, source)
        except MedbenchError as error:
            yield error
            continue
        is_typed &= source.rows != "questions" or "answer_type" in line.values
        if "split" in line.values:
            yield item
        else:
            without_split.append(item)
    if not is_typed:
        yield Note("no column says which questions are closed: those that are answered by yes or no count as such")
    if without_split:
        yield from drawn_splits(without_split, options.test, source)


def has_train(options: Options, source: Source) -> bool:
    """Whether any row is for training, or will be drawn for it: read up to the first."""
    (path,) = index_files(options, source)
    for line in _lines(path, options, source):
        if isinstance(line, Line):
            if "split" not in line.values:
                return options.test < 1
            if SPLIT_WORDS.get(line.values["split"].lower()) == "train":
                return True
    return False


def _image_root(options: Options, source: Source) -> Path:
    if options.image_root is None:
        return source.folder
    if options.image_root.startswith(("/", "~", "$")):
        return expand_raw_dir(options.image_root, f"{source.where}: option image_root", "image_root") or source.folder
    folder = source.inside(options.image_root, "option image_root")
    if not folder.is_dir():
        raise source.error("option image_root", f"folder {folder} does not exist", "give the folder that image paths are relative to")
    return folder


def _item(line: Line, folder: Path, ending: str, asked: Counter[str], source: Source) -> Item:
    place, row = line
    for ours, value in row.items():
        if value in ERRORS and not (value == "#N/A" and ours in ("label", "group")):  # a missing one is said elsewhere
            raise source.error(place, f"column {ours!r} holds {value}, an error of a spreadsheet", "fix its formula or the value")
    name = _image_name(row["image"], folder, source)
    if name and not name.endswith(ending):
        name += ending
    if name.startswith("/") or PureWindowsPath(name).drive:
        found = f"image path {name!r} is absolute, and not in {folder}"
        raise source.error(place, found, "set options.image_root to the folder that holds the images, or write paths relative to it")
    image, split = source.inside(name, place, folder), row.get("split", "train")
    if source.rows == "labels":
        return DiagnosisItem(row.get("id") or name, row["group"], split, image, place, row["label"])
    sample_id = row.get("id") or f"{name}#{asked[name]}"
    asked[name] += 1
    if "choice 0" in row:
        cells = [row[key] for key in row if key.startswith("choice ")]
        return ChoiceItem(sample_id, row["group"], split, (image,), place, row["question"], *_choice(row["answer"], cells, place, source))
    answer_type = row.get("answer_type", "open" if yes_or_no(row["answer"]) is None else "closed")
    return VqaItem(sample_id, row["group"], split, image, place, row["question"], row["answer"], answer_type)


def _choice(answer: str, cells: Sequence[str], place: str, source: Source) -> tuple[tuple[str, ...], str]:
    """The options that are not empty, and the letter of the right one among them.

    The answer is an option's text or the letter of its column. Raises MedbenchError for another one, and for the letter of one option that
    is the text of another.
    """
    given = {letter: text for letter, text in zip(ascii_uppercase, cells, strict=False) if text}
    named = [letter for letter, text in given.items() if text.casefold() == answer.casefold()]
    lettered = [letter for letter in given if letter == answer.strip(" .():").upper()]
    if named and lettered and lettered[0] not in named:
        what = f"the answer {answer!r} is the letter of option {given[lettered[0]]!r} and the text of option {named[0]}"
        raise source.error(place, what, f"write the letter that is meant in parentheses: ({lettered[0]}) or ({named[0]})")
    found = lettered or named[:1]
    if len(given) < 2 or not found:
        what = f"the answer {answer!r} is no letter and no option of {len(given)}"
        raise source.error(place, what, f"write {' or '.join([*given][:2]) or 'A'}, ... or the option's own text")
    return tuple(given.values()), ascii_uppercase[[*given].index(found[0])]


def _image_name(name: str, folder: Path, source: Source) -> str:
    """Relative to the folder of images, with slashes: backslashes are Windows' own, and an absolute path may lead into that folder."""
    if "\\" in name and files.is_name(name) and not os.path.lexists(folder / name):
        name = name.replace("\\", "/")
    if name.startswith("/"):
        for root in (folder, source.folder):
            if PurePosixPath(name).is_relative_to(os.path.abspath(root)):
                return os.path.relpath(name, os.path.abspath(folder))
    return name.removeprefix("./")


# --- rows of each kind of file


def _lines(path: Path, options: Options, source: Source) -> Iterator[Line | Note | MedbenchError]:
    name = path.relative_to(source.folder).as_posix()
    if (kind := path.suffix.lower()) in (".parquet", ".pq"):
        yield from _parquet(path, name, options, source)
        return
    if kind in (".xls", ".ods", ".numbers"):
        raise source.error(name, f"is {kind[1:]}, which is not read", "save it as CSV or xlsx, and set options.index")
    wanted = lambda header: len(_found(header, options, source)[0])  # noqa: E731
    table = table_records(path, name, source, wanted, "save it as CSV, and set options.index", options.encoding, options.sheet)
    places = {ours: table.header.index(theirs) for ours, theirs in _chosen(table.header, name, options, source).items()}
    yield from map(Note, table.notes)
    n = max(at for at, column in enumerate(table.header, start=1) if column.strip())  # delimiters behind the last column may be missing
    for number, values in table.rows:
        place = f"{name} row {number}"
        if len(values) < n or any(value.strip() for value in values[n:]):
            yield source.error(place, f"has {len(values)} values for {n} columns", "quote values that hold the delimiter")
        elif dated := [at for at in places.values() if (number, at) in table.dates]:
            found = f"column {table.header[dated[0]]!r} holds a date ({values[dated[0]]}), as spreadsheets make of `3-5`"
            yield source.error(place, found, "format the column as text, and write the value again")
        else:
            yield Line(place, {ours: values[at].strip() for ours, at in places.items()})


def _parquet(path: Path, name: str, options: Options, source: Source) -> Iterator[Line]:
    chosen: dict[str, str] = {}

    def choose(schema: pa.Schema) -> list[str]:
        chosen.update(_chosen(schema.names, name, options, source))
        for column in chosen.values():
            kind = schema.field(column).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not any(is_kind(kind) for is_kind in READABLE):
                raise source.error(name, f"column {column!r} holds {kind}, not text or numbers", "write it as text")
        return sorted(set(chosen.values()))

    for place, values in parquet_rows(path, name, source, choose):
        texts = {ours: as_text(values[theirs]).strip() for ours, theirs in chosen.items()}
        if any(texts.values()):
            yield Line(place, texts)


# --- columns


def _chosen(header: Sequence[str], name: str, options: Options, source: Source) -> dict[str, str]:
    """Our name of a column -> its name in the header. Raises MedbenchError for one that is missing, or may be several."""
    found, doubtful = _found(header, options, source)
    for ours, theirs in doubtful.items():
        if len(set(theirs)) == 1:
            raise source.error(name, f"column {theirs[0]!r} stands twice", "keep one of them")
        raise source.error(
            name, f"column {ours!r} may be {' or '.join(map(repr, theirs))}", f"set options.columns: {{{ours}: <one of them>}}"
        )
    known = dict.fromkeys((*NEEDED[_kind(source)], *OPTIONAL[_kind(source)]))
    if stray := [ours for ours in options.columns if ours not in known]:
        raise source.error("options.columns", f"{stray[0]!r} is no column of a {source.task} table", f"it has {', '.join(known)}")
    if missing := [ours for ours in dict.fromkeys((*NEEDED[_kind(source)], *map(str, options.columns))) if ours not in found]:
        named = {str(ours): theirs for ours, theirs in options.columns.items()}
        wanted = ", ".join(repr(named.get(ours, ours)) for ours in missing)
        there = ", ".join(filter(str.strip, header)) or "none"
        remedy = f"a {source.task} table has {', '.join(known)}; of another name: options: {{columns: {{{missing[0]}: <its name>}}}}"
        said = f"column {wanted} is missing" if len(missing) == 1 else f"columns {wanted} are missing"
        raise source.error(name, f"{said} (found {there})", remedy)
    if absent := [column for column in options.choices if column not in header]:
        raise source.error(name, f"column {absent[0]!r} of options.choices is missing", f"it has {', '.join(filter(str.strip, header))}")
    of_choices = options.choices if source.rows == "choices" else ()
    return found | {f"choice {place}": column for place, column in enumerate(of_choices)}


def _kind(source: Source) -> str:
    """What a row is. Closed questions of a table become lettered ones where the task wants choices."""
    return "labels" if source.rows == "labels" else "questions"


def _found(header: Sequence[str], options: Options, source: Source) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Our name -> the column that it is: by `columns`, by its name in any case, or by another usual name; and what may be several."""
    found, doubtful = dict[str, str](), dict[str, list[str]]()
    named = {str(ours): theirs for ours, theirs in options.columns.items()}
    for ours in (*NEEDED[_kind(source)], *OPTIONAL[_kind(source)]):
        words = [(named[ours],)] if ours in named else [(ours,), OTHER_NAMES.get(ours, ())]
        for names in words:
            for alike in (str, _plain):
                matches = [column for column in header if alike(column) in {alike(name) for name in names}]
                if matches and ours not in found and ours not in doubtful:
                    found.update({ours: matches[0]}) if len(matches) == 1 else doubtful.update({ours: matches})
    return found, doubtful


def _plain(column: str) -> str:
    """Equal for `Patient ID`, `patient-id` and `patient_id`."""
    return "_".join(column.strip().lower().replace("-", " ").replace("_", " ").split())
