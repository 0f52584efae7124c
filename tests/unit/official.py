"""Small raw folders with exactly the layouts of the official files (DATASETS.md), edge cases included. Holds no test."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
from PIL import Image

from tests.unit.test_data_helpers import picture, shard

FINDINGS = [
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
]
CHEXPERT = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", *FINDINGS]
HAM = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset"]
SUMMARY = ["filename", "age", "gender", "race", "ethnicity", "language", "maritalstatus", "glaucoma", "use"]
PAPILA = [
    "Age",
    "Gender",
    "Diagnosis",
    "dioptre_1",
    "dioptre_2",
    "astigmatism",
    "Phakic/Pseudophakic",
    "Pneumatic",
    "Perkins",
    "Pachymetry",
    "Axial_Length",
    "VF_MD",
]
OFFICIAL_PAPILA = "PapilaDB-PAPILA-17f8fa7746adb20275b5b6a0d99dc9dfe3007e9f"


def write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], tabs: bool = False) -> None:
    """A CSV, or a table of tabs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter="\t" if tabs else ",").writerows([header, *rows])


def image(path: Path, seed: int, mode: str = "RGB") -> None:
    """An image file of the ending's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(seed, mode, "PNG" if path.suffix == ".png" else "JPEG"))


def chexpert(folder: Path) -> Path:
    """Patients with two studies, with frontal and lateral, all four states of the label, one in valid; one image is missing."""
    root = folder / "CheXpert-v1.0-small"
    views = [
        ("train", 1, 1, "view1_frontal", "Female", 68, "Frontal", "AP", "1.0"),
        ("train", 1, 2, "view1_frontal", "Female", 69, "Frontal", "PA", ""),
        ("train", 2, 1, "view1_frontal", "Male", 0, "Frontal", "LL", "0.0"),
        ("train", 2, 1, "view2_lateral", "Male", 0, "Lateral", "", "-1.0"),
        ("train", 3, 1, "view1_frontal", "Unknown", 90, "Frontal", "RL", "1.0"),
        ("train", 5, 1, "view1_frontal", "Male", 41, "Frontal", "AP", ""),  # its image is missing
        ("valid", 4, 1, "view1_frontal", "Male", 50, "Frontal", "AP", "1.0"),
        ("valid", 4, 1, "view2_lateral", "Male", 50, "Lateral", "", "0.0"),
    ]
    rows: dict[str, list[list[Any]]] = {"train": [], "valid": []}
    for seed, (split, patient, study, view, *values) in enumerate(views):
        path = f"CheXpert-v1.0-small/{split}/patient{patient:05d}/study{study}/{view}.jpg"
        rows[split].append([path, *values, *[""] * len(FINDINGS)])
        if patient != 5:
            image(folder / path, seed, "L")
    for split in rows:
        write(root / f"{split}.csv", CHEXPERT, rows[split])
    return folder


def camelyon17(folder: Path, per_center: int = 8) -> Path:
    """Five centers, RGBA patches of both labels, a column without a name, patients with leading zeros, one patch missing."""
    rows = []
    for number in range(5 * per_center):
        center, tumor, patient = number // per_center, number % 2, f"{number // per_center:03d}"
        slide, x, y = center * 10 + number % 4 // 2, 3328 + 96 * number, 21792
        rows.append([number, x, y, tumor, patient, number % 4 // 2, slide, center, int(number % 8 == 7)])
        name = f"patient_{patient}_node_{number % 4 // 2}"
        if number:
            image(folder / f"camelyon17_v1.0/patches/{name}/patch_{name}_x_{x}_y_{y}.png", number, "RGBA")
    write(folder / "camelyon17_v1.0/metadata.csv", ["", "x_coord", "y_coord", "tumor", "patient", "node", "slide", "center", "split"], rows)
    return folder


def ham10000(folder: Path, ending: str = ".csv") -> Path:
    """Twelve lesions of both sexes and all seven diagnoses, one of three images, a blank age, an unknown sex, one image missing."""
    kinds = ("nv", "mel", "bkl", "bcc", "akiec", "vasc", "df")
    rows, number = [], 0
    for lesion in range(12):
        for _ in range(3 if lesion == 4 else 1):
            sex = "male" if lesion % 2 else "female"
            name = f"ISIC_{number:07d}"
            rows.append([f"HAM_{lesion:07d}", name, kinds[lesion % 7], "histo", f"{30.0 + lesion}", sex, "back", "vidir_modern"])
            if number != 1:
                image(folder / f"HAM10000_images_part_{1 + number % 2}/{name}.jpg", number)
            number += 1
    rows += [["HAM_0000098", "ISIC_0000098", "nv", "histo", "", "male", "back", "rosendahl"]]
    rows += [["HAM_0000099", "ISIC_0000099", "nv", "histo", "50.0", "unknown", "unknown", "rosendahl"]]
    write(folder / f"HAM10000_metadata{ending}", HAM, rows, tabs=ending == ".tab")
    return folder


def papila(folder: Path) -> Path:
    """Twelve patients with gaps in their numbers, eyes that disagree, a suspect eye, blank cells, a missing image."""
    root = folder / OFFICIAL_PAPILA
    for side, name in (("OD", "od"), ("OS", "os")):
        sheet = (book := openpyxl.Workbook()).active
        assert sheet is not None
        sheet.append(["", "Patient", "", "", "Refractive error"])
        sheet.append([None, *PAPILA])
        sheet.append(["ID", *[None] * len(PAPILA)])
        for patient in range(12):
            number = 2 + 3 * patient
            diagnosis = 2 if (patient, side) == (3, "OD") else int(patient % 3 == 1 and (side == "OD" or patient != 4))
            sheet.append([f"#{number:03d}", 47 + patient, patient % 2, diagnosis, 0.75, None, 90, 0, None, 17, 540, 23.5, None])
            if (patient, side) != (5, "OS"):
                image(root / f"FundusImages/RET{number:03d}{side}.jpg", 2 * patient + (side == "OS"))
        (root / "ClinicalData").mkdir(parents=True, exist_ok=True)
        book.save(root / f"ClinicalData/patient_data_{name}.xlsx")
    return folder


def harvard(folder: Path, digits: int, below: str = "", summary: str = "data_summary.csv", **arrays: Any) -> Path:
    """Twelve subjects over all three values of `use`; `arrays`: name -> function of the subject's number."""
    uses = ("training", "validation", "test")
    rows = []
    extra = ["note", "gpt4_summary"] if "slo_fundus" in arrays else []
    for number in range(1, 13):
        name = f"data_{number:0{digits}d}.npz"
        use, language = uses[number % 3], "unknown" if number == 2 else "english"
        values = [
            name,
            "-1" if number == 3 else f"{40 + number}.5",
            ("Male", "Female")[number % 2],
            "white",
            "non-hispanic",
            language,
            "single",
        ]
        notes = ["Seen twice,\nno pain, IOP 18", 'a "quoted" summary'] if extra else []
        rows.append([*values, *notes, ("no", "yes")[number % 2 if number < 7 else number % 3 == 0], use])
        path = folder / below / use.capitalize() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if number != 12:
            words = np.array(["text that is pickled"], dtype=object)
            np.savez(path, note=words, md=np.float64(-1.5), **{key: of(number) for key, of in arrays.items()})
    write(folder / summary, [*SUMMARY[:7], *extra, *SUMMARY[7:]], rows)
    return folder


