"""One's own images as a data set and a run: what a file or folder seems to be, written as two files that a person can keep and change.

Nothing is guessed where a guess could turn the result: which classes there are and which columns mean what is shown before anything runs,
and what cannot be told is asked for by name.
"""

import contextlib
import csv
import glob
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, takewhile
from pathlib import Path, PureWindowsPath
from string import ascii_lowercase
from typing import Any, NamedTuple

import yaml

from medbench import paths
from medbench.config import Config, Dataset
from medbench.datasets import dicom_headers
from medbench.datasets.layouts import SPLIT_WORDS, Source, folded, folded_label, hub_vqa, imagefolder, is_yes_no, table
from medbench.datasets.reading import as_text, parquet_rows, parquet_size, records, sheet_cells, sheet_names
from medbench.datasets.rows import MISSING
from medbench.errors import MedbenchError, choose

TRACKED = False  # what is proposed here reaches jobs as registry entries
FOLDER = Path("tries")
HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
TABLE = "labels.csv"
OVERLAP = "what two splits share, images or patients, is reported and not refused (allow_group_overlap in data.yaml)"
MANY, SAMPLE = 800, {"train": 300, "val": 100, "test": 300}
"""Of more rows so many are drawn for a first look, whole patients at a time."""
LOOKED_AT = 2000  # rows of a table from which columns are told
MOST_CLASSES = 20
ALIKE = {
    "image": (
        *table.OTHER_NAMES["image"],
        "images",
        "filename",
        "image_name",
        "image_id",
        "picture",
        "photo",
        "scan",
        "dicom",
        "bild",
        "bilddatei",
        "bildname",
        "dateiname",
        "datei",
        "pfad",
        "aufnahme",
        "fichier",
        "nom_fichier",
        "nom_du_fichier",
        "chemin",
        "cliche",
        "imagen",
        "archivo",
        "immagine",
    ),
    "label": (
        *table.OTHER_NAMES["label"],
        "labels",
        "diagnosis",
        "target",
        "finding",
        "category",
        "disease",
        "dx",
        "y",
        "ground_truth",
        "diagnose",
        "befund",
        "klasse",
        "kategorie",
        "diagnostic",
        "classe",
        "etiquette",
        "categorie",
        "diagnostico",
        "diagnosi",
    ),
    "question": ("prompt", "query", "frage", "pregunta", "domanda"),
    "answer": ("reference", "response", "antwort", "reponse", "respuesta", "risposta"),
    "group": (
        *table.OTHER_NAMES["group"],
        "case",
        "case_id",
        "study",
        "lesion_id",
        "mrn",
        "patientennummer",
        "patienten_id",
        "patientenid",
        "fall",
        "fallnummer",
        "id_patient",
        "numero_patient",
        "identifiant_patient",
        "sujet",
        "dossier",
        "paciente",
        "paziente",
    ),
    "split": (*table.OTHER_NAMES["split"], "fold", "set", "aufteilung", "teilmenge", "ensemble", "jeu"),
    "answer_type": ("type", "question_type", "antworttyp", "fragetyp", "type_reponse", "type_question"),
}
"""Our names of columns -> what others call them."""
NEGATIVE = re.compile(
    r"(?:^|[ _-])(?:no|non|not|normal|healthy|benign|negative|absent|clear|control|without|false|0)(?:$|[ _-])", re.IGNORECASE
)
"""Of two classes, the one that is not the disease: class 1, the positive one, is the other."""
CHOICE = re.compile(r"(?P<word>option|choice|answer|antwort|reponse)?_?(?P<mark>[a-z]|\d{1,2})|options?|choices?")
"""Columns of the choices of a question."""
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".dcm")
"""Looked for before any other ending."""
_CLIPS, _LLAVAS = ("mini-clip", "mini-medclip"), ("mini-llava", "mini-llava-med")
MODELS = {"diagnosis": _CLIPS, "vqa": _LLAVAS, "mcq": _LLAVAS}
MODES = {"diagnosis": ("ots", "lp"), "vqa": ("ots", "lora"), "mcq": ("ots", "ots-no-image")}


USUAL = ("labels", "metadata", "index", "data", "annotations")
"""Names of the table that a folder of images is about."""


