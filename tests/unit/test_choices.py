"""The reader of choices: answers graded by hand, more of each kind, real answers, thoughts, languages, long and odd texts."""

import ast
import csv
import hashlib
import json
import os
import re
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from medbench.metrics.evaluate_modules.vqa_strict.choices import BINARY, Choice, read_choice, without_thoughts
from medbench.metrics.evaluate_modules.vqa_strict.options import options_of
from medbench.metrics.evaluate_modules.vqa_strict.scoring import judge_closed
from medbench.metrics.evaluate_modules.vqa_strict.words import THINK, YES_NO, Tags, languages, tokens, yes_or_no

DATA = Path(__file__).parents[1] / "data"
REAL = os.environ.get("MEDBENCH_REAL_DATA")
ABDOMEN = {"A": "Liver", "B": "Kidney", "C": "Spleen", "D": "Pancreas"}


def rows(name: str) -> Iterator[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def read(row: dict[str, str]) -> tuple[str, str, bool]:
    """State, choice ("" for none), and whether it is the reference."""
    thoughts: Tags = [(row["tags"].split()[0], row["tags"].split()[1])] if row["tags"] else THINK
    if row["options"]:
        options = dict(zip("ABCDEFGHIJ", row["options"].split("|"), strict=False))
        found = read_choice(row["answer"], options, row["question"], row["finish_reason"], thoughts)
        return found.state, found.choice or "", found.choice == row["reference"]
    closed = judge_closed(row["question"], row["reference"], row["answer"], row["finish_reason"], thoughts)
    return closed.state, closed.choice or "", closed.correct


def agrees(row: dict[str, str]) -> bool:
    """Whether state and choice are the graded ones. A wrong answer to a question without options has no wording of its own."""
    state, choice, correct = read(row)
    is_free_and_wrong = row.get("note", "").startswith("closed without options") and not correct and row["correct"] == "0"
    return state == row["state"] and (is_free_and_wrong or tokens(choice) == tokens(row["choice"]))


def kappa(pairs: list[tuple[bool, bool]]) -> float:
    """Cohen's, of two graders."""
    n = len(pairs)
    observed = sum(first == second for first, second in pairs) / n
    first, second = (sum(side) / n for side in zip(*pairs, strict=True))
    by_chance = first * second + (1 - first) * (1 - second)
    return (observed - by_chance) / (1 - by_chance)


@pytest.mark.parametrize("half", [0, 1], ids=["tuned on", "unseen while tuned"])
def test_answers_are_read_as_a_person_graded_them(half: int) -> None:
    chosen = [row for row in rows("answers.csv") if int(hashlib.sha256(row["id"].encode()).hexdigest(), 16) % 2 == half]
    assert len(chosen) > 140
    assert sum(map(agrees, chosen)) / len(chosen) >= 0.97
    assert kappa([(read(row)[2], row["correct"] == "1") for row in chosen]) >= 0.95


def test_the_graded_answers_are_of_six_kinds_and_consistent() -> None:
    chosen = list(rows("answers.csv"))
    kinds = [row["kind"] for row in chosen]
    assert {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} == dict.fromkeys(
        ["plain", "sentence", "negation", "hedge", "options", "thoughts"], 50
    )
    assert all((row["state"] == "parsed") == bool(row["choice"]) and (row["correct"] == "0" or row["choice"]) for row in chosen)


def test_more_answers_of_every_kind() -> None:
    missed = [(row, read(row)[:2]) for row in rows("choices.csv") if not agrees({**row, "correct": ""})]
    assert missed == []


def test_answers_to_lettered_questions() -> None:
    missed = [(row["answer"], row["state"], row["choice"], read({**row, "tags": "", "reference": ""})[:2]) for row in rows("letters.csv")]
    assert [miss for miss in missed if miss[1:3] != miss[3]] == []


@pytest.mark.parametrize(
    ("texts", "letter", "answer"),
    [
        ("a,a|a,b|b,a|b,b", "B", "B. a,b"),  # not "b, a,b" as option D
        ("a,b|a,c|b,c", "B", "(B) a,c"),
        ("at a)|at b)|at c)|both at a) and b)|at a) and c)", "D", "D. both at a) and b)"),  # no list of options
        ("(4-2)/4|(4+2)/4|(4*2)/4", "C", "(4*2)/4"),
        ("2*10^6$\\mu $g|2*10^7$\\mu $g", "B", "It is 2*10^7$\\mu $g"),
        ("I only|II only|I and II", "C", "I and II"),
        ("Escherichia|Proteus|Klebsiella|Serratia|Shigella", "", "E. coli infection"),
        ("Escherichia|Proteus|E. coli", "C", "E. coli"),
        ("Liver|Kidney|Spleen", "", "1. B 2. C"),
        ("Liver|Kidney|Spleen", "B", "1. A is too large. 2. B fits."),
        ("Liver|Kidney|Spleen", "C", "I would choose C because of its place"),
        ("benign|malignant", "A", "non-malignant"),
        ("Liver|Kidney|Spleen", "", "non-renal, non-kidney"),
        ("Non-small cell carcinoma|Small cell carcinoma", "A", "non-small cell carcinoma"),
        ("5%|10%|0.5%", "C", "It is .5%"),
        ("5%|10%", "", "It is .5%"),
        ("2.5|-2.5", "B", "It is minus 2.5"),
        ("2.5|-2.5", "B", "It is -2.5"),
        ("2.5|-2.5", "A", "It is 2.5"),
        ("I|II|III|IV|V", "", "I see a fracture through the growth plate."),
        ("I|II|III|IV|V", "B", "I think it is type II."),
        ("I|II|III|IV|V", "A", "It is type I."),
        ("I|II|III|IV|V", "A", "I believe that this is a type I fracture."),
        ("A|B|C|D", "", "A patient with a lesion."),
        ("A|B|C|D", "B", "A patient with B."),
        ("Liver|Kidney|Spleen", "B", "- B"),
        ("Liver|Kidney|Spleen", "B", "1) B"),
        ("Liver|Kidney|Spleen", "B", "\u3010B\u3011"),
        ("Liver|Kidney|Spleen", "B", "\u2705 B"),
        ("Liver|Kidney|None of the above", "C", "None"),
        ("Liver|Kidney|None of the above", "C", "None of these."),
        ("Liver|Kidney|Spleen", "", "A; C"),
        ("Liver|Kidney|Spleen", "", "A\nC"),
        ("Liver|Kidney|Spleen", "B", "B\nB"),
        ("Liver|Kidney|Spleen", "B", "B; I think."),
    ],
)
def test_texts_of_options_hold_letters_and_marks(texts: str, letter: str, answer: str) -> None:
    assert (read_choice(answer, dict(zip("ABCDE", texts.split("|"), strict=False)), "?").choice or "") == letter


@pytest.mark.skipif(not REAL, reason="MEDBENCH_REAL_DATA names no folder of real data")
def test_real_options_are_read_by_their_letter_whatever_their_text() -> None:
    """Every option of MMMU-Pro Health, and of a quarter of MedXpertQA's questions whose options are letters, figures or numbers."""
    pro, expert = (
        Path(str(REAL)) / "mcq/mmmu_pro/questions_health_10options.jsonl",
        Path(str(REAL)) / "mcq/medxpertqa/mm_test.hub-form.jsonl",
    )
    asked = [dict(zip("ABCDEFGHIJ", ast.literal_eval(json.loads(line)["options"]), strict=False)) for line in pro.open("rb")]
    lettered = [json.loads(line)["options"] for line in expert.open("rb")]
    lettered = [options for options in lettered if all(re.fullmatch(r"(?:\w+ )?(?:[A-Z]|\d+)", text) for text in options.values())]
    assert len(asked) == 286 and len(lettered) > 150
    for options in asked + lettered[::4]:
        for letter, text in options.items():
            assert read_choice(f"{letter}. {text}", options, "?").choice == letter, (letter, options)


@pytest.mark.skipif(not REAL, reason="MEDBENCH_REAL_DATA names no folder of real data")
@pytest.mark.parametrize("setting", ["standard-cot", "vision-cot"])
def test_real_lettered_answers(setting: str) -> None:
    """GPT-4o on MMMU-Pro: as the official reading, but for the refusal that it takes for option I."""
    folder = Path(str(REAL)) / "mcq/mmmu_pro"
    questions = {}
    for line in (folder / "questions_health_10options.jsonl").open(encoding="utf-8"):
        question = json.loads(line)
        questions[question["id"]] = dict(zip("ABCDEFGHIJ", ast.literal_eval(question["options"]), strict=False))
    answers = [json.loads(line) for line in (folder / f"responses_health_gpt-4o_{setting}.jsonl").open(encoding="utf-8")]
    others = [row["response"] for row in answers if read_choice(row["response"], questions[row["id"]]).choice != row["official_pred"]]
    assert len(answers) == 286
    assert others == ([] if setting == "standard-cot" else ["I'm sorry, I can't do that."])


@pytest.mark.parametrize(
    ("text", "thoughts", "rest"),
    [
        ("<think>no</think> yes", THINK, ("yes", False)),
        ("no</think>yes", THINK, ("yes", False)),  # the opening mark stands in the prompt
        ("<think>no", THINK, ("", True)),
        ("yes <think>no", THINK, ("yes", True)),
        ("<think>a</think>b<think>c</think>d", THINK, ("b\nd", False)),
        ("<think>a", [("[T]", "[/T]")], ("<think>a", False)),  # not this model's
        ("[T]no[/T]yes", [("[T]", "[/T]")], ("yes", False)),
        ("[T]no[/T]<think>no</think>yes", [("[T]", "[/T]"), *THINK], ("yes", False)),
    ],
)
def test_thoughts_are_cut_off(text: str, thoughts: Tags, rest: tuple[str, bool]) -> None:
    said, is_open = without_thoughts(text, thoughts)
    assert (said.strip(), is_open) == rest


@pytest.mark.parametrize("code", sorted(YES_NO))
def test_every_language_knows_its_words(code: str) -> None:
    """The first word for yes is right for the first one for yes, wrong for the one for no, whatever the case and the final mark."""
    yes, no = (side.split()[0] for side in YES_NO[code])
    assert (yes_or_no(yes), yes_or_no(f"{no.capitalize()}.")) == ("yes", "no")
    assert code in languages(yes) & languages(no)
    for reference, answer, right in ((yes, f"{yes.upper()}.", True), (no, no, True), (yes, no, False), (no, yes, False)):
        assert judge_closed("?", reference, answer) == ("parsed", yes_or_no(answer), right)
    assert judge_closed("?", yes, "Yes").correct and judge_closed("?", no, "No.").correct  # models answer in English too


def test_a_word_of_another_language_is_no_choice_where_it_means_something_else() -> None:
    """German "da", Dutch "nu", Portuguese "na": only where the reference is in a language that says yes or no by it."""
    for word in ("da", "nu", "ne", "si"):
        assert judge_closed("is there a mass?", "yes", word).state == "unparsed"
    assert judge_closed("Există o fractură?", "da", "Da.").correct
    assert judge_closed("Is er een breuk?", "nee", "Nu is er geen breuk.").correct


@pytest.mark.parametrize(
    "rest",
    [
        "", ".", " (the lungs are expanded).", " (90%)", "\u2014the lungs are expanded.", " \u2014 the lungs are expanded.", "\u2026",
        " \U0001f642", " [confidence: 0.9]", " = 0", " in this image", " on this view.", " based on the image.", " & that is all",
        "<br>", "|",
    ],
)  # fmt: skip
def test_yes_and_no_are_read_before_the_same_marks(rest: str) -> None:
    question = "Is there a pneumothorax?"
    assert read_choice(f"Yes{rest}", BINARY, question) == Choice("parsed", "yes")
    assert read_choice(f"No{rest}", BINARY, question) == Choice("parsed", "no")


@pytest.mark.parametrize(
    ("question", "answer", "choice"),
    [
        ("Is there a pneumothorax?", "\u201cNo\u201d", "no"), ("Is there a pneumothorax?", "\u00abNo\u00bb", "no"),
        ("Liegt eine Fraktur vor?", "\u201eNein\u201c", "no"), ("Voit-on une fracture ?", "\u00ab Non \u00bb", "no"),
        ("Is there a pneumothorax?", "No (not yes)", "no"), ("Is there a pneumothorax?", "No (yes would need a pleural line)", "no"),
        ("Is this image normal?", "No (acute) abnormality is seen.", "yes"),
        ("Is this image normal?", "No [significant] abnormality.", "yes"),
        ("Is this image normal?", "No \u201cabnormality\u201d is seen.", "yes"), ("Is this image normal?", "No in-situ carcinoma.", "yes"),
        ("Is this image normal?", "No >5 mm nodules.", "yes"), ("Is there a pneumothorax?", "Yes & no", None),
        ("Is there a pneumothorax?", "No & yes", None),
    ],
)  # fmt: skip
def test_no_is_a_word_of_its_own_or_belongs_to_what_follows(question: str, answer: str, choice: str | None) -> None:
    assert read_choice(answer, BINARY, question).choice == choice


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("No.\n\nQuestion: Is there an effusion?\nAnswer: Yes", "no"), ("Answer: No\n\nQuestion: Is it large?\nAnswer: Yes", "no"),
        ("Yes\nUser: Is there an effusion?\nAssistant: The answer is no.", "yes"), ("No. Q: Is it large? A: Yes.", "no"),
        ("Yes\n### Human: Is there an effusion?\n### Assistant: no", "yes"), ("No<|im_end|>\n<|im_start|>user\nAnd now?\nYes", "no"),
        ("Question: Is there a pneumothorax?\nAnswer: No\nQuestion: And an effusion?\nAnswer: Yes", "no"),
        ("Let me see.\nQuestion: is there a pneumothorax?\nAnswer: Yes", "yes"), ("Question: Can one be seen?\nAnswer: Yes", "yes"),
        ("The lungs.\nQuestion: Is there an effusion?\nAnswer: Yes", None),
        ("No.\nQuestion: Is there a pneumothorax on the left?\nAnswer: Yes", "no"),
        ("Let me see.\nQuestion: Can a pneumothorax be seen?\nAnswer: Yes", "yes"),
    ],
)  # fmt: skip
def test_the_answer_ends_where_the_model_asks_a_question_of_its_own(answer: str, choice: str | None) -> None:
    assert read_choice(answer, BINARY, "Is there a pneumothorax?").choice == choice