def gf3300(folder: Path) -> Path:
    """Thickness maps with values below -2 and above 350, under `dataset-001`; one file is missing."""

    def rnflt(number: int) -> Any:
        values = np.random.default_rng(number).uniform(0, 200, (200, 200))
        values[0, :3] = (-5.0, 360.0, 350.0)
        return values

    return harvard(folder, 4, "dataset-001", rnflt=rnflt)


def slo(number: int) -> Any:
    """The photograph of one subject."""
    return np.random.default_rng(number).integers(0, 256, (66, 51), dtype=np.uint8)


def fairvlmed(folder: Path, summary: str = "ReadMe/data_summary.csv") -> Path:
    """npz and jpg of each subject, notes of several lines with commas, unknown attributes; the last subject has a jpg alone."""
    harvard(folder, 5, summary=summary, slo_fundus=slo)
    image(folder / "Training/slo_fundus_00012.jpg", 12, "L")
    return folder


def fairvlmed_vqa(folder: Path) -> Path:
    """A table for each split about the subjects of `fairvlmed`, an open and a closed question each, one row with a blank."""
    fairvlmed(folder)
    header = ["gpt_summary", "filename", "image_path", "question type", "question", "answer"]
    for name, use, numbers in (("train", "Training", (3, 6, 9)), ("validation", "Validation", (1, 4)), ("test", "Test", (2, 5, 8))):
        rows = []
        for number in numbers:
            file = f"data_{number:05d}.npz"
            rows.append(["a summary, long", file, f"./{use}/{file}", "OPEN", "What does the disc show?", "cupping"])
            rows.append(["a summary, long", file, f"./{use}/{file}", "CLOSED", "Is there glaucoma?", "" if number == 8 else "Yes"])
        write(folder / f"vqa_{name}.csv", header, rows)
    return folder


