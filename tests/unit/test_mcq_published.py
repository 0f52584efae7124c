"""Published parsers of lettered answers: their documented faults, one by one, and the accuracies that they give of real answers."""

import ast
import json
import os
from pathlib import Path

import pytest

from medbench.metrics.mcq_published import PARSERS, Reading

REAL = os.environ.get("MEDBENCH_REAL_DATA")
HEART = dict(
    zip(
        "ABCDEFGHIJ",
        (
            "Aortic stenosis", "Mitral regurgitation", "Pulmonary embolism", "Pericardial effusion", "Cardiomyopathy", "Atrial myxoma",
            "Aortic dissection", "Tricuspid atresia", "Infective endocarditis", "Constrictive pericarditis",
        ),
        strict=True,
    )
)  # fmt: skip
LUNG = {"A": "Cardiac enlargement", "B": "Pleural effusion", "C": "Bilateral pneumonia", "D": "Emphysema"}


def parsed(letter: str) -> Reading:
    return Reading(letter, "parsed")


UNPARSED, RANDOM = Reading(None, "unparsed"), Reading(None, "random")


@pytest.mark.parametrize(
    ("parser", "answer", "reading"),
    [
        ("box", r"So \boxed{B}.", parsed("B")),
        ("box", r"\boxed{A} no, \boxed{C. Pulmonary embolism}", parsed("C")),  # the last one
        ("box", r"\boxed{atrial myxoma}", parsed("F")),
        ("box", r"\boxed{\text{B}}", UNPARSED),
        ("box", r"\boxed{B. Pulmonary embolism}", UNPARSED),  # a letter beside another's text
        ("box", r"\boxed{B", UNPARSED),
        ("box", "The answer is B.", UNPARSED),
        ("mmmu", "It is (A), no, (C).", parsed("C")),
        ("mmmu", "I can't say.", parsed("I")),
        ("mmmu", "F. A, B and C are correct", parsed("C")),  # the only one between spaces
        ("mmmu", "B. Mitral regurgitation", RANDOM),  # six words or more are wanted for a text
        ("mmmu", "The picture shows an atrial myxoma, I'd say", parsed("F")),
        ("mmmu", "", RANDOM),
        ("lmms-eval", "An NSAID should help", parsed("D")),
        ("lmms-eval", "B. Mitral regurgitation", parsed("B")),
        ("lmms-eval", "no idea", RANDOM),
        ("mmmu-pro", "Answer: DO", parsed("D")),
        ("mmmu-pro", "I can't provide an answer.", parsed("I")),
        ("mmmu-pro", "Answer: A or B? (C)", parsed("C")),  # not one alone: as the whole answer
        ("mmmu-pro", "**Answer: E**", parsed("E")),
        ("vlmevalkit", "the answer is **b**ilateral pneumonia", parsed("B")),
        ("vlmevalkit", "The answer is **c**ardiac enlargement", parsed("C")),
        ("vlmevalkit", "The patient has vitamin B deficiency", parsed("B")),
        ("vlmevalkit", "The answer is A. But then, the answer is D.", parsed("A")),  # the first
        ("vlmevalkit", "E. since the heart is much larger than it should be", RANDOM),  # far from the end
        ("vlmevalkit", "It is an atrial myxoma", parsed("F")),
        ("vlmevalkit", "Cannot determine the answer", UNPARSED),
        ("vlmevalkit", "Z", UNPARSED),
        ("evalscope", "ANSWER: [C]", parsed("C")),
        ("evalscope", "Answer: **E**", parsed("E")),
        ("evalscope", "ANSWER: B, not C", parsed("B")),
        ("evalscope", "ANSWER: AB", UNPARSED),
        ("evalscope", "ANSWER: [LETTER]. the B", parsed("B")),  # a repeated form is no label
        ("evalscope", "a lesion of the GI", parsed("I")),
        ("evalscope", "a lesion of the CNS", UNPARSED),
        ("medevalkit", "", parsed("A")),
        ("medevalkit", r"\boxed{\text{B}}", parsed("G")),  # the nearest
        ("medevalkit", "I cannot determine this", parsed("I")),
        ("medevalkit", "<answer>C</answer>", parsed("C")),
        ("medevalkit", "D\n\nbecause", parsed("D")),
        ("medevalkit", "well\n\nD. because", parsed("D")),
        ("medevalkit", "atrial myxoma", parsed("F")),
        ("pmc-vqa", "B:Mitral", parsed("B")),
        ("pmc-vqa", "", UNPARSED),
        ("omnimedvqa", "mitral regurgitation of the valve", parsed("B")),
        ("omnimedvqa", "J", UNPARSED),  # a letter is no text
    ],
)  # fmt: skip
def test_a_published_parser_keeps_its_faults(parser: str, answer: str, reading: Reading) -> None:
    assert PARSERS[parser](answer, LUNG if "**" in answer and parser == "vlmevalkit" else HEART) == reading


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("answer", ["", " ", "\n\n", "(", "\\boxed{", "Answer:", "<answer>", "B" * 5000, "A\x00", "\u7b54\u6848: B"])
def test_any_answer_has_a_reading(parser: str, answer: str) -> None:
    """Also where an option has no text. A letter belongs to parsed, and to parsed alone."""
    for options in (HEART, {"A": "", "B": ""}):
        found = PARSERS[parser](answer, options)
        assert (found.letter in options) == (found.state == "parsed") and found.state in ("parsed", "unparsed", "random")


