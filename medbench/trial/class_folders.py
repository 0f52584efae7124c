"""A folder with a folder for each class."""

import re
from collections.abc import Sequence
from pathlib import Path

from medbench.datasets.layouts import SPLIT_WORDS, folded, imagefolder
from medbench.errors import MedbenchError
from medbench.trial.seen import MOST_CLASSES, OVERLAP, OWN_PATIENTS, Seen, ordered

TRACKED = False  # what is proposed here reaches jobs as registry entries


def look(place: Path, folders: list[Path]) -> Seen:
    """Classes, or splits with classes in them. Raises MedbenchError for folders that are no classes, or hold no files."""
    splits = [folder for folder in folders if folder.name.strip().lower() in SPLIT_WORDS]
    inside = sorted({one.name for split in splits for one in split.iterdir() if one.is_dir()}) if splits else [one.name for one in folders]
    classes = [name for name in inside if not name.startswith(".") and name.lower() not in imagefolder.LITTER]
    if len(classes) < 2:
        found = f"holds {len(classes)} class folder{'' if len(classes) == 1 else 's'} and no table"
        raise MedbenchError(place, found, "put the images of each class into a folder of its name, or a table labels.csv beside them")
    if len(classes) > MOST_CLASSES and len({re.sub(r"\d+", "", name) for name in classes}) == 1:
        found = f"holds {len(classes)} folders whose names differ in numbers alone ({', '.join(classes[:3])}, ...), as those of patients do"
        raise MedbenchError(place, found, "put a table labels.csv of image, label and patient beside them, or one folder for each class")
    _require_classes(place, classes, bool(splits))
    counts = {name: sum(len(imagefolder.class_files(root / name)) for root in splits or [place]) for name in classes}
    if empty := [name for name, count in counts.items() if not count]:
        raise MedbenchError(place, f"class folder {empty[0]!r} holds no file", "put its images there, or remove it")
    said = [f"folders: {', '.join(classes)}", OWN_PATIENTS]
    if not splits:
        said.append("no folder names splits: 30% of the patients are drawn for test")
    said += [OVERLAP] if splits else []
    return Seen("diagnosis", "imagefolder", place, {}, ordered(classes), said, n=sum(counts.values()), names_splits=bool(splits))


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
