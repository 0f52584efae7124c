"""The question-answering phantoms: balanced, deterministic, and worth nothing to who does not look."""

from collections import Counter

import numpy as np
import pytest

from medbench.demo import questions
from medbench.models.asking import asks_yes_no
from medbench.models.baseline import constant_answer, question_only


def split(kind: str, seed: int) -> tuple[list[questions.Sample], list[questions.Sample]]:
    """Training and test questions of disjoint patients, as `phantom-vqa` cuts them."""
    samples = list(questions.cohort(kind, 192, seed))
    return [sample for sample in samples if sample.patient < f"{kind}-00096"], [s for s in samples if s.patient >= f"{kind}-00096"]


@pytest.mark.parametrize("kind", questions.KINDS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_who_does_not_look_stays_at_chance(kind: str, seed: int) -> None:
    train, test = split(kind, seed)
    options = {wording: len(topic.options) for topic in questions.TOPICS[kind].values() for wording in topic.name}
    chance = float(np.mean([1 / options[sample.question] for sample in test if sample.answer_type == "open"]))
    for baseline in (constant_answer, question_only):
        fitted = baseline.fit([sample.question for sample in train], [sample.answer for sample in train])
        right = {
            group: np.mean(
                [fitted.answer(sample.question) == sample.answer for sample in test if group in (form(sample), sample.answer_type)]
            )
            for group in ("yes-no", "closed", "open")
        }
        assert abs(right["yes-no"] - 0.5) < 0.06
        assert right["closed"] < 0.56, "a choice between two options is worth 0.5 to who reads the question, less to a constant"
        assert right["open"] < chance + 0.1


def form(sample: questions.Sample) -> str:
    return "yes-no" if sample.answer in ("yes", "no") else "open" if sample.answer_type == "open" else "choice"


@pytest.mark.parametrize("kind", questions.KINDS)
def test_answers_and_forms_are_balanced(kind: str) -> None:
    samples = list(questions.cohort(kind, 48, 0))
    assert len(samples) == 48 * 2 * 4
    closed = Counter(sample.answer for sample in samples if form(sample) == "yes-no")
    assert closed["yes"] == closed["no"]
    for sample in samples:
        assert asks_yes_no(sample.question) == (sample.answer in ("yes", "no")), sample.question
    facts = [tuple(questions.facts_of(kind, index, 0).values()) for index in range(48)]
    block = len(set(facts))
    assert len(set(facts[:block])) == block, "the first block holds every combination once"


def test_answers_follow_from_the_facts() -> None:
    for index in range(24):
        facts = questions.facts_of("radiology", index, 3)
        mine = [sample for sample in questions.cohort("radiology", 24, 3) if sample.patient == f"radiology-{index:05d}"]
        for sample in mine:
            if sample.answer not in ("yes", "no"):
                assert sample.answer in facts.values()
            else:
                named = [word for word in facts.values() if f" {word} " in sample.question.replace("?", " ?")]
                assert bool(named) == (sample.answer == "yes"), (facts, sample.question, sample.answer)


def test_the_patients_left_is_on_the_images_right() -> None:
    facts = {"side": "left", "zone": "middle", "finding": "mass"}
    left, right = (
        questions.picture("radiology", {**facts, "side": side}, 0, 0, 0).astype(float).mean(axis=2) for side in ("left", "right")
    )
    difference = left - right
    assert difference[20:44, 36:].sum() > 0 > difference[20:44, :28].sum()


@pytest.mark.parametrize("kind", questions.KINDS)
def test_a_cohort_is_a_function_of_its_seed_and_grows_at_its_end(kind: str) -> None:
    small, large = list(questions.cohort(kind, 2, 7)), list(questions.cohort(kind, 3, 7))
    for one, two in zip(small, large, strict=False):
        assert one[:5] == two[:5] and np.array_equal(one.image, two.image)
    other = list(questions.cohort(kind, 2, 8))
    assert not np.array_equal(small[0].image, other[0].image)


def test_streams_share_no_picture() -> None:
    facts = questions.facts_of("radiology", 0, 0)
    pictures = [questions.picture("radiology", facts, 0, 0, 0, stream) for stream in ("cohort", "pretrain")]
    assert not np.array_equal(*pictures)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Is there a fracture?", True),
        ("  are the lungs clear", True),
        ("\u201cDoes the patient have an effusion?\u201d", True),
        ("Isn\u2019t the heart enlarged?", True),
        ("Is the mass on the left or the right?", False),
        ("What is shown?", False),
        ("Island cells are where?", False),
        ("Hasty question?", False),
        ("Can you see the corpus callosum?", True),
    ],
)
def test_the_instruction_is_chosen_by_the_question(question: str, expected: bool) -> None:
    assert asks_yes_no(question) is expected
