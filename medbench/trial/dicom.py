"""DICOM files: labels by class folders, or by an attribute; patients by their own attribute."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from medbench.datasets import dicom_headers
from medbench.datasets.layouts import SPLIT_WORDS, folded_label
from medbench.errors import MedbenchError
from medbench.trial import class_folders
from medbench.trial.seen import MOST_CLASSES, Ask, Seen, labels_of, looks_missing, ordered

TRACKED = False  # what is proposed here reaches jobs as registry entries


def look(place: Path, folders: list[Path], given: Mapping[str, str]) -> Seen:
    """Labels by class folders, or by an attribute that is named; patients by their own attribute.

    Raises MedbenchError for an attribute that tells no classes apart, Ask where none is named and there are no class folders.
    """
    chosen, by_folder = given.get("label"), None
    if chosen is None:
        with contextlib.suppress(MedbenchError):
            by_folder = class_folders.look(place, folders)
    labels = [chosen] if chosen else [*dicom_headers.ATTRIBUTES]
    group = given.get("group", "PatientID")
    found = [*dicom_headers.headers(place, [*dict.fromkeys((group, "Modality", *labels))])]
    if by_folder is not None and _are_patients(found, group, by_folder):
        by_folder = None
    if chosen is None and by_folder is None:
        counts = {name: len({folded_label(one.values.get(name, "")) for one in found}) for name in labels}
        telling = [f"{name} ({count} values)" for name, count in counts.items() if 2 <= count <= MOST_CLASSES]
        says = f"attributes that differ: {', '.join(telling)}" if telling else "no attribute tells them apart"
        files = f"the {len(found)} DICOM files in {place}, which lie in no class folders"
        raise Ask("label", f"what are the labels of {files}? {says[0].upper()}{says[1:]}; or put a table of image and label beside them")
    rows = [_dicom_row(one, group, chosen, by_folder) for one in found]
    _, names = labels_of(row[1] for row in rows)
    if not 2 <= len(names) <= MOST_CLASSES:
        raise MedbenchError(
            place,
            f"{chosen or 'the class folder'} has {len(names)} different values ({', '.join(names[:5])})",
            "name another attribute: --columns label=NAME",
        )
    kinds = {one.values.get("Modality", "") for one in found}
    modality = {dicom_headers.MODALITIES.get(kind) for kind in kinds}
    unnamed = sum(not one.values.get(group) for one in found)
    said = [
        f"{len(found)} DICOM files ({', '.join(sorted(kinds - {''})) or 'no Modality'})",
        f"label is {chosen or 'the class folder'}, group is {group}",
        *([f"{unnamed} of them have no {group}: each counts as a patient of its own"] if unnamed else []),
        *([] if all(row[3] for row in rows) else ["no folder names splits: 30% of the patients are drawn for test"]),
        *looks_missing(names),
    ]
    columns = 4 if all(row[3] for row in rows) else 3
    rows = [row[:columns] for row in (("image", "label", "group", "split"), *rows)]
    options = {"image_root": str(place.resolve())}
    return Seen(
        "diagnosis", "table", None, options, ordered(names), said, None, rows, modality.pop() if len(modality) == 1 else None, n=len(found)
    )


def _are_patients(found: list[dicom_headers.Header], group: str, by_folder: Seen) -> bool:
    """Whether each folder holds the files of one patient, and no two of the same."""
    pairs = {(row[1], row[2]) for row in (_dicom_row(one, group, None, by_folder) for one in found)}
    return len(pairs) == len({label for label, _ in pairs}) == len({patient for _, patient in pairs}) and len(pairs) < len(found)


def _dicom_row(one: dicom_headers.Header, group: str, chosen: str | None, by_folder: Seen | None) -> tuple[str, ...]:
    """image, label, group, split; of class folders the split is that of the folder above, or empty."""
    parts = one.path.split("/")
    if chosen or by_folder is None:
        return one.path, one.values.get(chosen or "", ""), one.values.get(group) or one.path, ""
    split = parts[0] if parts[0] not in by_folder.classes and parts[0].strip().lower() in SPLIT_WORDS else ""
    return one.path, parts[1 if split else 0], one.values.get(group) or one.path, split