def slake(folder: Path) -> Path:
    """English and Chinese about one image in different splits, a closed question without yes or no, an empty answer, a missing image."""
    number = 0

    def entry(where: int, question: str, answer: str, kind: str, language: str = "en", base: str = "vqa") -> dict[str, Any]:
        nonlocal number
        number += 1
        return {
            "img_id": where, "img_name": f"xmlab{where}/source.jpg", "question": question, "answer": answer, "q_lang": language,
            "location": "Lung", "modality": "CT", "answer_type": kind, "base_type": base, "content_type": "Modality",
            "triple": ["vhead", "_", "_"], "qid": number,
        }  # fmt: skip

    splits: Mapping[str, list[dict[str, Any]]] = {
        "train": [
            entry(0, "What modality is used?", "MRI", "OPEN"),
            entry(0, "Which side is abnormal, left or right?", "Left", "CLOSED"),
            entry(1, "Is this a CT?", "Yes", "CLOSED"),
            entry(1, "What is it for?", "", "OPEN", base="kvqa"),
            entry(2, "这是什么?", "肺", "OPEN", "zh"),
            entry(5, "What organ is this?", "Lung", "OPEN"),
        ],
        "validation": [entry(3, "Does it show the heart?", "No", "CLOSED")],
        "test": [
            entry(2, "Is this the lung?", "Yes", "CLOSED"),
            entry(4, "What organ?", "Liver", "OPEN"),
            entry(0, "正常吗?", "是", "CLOSED", "zh"),
        ],
    }
    for name, entries in splits.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    for where in range(5):
        image(folder / f"imgs/xmlab{where}/source.jpg", where, "L" if where == 1 else "RGB")
    return folder


def pathvqa(folder: Path) -> Path:
    """Several shards, images repeated over rows, in all the modes that occur, answers as people write them."""
    modes = ("CMYK", "L", "RGB")
    for split, shards in (("train", 2), ("validation", 1), ("test", 3)):
        for part in range(shards):
            path = folder / f"data/{split}-{part:05d}-of-{shards:05d}-0f1e2d3c.parquet"
            first = 10 * part + {"train": 0, "validation": 100, "test": 200}[split]
            kept = [(first + n // 2, None, "is it benign?", ("Yes", "yes ", "No", "a tumour")[n % 4]) for n in range(4)]
            shard(path, kept, mode=modes[part % 3])
    return folder


def medmnist(folder: Path, flag: str = "pneumoniamnist", size: int = 28, channels: int = 1) -> Path:
    """Splits of 12, 4 and 6 images."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 12), ("val", 4), ("test", 6)):
        shape = (n, size, size, 3) if channels == 3 else (n, size, size)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
    np.savez_compressed(folder / (f"{flag}.npz" if size == 28 else f"{flag}_{size}.npz"), **arrays)
    return folder


def decoded(data: bytes) -> Image.Image:
    """An image of a table."""
    return Image.open(io.BytesIO(data))
