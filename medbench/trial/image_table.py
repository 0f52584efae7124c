"""A table of images: which column means what, which files it names, which classes it has."""

import contextlib
import glob
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path, PureWindowsPath
from typing import Any

from medbench.datasets.layouts import SPLIT_WORDS, Source, table
from medbench.datasets.reading import as_text, parquet_rows, sheet_names, table_records
from medbench.errors import MedbenchError, choose
from medbench.metrics.evaluate_modules.vqa_strict.words import yes_or_no
from medbench.trial.names import ALIKE, called_like, choice_columns, plain
from medbench.trial.seen import MOST_CLASSES, OVERLAP, Ask, Seen, labels_of, looks_missing, ordered

TRACKED = False  # what is proposed here reaches jobs as registry entries
LOOKED_AT = 2000  # rows of a table from which columns are told
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".dcm")
"""Looked for before any other ending."""


def look(file: Path, images: Path | None, given: Mapping[str, str], sheet: str | None) -> Seen:
    """Raises MedbenchError for a table that cannot be read as it is, Ask for a column that cannot be told."""
    folder = images or file.parent
    sheets = sheet_names(file, file.name, _source(file), "save it as CSV") if file.suffix.lower() == ".xlsx" else []
    header, first, sheet = _opened(file, sheets, sheet, folder, given)
    if not header or not first:
        raise MedbenchError(file, "holds no rows" if header else "is empty", "give a table with a header and a row for each image")
    task, chosen, dropped = _columns(file, header, first, folder, given)
    _require_once(file, header, chosen)
    of_choices = choice_columns([name for name in header if name not in chosen.values()]) if task == "vqa" else []
    place = header.index(chosen["image"])
    ending = _require_images(file, chosen["image"], [row[place] for row in first], folder)
    rows = "labels" if task == "diagnosis" else "questions"
    chosen = {ours: theirs for ours, theirs in chosen.items() if ours in {*table.NEEDED[rows], *table.OPTIONAL[rows]}}
    said = [f"columns: {', '.join(f'{ours} is {theirs!r}' for ours, theirs in chosen.items())}", *dropped]
    if len(sheets) > 1:
        others = ", ".join(one for one in sheets if one != sheet)
        said.append(f"sheet {sheet!r} is read, others are not: {others} (--sheet NAME)")
    if "group" not in chosen:
        chosen["group"] = chosen["image"]
        said.append("no column names patients: every image counts as a patient of its own (--columns group=NAME)")
    if "split" not in chosen:
        said.append("no column names splits: 30% of the patients are drawn for test")
    else:
        said.append(OVERLAP)
    classes: tuple[str, ...] = ()
    if task == "diagnosis":
        n, classes = _classes(file, sheet, chosen["label"], header)
        said += looks_missing(classes)
    else:
        place, n, closed = header.index(chosen["answer"]), 0, 0
        for row in _rows(file, sheet)[1]:
            n, closed = n + 1, closed + (yes_or_no(row[place]) is not None)
        options_of = f"the options stand in {', '.join(map(repr, of_choices))}"
        said.append(options_of if of_choices else f"{closed:,} of {n:,} answers are yes or no")
    options: dict[str, Any] = {"index": file.name, "columns": {ours: theirs for ours, theirs in chosen.items() if ours != theirs}}
    if images is not None and images.resolve() != file.parent.resolve():
        options["image_root"] = str(images.resolve())
    if ending:
        options["ending"] = ending
        said.append(f"column {chosen['image']!r} leaves out the ending of the files: {ending} is added")
    if sheets and sheet != sheets[0]:
        options["sheet"] = sheet
    if of_choices:
        task, options["choices"] = "mcq", of_choices
    return Seen(task, "table", file.parent, options, classes, said, n=n, names_splits="split" in chosen)


