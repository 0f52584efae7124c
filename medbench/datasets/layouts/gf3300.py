"""Layout `gf3300`: Harvard-GF3300, `data_summary.csv` and `{Training,Validation,Test}/data_NNNN.npz`.

An image is a map of the thickness of the nerve fibre layer, no photograph: (rnflt + 2) / 352 as grey, clipped. The official `use` names the
folder only; the study splits anew, by sex.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medbench.datasets.layouts import Demographics, DiagnosisItem, Embedded, Source, Strict, age_band, known
from medbench.datasets.reading import checked, csv_rows, min_k_per_sex, npz_array, png, root

COLUMNS = ("filename", "age", "gender", "race", "ethnicity", "language", "glaucoma", "use")
FOLDERS = {"training": "Training", "validation": "Validation", "test": "Test"}
LABELS = {"no": 0, "yes": 1}
LOW, RANGE = -2.0, 352.0  # micrometres


class Options(Strict):
    """None."""


def index_files(options: Options, source: Source) -> list[Path]:
    """The summary."""
    return [root(source, "data_summary.csv", "ReadMe", "dataset-001") / "data_summary.csv"]


def items(options: Options, source: Source) -> Iterator[DiagnosisItem]:
    """One item a subject."""
    (index,) = index_files(options, source)
    test = min_k_per_sex({row.values["filename"]: row.values["gender"].strip().lower() for row in csv_rows(index, COLUMNS, source)})
    for place, row in csv_rows(index, COLUMNS, source):
        name, split = row["filename"], "test" if row["filename"] in test else "train"
        label = source.classes[checked(LABELS, row["glaucoma"], "glaucoma", place, source)]
        image = _image(subject(row, place, source), place, source)
        yield DiagnosisItem(Path(name).stem, Path(name).stem, split, image, place, label, demographics(row))


def subject(row: dict[str, str], place: str, source: Source, ending: str = ".npz") -> Path:
    """A subject's file, below `dataset-001` where that is there."""
    folder = checked(FOLDERS, row["use"], "use", place, source)
    if not Path(row["filename"]).name:
        raise source.error(place, f"filename is {row['filename']!r}", "take the official file")
    name = Path(row["filename"]).with_suffix(ending).name
    paths = [source.inside(f"{above}{folder}/{name}", place) for above in ("", "dataset-001/")]
    return next((path for path in paths if path.is_file()), paths[0])


def demographics(row: dict[str, str]) -> Demographics:
    """Of one row of a summary."""
    return Demographics(*(known(row["gender"]), age_band(row["age"]), *(known(row[name]) for name in ("race", "ethnicity", "language"))))


def _image(path: Path, place: str, source: Source) -> Path | Embedded:
    """The map as grey; the path of a file that is absent, which then counts as a missing image."""
    if not path.is_file():
        return path
    values = npz_array(path, "rnflt", place, source).astype(np.float64)
    if values.ndim != 2:
        raise source.error(place, f"rnflt has the shape {values.shape}", "take the official file")
    return png(np.rint(np.clip((values - LOW) / RANGE, 0, 1) * 255))