def test_a_letter_is_not_taken_from_a_question_that_the_model_invents() -> None:
    assert read_choice("B\nQuestion: Which bone? Answer: A", ABDOMEN, "Which organ?") == Choice("parsed", "B")


@pytest.mark.parametrize(
    ("question", "answer", "choice"),
    [
        ("Is the heart enlarged?", "The heart is normal. The liver is enlarged.", "no"),
        ("Is the heart enlarged?", "The liver is enlarged.", None),
        ("Is there a mass in the liver?", "There is a mass in the kidney.", None),
        ("Is there a mass in the liver?", "There is a hepatic mass.", "yes"),
        ("Is there brain atrophy?", "Cortical atrophy is seen.", "yes"),
        ("Is there a fracture?", "There are 0 fractures.", "no"), ("Is there a pneumothorax?", "zero evidence of pneumothorax", "no"),
        ("Is there a fracture?", "Low likelihood of a fracture.", "no"), ("Is this image normal?", "It is anything but normal.", "no"),
        ("Is there a pneumothorax?", 'The statement "there is a pneumothorax" is false.', "no"),
        ("Is there a pneumothorax?", "The pneumothorax has not resolved.", "yes"),
        ("Is there a pneumothorax?", "The pneumothorax has resolved.", "no"),
        ("Is there a pneumothorax?", "No change in the right pneumothorax.", "yes"), ("Is there a change?", "No change in the lung.", "no"),
        ("Is there a pneumothorax?", "There's a pneumothorax, isn't there.", "yes"),
        ("Is there a cortical fracture?", "There is a fracture of the rib.", "yes"),
        ("Is there cortical thickening of the bone?", "The bone shows thickening.", "yes"),
        ("Is there a pneumothorax?", "Il n'y a pas de pneumothorax.", "no"), ("Is there a pneumothorax?", "Kein Pneumothorax.", "no"),
        ("Is there a pneumothorax?", "Es ist ein Pneumothorax zu sehen.", "yes"),
    ],
)  # fmt: skip
def test_statements_are_of_what_was_asked(question: str, answer: str, choice: str | None) -> None:
    assert read_choice(answer, BINARY, question).choice == choice


