"""Layout `fairvlmed`: FairVLMed10k for diagnosis, `data_summary.csv` (at the root or under `ReadMe`) and `{Training,Validation,Test}/`.

An image is `slo_fundus` of `data_NNNNN.npz`, else `slo_fundus_NNNNN.jpg` beside it: as in the questions about these subjects, so that the
overlap sees that they are the same. The study splits anew, by sex, whatever the official folder.
"""

from collections.abc import Iterator
from pathlib import Path

from medbench.datasets.layouts import DiagnosisItem, Embedded, Source, Strict
from medbench.datasets.layouts.gf3300 import COLUMNS, LABELS, demographics, subject
from medbench.datasets.reading import checked, csv_rows, min_k_per_sex, npz_array, png, root


class Options(Strict):
    """None."""


def index_files(options: Options, source: Source) -> list[Path]:
    """The summary."""
    return [root(source, "data_summary.csv", "ReadMe") / "data_summary.csv"]


def items(options: Options, source: Source) -> Iterator[DiagnosisItem]:
    """One item a subject."""
    (index,) = index_files(options, source)
    test = min_k_per_sex({row.values["filename"]: row.values["gender"].strip().lower() for row in csv_rows(index, COLUMNS, source)})
    for place, row in csv_rows(index, COLUMNS, source):
        name, split = Path(row["filename"]).stem, "test" if row["filename"] in test else "train"
        label = source.classes[checked(LABELS, row["glaucoma"], "glaucoma", place, source)]
        image = fundus(subject(row, place, source), place, source)
        yield DiagnosisItem(name, name, split, image, place, label, demographics(row))


def fundus(path: Path, place: str, source: Source) -> Path | Embedded:
    """The photograph of one subject; the path of a file that is absent, which then counts as a missing image."""
    if path.is_file():
        return png(npz_array(path, "slo_fundus", place, source))
    return path.with_name(f"slo_fundus_{path.stem.rpartition('_')[2]}.jpg")