class Seen(NamedTuple):
    """What a file or folder seems to be: a registry entry without modality, what was told of it in words, and what could not be told."""

    task: str
    layout: str
    raw_dir: Path | None
    options: dict[str, Any]
    classes: tuple[str, ...]
    said: list[str]
    source: dict[str, Any] | None = None  # of what is fetched
    rows: list[tuple[str, ...]] | None = None  # of a table that is to be written, its header first
    modality: str | None = None  # as the files say it
    n: int = 0  # rows or files, as far as they were counted
    names_splits: bool = False  # files say which images are for training: what they have in two splits is reported, not refused


class Ask(Exception):
    """What must be known: the flag that says it, and what it is about."""

    def __init__(self, column: str, what: str) -> None:
        super().__init__(f"--columns {column}=NAME: {what}")
        self.column, self.what = column, what


def look(place: Path, images: Path | None, columns: Mapping[str, str], sheet: str | None = None) -> Seen:
    """A table of images, or a folder of class folders. Raises MedbenchError for what is neither, Ask for a column that cannot be told.

    `images`, `columns` and `sheet` are of tables, `columns` of DICOM files too.
    """
    seen = _looked(place, images, columns, sheet)
    if seen.layout != "table" or seen.rows is not None:
        what = {"imagefolder": "class folders", "table": "DICOM files", "hub-vqa": "a data set of the hub"}[seen.layout]
        of_table = {"--images": images, "--sheet": sheet, "--columns": None if seen.rows is not None else columns}
        for flag in [flag for flag, value in of_table.items() if value]:
            raise MedbenchError(flag, f"is of a table, and {place} holds {what}", "leave it out")
    return seen


def _looked(place: Path, images: Path | None, columns: Mapping[str, str], sheet: str | None) -> Seen:
    if not place.exists() and HUB.fullmatch(str(place)):
        said = ["a data set of the hub: its files are fetched, and read as questions (image, question, answer)", OVERLAP]
        source = {"kind": "hub", "repo": str(place), "patterns": ["data/*.parquet"]}
        return Seen("vqa", "hub-vqa", None, {}, (), said, source, names_splits=True)
    if place.is_dir():
        if shards := [folder for folder in (place / "data", place) if any(map(hub_vqa.SHARD.fullmatch, _names(folder)))]:
            options = {} if shards[0] != place else {"folder": "."}
            said = ["Parquet files of the hub: image, question, answer", OVERLAP]
            n = sum(parquet_size(shard) for shard in shards[0].glob("*.parquet"))
            return Seen("vqa", "hub-vqa", place, options, (), said, n=n, names_splits=True)
        tables = sorted(file for file in place.iterdir() if file.suffix.lower() in table.TABLES and not file.name.startswith("."))
        folders = sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
        if (chosen := _one_of(place, tables, folders)) is not None:
            others = [file.name for file in tables if file != chosen]
            seen = _table(chosen, images, columns, sheet)
            note = f"read from {chosen.name}; give {' or '.join(others)} by name to read that instead" if others else ""
            return seen._replace(said=[*seen.said, note]) if note else seen
        if dicom_headers.holds(place):
            return _dicom(place, folders, columns)
        return _folders(place, folders)
    if not place.is_file():
        raise MedbenchError(place, "is neither a file nor a folder", "give a table of images, or a folder with a folder for each class")
    if place.suffix.lower() not in table.TABLES:
        raise MedbenchError(place, f"is no table ({place.suffix or 'no suffix'})", f"give one of {', '.join(table.TABLES)}, or a folder")
    return _table(place, images, columns, sheet)