@pytest.mark.parametrize(
    ("question", "answer", "choice"),
    [
        ("Is there a pneumothorax?", "Pneumothorax: Yes\nEffusion: No", "yes"),
        ("Is there a pneumothorax?", "Effusion: No. Pneumothorax: Yes", "yes"),
        ("Is there a pneumothorax?", "Pneumothorax: Yes. Effusion: No", "yes"), ("Is there a pneumothorax?", "Effusion: Yes.", None),
        ("Is there a pneumothorax?", "Effusion: False.", None), ("Is there a fracture?", "There is evidence of pneumothorax: Yes", None),
        ("Is there a pneumothorax?", '{"pneumothorax": false, "effusion": true}', "no"),
        ("Is there a pneumothorax?", "Pneumothorax: False", "no"),
        ("Is there a pneumothorax?", "[ ] Yes [x] No", "no"), ("Is there a pneumothorax?", "[x] Yes [ ] No", "yes"),
        ("Is there a pneumothorax?", "Presence: Yes", "yes"), ("Is there a pneumothorax?", "Based on the opacity: Yes", "yes"),
        ("Is the heart enlarged?", "Cardiomegaly: Yes", "yes"), ("Is the heart enlarged?", "Effusion: Yes", None),
        ("Is this image normal?", "Abnormal: Yes", "no"), ("Is this image normal?", "Pneumothorax: No", None),
        ("Is this image normal?", "Normal: No", "no"), ("Is there a pneumothorax?", "No. Effusion: Yes", "no"),
        ("Are there any abnormalities?", "Effusion: no\nPneumothorax: no\nMass: no", "no"),
        ("Is there any abnormality in the chest?", "Pneumothorax: no\nEffusion: no", "no"),
        ("Is there a pleural effusion?", "☑ Lungs reviewed\n☐ Prior films\n\nYes, there is a pleural effusion.", "yes"),
    ],
)  # fmt: skip
def test_yes_and_no_belong_to_what_they_stand_behind(question: str, answer: str, choice: str | None) -> None:
    assert read_choice(answer, BINARY, question).choice == choice


