"""Answers: every quirk of the published scoring by hand, the strict scoring, independent implementations, the `evaluate` modules."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medbench import tables
from medbench.metrics import vqa
from medbench.metrics.evaluate_modules.vqa_published import scoring as published
from medbench.metrics.evaluate_modules.vqa_strict import scoring as strict
from medbench.metrics.evaluate_modules.vqa_strict.words import STATES
from medbench.tasks.vqa import ScoresVqa

MODULES = Path(vqa.__file__).parent / "evaluate_modules"


def test_a_row_has_the_columns_of_the_table() -> None:
    keys = ("sample_id", "group_id", "answer_type")
    assert list(vqa.score("is it?", "yes", "yes", True)) == [name for name in tables.columns(ScoresVqa) if name not in keys]


# --- published: the normaliser


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The left lung", "left lung"),
        ("a mass of an organ", "mass of organ"),
        ("None or ten, zero", "0 or 10 0"),
        ("eleven", "eleven"),  # number words end at ten
        ("t1/t2", "t1 t2"),  # a mark becomes a space
        ("x-ray", "x ray"),
        ("right - sided x-ray", "right sided xray"),  # ... or nothing, everywhere, where it stands next to a space once
        ("1,000 cells/field", "1000 cellsfield"),  # ... or where the text has a number with a comma
        ("**yes**", "**yes**"),  # * # % & : ' stay
        ("50% & rest: it's", "50% & rest: it's"),
        ("dont", "don't"),  # contractions get their apostrophe
        ("couldnt've couldn'tve", "couldn't've couldn't've"),
        ("somebody'd", "somebodyd"),  # the entry that stands the wrong way round
        ("a lung.", "lung"),
        ("1.5 cm", "1.5 cm"),  # a period before a digit stays
        ("3. no", "3 no"),
        ("é", "é"),
    ],
)
def test_published_normaliser(text: str, normal: str) -> None:
    assert published.normalise(text) == normal


def test_published_normaliser_strips_only_the_first_32_periods() -> None:
    assert published.normalise("x" + "." * 40) == "x" + "." * 8


# --- published: scores


def published_score(reference: str, answer: str, closed: bool = False) -> published.Published:
    return published.score(reference, answer, closed)


def test_published_exact_match_is_by_the_answers_length() -> None:
    assert published_score("left lung", "lung").exact_match == 1.0
    assert published_score("lung", "left lung").exact_match == 0.5
    assert published_score("lung lung", "lung").exact_match == 1.0  # distinct reference words
    assert published_score("lung", "lung lung").exact_match == 0.5  # every answer word counts
    assert published_score("lung", "").exact_match == 0.0
    assert published_score("lung", "the").exact_match == 0.0  # nothing left of the answer


def test_published_overlap_counts_a_repeated_answer_word_each_time() -> None:
    """Answer "lung lung mass", reference "left lung": tp 2, fp 1, fn 1."""
    made = published_score("left lung", "lung lung mass")
    assert (made.precision, made.recall) == (2 / 3, 2 / 3)
    assert made.f1 == pytest.approx(2 / 3)
    # by the true multiset, recall would be 1 / 2
    assert strict.score("", "left lung", "lung lung mass", False).token_recall == 0.5


def test_published_overlap_is_zero_without_a_shared_word() -> None:
    made = published_score("left lung", "liver")
    assert (made.precision, made.recall, made.f1) == (0.0, 0.0, 0.0)


def test_published_open_accuracy_is_recall_from_three_quarters() -> None:
    assert published_score("w x y z", "w x y").accuracy == 1.0
    assert published_score("w x y z", "w x").accuracy == 0.0
    assert published_score("w x y z", "w w w w w w").accuracy == 0.0  # tp 6, fn 3: 6 / 9
    assert published_score("w x y z", "w w w w w w w w w").accuracy == 1.0  # tp 9, fn 3: the same word often enough


def test_published_closed_accuracy_finds_the_reference_anywhere() -> None:
    assert published_score("no", "It is NORMAL", True).accuracy == 1.0
    assert published_score("no", "abnormality", True).accuracy == 1.0
    assert published_score("No", "yes and no", True).accuracy == 1.0
    assert published_score("yes", "It is normal", True).accuracy == 0.0
    assert published_score("yes ", "yes", True).accuracy == 0.0  # the reference is not stripped


def test_published_bleu_has_a_brevity_penalty_and_no_smoothing() -> None:
    assert published_score("left lung", "lung").bleu1 == pytest.approx(0.36787944117144233)  # exp(1 - 2 / 1)
    assert published_score("lung", "left lung").bleu1 == 0.5
    assert published_score("lung", "lung lung").bleu1 == 0.5  # clipped
    assert published_score("lung", "liver").bleu1 == 0.0


def test_published_rouge_drops_what_is_not_a_to_z() -> None:
    assert published_score("yes", "**yes**").rouge_l == 1.0
    assert published_score("yes", "**yes**").exact_match == 0.0


# --- strict


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The left lung.", ["left", "lung"]),
        ("**Yes**!", ["yes"]),
        ("two X-rays", ["2", "x", "rays"]),
        ("1.5 cm, 1,000", ["1.5", "cm", "1000"]),
        ("1,234,567.80", ["1234567.8"]),
        ("1\u202f000", ["1000"]),
        ("12,34,567", ["12,34,567"]),  # no such groups
        ("2,5 cm", ["2.5", "cm"]),
        ("2.50 and 2.0 and .5", ["2.5", "and", "2", "and", "0.5"]),
        ("10.5.2", ["10.5.2"]),  # no number
        ("-2.5", ["-2.5"]),
        ("\u22122.5 (\u20133)", ["-2.5", "-3"]),
        ("+2.5", ["2.5"]),
        ("3-5, L4-5", ["3", "5", "l4", "5"]),  # dashes
        ("5cm, 5 centimetres, 5 Centimeters", ["5", "cm", "5", "cm", "5", "cm"]),
        ("50%, 50 percent, 50", ["50", "%", "50", "%", "50"]),
        ("30\u00b0, 30 degrees", ["30", "\u00b0", "30", "\u00b0"]),
        ("5\u00b5m, 5 microns", ["5", "\u03bcm", "5", "\u03bcm"]),
        ("no\u200b\ufeff", ["no"]),
        ("\u662f\u7684", ["\u662f", "\u7684"]),  # a character is a word where words are not parted
        ("\u5de6\u80baCT", ["\u5de6", "\u80ba", "ct"]),
        ("\u30ac\u30f3 \u0e15\u0e31\u0e1a", ["\u30ac", "\u30f3", "\u0e15\u0e31", "\u0e1a"]),
        ("\uac04 \uc885\uc591", ["\uac04", "\uc885\uc591"]),  # Korean parts words
        ("\ufb01brosis \u2161", ["fibrosis", "ii"]),  # NFKC
        ("patient\u2019s", ["patients"]),
        ("ER+ / ER-", ["er+", "er"]),
        ("A", ["a"]),  # nothing else is there
        ("A mass is a mass of a (large) cyst", ["mass", "is", "mass", "of", "large", "cyst"]),
        ("hepatitis A, A or B", ["hepatitis", "a", "a", "or", "b"]),  # names
        ("vitamin a deficiency, Stanford A dissection", ["vitamin", "a", "deficiency", "stanford", "a", "dissection"]),
        ("THIS IS A MASS. A cyst\nA fracture", ["this", "is", "mass", "cyst", "fracture"]),
        ("...", ["..."]),
        ("", []),
    ],
)
def test_strict_tokens(text: str, words: list[str]) -> None:
    assert strict.tokens(text) == words


def test_strict_scores_by_hand() -> None:
    made = strict.score("where?", "the left lower lobe", "left lobe of lung", False)
    assert (made.exact_match, made.token_precision, made.token_recall) == (0.0, 0.5, 2 / 3)
    assert made.token_f1 == pytest.approx(4 / 7)
    assert made.rouge_l_recall == pytest.approx(2 / 3)
    assert made.rouge_l_f == pytest.approx(4 / 7)
    assert made.state is made.closed_accuracy is None
    assert strict.score("where?", "The Left Lung", "left lung.", False).exact_match == 1.0
    assert strict.score("where?", "lung", "", False)[2:] == (0.0,) * 7


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("Yes, there is no doubt", "yes"),  # a leading one wins
        ("No.", "no"),
        ("there is no mass", "no"),
        ("There is no way to tell", None),
        ("There is no doubt that a mass is present", "yes"),
        ("The image does not show a mass", "no"),
        ("Yes/No: No", "no"),
        ("the northern yesterday", None),  # word boundaries
        ("well, yes and no", None),
        ("maybe", None),
        ("", None),
    ],
)
def test_strict_yes_and_no(answer: str, choice: str | None) -> None:
    for reference in ("yes", "No"):
        made = strict.score("is there a mass?", reference, answer, True)
        assert (made.state == "parsed") == (choice is not None)
        assert made.closed_accuracy == float(choice == reference.lower())


@pytest.mark.parametrize(
    ("question", "reference", "answer", "state", "right"),
    [
        ("Is the lesion in the left or right lung?", "right", "The right lung", "parsed", True),
        ("Is the lesion in the left or right lung?", "right", "left", "parsed", False),
        ("Is the lesion in the left or right lung?", "right", "left or right", "unparsed", False),
        ("Is the lesion in the left or right lung?", "right lung", "In the left one", "parsed", False),
        ("Which is bigger in this image, lung or heart?", "heart", "The heart is bigger in this image", "parsed", True),
        ("In this image, is the lung or heart bigger?", "Lung", "lung", "parsed", True),
        ("Is it axial, coronal or sagittal?", "Axial", "axial", "parsed", True),
        ("Is it axial, coronal or sagittal?", "Axial", "coronal", "parsed", False),
        ("Is this with contrast or without contrast?", "without contrast", "without contrast", "parsed", True),
        ("Is it normal or abnormal?", "normal", "abnormal", "parsed", False),
        ("What modality is used?", "MRI", "an MRI.", "parsed", True),
        ("What modality is used?", "MRI", "it is MRI", "parsed", True),
        ("Is this the left or right side?", "both", "both", "parsed", True),  # the reference is none of the options
    ],
)
def test_strict_alternatives(question: str, reference: str, answer: str, state: str, right: bool) -> None:
    made = strict.score(question, reference, answer, True)
    assert (made.state, made.closed_accuracy) == (state, float(right))


def test_strict_scores_leave_thoughts_out_and_published_ones_do_not() -> None:
    plain = vqa.score("is it?", "yes", "yes", True)
    thought = vqa.score("is it?", "yes", "<think>no, or is it?</think> yes", True)
    strictly = [name for name in plain if name == "state" or name.endswith("_strict")]
    assert {name: thought[name] for name in strictly} == {name: plain[name] for name in strictly}
    assert plain["exact_match_published"] == 1.0 > thought["exact_match_published"]
    marked = vqa.score("is it?", "yes", "[T]no[/T]yes", True, thoughts=[("[T]", "[/T]")])
    assert (marked["state"], marked["closed_accuracy_strict"], marked["exact_match_strict"]) == ("parsed", 1.0, 1.0)
    cut = vqa.score("is it?", "yes", "Let us see", True, "length")
    assert (cut["state"], cut["closed_accuracy_strict"]) == ("truncated", 0.0)


def test_answers_of_other_scripts_share_characters() -> None:
    made = strict.score("?", "\u5de6\u80ba", "\u80ba", False)
    assert (made.token_precision, made.token_recall, made.rouge_l_f) == (1.0, 0.5, 2 / 3)
    assert strict.score("?", "-2.5", "2.5", False).exact_match == 0.0
    assert strict.score("?", "1,000", "1000", False).exact_match == 1.0


# --- independent implementations

words = st.lists(st.sampled_from(["left", "lung", "mass", "ct", "of", "2", "no"]), min_size=1, max_size=9)


@given(words, words)
@settings(max_examples=60, deadline=None)
def test_rouge_and_bleu_agree_with_others(reference: list[str], answer: list[str]) -> None:
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    sacrebleu = pytest.importorskip("sacrebleu")
    expected, given_text = " ".join(reference), " ".join(answer)
    rouge = rouge_scorer.RougeScorer(["rougeL"]).score(expected, given_text)["rougeL"]
    own, theirs = strict.score("", expected, given_text, False), published.score(expected, given_text, False)
    assert own.rouge_l_recall == pytest.approx(rouge.recall)
    assert own.rouge_l_f == pytest.approx(rouge.fmeasure)
    bleu = sacrebleu.BLEU(max_ngram_order=1, smooth_method="none", tokenize="none").sentence_score(given_text, [expected])
    assert own.bleu1 == pytest.approx(bleu.score / 100)
    if "no" not in reference + answer:  # the published normaliser keeps these words as they are
        assert theirs.rouge_l == pytest.approx(rouge.fmeasure)
        assert theirs.bleu1 == own.bleu1


def test_published_rouge_and_bleu_agree_with_torchmetrics() -> None:
    text = pytest.importorskip("torchmetrics.functional.text")
    for reference, answer in (("left lower lobe", "the lobe is left lower"), ("**yes** it is", "yes"), ("mass", "a x-ray of mass")):
        expected, given_text = published.normalise(reference), published.normalise(answer)
        made = published.score(reference, answer, False)
        rouge = text.rouge_score(given_text, expected, rouge_keys="rougeL")["rougeL_fmeasure"].item()
        assert made.rouge_l == pytest.approx(rouge, abs=1e-6)
        assert made.bleu1 == pytest.approx(text.bleu_score([given_text], [[expected]], n_gram=1).item(), abs=1e-6)


@given(st.text(max_size=40), st.text(max_size=40), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_text_scores_within_0_and_1(reference: str, answer: str, closed: bool) -> None:
    row = vqa.score("Is it this or that?", reference, answer, closed)
    state = row.pop("state")
    assert (state in STATES) if closed else state is None
    assert all(value is None or 0 <= float(value) <= 1 for value in row.values())


@given(st.text(min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_the_reference_itself_is_right(reference: str) -> None:
    made = strict.score("", reference, reference, True)
    assert made.exact_match == made.closed_accuracy == 1.0


def test_both_folders_share_two_functions_to_the_letter() -> None:
    """Each must work alone; this keeps the copies in step."""
    sources = [(MODULES / name / "scoring.py").read_text(encoding="utf-8") for name in ("vqa_strict", "vqa_published")]
    for name in ("bleu1", "longest_common"):
        first, second = (source.split(f"def {name}(")[1].split("\n\n\n")[0].strip() for source in sources)
        assert first == second


def expected(measure: str, row: dict[str, Any]) -> float | None:
    """What the module computes of `state` for one answer."""
    if measure == "closed_accuracy_parsed":
        return float(row["closed_accuracy_strict"]) if row["state"] == "parsed" else None
    return None if row["state"] is None else float(row["state"] == measure)


def test_modules_load_with_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From copies outside the package, without the network, equal to the mean of the rows."""
    import shutil

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    evaluate = pytest.importorskip("evaluate")
    samples = [
        ("is it?", "yes", "yes it is", True),
        ("where?", "left lung", "lung", False),
        ("is it?", "no", "I cannot tell", True),
        ("is it?", "no", "<think>yes", True),
    ]
    inputs = {key: [sample[place] for sample in samples] for place, key in enumerate(("questions", "references", "predictions", "closed"))}
    for name in ("vqa_strict", "vqa_published"):
        shutil.copytree(MODULES / name, tmp_path / name)
        made = evaluate.load(str(tmp_path / name), cache_dir=str(tmp_path / "cache")).compute(**inputs)
        rows = [vqa.score(*sample) for sample in samples]
        suffix = name.removeprefix("vqa_")
        for metric, value in made.items():
            column = [row[f"{metric}_{suffix}"] if f"{metric}_{suffix}" in row else expected(metric, row) for row in rows]
            defined = [one for one in column if one is not None]
            assert value == pytest.approx(sum(defined) / len(defined))