def _one_of(place: Path, tables: Sequence[Path], folders: Sequence[Path]) -> Path | None:
    """The table that a folder is about: its only one, or the one of a usual name; None where its folders are the classes.

    Raises MedbenchError for several tables of which none has a usual name.
    """
    usual = [file for file in tables if file.stem.lower() in USUAL] if len(tables) > 1 else list(tables)
    if len(usual) == 1:
        return usual[0]
    if tables and len(folders) < 2:
        names = ", ".join(file.name for file in tables)
        raise MedbenchError(place, f"holds {len(tables)} tables: {names}", "give the one to read by its name")
    return None


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _dicom(place: Path, folders: list[Path], given: Mapping[str, str]) -> Seen:
    """Labels by class folders, or by an attribute that is named; patients by their own attribute."""
    chosen, by_folder = given.get("label"), None
    if chosen is None:
        with contextlib.suppress(MedbenchError):
            by_folder = _folders(place, folders)
    labels = [chosen] if chosen else [*dicom_headers.ATTRIBUTES]
    group = given.get("group", "PatientID")
    found = [*dicom_headers.headers(place, [*dict.fromkeys((group, "Modality", *labels))])]
    if chosen is None and by_folder is None:
        counts = {name: len({folded_label(one.values.get(name, "")) for one in found}) for name in labels}
        telling = [f"{name} ({count} values)" for name, count in counts.items() if 2 <= count <= MOST_CLASSES]
        says = f"attributes that differ: {', '.join(telling)}" if telling else "no attribute tells them apart"
        files = f"the {len(found)} DICOM files in {place}, which lie in no class folders"
        raise Ask("label", f"what are the labels of {files}? {says[0].upper()}{says[1:]}; or put a table of image and label beside them")
    rows = [_dicom_row(one, group, chosen, by_folder) for one in found]
    _, names = _labels(row[1] for row in rows)
    if not 2 <= len(names) <= MOST_CLASSES:
        raise MedbenchError(
            place, f"{chosen} has {len(names)} different values ({', '.join(names[:5])})", "name another attribute: --columns label=NAME"
        )
    kinds = {one.values.get("Modality", "") for one in found}
    modality = {dicom_headers.MODALITIES.get(kind) for kind in kinds}
    unnamed = sum(not one.values.get(group) for one in found)
    said = [
        f"{len(found)} DICOM files ({', '.join(sorted(kinds - {''})) or 'no Modality'})",
        f"label is {chosen or 'the class folder'}, group is {group}",
        *([f"{unnamed} of them have no {group}: each counts as a patient of its own"] if unnamed else []),
        *([] if all(row[3] for row in rows) else ["no folder names splits: 30% of the patients are drawn for test"]),
        *_missing(names),
    ]
    columns = 4 if all(row[3] for row in rows) else 3
    rows = [row[:columns] for row in (("image", "label", "group", "split"), *rows)]
    options = {"image_root": str(place.resolve())}
    return Seen(
        "diagnosis", "table", None, options, ordered(names), said, None, rows, modality.pop() if len(modality) == 1 else None, n=len(found)
    )


def _dicom_row(one: dicom_headers.Header, group: str, chosen: str | None, by_folder: Seen | None) -> tuple[str, ...]:
    """image, label, group, split; of class folders the split is that of the folder above, or empty."""
    parts = one.path.split("/")
    if chosen or by_folder is None:
        return one.path, one.values.get(chosen or "", ""), one.values.get(group) or one.path, ""
    split = parts[0] if parts[0] not in by_folder.classes and parts[0].strip().lower() in SPLIT_WORDS else ""
    return one.path, parts[1 if split else 0], one.values.get(group) or one.path, split


def _require_classes(place: Path, names: Sequence[str], has_splits: bool) -> None:
    """Raise MedbenchError for folders that are no classes as they are named."""
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(folded(name), name)) != name:
            found = f"has the class folders {other!r} and {name!r}, which differ in case or spaces alone"
            raise MedbenchError(place, found, "put their images into one folder")
    inside = [sorted(one.name for one in (place / name).iterdir() if one.is_dir()) for name in names] if not has_splits else []
    if inside and len(inside[0]) > 1 and all(one == inside[0] for one in inside):
        found = f"holds the folders {', '.join(names[:3])}, and each of them holds {', '.join(inside[0][:3])}, which may be the classes"
        raise MedbenchError(place, found, "call the folders of splits train, val and test")


def _folders(place: Path, folders: list[Path]) -> Seen:
    splits = [folder for folder in folders if folder.name.strip().lower() in SPLIT_WORDS]
    inside = sorted({one.name for split in splits for one in split.iterdir() if one.is_dir()}) if splits else [one.name for one in folders]
    classes = [name for name in inside if not name.startswith(".") and name.lower() not in imagefolder.LITTER]
    if len(classes) < 2:
        found = f"holds {len(classes)} class folder{'' if len(classes) == 1 else 's'} and no table"
        raise MedbenchError(place, found, "put the images of each class into a folder of its name, or a table labels.csv beside them")
    _require_classes(place, classes, bool(splits))
    counts = {name: sum(len(imagefolder.class_files(root / name)) for root in splits or [place]) for name in classes}
    if empty := [name for name, count in counts.items() if not count]:
        raise MedbenchError(place, f"class folder {empty[0]!r} holds no file", "put its images there, or remove it")
    said = [f"folders: {', '.join(classes)}", "every image counts as a patient of its own (--group REGEX finds patients in file names)"]
    if not splits:
        said.append("no folder names splits: 30% of the patients are drawn for test")
    said += [OVERLAP] if splits else []
    return Seen("diagnosis", "imagefolder", place, {}, ordered(classes), said, n=sum(counts.values()), names_splits=bool(splits))