def test_accents_may_be_letters_of_their_own() -> None:
    answer, reference = (unicodedata.normalize("NFD", text) for text in ("N\u00e3o h\u00e1 fratura.", "n\u00e3o"))
    assert judge_closed("H\u00e1 fratura?", "sim", answer) == ("parsed", "no", False)
    assert yes_or_no(reference) == "no"


def test_a_choice_of_lettered_options_is_a_letter() -> None:
    assert read_choice("The correct answer is B.", ABDOMEN) == Choice("parsed", "B")
    assert read_choice("Kidney", ABDOMEN) == Choice("parsed", "B")
    assert read_choice("B", dict.fromkeys("ABCDE", "")) == Choice("parsed", "B")  # options without texts
    assert read_choice("F", dict.fromkeys("ABCDE", "")) == Choice("unparsed")


@pytest.mark.parametrize(
    ("question", "reference", "named"),
    [
        ("Is it in the left or right lung?", "right", ["left", "right"]),
        ("Is it in the left or right lung?", "left lung", ["left lung", "right lung"]),
        ("Are they more or less dense than bone?", "more dense", ["more dense", "less dense"]),
        ("Is the contrast in the bowels or the vasculature?", "in the vasculature", ["bowels", "in vasculature"]),
        ("Does it have contrast or no contrast?", "contrast", ["contrast", "no contrast"]),
        ("Ist die Läsion links oder rechts?", "links", ["links", "rechts"]),
        ("病变在左侧还是右侧?", "左侧", None),
        ("Which organ? A: Liver B: Kidney", "B", ["A", "B"]),
        ("Which organ? (A) Liver (B) Kidney (C) Spleen", "C", ["A", "B", "C"]),
        ("Which organ?", "B", list("ABCDEFGHIJ")),
        ("What modality is this?", "MRI", []),
        ("Is there a mass?", "left", []),
        ("Is it influenza A or influenza B?", "influenza A", ["influenza a", "influenza b"]),
        ("Is it influenza A or B?", "influenza B", ["influenza a", "influenza b"]),
        ("Is it a Stanford type A or type B dissection?", "type B", ["type a", "type b"]),
    ],
)
def test_options_that_a_question_names(question: str, reference: str, named: list[str] | None) -> None:
    if named is not None:
        assert list(options_of(question, reference)) == named


