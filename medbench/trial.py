"""One's own images as a data set and a run: what a file or folder seems to be, written as two files that a person can keep and change.

Nothing is guessed where a guess could turn the result: which classes there are and which columns mean what is shown before anything runs,
and what cannot be told is asked for by name.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from medbench import paths
from medbench.config import Config, Dataset
from medbench.datasets.layouts import SPLIT_WORDS, Source, hub_vqa, imagefolder, is_yes_no, table
from medbench.datasets.reading import parquet_rows, records, sheet_cells
from medbench.errors import MedbenchError, choose

TRACKED = False  # what is proposed here reaches jobs as registry entries
FOLDER = Path("tries")
HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LOOKED_AT = 2000  # rows of a table from which columns are told
MOST_CLASSES = 20
ALIKE = {
    "image": (*table.OTHER_NAMES["image"], "images", "filename", "image_name", "image_id", "picture", "photo", "scan", "dicom", "bild"),
    "label": (*table.OTHER_NAMES["label"], "diagnosis", "target", "finding", "category", "disease", "dx", "y", "ground_truth", "diagnose"),
    "question": ("prompt", "query", "frage"),
    "answer": ("reference", "response", "antwort"),
    "group": (*table.OTHER_NAMES["group"], "case", "case_id", "study", "lesion_id", "mrn", "patientennummer"),
    "split": (*table.OTHER_NAMES["split"], "fold", "set"),
    "answer_type": ("type", "question_type"),
}
"""Our names of columns -> what others call them."""
NEGATIVE = re.compile(
    r"(?:^|[ _-])(?:no|non|not|normal|healthy|benign|negative|absent|clear|control|without|false|0)(?:$|[ _-])", re.IGNORECASE
)
"""Of two classes, the one that is not the disease: class 1, the positive one, is the other."""
MODELS = {"labels": ("mini-clip", "mini-medclip"), "questions": ("mini-llava", "mini-llava-med")}
MODES = {"labels": ("ots", "lp"), "questions": ("ots", "lora")}


class Seen(NamedTuple):
    """What a file or folder seems to be: a registry entry without modality, what was told of it in words, and what could not be told."""

    task: str
    layout: str
    raw_dir: Path | None
    options: dict[str, Any]
    classes: tuple[str, ...]
    said: list[str]
    source: dict[str, Any] | None = None  # of what is fetched


class Ask(Exception):
    """What must be known: the flag that says it, and what it is about."""

    def __init__(self, flag: str, what: str) -> None:
        super().__init__(f"{flag}: {what}")
        self.flag, self.what = flag, what


def look(place: Path, images: Path | None, columns: Mapping[str, str]) -> Seen:
    """A table of images, or a folder of class folders. Raises MedbenchError for what is neither, Ask for a column that cannot be told."""
    if not place.exists() and HUB.fullmatch(str(place)):
        said = ["a data set of the hub: its files are fetched, and read as questions (image, question, answer)"]
        return Seen("vqa", "hub-vqa", None, {}, (), said, {"kind": "hub", "repo": str(place), "patterns": ["data/*.parquet"]})
    if place.is_dir():
        if shards := [folder for folder in (place / "data", place) if any(map(hub_vqa.SHARD.fullmatch, _names(folder)))]:
            options = {} if shards[0] != place else {"folder": "."}
            return Seen("vqa", "hub-vqa", place, options, (), ["Parquet files of the hub: image, question, answer"])
        tables = sorted(file for file in place.iterdir() if file.suffix.lower() in table.TABLES and not file.name.startswith("."))
        folders = sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
        if len(tables) == 1 or (tables and not folders):
            return _table(tables[0], images, columns)
        return _folders(place, folders)
    if not place.is_file():
        raise MedbenchError(place, "is neither a file nor a folder", "give a table of images, or a folder with a folder for each class")
    if place.suffix.lower() not in table.TABLES:
        raise MedbenchError(place, f"is no table ({place.suffix or 'no suffix'})", f"give one of {', '.join(table.TABLES)}, or a folder")
    return _table(place, images, columns)


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _folders(place: Path, folders: list[Path]) -> Seen:
    splits = [folder for folder in folders if folder.name.strip().lower() in SPLIT_WORDS]
    inside = sorted({one.name for split in splits for one in split.iterdir() if one.is_dir()}) if splits else [one.name for one in folders]
    classes = [name for name in inside if not name.startswith(".") and name.lower() not in imagefolder.LITTER]
    if len(classes) < 2:
        found = f"holds {len(classes)} class folder{'' if len(classes) == 1 else 's'} and no table"
        raise MedbenchError(place, found, "put the images of each class into a folder of its name, or a table labels.csv beside them")
    said = [f"folders: {', '.join(classes)}", "every image counts as a patient of its own (--group REGEX finds patients in file names)"]
    if not splits:
        said.append("no folder names splits: 30% of the patients are drawn for test")
    return Seen("diagnosis", "imagefolder", place, {}, ordered(classes), said)


def _table(file: Path, images: Path | None, given: Mapping[str, str]) -> Seen:
    header, rows = _read(file)
    folder = images or file.parent
    chosen = dict(given)
    for ours, theirs in given.items():
        if theirs not in header:
            raise MedbenchError(file, f"has no column {theirs!r} for {ours}", choose(theirs, header))
    for ours, others in ALIKE.items():
        if ours not in chosen and (match := _named(header, (ours, *others), set(chosen.values()))):
            chosen[ours] = match
    values = {name: [row[at] for row in rows] for at, name in enumerate(header)}
    if "image" not in chosen and (named := _most(header, lambda name: _share_of_files(values[name], folder))):
        chosen["image"] = named
    if "image" not in chosen:
        raise Ask("--columns image=NAME", f"which column of {file} names the images? It has {', '.join(header)}")
    task = "vqa" if {"question", "answer"} <= chosen.keys() else "diagnosis"
    if task == "diagnosis" and "label" not in chosen:
        left = [name for name in header if name not in chosen.values()]
        few = [name for name in left if 2 <= len({*values[name]}) <= min(MOST_CLASSES, len(rows) / 4)]
        if len(few) != 1:
            raise Ask("--columns label=NAME", f"which column of {file} is the diagnosis? It has {', '.join(few or left)}")
        chosen["label"] = few[0]
    used = {
        *table.NEEDED["labels" if task == "diagnosis" else "questions"],
        *table.OPTIONAL["labels" if task == "diagnosis" else "questions"],
    }
    chosen = {ours: theirs for ours, theirs in chosen.items() if ours in used}
    said = [f"columns: {', '.join(f'{ours} is {theirs!r}' for ours, theirs in chosen.items())}"]
    if "group" not in chosen:
        chosen["group"] = chosen["image"]
        said.append("no column names patients: every image counts as a patient of its own (--columns group=NAME)")
    if "split" not in chosen:
        said.append("no column names splits: 30% of the patients are drawn for test")
    classes: tuple[str, ...] = ()
    if task == "diagnosis":
        classes = _classes(file, chosen["label"], [value.strip() for value in values[chosen["label"]]])
    else:
        closed = sum(is_yes_no(value) for value in values[chosen["answer"]])
        said.append(f"{closed} of {len(rows)} answers are yes or no")
    options: dict[str, Any] = {"index": file.name, "columns": {ours: theirs for ours, theirs in chosen.items() if ours != theirs}}
    if images is not None and images.resolve() != file.parent.resolve():
        options["image_root"] = str(images.resolve())
    return Seen(task, "table", file.parent, options, classes, said)


def _read(file: Path) -> tuple[list[str], list[list[str]]]:
    """Header and the first rows of a table, as text."""
    source, name = Source(file.stem, "diagnosis", file.parent, (), 0), file.name
    if file.suffix.lower() == ".parquet":
        names: list[str] = []

        def every(schema: Any) -> list[str]:
            names.extend(schema.names)
            return list(schema.names)

        rows = [
            [str(value) if value is not None else "" for value in row.values()]
            for _, row in islice(parquet_rows(file, name, source, every), LOOKED_AT)
        ]
        return names, rows
    if file.suffix.lower() == ".xlsx":
        header, *rows = [row for row in sheet_cells(file, name, source, "save it as CSV").rows if any(row)] or [[]]
        return header, rows[:LOOKED_AT]
    ours = {_plain(name) for names in ALIKE.items() for name in (names[0], *names[1])}
    found = records(file, name, source, lambda header: sum(_plain(one) in ours for one in header))
    header = [one.strip() for one in found.header]
    return header, [[*values, *[""] * len(header)][: len(header)] for _, values in islice(found.rows, LOOKED_AT)]


def _named(header: Sequence[str], names: Sequence[str], taken: set[str]) -> str | None:
    """The column of the first of some names that there is."""
    plain = {_plain(column): column for column in reversed(header) if column not in taken}
    return next((plain[_plain(name)] for name in names if _plain(name) in plain), None)


def _plain(column: str) -> str:
    return "_".join(re.sub(r"([a-z])([A-Z])", r"\1 \2", column).lower().replace("-", " ").replace("_", " ").split())


def _most(header: Sequence[str], share: Callable[[str], float]) -> str | None:
    found = [(share(name), name) for name in header]
    best = max(found, default=(0.0, ""))
    return best[1] if best[0] >= 0.5 and sum(one[0] >= 0.5 for one in found) == 1 else None


def _share_of_files(values: Sequence[str], folder: Path) -> float:
    tried = [value.strip().replace("\\", "/") for value in values[:50] if value.strip()]
    return sum((folder / value).is_file() for value in tried if len(value) < 256) / max(len(tried), 1)


def _classes(file: Path, column: str, labels: Sequence[str]) -> tuple[str, ...]:
    names = sorted({label for label in labels if label})
    if not 2 <= len(names) <= MOST_CLASSES:
        shown = ", ".join(names[:5])
        found = f"column {column!r} has {len(names)} different values ({shown}{', ...' if len(names) > 5 else ''}), which are no classes"
        raise MedbenchError(file, found, "give the column of the diagnosis: --columns label=NAME")
    return ordered(names)


def ordered(classes: Sequence[str]) -> tuple[str, ...]:
    """Of two classes the positive one second."""
    return tuple(
        sorted(classes, key=lambda name: (NEGATIVE.search(name) is None, classes.index(name)) if len(classes) == 2 else (False, 0))
    )


def entry(seen: Seen, modality: str, prompts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The registry entry. Prompts that are not given follow from the names of the classes."""
    found: dict[str, Any] = {
        "task": seen.task, "layout": seen.layout, "modality": modality, "specialty": modality,
        **({"raw_dir": str(seen.raw_dir.resolve())} if seen.raw_dir else {"source": seen.source}),
    }  # fmt: skip
    if seen.options:
        found["options"] = seen.options
    if seen.classes:
        words = {name: re.sub(r"[_-]+", " ", name).strip() or name for name in seen.classes}
        found["classes"] = list(seen.classes)
        found["prompts"] = {"main": {name: list(prompts.get(name) or [f"a photo of {words[name]}"]) for name in seen.classes}}
    return found