def _columns(
    file: Path, header: Sequence[str], first: Sequence[Sequence[str]], folder: Path, given: Mapping[str, str]
) -> tuple[str, dict[str, str], list[str]]:
    """The task of a table, our names of its columns -> theirs, and which columns are not what they are called like.

    Raises MedbenchError for a given column that there is not, Ask for one that cannot be told.
    """
    listed = ", ".join(columns := [name for name in header if name.strip()])
    if len(columns) < 2 <= len(header):
        raise MedbenchError(file, f"row 1 is no header, it says {listed or 'nothing'!r}", "remove the rows above the header")
    chosen = dict(given)
    for ours, theirs in given.items():
        if theirs not in header:
            raise MedbenchError(file, f"has no column {theirs!r} for {ours}", choose(theirs, header))
    values = {name: [row[at] for row in first] for at, name in enumerate(header)}
    dropped = []
    for ours in [ours for ours in ALIKE if ours not in chosen]:
        for column in called_like(header, ours, chosen):
            if (why := _unfit(ours, column, values[column])) is None:
                chosen[ours] = column
                break
            dropped.append(why)
    if named := _image(header, first, folder, chosen):
        chosen["image"] = named
    else:
        raise Ask("image", f"which column of {file} names the images? It has {listed}")
    task = "vqa" if {"question", "answer"} <= chosen.keys() else "diagnosis"
    if task == "diagnosis" and {"question", "answer"} & chosen.keys() and "label" not in chosen:
        lacking, there = ("answer", "question") if "question" in chosen else ("question", "answer")
        raise Ask(lacking, f"{file} has a column {there} and none for the {lacking}: which is it? It has {listed}")
    if task == "diagnosis" and "label" not in chosen:
        left = [name for name in header if name not in chosen.values()]
        few = [name for name in left if 2 <= len({*values[name]}) <= min(MOST_CLASSES, len(first) / 4)]
        if len(few) != 1:
            raise Ask("label", f"which column of {file} is the diagnosis? It has {', '.join(filter(str.strip, few or left))}")
        chosen["label"] = few[0]
    return task, chosen, dropped


def _unfit(ours: str, column: str, values: Sequence[str]) -> str | None:
    """Why a column is not what it is called like; None where it may be.

    One that the layout takes by its name too may always be: the layout says what is wrong with it.
    """
    if plain(column) in map(plain, (ours, *table.OTHER_NAMES.get(ours, ()))):
        return None
    found = dict.fromkeys(value.strip() for value in values if value.strip())
    if ours == "split" and (stray := [value for value in found if value.lower() not in SPLIT_WORDS]):
        return f"column {column!r} is not read: it says {stray[0]!r}, which is no split (--columns split=NAME)"
    if ours == "group" and len(found) < 2:
        return f"column {column!r} is not read: all its values are equal, so it names no patients (--columns group=NAME)"
    return None


def _image(header: Sequence[str], rows: Sequence[Sequence[str]], folder: Path, chosen: Mapping[str, str]) -> str | None:
    """The column that names the images: the chosen one, else by its name, else by the files that are there; None where none does."""
    if "image" in chosen:
        return chosen["image"] if chosen["image"] in header else None
    if named := called_like(header, "image", chosen):
        return named[0]
    return _image_by_files(header, rows, folder)


def _opened(
    file: Path, sheets: Sequence[str], sheet: str | None, folder: Path, given: Mapping[str, str]
) -> tuple[list[str], list[list[str]], str | None]:
    """Header and first rows of a table, and the sheet of a workbook that holds them: the named one, else the first that names images.

    Raises MedbenchError for a `sheet` that there is not.
    """
    if sheet is not None and not sheets:
        raise MedbenchError(f"--sheet {sheet}", f"is of a spreadsheet, and {file} is none", "leave it out")
    if sheet is not None and sheet not in sheets:
        raise MedbenchError(file, f"has no sheet {sheet!r}", choose(sheet, sheets))
    if sheet is None and len(sheets) > 1:
        for one in sheets:
            header, first = _read(file, one)
            if _image(header, first, folder, given):
                return header, first, one
    sheet = sheet or next(iter(sheets), None)
    return *_read(file, sheet), sheet


def _source(file: Path) -> Source:
    return Source(file.stem, "diagnosis", file.parent, (), 0)


def _read(file: Path, sheet: str | None) -> tuple[list[str], list[list[str]]]:
    """Header and the first rows of a table, as text."""
    header, rows = _rows(file, sheet)
    return header, [*islice(rows, LOOKED_AT)]


def _rows(file: Path, sheet: str | None) -> tuple[list[str], Iterator[list[str]]]:
    """Header and rows of a table as text, as many values as there are columns; one row in memory at a time."""
    source, name = _source(file), file.name
    if file.suffix.lower() in (".parquet", ".pq"):
        names: list[str] = []

        def every(schema: Any) -> list[str]:
            names.extend(schema.names)
            return list(schema.names)

        rows = parquet_rows(file, name, source, every)
        first = next(rows, None)
        return names, ([as_text(value) for value in row.values.values()] for row in chain([first] if first else [], rows))
    ours = {plain(name) for names in ALIKE.items() for name in (names[0], *names[1])}
    found = table_records(file, name, source, lambda header: sum(plain(one) in ours for one in header), "save it as CSV", sheet=sheet)
    header = [one.strip() for one in found.header]
    return header, ([*values, *[""] * len(header)][: len(header)] for _, values in found.rows)