@pytest.mark.parametrize(
    ("question", "reference", "answer", "state", "right"),
    [
        ("Is it influenza A or influenza B?", "influenza A", "influenza B", "parsed", False),
        ("Is it influenza A or influenza B?", "influenza A", "It is influenza A.", "parsed", True),
        ("Is it influenza A or influenza B?", "influenza A", "influenza", "unparsed", False),
        ("Is it influenza A or influenza B?", "influenza A", "It is a CT scan.", "unparsed", False),
        ("Is it influenza A or B?", "influenza B", "B", "parsed", True),
        ("Is it influenza A or B?", "influenza B", "the A", "parsed", False),
        ("Is it a Stanford type A or type B dissection?", "type B", "type A", "parsed", False),
        ("Is it a Stanford type A or type B dissection?", "type A", "It is a type A dissection.", "parsed", True),
        ("Which type of dissection is shown?", "Type A", "Type B", "parsed", False),
        ("Which hepatitis?", "hepatitis A", "hepatitis C", "parsed", False),
        ("Which hepatitis?", "hepatitis A", "Hepatitis a", "parsed", True),
    ],
)
def test_a_letter_at_the_end_of_a_name_is_no_article(question: str, reference: str, answer: str, state: str, right: bool) -> None:
    found = judge_closed(question, reference, answer)
    assert (found.state, found.correct) == (state, right)