Sample = tuple[str, dict[str, str], str]


def samples(name: str) -> list[Sample]:
    """Answer, options and gold letter of one stored file of real answers."""
    folder = Path(str(REAL)) / "mcq"
    if name.startswith("gpt"):
        pro = folder / "mmmu_pro"
        asked = map(json.loads, (pro / "questions_health_10options.jsonl").open(encoding="utf-8"))
        questions = {row["id"]: (dict(zip("ABCDEFGHIJ", ast.literal_eval(row["options"]), strict=False)), row["answer"]) for row in asked}
        return [(row["response"], *questions[row["id"]]) for row in map(json.loads, (pro / f"responses_health_{name}.jsonl").open("rb"))]
    rows = json.loads((folder / f"mmmu/val_health_responses_{name}.json").read_text("utf-8"))
    return [(row["response"], row["index2ans"], row["answer"]) for row in rows if row["question_type"] == "multiple-choice"]


@pytest.mark.skipif(not REAL, reason="MEDBENCH_REAL_DATA names no folder of real data")
@pytest.mark.parametrize(
    ("name", "n", "expected"),
    [
        ("gpt-4o_standard-cot", 286, [(0.573, 0), (0.549, 1), (0.549, 1), (0.294, 160), (0.573, 0), (0.570, 0)]),
        ("gpt-4o_vision-cot", 286, [(0.528, 0), (0.273, 4), (0.273, 4), (0.077, 246), (0.528, 1), (0.507, 0)]),
        ("llava1.5_13b", 145, [(0.393, 0), (0.393, 0), (0.393, 0), (0.386, 1), (0.393, 0), (0.386, 0)]),
        ("qwen_vl", 145, [(0.317, 5), (0.317, 5), (0.317, 5), (0.186, 66), (0.172, 73), (0.317, 0)]),
    ],
)
def test_the_same_real_answers_through_six_parsers(name: str, n: int, expected: list[tuple[float, int]]) -> None:
    """Accuracy, and how many answers are without a reading, as the originals give them."""
    rows = samples(name)
    assert len(rows) == n
    found = []
    for parser in ("mmmu-pro", "mmmu", "lmms-eval", "vlmevalkit", "evalscope", "medevalkit"):
        readings = [(PARSERS[parser](answer, options), gold) for answer, options, gold in rows]
        right = sum(reading.letter == gold for reading, gold in readings)
        found.append((round(right / n, 3), sum(reading.state != "parsed" for reading, _ in readings)))
    assert found == expected


@pytest.mark.skipif(not REAL, reason="MEDBENCH_REAL_DATA names no folder of real data")
@pytest.mark.parametrize("name", ["gpt-4o_standard-cot", "gpt-4o_vision-cot"])
def test_mmmu_pro_is_read_as_its_authors_stored_it(name: str) -> None:
    """All 286 readings, not only their number."""
    stored = [json.loads(line)["official_pred"] for line in (Path(str(REAL)) / f"mcq/mmmu_pro/responses_health_{name}.jsonl").open("rb")]
    assert [PARSERS["mmmu-pro"](answer, options).letter for answer, options, _ in samples(name)] == stored
