"""The phantoms: determinism, independence of the cohort's size, balance, and a task that raw pixels do not solve."""

from itertools import islice

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from medbench.demo.contact_sheet import contact_sheet
from medbench.demo.natural import pairs
from medbench.demo.phantoms import KINDS, PROMPTS, captions, cohort, draw


@pytest.mark.parametrize("kind", KINDS)
def test_a_cohort_is_a_function_of_kind_and_seed(kind: str) -> None:
    first, again, other = (list(cohort(kind, 4, seed)) for seed in (7, 7, 8))
    assert [(p.patient, p.index, p.label, p.image.tobytes()) for p in first] == [
        (p.patient, p.index, p.label, p.image.tobytes()) for p in again
    ]
    assert not {p.image.tobytes() for p in first} & {p.image.tobytes() for p in other}


@pytest.mark.parametrize("kind", KINDS)
def test_a_patient_is_the_same_in_a_larger_cohort(kind: str) -> None:
    small, large = list(cohort(kind, 3, 0)), list(cohort(kind, 6, 0))
    for one, two in zip(small, large, strict=False):
        assert one[:3] == two[:3]
        assert np.array_equal(one.image, two.image)


@pytest.mark.parametrize("kind", KINDS)
def test_patients_have_two_or_three_distinct_images_of_one_label(kind: str) -> None:
    images = list(cohort(kind, 20, 1))
    patients = {p.patient for p in images}
    labels = {(p.patient, p.label) for p in images}
    assert len(patients) == len(labels) == 20
    assert sum(label for _, label in labels) == 10
    assert all(p.image.shape == (64, 64, 3) and p.image.dtype == np.uint8 for p in images)
    assert {sum(p.patient == name for p in images) for name in patients} <= {2, 3}
    assert len({p.image.tobytes() for p in images}) == len(images)


def test_radiology_is_grey() -> None:
    image = draw("radiology", 1, np.random.default_rng(0))
    assert (image == image[:, :, :1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_raw_pixels_stay_near_chance(kind: str) -> None:
    images = list(cohort(kind, 80, 3))
    pixels = np.stack([p.image.reshape(16, 4, 16, 4, 3).mean((1, 3)).ravel() for p in images])
    labels = np.array([p.label for p in images])
    train = np.array([int(p.patient.rsplit("-", 1)[1]) < 50 for p in images])
    scaler = StandardScaler().fit(pixels[train])
    probe = LogisticRegression(C=1e-3, max_iter=200).fit(scaler.transform(pixels[train]), labels[train])
    assert roc_auc_score(labels[~train], probe.decision_function(scaler.transform(pixels[~train]))) < 0.75


@pytest.mark.parametrize("kind", KINDS)
def test_captions_and_prompts_tell_the_classes_apart(kind: str) -> None:
    rng = np.random.default_rng(0)
    absent, present = ({captions(kind, label, rng) for _ in range(60)} for label in (0, 1))
    assert len(absent) > 5 and len(present) > 5 and not absent & present
    assert all(len(prompts) == len(set(prompts)) >= 2 for prompts in PROMPTS[kind])


def test_everyday_pairs_repeat_with_their_seed_and_vary() -> None:
    first, again, other = (list(islice(pairs(seed), 20)) for seed in (0, 0, 1))
    assert all(a.caption == b.caption and np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert len({p.caption for p in first + other}) > 35


def test_a_contact_sheet_holds_every_row() -> None:
    images = [p.image for p in cohort("pathology", 2, 0)]
    sheet = contact_sheet([("absent", images[:2]), ("present", images[:1])], scale=2, gap=6, label_width=100)
    assert sheet.size == (100 + 2 * 134 + 6, 2 * 134 + 6)
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([])
