"""Layout `papila`: PAPILA as figshare has it, clinical data of right (od) and left (os) eyes as spreadsheets beside `FundusImages`.

The spreadsheets have a header of three rows: groups of columns, the columns' own names, and `ID`. Eyes of diagnosis 2 (suspect) are left
out, as published; the split is by sex, on patients. A diagnosis is an eye's, and the two eyes of a patient may differ.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from medbench.datasets.layouts import Demographics, DiagnosisItem, Excluded, Source, Strict, age_band
from medbench.datasets.reading import check_columns, min_k_per_sex, root, sheet_cells

OFFICIAL = "PapilaDB-PAPILA-17f8fa7746adb20275b5b6a0d99dc9dfe3007e9f"
FILES = {"ClinicalData/patient_data_od.xlsx": "OD", "ClinicalData/patient_data_os.xlsx": "OS"}
COLUMNS = ("Age", "Gender", "Diagnosis")
SEXES = {"0": "male", "1": "female"}
HEADER_ROWS = 3
SUSPECT = "2"


class Options(Strict):
    """None."""


class Eye(NamedTuple):
    """One row of a spreadsheet, cells as text."""

    place: str
    patient: str
    side: str
    age: str
    sex: str
    diagnosis: str


def index_files(options: Options, source: Source) -> list[Path]:
    """Both spreadsheets."""
    folder = root(source, next(iter(FILES)), OFFICIAL)
    return [folder / name for name in FILES]


def items(options: Options, source: Source) -> Iterator[DiagnosisItem | Excluded]:
    """One item an eye: right ones first."""
    paths = index_files(options, source)
    eyes = [eye for path, (name, side) in zip(paths, FILES.items(), strict=True) for eye in _eyes(path, name, side, source)]
    test = min_k_per_sex({eye.patient: eye.sex for eye in eyes if eye.diagnosis in ("0", "1")})
    for eye in eyes:
        if eye.diagnosis not in ("0", "1"):
            yield Excluded("suspect" if eye.diagnosis == SUSPECT else "blank diagnosis", eye.place)
            continue
        name = f"RET{eye.patient}{eye.side}"
        image = paths[0].parents[1] / "FundusImages" / f"{name}.jpg"
        people = Demographics(SEXES[eye.sex], age_band(eye.age))
        split, label = "test" if eye.patient in test else "train", source.classes[int(eye.diagnosis)]
        yield DiagnosisItem(name, eye.patient, split, image, eye.place, label, people)


def _eyes(path: Path, name: str, side: str, source: Source) -> Iterator[Eye]:
    rows = sheet_cells(path, name, source, "take the official file").rows
    if len(rows) <= HEADER_ROWS or rows[2][0] != "ID":
        raise source.error(name, "has not the official header of three rows, the third with ID", "take the official file")
    header = rows[1]
    check_columns([column for column in header if column], COLUMNS, name, source, "take the official file")
    places = {column: header.index(column) for column in COLUMNS}
    for number, row in enumerate(rows[HEADER_ROWS:], start=HEADER_ROWS + 1):
        if not any(row):
            continue
        match, sex = re.fullmatch(r"#?(\d+)", row[0]), row[places["Gender"]]
        diagnosis = row[places["Diagnosis"]]
        if match is None or sex not in SEXES or diagnosis not in ("0", "1", SUSPECT, ""):
            found = f"ID {row[0]!r}, Gender {sex!r}, Diagnosis {diagnosis!r}"
            raise source.error(f"{name} row {number}", found, "ID is #number, Gender 0 or 1, Diagnosis 0, 1 or 2")
        yield Eye(f"{name} row {number}", f"{int(match[1]):03d}", side, row[places["Age"]], sex, diagnosis)