def _table(file: Path, images: Path | None, given: Mapping[str, str], sheet: str | None) -> Seen:
    folder = images or file.parent
    sheets = sheet_names(file, file.name, _source(file), "save it as CSV") if file.suffix.lower() == ".xlsx" else []
    header, first, sheet = _opened(file, sheets, sheet, folder, given)
    if not header or not first:
        raise MedbenchError(file, "holds no rows" if header else "is empty", "give a table with a header and a row for each image")
    listed = ", ".join(columns := [name for name in header if name.strip()])
    if len(columns) < 2 <= len(header):
        raise MedbenchError(file, f"row 1 is no header, it says {listed or 'nothing'!r}", "remove the rows above the header")
    chosen = dict(given)
    for ours, theirs in given.items():
        if theirs not in header:
            raise MedbenchError(file, f"has no column {theirs!r} for {ours}", choose(theirs, header))
    values, dropped = {name: [row[at] for row in first] for at, name in enumerate(header)}, []
    for ours in [ours for ours in ALIKE if ours not in chosen]:
        for column in _named(header, ours, chosen):
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
    _require_once(file, header, chosen)
    of_choices = _of_choices([name for name in header if name not in chosen.values()]) if task == "vqa" else []
    ending = _require_images(file, chosen["image"], values[chosen["image"]], folder)
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
        said += _missing(classes)
    else:
        place, n, closed = header.index(chosen["answer"]), 0, 0
        for row in _rows(file, sheet)[1]:
            n, closed = n + 1, closed + is_yes_no(row[place])
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


def _unfit(ours: str, column: str, values: Sequence[str]) -> str | None:
    """Why a column is not what it is called like; None where it may be.

    One that the layout takes by its name too may always be: the layout says what is wrong with it.
    """
    if _plain(column) in map(_plain, (ours, *table.OTHER_NAMES.get(ours, ()))):
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
    if named := _named(header, "image", chosen):
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
    if file.suffix.lower() == ".xlsx":
        header, *cells = [row for row in sheet_cells(file, name, source, "save it as CSV", sheet).rows if any(row)] or [[]]
        return header, ([*row, *[""] * len(header)][: len(header)] for row in cells)
    ours = {_plain(name) for names in ALIKE.items() for name in (names[0], *names[1])}
    found = records(file, name, source, lambda header: sum(_plain(one) in ours for one in header))
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
    raise MedbenchError(file, found, remedy)


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


def _named(header: Sequence[str], ours: str, chosen: Mapping[str, str]) -> list[str]:
    """The columns that are called like ours and not chosen yet, the most usual name first."""
    plain = {_plain(column): column for column in reversed(header) if column not in chosen.values()}
    return [plain[name] for name in dict.fromkeys(map(_plain, (ours, *ALIKE[ours]))) if name in plain]


def _of_choices(names: Sequence[str]) -> list[str]:
    """Columns of two choices or more, in their order; of letters without a word, those that follow one another from A."""
    found = {name: match for name in names if (match := CHOICE.fullmatch(_plain(name)))}
    bare = {match["mark"] for match in found.values() if not match["word"]}
    following = {*takewhile(bare.__contains__, ascii_lowercase)}
    kept = [name for name, match in found.items() if match["word"] or match["mark"] in following or not (match["mark"] or "").isalpha()]
    return kept if len(kept) > 1 else []


def _plain(column: str) -> str:
    """Lower case, words joined by underscores, letters without accents."""
    letters = "".join(letter for letter in unicodedata.normalize("NFKD", column) if not unicodedata.combining(letter))
    return "_".join(re.sub(r"([a-z])([A-Z])", r"\1 \2", letters).lower().replace("-", " ").replace("_", " ").split())


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
    n, found = _labels(row[place] for row in _rows(file, sheet)[1])
    if not 2 <= len(found) <= MOST_CLASSES:
        shown, count = ", ".join(found[:5]), f"{len(found)}{' or more' if len(found) > 3 * MOST_CLASSES else ''}"
        values = f"different value{'' if len(found) == 1 else 's'} ({shown}{', ...' if len(found) > 5 else ''})"
        what = f"column {column!r} has {count} {values}"
        remedy = "give the column of the diagnosis: --columns label=NAME"
        raise MedbenchError(file, f"{what}, which are no classes" if len(found) > 1 else f"{what}: there is nothing to tell apart", remedy)
    return n, ordered(found)


