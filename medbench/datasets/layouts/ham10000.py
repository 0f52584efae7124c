"""Layout `ham10000`: the metadata of HAM10000 (csv, tab, or without an ending) beside the unpacked folders of images.

Label 1: akiec or mel; the published labels count bcc, a carcinoma, as 0. Rows of unknown age or sex are left out, as published; then the
study's split by sex, on lesions.
"""

from collections.abc import Iterator
from pathlib import Path

from medbench.datasets.layouts import Demographics, DiagnosisItem, Excluded, Source, Strict, age_band
from medbench.datasets.reading import Row, csv_rows, first_of, min_k_per_sex, root

METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata")
FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2", "images", ".")
COLUMNS = ("lesion_id", "image_id", "dx", "age", "sex")
POSITIVE = {"nv": 0, "bkl": 0, "bcc": 0, "vasc": 0, "df": 0, "mel": 1, "akiec": 1}


class Options(Strict):
    """None."""


def index_files(options: Options, source: Source) -> list[Path]:
    """The metadata."""
    found = [name for name in METADATA if (source.folder / name).is_file()]
    folder = source.folder if found else root(source, METADATA[0], "HAM10000", "dataverse_files")
    return [first_of(folder, METADATA, source)]


def items(options: Options, source: Source) -> Iterator[DiagnosisItem | Excluded]:
    """One item an image, in the order of the metadata."""
    (index,) = index_files(options, source)
    test = min_k_per_sex({row.values["lesion_id"]: row.values["sex"] for row in csv_rows(index, COLUMNS, source) if not _left_out(row)})
    for row in csv_rows(index, COLUMNS, source):
        place, values = row
        if reason := _left_out(row):
            yield Excluded(reason, place)
            continue
        if values["dx"] not in POSITIVE:
            raise source.error(place, f"dx is {values['dx']!r}", f"it is one of {', '.join(POSITIVE)}")
        lesion, label = values["lesion_id"], source.classes[POSITIVE[values["dx"]]]
        people = Demographics(values["sex"], age_band(values["age"]))
        image = _image(index.parent, values["image_id"], place, source)
        yield DiagnosisItem(values["image_id"], lesion, "test" if lesion in test else "train", image, place, label, people)


def _left_out(row: Row) -> str | None:
    if not row.values["age"] or not row.values["sex"]:
        return "blank age or sex"
    return "sex unknown" if row.values["sex"] == "unknown" else None


def _image(folder: Path, image_id: str, place: str, source: Source) -> Path:
    """In whichever folder it lies; in the first where it lies in none."""
    paths = [source.inside(f"{name}/{image_id}.jpg", place, folder) for name in FOLDERS]
    return next((path for path in paths if path.is_file()), paths[0])
