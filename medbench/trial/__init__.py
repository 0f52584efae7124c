"""One's own images as a data set and a run: what a file or folder seems to be, written as two files that a person can keep and change.

Nothing is guessed where a guess could turn the result: which classes there are and which columns mean what is shown before anything runs,
and what cannot be told is asked for by name.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from medbench.datasets import dicom_headers
from medbench.datasets.layouts import hub_vqa, table
from medbench.datasets.reading import OBJECTS, parquet_size
from medbench.errors import MedbenchError
from medbench.trial import class_folders, dicom, image_table
from medbench.trial.names import ALIKE
from medbench.trial.proposal import FOLDER, MANY, MODELS, MODES, SAMPLE, entry, modalities, said_of_prompts, slug, write
from medbench.trial.seen import OVERLAP, OWN_PATIENTS, Ask, Seen, ordered

TRACKED = False  # what is proposed here reaches jobs as registry entries

__all__ = [
    "ALIKE", "FOLDER", "HUB", "MANY", "MODELS", "MODES", "OWN_PATIENTS", "SAMPLE", "Ask", "Seen", "entry", "look", "modalities", "ordered",
    "said_of_prompts", "slug", "write",
]  # fmt: skip

HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
USUAL = ("labels", "metadata", "index", "data", "annotations")
"""Names of the table that a folder of images is about."""


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
            seen = image_table.look(chosen, images, columns, sheet)
            note = f"read from {chosen.name}; give {' or '.join(others)} by name to read that instead" if others else ""
            return seen._replace(said=[*seen.said, note]) if note else seen
        if dicom_headers.holds(place):
            return dicom.look(place, folders, columns)
        return class_folders.look(place, folders)
    if not place.is_file():
        raise MedbenchError(place, "is neither a file nor a folder", "give a table of images, or a folder with a folder for each class")
    if place.suffix.lower() in ARCHIVES:
        raise MedbenchError(place, f"is an archive ({place.suffix})", "unpack it, and give the folder or the table in it")
    if place.suffix.lower() not in (known := (*table.TABLES, *OBJECTS)):
        raise MedbenchError(place, f"is no table ({place.suffix or 'no suffix'})", f"give one of {', '.join(known)}, or a folder")
    return image_table.look(place, images, columns, sheet)


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