def _require_once(file: Path, header: Sequence[str], chosen: Mapping[str, str]) -> None:
    if twice := [name for name in chosen.values() if header.count(name) > 1]:
        raise MedbenchError(file, f"column {twice[0]!r} stands twice", "keep one of them, or rename it")


def _require_images(file: Path, column: str, values: Sequence[str], folder: Path) -> str:
    """The ending that image files have and the column leaves out, or nothing.

    Raises MedbenchError where none of the first images is there: a run would say so after minutes.
    """
    if not (tried := _paths(values)):
        raise MedbenchError(file, f"column {column!r} names no image in the first {len(values)} rows", "give another: --columns image=NAME")
    if (ending := _ending(tried, folder)) is not None:
        return ending
    first = tried[0][:100]
    found = f"none of the {len(tried)} images that column {column!r} names first is in {folder} (the first: {first})"
    remedy = "give the folder that they are relative to: --images DIR"
    if first.startswith("/") or PureWindowsPath(first).is_absolute():  # of another machine
        remedy = f"leave out {first.rpartition('/')[0]}/ or a part of it in the column, and {remedy}"
    elif (called := _in_other_case(first, folder)) is not None:
        remedy = f"case counts here, and there is {called}: write the paths as the files are called"
    raise MedbenchError(file, found, remedy)


def _in_other_case(path: str, folder: Path) -> str | None:
    """The file of the folder that a path names but for upper and lower case."""
    found = folder
    for part in Path(path).parts:
        with contextlib.suppress(OSError):  # a folder that cannot be read
            alike = sorted(one for one in found.iterdir() if one.name.casefold() == part.casefold())
            if alike:
                found = alike[0]
                continue
        return None
    return found.relative_to(folder).as_posix() if found.is_file() else None


def _paths(values: Sequence[str], limit: int = LOOKED_AT) -> list[str]:
    """Those of the first values that may be paths, with slashes."""
    return [path for value in values[:limit] if 0 < len(path := value.strip().replace("\\", "/")) < 256]


def _ending(tried: Sequence[str], folder: Path, share: float = 0.0) -> str | None:
    """What more than `share` of the paths lack to be files of the folder: nothing, or an ending; None where they are no files."""
    wanted = int(share * len(tried)) + 1
    for ending in ["", *dict.fromkeys(ending for path in tried[:3] for ending in _endings(folder / path))]:
        if len([*islice((path for path in tried if (folder / (path + ending)).is_file()), wanted)]) == wanted:
            return ending
    return None


def _endings(path: Path) -> list[str]:
    """What follows a path and a dot in the names of files, usual endings of images first: tables and texts may lie beside these."""
    found: list[str] = []
    with contextlib.suppress(OSError, ValueError):  # a folder that cannot be read, a name that none can have
        found = sorted(file.name.removeprefix(path.name) for file in path.parent.glob(f"{glob.escape(path.name)}.*"))
    return sorted(found, key=lambda ending: ending.lower() not in IMAGE_ENDINGS)


def _image_by_files(header: Sequence[str], rows: Sequence[Sequence[str]], folder: Path) -> str | None:
    """The one column most of whose values name files; of several the one of many values: a class 1 may be called like the file 1.png."""
    values = {name: [row[at] for row in rows] for at, name in enumerate(header)}
    found = [name for name in header if _ending(_paths(values[name], 50), folder, 0.5) is not None]
    if len(found) > 1:
        found = [name for name in found if len({*values[name]}) > MOST_CLASSES]
    return found[0] if len(found) == 1 else None


def _classes(file: Path, sheet: str | None, column: str, header: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    """How many rows there are, and all values of the column, whatever the order of the rows; of several spellings the most usual one."""
    place = header.index(column)
    n, found = labels_of(row[place] for row in _rows(file, sheet)[1])
    if not 2 <= len(found) <= MOST_CLASSES:
        shown, count = ", ".join(found[:5]), f"{len(found)}{' or more' if len(found) > 3 * MOST_CLASSES else ''}"
        values = f"different value{'' if len(found) == 1 else 's'} ({shown}{', ...' if len(found) > 5 else ''})"
        what = f"column {column!r} has {count} {values}"
        remedy = "give the column of the diagnosis: --columns label=NAME"
        raise MedbenchError(file, f"{what}, which are no classes" if len(found) > 1 else f"{what}: there is nothing to tell apart", remedy)
    return n, ordered(found)
