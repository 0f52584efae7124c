"""What the DICOM files of a folder say of themselves, pixels apart: patient, kind of image, and what else a label may be taken from."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from medbench.errors import MedbenchError
from medbench.jobs import tree

TRACKED = False  # what is read here reaches jobs as a table

MARK, PLACE = b"DICM", 128
PROBED = 20
"""Files that are looked at to tell what a folder holds."""
ATTRIBUTES = ("BodyPartExamined", "ViewPosition", "Laterality", "ImageLaterality", "PatientSex", "StudyDescription", "SeriesDescription")
"""Attributes that may tell classes apart."""
MODALITIES = {
    "CR": "x-ray", "DX": "x-ray", "RG": "x-ray", "CT": "ct", "MR": "mri", "US": "ultrasound", "MG": "mammography", "OP": "fundus",
    "OPT": "oct", "SM": "histopathology",
}  # fmt: skip
"""Attribute Modality -> our word."""


class Header(NamedTuple):
    """Of one file: its path below the folder, and the attributes that were asked for, as text (empty: absent)."""

    path: str
    values: dict[str, str]


def files(folder: Path) -> Iterator[Path]:
    """Every file below a folder in the order of the paths, but hidden ones and the index of a disc (DICOMDIR)."""
    for path in tree.files_below(folder, tree.is_hidden):
        if path.is_file() and path.name.upper() != "DICOMDIR":
            yield path


def is_dicom(path: Path) -> bool:
    """By its first bytes: such files often have no ending."""
    try:
        with path.open("rb") as stream:
            return stream.read(PLACE + len(MARK))[PLACE:] == MARK
    except OSError:
        return False


def holds(folder: Path) -> bool:
    """Whether most of its first files are DICOM."""
    first = [is_dicom(path) for path, _ in zip(files(folder), range(PROBED), strict=False)]
    return sum(first) * 2 > len(first)


def headers(folder: Path, attributes: Sequence[str]) -> Iterator[Header]:
    """Of every DICOM file below a folder; others are passed over.

    Raises MedbenchError where pydicom is missing, or does not know an attribute.
    """
    try:
        from pydicom import dcmread
        from pydicom.datadict import tag_for_keyword
        from pydicom.errors import InvalidDicomError
    except ImportError:
        raise MedbenchError(folder, "holds DICOM files, which need pydicom", "run `pip install -e '.[dicom]'` in the clone") from None
    if unknown := [name for name in attributes if tag_for_keyword(name) is None]:
        raise MedbenchError(folder, f"{unknown[0]!r} is no attribute of DICOM", "give its keyword, such as BodyPartExamined")
    for path in files(folder):
        if is_dicom(path):
            try:
                found = dcmread(path, stop_before_pixels=True, specific_tags=list(attributes))
            except (InvalidDicomError, OSError, ValueError, EOFError, AttributeError, KeyError, NotImplementedError):
                yield Header(path.relative_to(folder).as_posix(), {})  # `prepare` says what is wrong with it
                continue
            yield Header(path.relative_to(folder).as_posix(), {name: str(found.get(name) or "").strip() for name in attributes})
