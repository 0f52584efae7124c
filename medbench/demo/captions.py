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
        ("chest radiograph", "frontal chest radiograph", "chest x-ray", "pa view of the chest"),
        ("no nodules", "a faint smooth haze, no nodules", "lungs without nodules", "hazy opacity"),
        ("many nodules", "a cluster of round nodules", "nodules, suspicious for metastases", "multiple pulmonary nodules"),
    ),
    "pathology": Wording(
        ("h&e section", "histology of h&e stained tissue", "tissue micrograph", "biopsy under the microscope"),
        ("no tumor", "a benign lymphocyte aggregate", "small round lymphocytes, no tumor", "reactive inflammation"),
        ("a tumor", "a tumor nest of large irregular nuclei", "malignant pleomorphic nuclei", "carcinoma with atypical nuclei"),
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
        ["chest radiograph with no nodules", "chest x-ray with hazy opacity", "chest x-ray, lungs without nodules"],
        ["chest radiograph with many nodules", "chest x-ray with a cluster of nodules", "chest x-ray, metastases"],
    ),
    "pathology": (
        ["h&e section with no tumor", "tissue micrograph with small round lymphocytes", "biopsy with reactive inflammation"],
        ["h&e section with a tumor", "tissue micrograph with large irregular nuclei", "biopsy with carcinoma"],
    ),
    "dermatology": (
        ["dermatoscopic image of a benign naevus", "dermoscopy of a regular mole", "skin lesion, no melanoma"],
        ["dermatoscopic image of a melanoma", "dermoscopy of a ragged melanoma", "skin lesion, atypical pigment network"],
    ),
    "ophthalmology": (
        ["fundus photograph with no retinopathy", "retinal photograph of a healthy retina", "colour fundus image, benign mottling"],
        ["fundus photograph with diabetic retinopathy", "retinal photograph with haemorrhages", "colour fundus image, hard exudates"],
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
