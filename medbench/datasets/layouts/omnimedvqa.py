"""Layout `omnimedvqa`: the open-access part of OmniMedVQA, a JSON file a source data set in `QA_information/Open-access`, images beside it.

All 42 files are wanted: RadImageNet alone is 64% of the questions, so a set that lacks files is another benchmark. Accuracy by file and
over files is reported beside the plain one.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase

from medbench.datasets.layouts import ChoiceItem, Entry, Excluded, Note, Skill, Source, Strict
from medbench.datasets.reading import Row, field, json_entries, root

FOLDER = "QA_information/Open-access"
PARTS = {
    "ACRIMA": 159, "ALL Challenge": 342, "Adam Challenge": 87, "BioMediTech": 511, "Blood Cell": 1175, "BreakHis": 735,
    "COVIDx CXR-4": 485, "CRC100k": 1322, "Chest CT Scan": 871, "Chest X-Ray PA": 850, "CoronaHack": 684, "Covid CT": 199,
    "Covid-19 tianchi": 96, "Covid19 heywhale": 690, "DRIMDB": 132, "DeepDRiD": 131, "Diabetic Retinopathy": 2051,
    "Fitzpatrick 17k": 1552, "HuSHeM": 89, "ISBI2016": 681, "ISIC2018": 272, "ISIC2019": 1952, "ISIC2020": 1580, "JSIEC": 220,
    "Knee Osteoarthritis": 518, "MAlig Lymph": 149, "MHSMA": 1282, "MIAS": 142, "Monkeypox Skin Image 2022": 163, "Mura": 1464,
    "NLM- Malaria Data": 75, "OCT & X-Ray 2017": 1301, "OLIVES": 593, "PAD-UFES-20": 479, "PALM2019": 510, "Pulmonary Chest MC": 38,
    "Pulmonary Chest Shenzhen": 296, "RUS CHN": 1982, "RadImageNet": 56697, "Retinal OCT-C8": 4016, "SARS-CoV-2 CT-scan": 910,
    "Yangxi": 1515,
}  # fmt: skip
"""File -> questions."""
LETTERS = ascii_uppercase[:4]
UNDERSTANDING, DIAGNOSIS = Skill("understanding", "mapped"), Skill("diagnosis", "mapped")
SKILLS = {
    "modality recognition": UNDERSTANDING, "anatomy identification": UNDERSTANDING, "other biological attributes": UNDERSTANDING,
    "lesion grading": DIAGNOSIS, "disease diagnosis": DIAGNOSIS,
}  # fmt: skip
"""The data's `question_type` -> ours."""


class Options(Strict):
    """`parts`: files without their ending that are wanted, where not all are: the card then says which are missing."""

    parts: tuple[str, ...] = tuple(PARTS)


def index_files(options: Options, source: Source) -> list[Path]:
    """The files of questions. Raises MedbenchError that names those that are missing."""
    folder = root(source, FOLDER, "OmniMedVQA") / FOLDER
    if unknown := [name for name in options.parts if name not in PARTS]:
        raise source.error("option parts", f"{unknown[0]!r} is no part", f"choose from {', '.join(PARTS)}")
    files = [folder / f"{name}.json" for name in PARTS if name in options.parts]
    if missing := [file.stem for file in files if not file.is_file()]:
        found = f"{len(missing)} of {len(files)} files are missing: {', '.join(missing)}"
        raise source.error(FOLDER, found, "put all files there, or name those that are meant in options.parts")
    return files


def items(options: Options, source: Source) -> Iterator[Entry]:
    """One item a question; all are for test. A group is an image, a category a file."""
    files = index_files(options, source)
    if missing := [name for name in PARTS if name not in options.parts]:
        yield Note(f"{len(files)} of {len(PARTS)} files are read; missing: {', '.join(missing)}")
    for file in files:
        n = 0
        for number, entry in enumerate(json_entries(file, source), start=1):
            n += 1
            yield _item(Row(f"{file.name} entry {number}", entry), file.stem, file.parents[2], source)
        if n != PARTS[file.stem]:
            yield Note(f"{file.name} has {n} questions, {PARTS[file.stem]} are published")


def has_train(options: Options, source: Source) -> bool:
    """No question is for training."""
    return False


def _item(row: Row, part: str, folder: Path, source: Source) -> ChoiceItem | Excluded:
    texts = [str(row.values[f"option_{letter}"]) for letter in LETTERS if str(row.values.get(f"option_{letter}") or "").strip()]
    answer, path = str(field(row, "gt_answer", source)), str(field(row, "image_path", source))
    right = [place for place, text in enumerate(texts) if text == answer] or [
        place for place, text in enumerate(texts) if _plain(text) == _plain(answer)
    ]
    if len(texts) < 2 or not right:
        return Excluded("the answer is none of the options", row.place)
    image, skill = source.inside(path, row.place, folder), SKILLS.get(str(field(row, "question_type", source)).lower(), Skill())
    name, question = f"{part}/{field(row, 'question_id', source)}", str(field(row, "question", source))
    return ChoiceItem(name, path, "test", (image,), row.place, question, tuple(texts), LETTERS[right[0]], skill, part)


def _plain(text: str) -> str:
    """Answers differ from their option in case and marks: "X-ray", "x_ray."."""
    return " ".join(re.split(r"[\W_]+", text.lower())).strip()
