"""Report-like captions of the phantoms for pretraining, and the class prompts of their diagnosis tasks."""

from typing import NamedTuple

import numpy as np


class Wording(NamedTuple):
    """How one modality is written about."""

    views: tuple[str, ...]
    absent: tuple[str, ...]
    present: tuple[str, ...]


WORDINGS: dict[str, Wording] = {
    "radiology": Wording(
        ("chest radiograph", "frontal chest radiograph", "chest x-ray"),
        ("clear lungs", "clear lungs, no nodules", "clear lungs behind a faint haze", "clear hazy lungs"),
        ("lung nodules", "many round lung nodules", "lung nodules, metastases", "multiple lung nodules"),
    ),
    "pathology": Wording(
        ("h&e section", "tissue micrograph", "biopsy"),
        ("benign lymphocytes", "small round lymphocytes", "an aggregate of lymphocytes", "lymphocytes, inflammation"),
        ("a tumor", "a malignant tumor", "a tumor nest of large irregular nuclei", "tumor cells, carcinoma"),
    ),
    "dermatology": Wording(
        ("dermatoscopic image", "dermoscopy of the skin", "close-up of a skin lesion"),
        ("a benign naevus", "a smooth benign naevus, no melanoma", "a regular mole"),
        ("a melanoma", "an atypical pigment network, melanoma", "a ragged melanoma"),
    ),
    "ophthalmology": Wording(
        ("fundus photograph", "retinal photograph", "colour fundus image"),
        ("no retinopathy", "a healthy retina", "benign mottling, no retinopathy"),
        ("diabetic retinopathy", "haemorrhages and hard exudates", "retinopathy with dot haemorrhages"),
    ),
}

PROMPTS: dict[str, tuple[list[str], list[str]]] = {
    "radiology": (
        [
            "chest radiograph with clear lungs",
            "chest x-ray, clear hazy lungs",
            "chest x-ray showing clear lungs, no nodules",
        ],
        [
            "chest radiograph with lung nodules",
            "chest x-ray, multiple lung nodules",
            "chest x-ray showing lung metastases",
        ],
    ),
    "pathology": (
        [
            "h&e section with benign lymphocytes",
            "biopsy, an aggregate of lymphocytes",
            "tissue micrograph showing inflammation",
        ],
        [
            "h&e section with a malignant tumor",
            "biopsy, a tumor of large nuclei",
            "tissue micrograph showing carcinoma",
        ],
    ),
    "dermatology": (
        ["dermatoscopic image of a benign naevus", "dermoscopy of a regular mole", "skin lesion, no melanoma"],
        [
            "dermatoscopic image of a melanoma",
            "dermoscopy of a ragged melanoma",
            "skin lesion, atypical pigment network",
        ],
    ),
    "ophthalmology": (
        [
            "fundus photograph with no retinopathy",
            "retinal photograph of a healthy retina",
            "colour fundus image, benign mottling",
        ],
        [
            "fundus photograph with diabetic retinopathy",
            "retinal photograph with haemorrhages",
            "colour fundus image, hard exudates",
        ],
    ),
}
"""Per kind the class prompts (absent, present); the first of each is the prompt set `main`."""


def captions(kind: str, label: int, rng: np.random.Generator) -> str:
    """One English caption of an image of that kind and label, as a report's author would word it."""
    wording = WORDINGS[kind]
    view = rng.choice(wording.views)
    finding = rng.choice(wording.present if label else wording.absent)
    pattern = rng.choice(("{view} with {finding}", "{view}, {finding}", "{view} showing {finding}", "{finding} on {view}"))
    return str(pattern).format(view=view, finding=finding)
