"""Layout `chexpert`: CheXpert-v1.0-small as it is downloaded, `{train,valid}.csv` beside the folders of images.

Label: No Finding, so that the positive class is the normal one; -1 and blank count as 0. Test is the official valid.csv, a group a patient.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from medbench.datasets.layouts import Demographics, DiagnosisItem, Source, Strict, age_band, known
from medbench.datasets.reading import csv_rows, root

FILES = {"train.csv": "train", "valid.csv": "test"}
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding")
PATIENT = re.compile(r"(?:[^/]+/)?((?:train|valid)/(patient\d+)/study\d+/view\d+_(?:frontal|lateral)\.jpg)")
NORMAL = {"1.0": 1, "0.0": 0, "-1.0": 0, "": 0}


class Options(Strict):
    """None."""


def index_files(options: Options, source: Source) -> list[Path]:
    """Both tables."""
    return [_root(source) / name for name in FILES]


def items(options: Options, source: Source) -> Iterator[DiagnosisItem]:
    """One item a view."""
    folder = _root(source)
    for name, split in FILES.items():
        for place, row in csv_rows(folder / name, COLUMNS, source):
            match = PATIENT.fullmatch(row["Path"])
            if match is None:
                raise source.error(place, f"Path {row['Path']!r} names no view of a patient", "take the official file")
            if row["No Finding"] not in NORMAL:
                raise source.error(place, f"No Finding is {row['No Finding']!r}", f"it is one of {', '.join(NORMAL)} or blank")
            label = source.classes[NORMAL[row["No Finding"]]]
            people = Demographics(known(row["Sex"]), age_band(row["Age"]))
            yield DiagnosisItem(match[1], match[2], split, folder / match[1], place, label, people)


def _root(source: Source) -> Path:
    folder = root(source, "train.csv", "CheXpert-v1.0-small")
    if not (folder / "valid.csv").is_file():
        raise source.error("valid.csv", f"does not exist in {folder}", "put the official files there, unpacked")
    return folder