@pytest.mark.parametrize(
    ("options", "answer"), [("Hepatitis A|Hepatitis B|Hepatitis C", "Hepatitis E"), ("Vitamin A|Folate", "Vitamin D deficiency")]
)
def test_an_option_is_not_named_without_its_letter(options: str, answer: str) -> None:
    assert read_choice(answer, dict(zip("ABC", options.split("|"), strict=False)), "?") == Choice("unparsed")


@pytest.mark.parametrize(
    ("question", "reference", "answer", "state", "right"),
    [
        ("What modality is this?", "MRI", "It is an MRI.", "parsed", True),
        ("Is the lesion benign or malignant?", "malignant", "non-malignant", "parsed", False),
        ("Is the lesion benign or malignant?", "benign", "non-malignant", "parsed", True),
        ("How large is it?", "5 cm", ".5 cm", "parsed", False),
        ("How large is it?", "0.5 cm", "It is .5 cm", "parsed", True),
        ("What is the value?", "2.5", "minus 2.5", "parsed", False),
        ("What modality is this?", "MRI", "CT", "parsed", False),  # said, and wrong
        ("What modality is this?", "MRI", "CT, not MRI", "unparsed", False),
        ("What modality is this?", "MRI", "MRI or CT", "unparsed", False),
        ("What modality is this?", "MRI", "I cannot tell.", "refused", False),
        ("What modality is this?", "MRI", "<think>MRI", "truncated", False),
        ("What modality is this?", "MRI", "CT, MRI", "unparsed", False),
        ("What organ is shown?", "Lung", "Liver. Lung. Heart. Kidney.", "unparsed", False),
        ("What organ is shown?", "Lung", "The lung.", "parsed", True),
        ("What modality is shown?", "CT", "Yes, CT.", "parsed", True),
        ("What modality is shown?", "CT", "CT. CT.", "parsed", True),
        ("What modality is shown?", "CT", "CT. Correct.", "parsed", True),
        ("What modality is shown?", "CT", "CT\nQuestion: Is this MRI or CT?\nAnswer: CT", "parsed", True),
        ("How many lesions are there?", "2", "2\nQuestion: How many ribs are there?\nAnswer: 12", "parsed", True),
        ("How many nodules are there?", "2", "There are 2 nodules, each 5 mm.", "parsed", True),
        ("How many nodules are there?", "2", "2 nodules of 5 x 7 mm (image 1).", "parsed", True),
        ("How large is it?", "5 mm", "6 mm, not 5 mm", "unparsed", False),
        ("How many nodules are there?", "1", "This is a single frontal view without nodules.", "parsed", False),
        ("How many masses are there?", "0", "There are several masses, none calcified.", "parsed", False),
        ("How many masses are there?", "0", "None are seen.", "parsed", True),
        ("How many lesions are there?", "2", "There are 3 lesions, of which 2 are large.", "unparsed", False),
        ("How many lesions are there?", "2", "2-3", "unparsed", False),
        ("How many lesions are there?", "2", "2 to 4", "unparsed", False),
        ("How many lesions are there?", "2", "less than 2", "unparsed", False),
        ("How many lesions are there?", "2", "There are 2 lesions, one in the left and one in the right lung.", "parsed", True),
        ("How many lesions are there?", "2", "2, in the left lung", "parsed", True),
        ("How many lesions are there?", "1", "a single lesion", "parsed", True),
        ("How many lesions are there?", "0", "none", "parsed", True),
        ("What modality is this?", "MRI", "", "unparsed", False),
        ("What modality is this?", "MRI", "The image shows a large bright area near the border of a darker one.", "unparsed", False),
        ("Are there 2 or 3 kidneys?", "2", "two", "parsed", True),
        ("Which sign?", "+", "It is a large opacity near the left border of the heart.", "unparsed", False),
        ("Was oral or iv contrast used?", "both", "Both", "parsed", True),
    ],
)
def test_closed_questions_without_options_are_counted(question: str, reference: str, answer: str, state: str, right: bool) -> None:
    found = judge_closed(question, reference, answer)
    assert (found.state, found.correct) == (state, right)


def test_a_long_answer_takes_no_long_time() -> None:
    """Whatever its form: nothing is read in quadratic time."""
    for piece in (
        "no mass is seen and ",
        "the answer is ",
        "<think>",
        "(A) Liver ",
        "\\boxed{",
        "is ",
        "not ",
        "a b c. ",
        '"answer": ',
        "1,",
        "没有",
    ):
        text = piece * (40_000 // len(piece))
        started = time.process_time()
        read_choice(text, BINARY, "is there a mass?")
        read_choice(text, ABDOMEN, "which organ?")
        tokens(text)
        assert time.process_time() - started < 5, piece