def slug(name: str) -> str:
    """A name that paths admit."""
    text = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")
    try:
        return paths.slug(text)
    except ValueError:
        return paths.slug(f"set-{text}".rstrip("-.") if text else "my-set")


def write(folder: Path, files: Mapping[str, Mapping[str, Any]], command: str) -> None:
    """The files of a try. Raises MedbenchError where one is there and says something else: a person may have changed it."""
    texts = {
        name: f"# by `{command}`; change what you like\n{yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True)}"
        for name, value in files.items()
    }
    for name, text in texts.items():
        path = folder / name
        if path.exists() and yaml.safe_load(path.read_text(encoding="utf-8")) != yaml.safe_load(text):
            remedy = (
                f"run it as it is: `snakemake --cores all --configfile {folder / 'run.yaml'}`; or remove the folder, or give another --name"
            )
            raise MedbenchError(path, "is there already and says something else", remedy)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        if not (folder / name).exists():
            (folder / name).write_text(text, encoding="utf-8")


def modalities(config: Config) -> list[str]:
    """Those that any model of the registry knows, or any data set has; the most usual first."""
    counts = Counter(one for model in config.models.values() for one in model.pretrained_on if one != "everyday")
    counts.update(data.modality for data in config.datasets.values() if isinstance(data, Dataset))
    return [name for name, _ in counts.most_common()]