def _labels(values: Iterable[str]) -> tuple[int, list[str]]:
    """How many values there are, and the labels among them, of several spellings the most usual one; read until there are far too many."""
    spelt, n = dict[str, Counter[str]](), 0
    for n, value in enumerate(values, start=1):  # noqa: B007 - counted
        if name := value.strip():
            spelt.setdefault(folded_label(name), Counter())[name] += 1
        if len(spelt) > 3 * MOST_CLASSES:
            break
    return n, sorted(names.most_common(1)[0][0] for names in spelt.values())


def _missing(classes: Sequence[str]) -> list[str]:
    missing = [name for name in classes if folded(name) in MISSING]
    return [f"class {name!r} looks like a value that is missing: give its rows a diagnosis, or remove them" for name in missing]


def ordered(classes: Sequence[str]) -> tuple[str, ...]:
    """Of two classes the positive one second."""
    return tuple(
        sorted(classes, key=lambda name: (NEGATIVE.search(name) is None, classes.index(name)) if len(classes) == 2 else (False, 0))
    )


def entry(seen: Seen, modality: str, prompts: Mapping[str, Sequence[str]], whole: bool = True) -> dict[str, Any]:
    """The registry entry; of a large data set a draw, unless the `whole` is wanted.

    Prompts that are not given follow from the names of the classes.
    """
    found: dict[str, Any] = {
        "task": seen.task, "layout": seen.layout, "modality": modality, "specialty": modality,
        **({"raw_dir": str(seen.raw_dir.resolve())} if seen.raw_dir else {"source": seen.source}),
    }  # fmt: skip
    if seen.options:
        found["options"] = seen.options
    if not whole and seen.n > MANY:
        found["sample"] = dict(SAMPLE)
    if seen.names_splits:
        found["allow_group_overlap"] = True
    if seen.classes:
        words = {name: re.sub(r"[_-]+", " ", name).strip() or name for name in seen.classes}
        found["classes"] = list(seen.classes)
        found["prompts"] = {"main": {name: list(prompts.get(name) or [f"a photo of {words[name]}"]) for name in seen.classes}}
    return found


def slug(name: str) -> str:
    """A name that paths admit."""
    text = re.sub(r"\.{2,}", ".", re.sub(r"[^a-z0-9.]+", "-", name.lower())).strip("-.")
    text = text.replace(".", "-") if text.endswith(paths.ENDINGS) else text
    return paths.slug(text or "my-set")


def write(
    folder: Path, files: Mapping[str, Mapping[str, Any]], command: str, again: str, rows: Sequence[Sequence[str]] | None = None
) -> list[Path]:
    """The files of a try, and a table of `rows` where there are some. `command`: what wrote them; `again`: what runs them.

    Returns those that were not there before.

    Raises MedbenchError where one is there and says something else: a person may have changed it.
    """
    texts = {
        name: f"# by `{command}`; change what you like\n{yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True)}"
        for name, value in files.items()
    }
    for name, text in texts.items():
        path = folder / name
        if path.exists() and yaml.safe_load(path.read_text(encoding="utf-8")) != yaml.safe_load(text):
            remedy = f"run it as it is: `{again}`; or remove the folder, or give another --name"
            raise MedbenchError(path, "is there already and says something else", remedy)
    folder.mkdir(parents=True, exist_ok=True)
    new = [folder / name for name in (*texts, *([TABLE] if rows is not None else [])) if not (folder / name).exists()]
    if rows is not None:
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(rows)
        (folder / TABLE).write_text(stream.getvalue(), encoding="utf-8")
    for name, text in texts.items():
        if folder / name in new:
            (folder / name).write_text(text, encoding="utf-8")
    return new


def modalities(config: Config) -> list[str]:
    """Those that any model of the registry knows, or any data set has; the most usual first."""
    counts = Counter(one for model in config.models.values() for one in model.pretrained_on if one != "everyday")
    counts.update(data.modality for data in config.datasets.values() if isinstance(data, Dataset))
    return [name for name, _ in counts.most_common()]
