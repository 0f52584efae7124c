"""Lettered questions: layouts, orders of options, both scorings, controls and baselines, from official files to gaps.

Fixtures are drawn, and real files where MEDBENCH_REAL_DATA names their folder.
"""

import ast
import csv
import html
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from medbench import config, paths, tables
from medbench.adapt.asked import Said
from medbench.cells import Cell, grid
from medbench.config import Config
from medbench.datasets.layouts import ChoiceItem
from medbench.demo import llavaformat
from medbench.errors import MedbenchError
from medbench.jobs.partial import Work
from medbench.metrics.evaluate_modules.vqa_strict.choices import read_choice
from medbench.metrics.mcq_published import PARSERS
from medbench.metrics.measure import Measure
from medbench.models.asking import Choosing
from medbench.models.baseline import bag_of_words, constant_letter, longest_option
from medbench.predict import choices
from medbench.report import answer, cautions, panels, results, words
from medbench.stages import duplicates, gaps, interval, overlap, predict, prepare, report, score
from medbench.stats.resamples import Resamples
from medbench.stats.table import Plan, estimates
from medbench.stats.table import rows as interval_rows
from medbench.tasks import mcq
from tests.unit import known

ROOT = Path(__file__).parents[2]
REAL = os.environ.get("MEDBENCH_REAL_DATA")
FILES = Path(REAL or "") / "mcq"
real = pytest.mark.skipif(not REAL, reason="MEDBENCH_REAL_DATA is not set")
LETTERS = "ABCDEFGHIJ"


def picture(number: int = 0, side: int = 24) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (number % 256, 40, 90)).save(stream, "PNG")
    return stream.getvalue()


def configured(entry: dict[str, Any], models: dict[str, Any] | None = None, modes: tuple[str, ...] = ("ots",)) -> Config:
    """A run of one data set `d`, in the working directory."""
    full = {"task": "mcq", "modality": "mixed", "specialty": "general", "raw_dir": str(Path("raw").absolute()), **entry}
    Path("datasets.yaml").write_text(yaml.safe_dump({"d": full}))
    Path("models.yaml").write_text(yaml.safe_dump(models or {"m": MODEL}))
    places = {name: str(Path(f"{name}.yaml").absolute()) for name in ("datasets", "models")}
    run = {"run": "r", "models": list(models or {"m": MODEL}), "datasets": ["d"], "modes": list(modes), "registries": places}
    return config.load(run, ROOT)


MODEL: dict[str, Any] = {
    "family": "f", "role": "generalist", "architecture": "llava", "checkpoint": "mini", "pretrained_on": ["everyday"],
    "max_new_tokens": 4, "batch_size": 4,
}  # fmt: skip


def prepared(entry: dict[str, Any]) -> pl.DataFrame:
    """The test split that `prepare` makes of the folder `raw`."""
    loaded = configured(entry)
    prepare.run(prepare.params(loaded, "d"), "d")
    return tables.read(mcq.SamplesMcq, paths.samples("d", "test"))


def card() -> dict[str, Any]:
    return json.loads(paths.card("d").read_text())  # type: ignore[no-any-return]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


# --- layouts


def medxpertqa(raw: Path, rows: list[dict[str, Any]]) -> None:
    (raw / "MM").mkdir(exist_ok=True)
    (raw / "images").mkdir(exist_ok=True)
    (raw / "MM/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number, name in enumerate(dict.fromkeys(name for row in rows for name in row.get("images", []))):
        (raw / "images" / name).write_bytes(picture(number))


def question(number: int, n_images: int = 1, **more: Any) -> dict[str, Any]:
    texts = {letter: f"finding {letter.lower()} of {number}" for letter in "ABCDE"}
    listed = " ".join(f"({letter}) {text}" for letter, text in texts.items())
    return {
        "id": f"MM-{number}", "question": f"What does case {number} show?\nAnswer Choices: {listed}", "options": texts,
        "label": LETTERS[number % 5], "images": [f"MM-{number}-{place}.png" for place in range(n_images)],
        "medical_task": "Diagnosis", "body_system": "Skeletal", "question_type": ("Reasoning", "Understanding")[number % 2], **more,
    }  # fmt: skip


def test_medxpertqa_is_read_by_its_own_fields(raw: Path) -> None:
    medxpertqa(raw, [question(0, 3), question(1), question(2, options={letter: f"Figure {letter}" for letter in "BDACE"})])
    with pytest.raises(MedbenchError, match=r"line 3: its options have the letters B, D, A, C, E"):
        prepared({"layout": "medxpertqa"})
    listed = [{"letter": letter, "content": text} for letter, text in zip("ABCDE", ("Figure C", "B", "3", "Image 2", "E"), strict=True)]
    medxpertqa(raw, [question(0, 3), question(1), question(2, options=listed, label=["B"])])
    frame = prepared({"layout": "medxpertqa"})
    assert frame["image_ids"].list.len().to_list() == [3, 1, 1] and frame["image_id"].to_list() == [of[0] for of in frame["image_ids"]]
    assert frame["question"].to_list() == [f"What does case {number} show?" for number in range(3)], (
        "options stand in their own field alone"
    )
    assert frame["answer"].to_list() == ["A", "B", "B"]
    assert frame["option_kind"].to_list() == ["text", "text", "letter"]
    assert frame.select("skill", "skill_source").rows() == [("reasoning", "data"), ("understanding", "data"), ("reasoning", "data")]
    assert tables.read(tables.Images, paths.images("d"))["evaluated"].sum() == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": ["MM-1-0.png"]}, "has no field 'images'"),  # misspelt: nobody may go on without the image
        ({"images": []}, "no list of images"),
        ({"images": ["gone.png"]}, "the image file does not exist"),
        ({"images": ["../secret.png"]}, "leaves the folder"),
        ({"label": "F"}, "answer 'F' is none of the letters A to E"),
        ({"label": "AB"}, "answer 'AB' is none of the letters A to E"),
        ({"question_type": "Guessing"}, "question_type is 'guessing'"),
    ],
)
def test_a_missing_image_is_an_error_and_so_is_a_wrong_field(raw: Path, change: dict[str, Any], said: str) -> None:
    row = {key: value for key, value in question(1).items() if not ("image" in change and key == "images")} | change
    medxpertqa(raw, [question(0)])
    with (raw / "MM/test.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(MedbenchError, match=said):
        prepared({"layout": "medxpertqa"})
    assert not paths.card("d").exists()


OMNI = {
    "gt_answer": "x_ray.", "modality_type": "X-Ray", "option_A": "MRI", "option_B": "X-Ray", "option_C": "CT", "question": "Which?",
    "question_type": "Modality Recognition",
}  # fmt: skip


def omnimedvqa(raw: Path, parts: dict[str, list[dict[str, Any]]]) -> None:
    (raw / "QA_information/Open-access").mkdir(parents=True, exist_ok=True)
    (raw / "Images").mkdir(exist_ok=True)
    for name, rows in parts.items():
        made = [
            {"dataset": name, "question_id": f"{name}_{place}", "image_path": f"Images/{name}.png", **row} for place, row in enumerate(rows)
        ]
        (raw / f"QA_information/Open-access/{name}.json").write_text(json.dumps(made))
        (raw / f"Images/{name}.png").write_bytes(picture(len(name)))


def test_omnimedvqa_in_part_names_what_is_missing(raw: Path) -> None:
    second = {**OMNI, "question_type": "Disease Diagnosis", "gt_answer": "No, It's normal.", "option_D": "No, it's normal"}
    third = {key: value for key, value in OMNI.items() if key != "modality_type"} | {"modality": "X-Ray", "gt_answer": "none of them"}
    omnimedvqa(raw, {"MIAS": [OMNI, second], "Mura": [third, OMNI]})
    with pytest.raises(MedbenchError, match=r"40 of 42 files are missing: ACRIMA, .*RadImageNet"):
        prepared({"layout": "omnimedvqa"})
    frame = prepared({"layout": "omnimedvqa", "options": {"parts": ["Mura", "MIAS"]}})
    assert frame["answer"].to_list() == ["B", "D", "B"], "case and marks of an answer are not its option's"
    assert frame.select("skill", "skill_source", "category").rows() == [
        ("understanding", "mapped", "MIAS"), ("diagnosis", "mapped", "MIAS"), ("understanding", "mapped", "Mura"),
    ]  # fmt: skip
    notes = "\n".join(card()["notes"])
    assert "2 of 42 files are read; missing: ACRIMA" in notes and "MIAS.json has 2 questions, 142 are published" in notes
    assert card()["excluded"] == {"the answer is none of the options": {"rows": 1, "examples": ["Mura.json entry 1"]}}
    with pytest.raises(MedbenchError, match="'Nobody' is no part"):
        prepared({"layout": "omnimedvqa", "options": {"parts": ["Nobody"]}})


def pmc_vqa(raw: Path, name: str, rows: list[dict[str, str]], folder: str) -> None:
    (raw / folder).mkdir(exist_ok=True)
    with (raw / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for number, row in enumerate(rows):
        (raw / folder / row["Figure_path"]).write_bytes(picture(number))


@real
def test_malformed_rows_of_pmc_vqa_are_counted_and_its_caption_is_never_read(raw: Path) -> None:
    rows = json.loads((FILES / "pmc_vqa/rows.json").read_text())
    first = [row["data"] for row in rows if "Answer_label" in row["data"]]
    pmc_vqa(raw, "test_clean.csv", first, "images")
    frame = prepared({"layout": "pmc-vqa", "options": {"version": "test-clean"}})
    kept = {row["question"] for row in frame.to_dicts()}
    good = [row["data"]["Question"].strip() for row in rows if row["file"] in ("train.csv", "test_clean.csv") and "note" not in row]
    assert set(good) <= kept
    found = card()["excluded"]
    assert found["malformed: its choices are not lettered A, B, C, D"]["rows"] >= 2
    assert sum(one["rows"] for one in found.values()) + frame.height == len(first) and frame.height < 5
    assert frame.filter(pl.col("question") == good[0])["options"][0].to_list()[1] == "Focal uptake pattern"
    second = [row["data"] for row in rows if "Caption" in row["data"]]
    pmc_vqa(raw, "test_2.csv", second, "figures")
    frame = prepared({"layout": "pmc-vqa", "options": {"version": "v2"}})
    assert frame["answer"].to_list() == ["B"] and frame["options"][0].to_list() == ["Green", "Red", "Light blue", "Yellow"]
    written = b"".join(path.read_bytes() for path in paths.data("d"))
    assert second[0]["Caption"][:30] not in json.dumps(frame.to_dicts()) and second[0]["Caption"][:30].encode() not in written
    with pytest.raises(MedbenchError, match="version: must be one of v1, test-clean, v2"):
        prepared({"layout": "pmc-vqa", "options": {"version": "v3"}})


def hub(path: Path, rows: list[dict[str, Any]], n_images: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for row in rows:
        shown = row.pop("shown")
        row |= {f"image_{place + 1}": {"bytes": shown[place], "path": None} if place < len(shown) else None for place in range(n_images)}
    fields = {name: image if name.startswith("image_") else None for name in rows[0]}
    arrays = {name: pa.array([row[name] for row in rows], type=kind) for name, kind in fields.items()}
    pq.write_table(pa.table(arrays), path)


def mmmu_row(name: str, kind: str = "multiple-choice", **more: Any) -> dict[str, Any]:
    row = {
        "id": name, "question": "Compare <image 1> with <image 2>.", "options": "['same', 'other', '<image 3>']", "answer": "B",
        "question_type": kind, "shown": [picture(1), picture(2), picture(3)],
    }  # fmt: skip
    return row | more


def test_mmmu_keeps_every_image_and_leaves_open_questions_out(raw: Path) -> None:
    hub(raw / "Pharmacy/validation-0.parquet", [mmmu_row("v1"), mmmu_row("v2", "open", options="[]", answer="3")], 7)
    options = {"edition": "validation", "subjects": ["Pharmacy"]}
    frame = prepared({"layout": "mmmu", "options": options})
    assert frame["question"].to_list() == ["Compare image 1 with image 2."] and frame["options"][0].to_list()[2] == "image 3"
    assert frame["image_ids"].list.len().to_list() == [3] and frame["category"].to_list() == ["Pharmacy"]
    assert card()["excluded"]["open question"]["rows"] == 1
    hub(raw / "Pharmacy/validation-0.parquet", [mmmu_row("v1", shown=[picture(1)])], 7)
    with pytest.raises(MedbenchError, match="names image 3 and has 1"):
        prepared({"layout": "mmmu", "options": options})


def test_mmmu_test_has_its_public_answers_and_pro_its_own(raw: Path) -> None:
    hub(raw / "Pharmacy/test-0.parquet", [mmmu_row("t1", answer="?"), mmmu_row("t2", answer="?")], 7)
    options = {"edition": "test", "subjects": ["Pharmacy"], "answers": "answers.json"}
    golds = {"t1": {"question_type": "multiple-choice", "ground_truth": "C"}, "t2": {"ground_truth": ["A", "A"]}}
    (raw / "answers.json").write_text(json.dumps(golds))
    assert prepared({"layout": "mmmu", "options": options})["answer"].to_list() == ["C", "A"]
    (raw / "answers.json").write_text(json.dumps({"t1": golds["t1"]}))
    with pytest.raises(MedbenchError, match="answer '' is none of the letters"):
        prepared({"layout": "mmmu", "options": options})
    rows = [{**mmmu_row("p1"), "subject": "Pharmacy"}, {**mmmu_row("p2"), "subject": "History"}]
    for row in rows:
        row.pop("question_type")
    hub(raw / "standard (10 options)/test-0.parquet", rows, 7)
    assert prepared({"layout": "mmmu", "options": {"edition": "pro"}})["sample_id"].to_list() == ["p1"]


def test_medframeqa_groups_by_video_and_reads_no_chain_of_reasoning(raw: Path) -> None:
    rows = [
        {"question_id": f"q{n}", "video_id": f"v{n // 2}", "question": "What?", "options": ["a", "b", "c"], "correct_answer": gold,
         "modality": "CT", "reasoning_chain": "the answer is b", "shown": [picture(n), picture(n + 9)]}
        for n, gold in enumerate(("B", "c", "A"))
    ]  # fmt: skip
    hub(raw / "data/test-0.parquet", rows, 5)
    frame = prepared({"layout": "medframeqa"})
    assert frame["answer"].to_list() == ["B", "C", "A"] and frame["group_id"].to_list() == ["v0", "v0", "v1"]
    assert set(frame["skill"]) == {"reasoning"} and "the answer is" not in json.dumps(frame.to_dicts())


def test_closed_questions_become_choices() -> None:
    found = mcq.closed_options("Is the lung normal?", "Yes.")
    assert found == (("yes", "no"), "A") and mcq.closed_options("Is it?", "no") == (("yes", "no"), "B")
    assert mcq.closed_options("Is the lesion in the left or right lung?", "right") == (("left", "right"), "B")
    assert mcq.closed_options("Is it influenza A or influenza B?", "influenza A") == (("influenza a", "influenza b"), "A")
    assert mcq.closed_options("What is it?", "a nodule") is None


@real
def test_vqa_rad_has_the_closed_questions_of_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = config.load({"run": "r", "models": ["mini-llava"], "datasets": ["vqa-rad-closed"], "modes": ["ots"]}, ROOT)
    prepare.run(prepare.params(loaded, "vqa-rad-closed"), "vqa-rad-closed")
    frame = tables.read(mcq.SamplesMcq, paths.samples("vqa-rad-closed", "test"))
    assert frame.height == 251 and set(frame["answer"]) == {"A", "B"}


@real
def test_medxpertqa_has_554_and_1446_questions_and_17_that_keep_their_order() -> None:
    rows = [json.loads(line) for line in (FILES / "medxpertqa/mm_test.hub-form.jsonl").open()]
    items = [ChoiceItem("i", "g", "test", (), "p", "q", tuple(row["options"].values()), row["label"]) for row in rows]
    kinds = [row["question_type"] for row in rows]
    assert (kinds.count("Understanding"), kinds.count("Reasoning")) == (554, 1446)
    assert sum(item.is_positional for item in items) == 17
    assert 168 <= sum(item.option_kind == "letter" for item in items) <= 169


@pytest.mark.parametrize(
    ("text", "is_positional"),
    [
        ("None of the above", True), ("all of them", True), ("Both B and C", True), ("A, B, and C are correct", True), ("Neither.", True),
        ("A,B and C are correct", True), ("Only A and C are correct", True), ("None are correct", True), ("C and B", True),
        ("Both column fracture", False), ("Above knee amputation", False), ("Vitamin A and D deficiency", False), ("Panel A", False),
        ("Hepatitis A or B vaccine", False), ("Type A and B", False),
        ("A and C only", True), ("Neither A nor B", True), ("Options A and B", True), ("Both options A and B", True), ("A only", True),
        ("A+B", True), ("A/B", True), ("a and b", True), ("(a) and (b)", True), ("All the above", True), ("All above", True),
        ("Only A", True),
        ("None above", True), ("All are correct", True), ("All except A", True), ("All of the above, except C", True),
        ("No option is correct", True), ("Neither option A nor B is correct", True), ("All of the above are true", True),
        ("A/(A+B)", False), ("A-B", False), ("A", False), ("Option A", False), ("A/C joint", False),
        ("All ventricles except the left", False),
        ("B only lesion", False), ("Only C7", False), ("E. coli only", False), ("All the ribs above", False), ("Above all", False),
    ],
)  # fmt: skip
def test_options_that_speak_of_each_other_keep_their_order(text: str, is_positional: bool) -> None:
    item = ChoiceItem("i", "g", "test", (), "p", "q", ("one", text, "another"), "A")
    assert item.is_positional is is_positional


def test_a_long_option_is_told_in_no_long_time() -> None:
    """Two ways to read each parenthesis took twice as long for every further one."""
    for text in (", ".join(["(A)"] * 300) + " x", "(" * 5000, "A, " * 2000, "options " * 2000):
        begun = time.process_time()
        assert ChoiceItem("i", "g", "test", (), "p", "q", ("one", text, "another"), "A").is_positional is text.startswith("A")
        assert time.process_time() - begun < 2


# --- orders and prompts


def test_orders_are_cyclic_seeded_and_put_the_right_option_behind_other_letters() -> None:
    many = [choices.orders(5, False, 4, f"0/d/{number}") for number in range(200)]
    assert all(len(set(of)) == 4 and set(of) <= set(range(5)) for of in many)
    assert {of[0] for of in many} == set(range(5)), "the first order is drawn too"
    assert many == [choices.orders(5, False, 4, f"0/d/{number}") for number in range(200)]
    assert choices.orders(3, False, 4, "key") and sorted(choices.orders(3, False, 4, "key")) == [0, 1, 2]
    assert choices.orders(5, True, 4, "key") == choices.orders(5, False, 0, "key") == [0]


def test_the_prompt_is_the_official_one_and_the_wordings_change_what_they_say() -> None:
    put = Choosing(config.Asking().choices, "No image.", "as-is", 4, 8)
    whole = "What is it? {options}\n\n(A) a {question}\n(B) b\n\nAnswer with the option's letter from the given choices directly."
    assert put.text(" What is it? {options}", ["a {question}", " b "]) == whole, "braces in the data are data"
    assert put._replace(wording="told").text("Q", ["a", "b"]).startswith("No image.\n\nQ\n\n(A) a")
    assert put._replace(wording="options-only").text("Q", ["a", "b"]).startswith("(A) a\n(B) b")


# --- scoring


def table(said: list[Said], options: list[list[str]], answers: str, **more: Any) -> pl.DataFrame:
    """Predictions of questions, each a group of its own."""
    n = len(said)
    columns: dict[str, Any] = {
        "sample_id": [f"s{place:04d}" for place in range(n)], "group_id": [f"g{place:04d}" for place in range(n)], "question": ["q"] * n,
        "options": options, "reference": list(answers), "option_kind": ["text"] * n, "is_positional": [False] * n, "skill": [None] * n,
        "skill_source": ["none"] * n, "category": [""] * n, "n_images": [1] * n, "shifts": [one.shifts for one in said],
        "log_probabilities": [None if one.letters is None else [of for of, _ in one.letters] for one in said],
        "mass": [None if one.letters is None else [mass for _, mass in one.letters] for one in said], "answer": [one.text for one in said],
        "finish_reason": [one.finish_reason for one in said], "n_tokens": [one.n_tokens for one in said], **more,
    }  # fmt: skip
    return pl.DataFrame(columns, schema=tables.columns(mcq.PredictionsMcq), strict=False)


def always(letter: str, k: int = 4, mass: float = 0.9) -> tuple[list[float], float]:
    return [np.log(mass) if place == LETTERS.index(letter) else -20.0 for place in range(k)], mass


def seeing(gold: int, shift: int, k: int = 4) -> tuple[list[float], float]:
    return always(LETTERS[(gold - shift) % k], k)


def values(frame: pl.DataFrame) -> dict[tuple[str, str], float]:
    scores = mcq.score(frame, "here").table
    cell = mcq.scored(scores, pl.Series([], dtype=pl.String), "here")
    return {(one.metric, one.scoring): value for one, value in estimates(cell, cell.measures()).items() if one.subset == "all"}


def test_a_model_that_likes_a_letter_is_at_chance_in_four_orders_and_one_that_sees_is_right_in_all() -> None:
    options, golds = [["a", "b", "c", "d"]] * 40, "ABCC" * 10  # by its letters, a constant C would reach a half
    biased = values(table([Said([0, 1, 2, 3], [always("C")] * 4, "C")] * 40, options, golds))
    assert biased["accuracy", "letter"] == 0.25 and biased["above_chance", "letter"] == 0 and biased["accuracy", "text"] == 0.5
    assert biased["all_right", "letter"] == 0 and biased["flip_rate", "letter"] == 1
    assert (biased["recall_C", "letter"], biased["recall_A", "letter"]) == (1, 0)
    sees = [Said([0, 1, 2, 3], [seeing(LETTERS.index(gold), shift) for shift in range(4)], gold) for gold in golds]
    found = values(table(sees, options, golds))
    assert (
        found["accuracy", "letter"] == found["all_right", "letter"] == found["above_chance", "letter"] == found["agreement", "letter"] == 1
    )
    assert found["flip_rate", "letter"] == 0 and found["letter_mass", "letter"] == pytest.approx(0.9)


def test_letters_and_text_may_disagree_and_little_mass_is_flagged() -> None:
    said = [
        Said([1, 2], [always("A", mass=0.1), always("A", mass=0.8)], "A"),  # shown: b c d a
        Said([1, 2], [always("A"), always("D")], "(B) c"),
        Said([1, 2], [always("A"), always("A")], "I can't tell."),
        Said([1, 2], [always("A"), always("A")], "<think>B", "length"),
    ]
    scores = mcq.score(table(said, [["a", "b", "c", "d"]] * 4, "BBBB"), "here").table
    assert scores["choice"].to_list() == ["B", "C", None, None] and scores["state"].to_list() == [
        "parsed",
        "parsed",
        "refused",
        "truncated",
    ]
    assert scores["accuracy_letter"].to_list() == [0.5, 1.0, 0.5, 0.5] and scores["accuracy_text"].to_list() == [1, 0, 0, 0]
    assert scores["agreement_letter"].to_list() == [1, 0, None, None] and scores["low_mass_letter"].to_list() == [0.5, 0, 0, 0]
    assert "2 answers (1 refused, 1 truncated)" in mcq.score(table(said, [["a", "b", "c", "d"]] * 4, "BBBB"), "here").note


def test_the_right_option_twice_is_right_twice_and_one_order_has_no_flips() -> None:
    said = [Said([0], [always("C", 3)], "C")] * 2
    scores = mcq.score(table(said, [["same ", "b", "Same"], ["a", "b", "c"]], "AA"), "here").table
    assert (
        scores["accuracy_letter"].to_list() == scores["accuracy_text"].to_list() == [1, 0] and scores["flip_rate_letter"].null_count() == 2
    )


def test_without_letters_and_under_30_questions_there_are_reasons() -> None:
    frame = table([Said([0], None, "B")] * 40, [["a", "b"]] * 40, "B" * 40, skill=["reasoning"] * 29 + ["understanding"] * 11)
    cell = mcq.scored(mcq.score(frame, "here").table, pl.Series([], dtype=pl.String), "here")
    measure = Measure("accuracy", "letter", "all")
    assert np.isnan(estimates(cell, [measure])[measure]) and "tells no probabilities of letters" in cell.why_undefined(measure)
    few = Measure("accuracy", "text", "skill-reasoning")
    assert few in cell.measures() and np.isnan(estimates(cell, [few])[few])
    assert cell.why_undefined(few) == "29 questions of skill-reasoning, fewer than 30"
    assert estimates(cell, [Measure("above_chance", "text", "all")]).popitem()[1] == 1


def test_accuracy_over_categories_weighs_them_alike() -> None:
    frame = table([Said([0], None, "A")] * 90, [["a", "b"]] * 90, "A" * 80 + "B" * 10, category=["large"] * 80 + ["small"] * 10)
    found = values(frame)
    assert found["accuracy", "text"] == pytest.approx(80 / 90) and found["macro_accuracy", "text"] == pytest.approx(0.5)


# --- the parser: mistakes that published ones make

LAB = {
    "A": "Elevated serum creatinine", "B": "Low hemoglobin", "C": "Hyperkalemia", "D": "Elevated serum hemoglobin A1C", "E": "RB",
    "F": "A, B and C are correct", "G": "Vitamin D deficiency", "H": "Bilateral pneumonia", "I": "Cardiac enlargement",
}  # fmt: skip
BONE = {"A": "Gout", "B": "Osteoporosis", "C": "Rheumatoid arthritis", "D": "Infection"}
GERMS = {"A": "E. coli", "B": "Staph aureus", "C": "E. coli and Staph aureus", "D": "Candida", "E": "S. pneumoniae"}
FIGURES = {"A": "Figure C", "B": "Figure E", "C": "Figure B", "D": "Figure D", "E": "Figure A"}


@pytest.mark.parametrize(
    ("answer", "options", "choice"),
    [
        ("I can't provide an answer to that.", LAB, None),
        ("Sorry, I can\u2019t help with that.", LAB, None),
        ("I. Cardiac enlargement", LAB, "I"),
        ("I think that this needs a doctor", LAB, None),
        ("D. Elevated serum hemoglobin A1C", LAB, "D"),
        ("hemoglobin A1C", BONE, None),
        ("E. RB", LAB, "E"),
        ("F. A, B and C are correct", LAB, "F"),
        ("The answer is **b**ilateral pneumonia", LAB, "H"),
        ("The answer is bilateral pneumonia", BONE, None),
        ("the answer is **c**ardiac enlargement", BONE, None),
        ("The patient has vitamin B deficiency.", BONE, None),
        ("", BONE, None),
        ("  \n", BONE, None),
        ("I cannot determine this", BONE, None),
        ("b. C d. B f. H", LAB, None),
        ("<think>The answer is B", BONE, None),
        ("so A</think>\nB", BONE, "B"),
        (r"\boxed{\text{B}}", BONE, "B"),
        (r"Answer: \( \text{G} \)", LAB, "G"),
        ("Answer: $LETTER", BONE, None),
        ("ANSWER: AB", BONE, None),
        ("C-section", BONE, None),
        ("Figure C", FIGURES, "A"),
        ("E. Figure A", FIGURES, "E"),
        ("The answer is Figure A", FIGURES, "E"),
        ("False.", {"A": "False", "B": "True"}, "A"),
        ("The isolates are E. coli and Staph aureus.", GERMS, "C"),
        ("The cause is S. pneumoniae.", GERMS, "E"),
        ("E. coli", GERMS, "A"),
        ("E", GERMS, "E"),
        ("A patient with joint pain", BONE, None),
        ("Answer: B\n\nWait, actually Answer: C", BONE, "C"),
    ],
)
def test_the_parser_makes_none_of_the_known_mistakes(answer: str, options: dict[str, str], choice: str | None) -> None:
    assert read_choice(answer, options).choice == choice


def test_the_parser_depends_on_no_switch_and_no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["A is what this long answer of many words says", "none that I see", "A"]
    before = [read_choice(answer, BONE) for answer in answers]
    monkeypatch.setenv("VERBOSE", "0")
    assert [read_choice(answer, BONE) for answer in answers for _ in range(3)] == [one for one in before for _ in range(3)]


@real
@pytest.mark.parametrize("setting", ["standard-cot", "vision-cot"])
def test_answers_of_gpt_4o_are_read_as_a_person_would(setting: str) -> None:
    """The published reading is right but for a refusal, which it takes for option I."""
    asked = {row["id"]: row for row in map(json.loads, (FILES / "mmmu_pro/questions_health_10options.jsonl").open())}
    rows = [json.loads(line) for line in (FILES / f"mmmu_pro/responses_health_gpt-4o_{setting}.jsonl").open()]
    other = []
    for row in rows:
        options = dict(zip(LETTERS, ast.literal_eval(asked[row["id"]]["options"]), strict=False))
        found = read_choice(row["response"], options, asked[row["id"]]["question"])
        if found.choice != row["official_pred"]:
            other.append((row["response"], found.state))
    assert len(rows) == 286 and other in ([], [("I'm sorry, I can't do that.", "refused")])


# --- baselines


def test_constant_letter_and_longest_option_are_what_they_say() -> None:
    options = [["a", "bbb", "cc"], ["aaaa", "b"], ["a", "bbb", "ccc"]]
    constant = constant_letter.log_probabilities([""] * 3, options, [2, 0, 2], [""] * 3)
    assert [int(np.argmax(of)) for of in constant] == [2, 0, 2]
    longest = longest_option.log_probabilities([""] * 3, options, [0, 0, 0], [""] * 3)
    assert [int(np.argmax(of)) for of in longest] == [1, 0, 1]


def test_words_give_away_a_planted_answer_and_never_cross_groups() -> None:
    rng = np.random.default_rng(0)
    stems = [f"what about case {number % 5}" for number in range(120)]
    planted = [list(rng.permutation(["normal", "mass", "cyst", "gas"])) for _ in range(120)]
    answers = [of.index("mass") for of in planted]
    found = bag_of_words.log_probabilities(stems, planted, answers, [f"g{n}" for n in range(120)])
    assert np.mean([np.argmax(of) == gold for of, gold in zip(found, answers, strict=True)]) == 1
    assert all(np.exp(of).sum() == pytest.approx(1) for of in found)
    one_group = bag_of_words.log_probabilities(stems, planted, answers, ["g"] * 120)
    assert all(of == pytest.approx([np.log(0.25)] * 4) for of in one_group), "nothing is learned from a question's own group"


# --- from files to gaps

CONTROLS = ("ots", "ots-blank", "ots-shuffled", "ots-no-image", "ots-no-image-told", "ots-options-only")


def made(rows: list[dict[str, Any]], raw: Path, models: dict[str, Any], modes: tuple[str, ...]) -> Config:
    """All jobs of a run of the layout `medxpertqa`, in order."""
    medxpertqa(raw, rows)
    loaded = configured({"layout": "medxpertqa"}, models, modes)
    prepare.run(prepare.params(loaded, "d"), "d")
    duplicates.run(duplicates.params(loaded, "d"), "d")
    for cell in grid(loaded):
        with_work = Path("work") / cell.model / cell.mode
        with_work.mkdir(parents=True)
        predict.run(predict.params(loaded, *cell), *cell, Work(with_work))
        score.run(score.params(loaded, *cell), *cell)
        interval.run(interval.params(loaded, *cell), *cell)
    gaps.run(gaps.params(loaded, "r"), "r")
    return loaded


@pytest.fixture
def mini(monkeypatch: pytest.MonkeyPatch, raw: Path) -> Path:
    """An untrained LLaVA in the working directory whose words are those of the questions."""
    import torch

    monkeypatch.setattr(llavaformat, "MAX_LENGTH", 2048)
    texts = [question(number)["question"] for number in range(60)]
    tokenizer = llavaformat.train_tokenizer([*texts, config.Asking().choices, *map(str, range(200))])
    torch.manual_seed(0)
    llavaformat.save(llavaformat.build(tokenizer), tokenizer, Path("mini"))
    return Path("mini")


def test_all_controls_run_end_to_end_with_several_images(raw: Path, mini: Path) -> None:
    models = {"one": {**MODEL, "checkpoint": str(mini.absolute())}}
    loaded = made([question(number, 1 + number % 3) for number in range(40)], raw, models, CONTROLS)
    own = tables.read(mcq.PredictionsMcq, paths.predictions("d", "one", "ots"))
    assert own["n_images"].to_list() == [1 + number % 3 for number in range(40)]
    assert own["log_probabilities"].list.len().to_list() == [4] * 40 and own["mass"].list.max().max() <= 1.0001
    told = {mode: tables.read(mcq.PredictionsMcq, paths.predictions("d", "one", mode)) for mode in CONTROLS}
    assert all(frame["shifts"].to_list() == own["shifts"].to_list() for frame in told.values()), "the same orders in every mode"
    assert len({str(frame["log_probabilities"].to_list()) for frame in told.values()}) == len(CONTROLS), (
        "every control changes what is said"
    )
    baselines = {cell.model for cell in grid(loaded)} - {"one"}
    assert baselines == {"constant-letter", "longest-option", "bag-of-words"}
    controls = tables.read(tables.Controls, paths.controls("r"))
    assert set(controls.filter(pl.col("kind") == "mode")["control"]) == set(CONTROLS[1:]) and set(controls["scoring"]) == {"letter", "text"}
    assert set(controls.filter(pl.col("kind") == "baseline")["control"]) == baselines
    row = controls.filter(pl.col("control") == "ots-no-image", pl.col("scoring") == "letter").to_dicts()[0]
    ours, theirs = (tables.read(mcq.ScoresMcq, paths.scores("d", "one", mode))["accuracy_letter"] for mode in ("ots", "ots-no-image"))
    assert row["gain"] == pytest.approx((ours - theirs).mean()) and row["low"] <= row["gain"] <= row["high"] and row["n_pair"] == 40
    found = tables.read(tables.Intervals, paths.intervals("d", "one", "ots"))
    assert {("above_chance", "letter"), ("flip_rate", "letter"), ("recall_A", "letter"), ("parsed", "text")} <= set(
        found.select("metric", "scoring").rows()
    )


def test_a_kill_loses_no_letters_and_another_batch_size_changes_none(raw: Path, mini: Path) -> None:
    models = {"one": {**MODEL, "checkpoint": str(mini.absolute())}}
    medxpertqa(raw, [question(number, 2) for number in range(6)])
    loaded = configured({"layout": "medxpertqa"}, models)
    prepare.run(prepare.params(loaded, "d"), "d")
    params, found = predict.params(loaded, "d", "one", "ots"), []
    for size in (1, 4):
        assert params.source is not None
        params = params._replace(source={**params.source, "batch_size": size})
        folder = Path(f"work{size}")
        folder.mkdir()
        found.append(choices.predict(params, "d", "one", "ots", Work(folder)))
        assert choices.predict(params, "d", "one", "ots", Work(folder)).equals(found[-1]), "what the journal holds is not asked again"
    first, second = (np.array(frame["log_probabilities"].to_list()) for frame in found)
    assert np.allclose(first, second, atol=1e-4) and found[0]["answer"].to_list() == found[1]["answer"].to_list()


ECHO = """
from medbench.models.answering import Answer, Answerer

class Echo(Answerer):
    weights = {"model": "echo"}
    def answers(self, questions, done, microbatching):
        yield {place: Answer("A" if place % 2 else "(B)", "stop", 1) for place in range(len(questions.texts)) if place not in done}

def answerer(source, change=None):
    return Echo()
"""


def test_a_comparison_has_one_scoring_on_both_sides(raw: Path, mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    import sys
    import types

    import torch
    from safetensors.torch import load_file, save_file

    echo = types.ModuleType("medbench.models.remote.openai_like")
    exec(ECHO, echo.__dict__)
    monkeypatch.setitem(sys.modules, "medbench.models.remote.openai_like", echo)
    shutil.copytree(mini, "other")
    weights = load_file("other/model.safetensors")
    moved = {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in weights.items()}
    save_file(moved, "other/model.safetensors", {"format": "pt"})
    local = {**MODEL, "checkpoint": str(mini.absolute())}
    other = {**MODEL, "checkpoint": str(Path("other").absolute()), "role": "specialist", "pretrained_on": ["mixed"]}
    models = {"one": local, "two": other}
    loaded = made([question(number) for number in range(40)], raw, models, ("ots",))
    rows = tables.read(tables.Gaps, paths.gaps("r")[0]).filter(pl.col("selection_bias").is_not_null())
    assert rows.select("metric", "scoring", "subset").unique().rows() == [("accuracy", "letter", "all")]
    params = predict.params(loaded, "d", "two", "ots")
    assert params.source is not None
    remote = params._replace(source={**params.source, "module": echo.__name__})
    cell = Cell("d", "two", "ots")
    tables.write(mcq.PredictionsMcq, choices.predict(remote, *cell, Work(Path("work"))), paths.predictions(*cell))
    score.run(score.params(loaded, *cell), *cell)
    interval.run(interval.params(loaded, *cell), *cell)
    gaps.run(gaps.params(loaded, "r"), "r")
    rows = tables.read(tables.Gaps, paths.gaps("r")[0]).filter(pl.col("selection_bias").is_not_null())
    assert rows.select("metric", "scoring", "subset").unique().rows() == [("accuracy", "text", "all")]
    letter = tables.read(tables.Gaps, paths.gaps("r")[0]).filter(
        pl.col("metric") == "accuracy", pl.col("scoring") == "letter", pl.col("subset") == "all"
    )
    assert letter["verdict"].null_count() == letter.height
    overlap.run(overlap.params(loaded, "r"), "r")
    found = results.read(report.params(loaded, "r"), "r", lambda cell: [])
    assert answer.deciding(found).select("scoring", "verdict").rows() == rows.select("scoring", "verdict").rows(), (
        "the page shows the comparison that decided"
    )
    nothing = found.gaps.with_columns(selection_bias=pl.lit(None, pl.Float64))  # as where the comparison has no interval
    assert (
        answer.deciding(found._replace(gaps=nothing))
        .select("scoring", "verdict")
        .equals(answer.deciding(found).select("scoring", "verdict"))
    )
    shown = results.primary(found, "mcq")
    assert shown.height == len(found.present) and set(shown["scoring"]) == {"text"} and not shown["estimate"].null_count()
    assert set(results.primary_leak_free(found, "mcq").select("scoring", "subset").unique().rows()) == {("text", "leak-free")}
    assert not cautions.few_groups(found).places, "a metric that a model does not have says nothing of groups"
    worths = cautions.worths(found)
    assert {(worth.metric, worth.models) for worth in worths} == {("accuracy by text", 2)} and "none" not in {
        worth.best for worth in worths
    }
    assert all(
        "absent" not in field.text and words.NOTHING not in field.text
        for panel in panels.panels(found)
        for _, row in panel.rows
        for field in row
    )


def test_a_wording_is_of_lettered_questions_alone() -> None:
    loaded = config.load({"run": "r", "models": ["nano-llava"], "datasets": ["nano-vqa-radiology"], "modes": ["ots", *CONTROLS[1:]]}, ROOT)
    asked = {cell.mode for cell in grid(loaded) if cell.model == "nano-llava"}
    assert asked == {"ots", "ots-blank", "ots-shuffled", "ots-no-image"}


def test_the_parsers_of_others_are_scorings_of_one_model_alone(raw: Path, mini: Path) -> None:
    models = {"one": {**MODEL, "checkpoint": str(mini.absolute())}}
    made([question(number) for number in range(40)], raw, models, ("ots",))
    scores = tables.read(mcq.ScoresMcq, paths.scores("d", "one", "ots"))
    rows = tables.read(tables.Intervals, paths.intervals("d", "one", "ots")).filter(pl.col("method") == "percentile")
    for place, name in enumerate(PARSERS):
        measure = Measure("accuracy", f"as-{name}", "all")
        [row] = rows.filter(*(pl.col(key) == value for key, value in measure._asdict().items())).to_dicts()
        assert row["estimate"] == pytest.approx(scores["as_published"].list.get(place).mean()) and not measure.is_compared


# --- models whose truth is known

ABOUT_IMAGES = ("ots-blank", "ots-shuffled", "ots-no-image")
KNOWN_MODES = ("ots", *ABOUT_IMAGES)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of two phantom sets with lettered questions, two models that guess, one that sees, and one that writes traps; its report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("truth"))
        full = {"task": "mcq", "layout": "phantom-vqa", "specialty": "radiology"}
        registry = yaml.safe_load((ROOT / "config/datasets.yaml").read_text())["nano-mcq-radiology"]
        skin = {"kind": "dermatology", "n_patients": {"train": 6, "val": 2, "test": 40}}
        entries = {"nano-mcq-radiology": registry, "skin": {**full, "modality": "dermoscopy", "options": skin}}
        side = {"generalist": ["everyday"], "specialist": ["x-ray", "dermoscopy"]}
        models = {
            name: {**MODEL, "family": family, "role": role, "pretrained_on": side[role], "about": {"parameters": size}}
            for name, family, role, size in (
                ("guesses", "f", "generalist", 3 * 10**9), ("guesses-too", "f", "specialist", 4 * 10**9),
                ("traps", "g", "generalist", 7 * 10**9), ("sees", "g", "specialist", 8 * 10**9),
            )
        }  # fmt: skip
        for name, made_of in {"datasets": entries, "models": models}.items():
            Path(f"{name}.yaml").write_text(yaml.safe_dump(made_of))
        places = {name: str(Path(f"{name}.yaml").absolute()) for name in ("datasets", "models")}
        run = {"run": "truth", "models": list(models), "datasets": list(entries), "modes": list(KNOWN_MODES), "registries": places}
        loaded = config.load({**run, "statistics": {"n_resamples": 200, "n_test_resamples": 1000}}, ROOT)
        known.prepared(loaded)
        seeing_one = known.see(entries)
        modules = known.installed(patch, {
            "guesses": known.Known(known.guess), "guesses-too": known.Known(known.guess_by_image),
            "sees": known.Known(seeing_one), "traps": known.Known(seeing_one, known.TRAPS),
        })  # fmt: skip
        known.run(loaded, modules)
        report.run(report.params(loaded, "truth"), "truth")
        yield Path.cwd()


def interval_of(cell: tuple[str, str, str], metric: str, scoring: str, subset: str = "all") -> dict[str, Any]:
    chosen = {"metric": metric, "scoring": scoring, "subset": subset, "method": "percentile"}
    [row] = (
        tables.read(tables.Intervals, paths.intervals(*cell)).filter(*(pl.col(key) == value for key, value in chosen.items())).to_dicts()
    )
    return row


@pytest.fixture
def there(truth: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(truth)
    return truth


SETS = ("nano-mcq-radiology", "skin")


@pytest.mark.parametrize("dataset", SETS)
def test_a_model_that_guesses_is_at_chance_and_gains_nothing_by_its_image(there: Path, dataset: str) -> None:
    for model in ("guesses", "guesses-too"):
        for mode in KNOWN_MODES:
            for scoring in ("letter", "text"):
                row = interval_of((dataset, model, mode), "above_chance", scoring)
                assert row["low"] <= 0 <= row["high"], (model, mode, scoring)
        rows = tables.read(tables.Controls, paths.controls("truth")).filter(pl.col("model") == model, pl.col("dataset") == dataset)
        gains = rows.filter(pl.col("kind") == "mode", pl.col("scoring") == "letter")
        assert set(gains["control"]) == set(ABOUT_IMAGES) and gains.select((pl.coalesce("low", "gain") <= 0).all()).item()
        assert (gains["low"].null_count() > 0) is (model == "guesses"), "whose answers are the same, whatever it sees"
    rows = tables.read(tables.Gaps, paths.gaps("truth")[0]).filter(pl.col("dataset") == dataset, pl.col("family") == "f")
    [row] = rows.filter(pl.col("selection_bias").is_not_null()).to_dicts()
    assert row["verdict"] is None and "neither side is above the baseline" in row["reason"]


@pytest.mark.parametrize("dataset", SETS)
def test_a_model_that_sees_is_above_its_own_answers_without_the_image_and_at_chance_there(there: Path, dataset: str) -> None:
    for scoring in ("letter", "text"):
        assert interval_of((dataset, "sees", "ots"), "accuracy", scoring)["estimate"] == 1
        for mode in ABOUT_IMAGES:
            row = interval_of((dataset, "sees", mode), "above_chance", scoring)
            assert row["low"] <= 0 <= row["high"], (mode, scoring)
    controls = tables.read(tables.Controls, paths.controls("truth")).filter(pl.col("model") == "sees", pl.col("dataset") == dataset)
    assert (controls["low"] > 0).all() and (controls["control_estimate"] < controls["estimate"]).all()
    assert set(controls["control"]) == {*ABOUT_IMAGES, "constant-letter", "longest-option", "bag-of-words"}


@pytest.mark.parametrize("dataset", SETS)
def test_what_parsers_misread_is_right_in_text_and_wrong_as_they_read_it(there: Path, dataset: str) -> None:
    assert interval_of((dataset, "traps", "ots"), "accuracy", "text")["estimate"] == 1
    for name in PARSERS:
        assert interval_of((dataset, "traps", "ots"), "accuracy", f"as-{name}")["estimate"] < 0.9, name
    for name in ("box", "mmmu", "lmms-eval"):
        assert interval_of((dataset, "traps", "ots"), "accuracy", f"as-{name}")["estimate"] < 0.4, name


def test_roles_are_compared_by_size_and_over_data_sets(there: Path) -> None:
    roles = tables.read(tables.Roles, paths.lettered("truth")[1]).filter(pl.col("metric") == "accuracy", pl.col("subset") == "all")
    by = {(row["dataset"], row["size"]): row for row in roles.to_dicts()}
    assert set(by) == {(name, size) for name in (*SETS, "all") for size in ("all", "under 5 B", "5 to 15 B")}
    small, whole = by["skin", "under 5 B"], by["skin", "all"]
    assert small["low"] <= 0 <= small["high"] and (whole["n_generalists"], whole["n_specialists"]) == (2, 2)
    assert by["skin", "5 to 15 B"]["gap"] == 0 and "every resample gives the same gap" in by["skin", "5 to 15 B"]["reason"]
    assert whole["gap"] == pytest.approx(small["gap"] / 2), "the mean of each side"
    both = by["all", "all"]
    assert both["n_datasets"] == 2 and both["gap"] == pytest.approx(np.mean([by[name, "all"]["gap"] for name in SETS]))
    assert both["sd"] == pytest.approx(np.hypot(*(by[name, "all"]["sd"] for name in SETS)) / 2, rel=0.15), "data sets are drawn apart"


def test_a_models_variation_over_data_sets_and_the_reliable_cells(there: Path) -> None:
    variation = {row["model"]: row for row in tables.read(tables.Variation, paths.lettered("truth")[2]).to_dicts()}
    values = [interval_of((name, "guesses", "ots"), "accuracy", "letter")["estimate"] for name in SETS]
    assert variation["guesses"]["sd"] == pytest.approx(np.std(values, ddof=1)) and variation["guesses"]["mean"] == pytest.approx(
        np.mean(values)
    )
    assert variation["guesses"]["sd_between"] <= variation["guesses"]["sd"] and variation["sees"]["sd"] == 0
    assert variation["guesses"]["low"] <= variation["guesses"]["sd"] <= variation["guesses"]["high"]
    reliable = tables.read(tables.Reliability, paths.lettered("truth")[3])
    assert set(reliable["mode"]) == {"ots"} and set(reliable["threshold"]) == {0.9}
    above = reliable.filter("is_reliable")
    assert set(above["model"]) == {"sees", "traps"} and (above["low"] > 0.9).all() and above.height == 8


def test_the_page_has_a_section_for_them(there: Path) -> None:
    page = (paths.report("truth") / "index.html").read_text()
    section = page.split('<h2 id="choices">')[1].split("<h2 ")[0]
    titles = re.findall("<h3>(.*?)</h3>", section)
    assert titles == [
        "Accuracy by letter and by text", "Orders of the options", "Controls and baselines",
        "Generalists against specialists by data set, size and skill", "One model over data sets", "Cells above the reliability threshold",
    ]  # fmt: skip
    words = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", section)).split())
    assert "guesses off the shelf" in words and "Of 8 cells, 4 have an accuracy whose lower bound exceeds the threshold of 0.900" in words
    assert "Chest X-ray, lettered questions guesses off the shelf, no image" in words and "baseline: Words of question and options" in words
    cautions = pl.read_csv(paths.report("truth") / "tables/cautions.csv")
    gainless = "\n".join(cautions.filter(pl.col("kind") == "not-above-own-control")["place"])
    assert (
        "guesses, off the shelf" in gainless
        and "guesses-too, off the shelf" in gainless
        and "sees," not in gainless
        and "traps," not in gainless
    )
    assert {"controls", "pairs", "roles", "variation", "reliability"} <= {
        path.stem for path in (paths.report("truth") / "tables").iterdir()
    }


# --- reasoning against understanding


def skilled(n: int, rights: list[list[bool]], words: list[int]) -> pl.DataFrame:
    """Scores of 2n questions, n of reasoning and n of understanding, each right or wrong, with so many words."""
    said = [Said([0], [always("A" if right else "B", 2)], "A" if right else "B") for side in rights for right in side]
    skills = ["reasoning"] * n + ["understanding"] * n
    frame = table(said, [["a", "b"]] * (2 * n), "A" * (2 * n), skill=skills, question=[" ".join(["word"] * count) for count in words])
    return mcq.score(frame, "here").table


def reasoning_gap(scores: pl.DataFrame, metric: str = "reasoning_gap") -> float:
    cell = mcq.scored(scores, pl.Series([], dtype=pl.String), "here")
    return estimates(cell, [Measure(metric, "letter", "all")]).popitem()[1]


def test_reasoning_minus_understanding_with_and_without_length() -> None:
    plain = skilled(40, [[True] * 10 + [False] * 30, [True] * 30 + [False] * 10], [20] * 80)
    assert reasoning_gap(plain) == pytest.approx(-0.5) == reasoning_gap(plain, "reasoning_gap_by_length")
    # long questions are hard, of either skill; reasoning has more of them
    long = [True] * 30 + [False] * 10, [True] * 10 + [False] * 30
    confounded = skilled(40, [[not one for one in side] for side in long], [90 if one else 20 for side in long for one in side])
    assert reasoning_gap(confounded) == pytest.approx(-0.5) and reasoning_gap(confounded, "reasoning_gap_by_length") == 0


def test_few_questions_of_a_skill_have_no_difference_and_say_so() -> None:
    few = skilled(20, [[True] * 20, [False] * 20], [20] * 40)
    cell = mcq.scored(few, pl.Series([], dtype=pl.String), "here")
    for metric in ("reasoning_gap", "reasoning_gap_by_length"):
        measure = Measure(metric, "letter", "all")
        assert np.isnan(reasoning_gap(few, metric)) and cell.why_undefined(measure) == "20 questions of skill-reasoning, fewer than 30"
    apart = skilled(40, [[True] * 40, [False] * 40], [90] * 40 + [20] * 40)
    cell = mcq.scored(apart, pl.Series([], dtype=pl.String), "here")
    assert reasoning_gap(apart) == 1 and np.isnan(reasoning_gap(apart, "reasoning_gap_by_length"))
    assert "of similar length" in cell.why_undefined(Measure("reasoning_gap_by_length", "letter", "all"))


def test_what_can_be_negative_has_no_logit_interval() -> None:
    """Right in 2 more of 80 than guessing would be: the logit interval of `above_chance` did not reach down to 0."""
    frame = skilled(40, [[True] * 22 + [False] * 18, [True] * 20 + [False] * 20], [20] * 80)
    cell = mcq.scored(frame, pl.Series([], dtype=pl.String), "here")
    made = interval_rows(cell, Measure("accuracy", "letter", "all"), Resamples(0, "d", 80), Plan(200, 200, 0.95, False, 30))
    of = {(row.measure.metric, row.method): row.interval for row in made if row.measure[1:] == ("letter", "all")}
    assert of["accuracy", "logit"].low and of["accuracy", "logit"].reason is None
    for metric in ("above_chance", "reasoning_gap", "reasoning_gap_by_length"):
        low, logit = of[metric, "percentile"].low, of[metric, "logit"]
        assert low is not None and low < 0, metric
        assert (logit.sd, logit.low, logit.high) == (None, None, None) and "can be negative" in str(logit.reason), metric


def test_the_difference_of_two_models_of_reasoning_minus_understanding_is_paired(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both models know what is known of a question: what is left of the difference has a smaller deviation than either alone."""
    medxpertqa(raw, [question(number) for number in range(120)])
    side = {"generalist": ["everyday"], "specialist": ["mixed"]}
    models = {name: {**MODEL, "role": role, "pretrained_on": side[role]} for name, role in (("one", "generalist"), ("two", "specialist"))}
    loaded = configured({"layout": "medxpertqa"}, models)
    known.prepared(loaded)
    sees = known.see(["d"])

    def knows(share: int) -> known.Choose:
        """All of understanding but a few; of reasoning `share` in ten. What the weaker one knows the stronger knows too."""

        def choose(query: known.Query, prompt: str) -> str:
            number = int(query.name.rpartition("-")[2])
            knows_it = known.drawn(str(number), 10) < (8 if number % 2 else share)
            options = [text for _, text in known.OPTION.findall(prompt)]
            return sees(query, prompt) if knows_it else min(set(options) - {sees(query, prompt)})

        return choose

    known.run(loaded, known.installed(monkeypatch, {"one": known.Known(knows(3)), "two": known.Known(knows(6))}))
    rows = tables.read(tables.Pairs, paths.lettered("r")[0])
    by = {(row["metric"], row["subset"]): row for row in rows.to_dicts()}
    assert {key[1] for key in by if key[0] == "accuracy"} == {"all", "skill-reasoning", "skill-understanding"}
    row = by["reasoning_gap", "all"]
    own, other = (interval_of(("d", name, "ots"), "reasoning_gap", "letter") for name in ("one", "two"))
    assert row["generalist_estimate"] == own["estimate"] and row["gap"] == pytest.approx(own["estimate"] - other["estimate"])
    assert row["high"] < 0 and row["sd"] < 0.8 * np.hypot(own["sd"], other["sd"])
    assert by["accuracy", "skill-understanding"]["gap"] == 0
    assert {"reasoning_gap_by_length"} <= {key[0] for key in by} and not any(
        name.startswith("reasoning_gap") for name in tables.read(tables.Gaps, paths.gaps("r")[0])["metric"]
    ), "neither value is the better one"


# --- what the real files hold


@real
def test_the_lettered_options_of_medxpertqa_are_read_by_their_text() -> None:
    """ "Figure C" is often option A. Where an option's text is itself a letter, a lone letter names the option before which it stands."""
    n = 0
    for row in map(json.loads, (FILES / "medxpertqa/mm_test.hub-form.jsonl").open()):
        options = row["options"]
        if ChoiceItem("i", "g", "test", (), "p", "q", tuple(options.values()), row["label"]).option_kind != "letter":
            continue
        n += 1
        forms = ["({letter}) {text}", "{letter}. {text}"]
        forms += [] if set(options) & set(options.values()) else ["{text}", "The answer is {text}."]
        said = {form.format(letter=letter, text=text): letter for letter, text in options.items() for form in forms}
        assert {answer: read_choice(answer, options, "Which?").choice for answer in said} == said
    assert 168 <= n <= 169


@real
def test_the_equal_options_of_mmmu_are_right_alike() -> None:
    golds = json.loads((FILES / "mmmu/answer_dict_test_health.json").read_text())
    doubled = 0
    for name, row in json.loads((FILES / "mmmu/options_test_health.json").read_text()).items():
        texts, gold = list(row["index2ans"].values()), golds[name]["ground_truth"]
        letters = gold if isinstance(gold, list) else [gold]
        equal = [letter for letter, text in row["index2ans"].items() if text == row["index2ans"][letters[0]]]
        assert set(letters) <= set(equal), "a gold of two letters is of one text"
        if len(equal) > 1:
            doubled += 1
            said = [Said([0], [always(letter, len(texts))], letter) for letter in equal]
            scores = mcq.score(table(said, [texts] * len(equal), letters[0] * len(equal)), "here").table
            assert scores["accuracy_letter"].to_list() == scores["accuracy_text"].to_list() == [1.0] * len(equal)
    assert doubled


@real
def test_open_questions_of_mmmu_with_a_letter_as_answer_are_no_choices(raw: Path) -> None:
    golds = json.loads((FILES / "mmmu/answer_dict_val_health.json").read_text())
    rows = []
    for name, gold in golds.items():
        if name.startswith("validation_Pharmacy"):
            is_choice = gold["question_type"] == "multiple-choice"
            options = "['a', 'b', 'c', 'd', 'e', 'f']" if is_choice else "[]"
            kind = "multiple-choice" if is_choice else "open"
            rows.append(mmmu_row(name, kind, answer=gold["ground_truth"], options=options, question="What is <image 1>?"))
    assert {row["answer"] for row in rows if row["question_type"] == "open"} == {"2", "B", "A"}
    hub(raw / "Pharmacy/validation-0.parquet", rows, 7)
    frame = prepared({"layout": "mmmu", "options": {"edition": "validation", "subjects": ["Pharmacy"]}})
    assert frame.height == 27 and card()["excluded"]["open question"]["rows"] == 3


def test_the_caption_of_pmc_vqa_reaches_no_prompt(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the answer. A row drawn in the second version's ten columns, and what a model is asked."""
    row = {
        "index": "0", "Figure_path": "f.jpg", "Caption": "A giveaway", "Question": "What is seen?", "Choice A": "A: gas",
        "Choice B": "B: mass", "Choice C": "C: cyst", "Choice D": "D: air", "Answer": "B", "split": "test",
    }  # fmt: skip
    pmc_vqa(raw, "test_2.csv", [row], "figures")
    loaded = configured({"layout": "pmc-vqa", "options": {"version": "v2"}})
    known.prepared(loaded)
    asked: list[str] = []

    def choose(query: known.Query, prompt: str) -> str:
        asked.append(prompt)
        return known.guess(query, prompt)

    known.run(loaded, known.installed(monkeypatch, {"m": known.Known(choose)}))
    assert len(asked) == 5 and all("What is seen?" in prompt and "(A) " in prompt and "giveaway" not in prompt for prompt in asked)
    assert b"giveaway" not in b"".join(file.read_bytes() for file in Path("results").rglob("*.parquet"))


FRAMES = """
import re
from pathlib import Path
from medbench.datasets.layouts import ChoiceItem
from medbench.datasets.rows import Row
from medbench.stages import prepare

def peak():  # that of getrusage begins with what the process was before it became this one
    return int(re.search("VmHWM: *([0-9]+)", Path("/proc/self/status").read_text().replace("\\t", " "))[1]) / 1024

def frames(n):
    options = [tuple(f"finding {letter} of {number}" for letter in "ABCD") for number in range(n)]
    rows = [Row(ChoiceItem(f"s{x}", f"g{x}", "test", (), "p", "q", options[x], "A"), (f"i{x}",)) for x in range(n)]
    return rows, prepare.Params("mcq", "omnimedvqa", None, {}, (), 0.1, 0.0, False, 0)

prepare._frames(*frames(100))
given = frames(30_000)
before = peak()
assert prepare._frames(*given)["test"].height == 30_000
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process its own peak")
def test_the_table_of_many_questions_takes_little_memory() -> None:
    """Of 30,000 questions; with a series for each list of options it took 150 MB."""
    done = subprocess.run([sys.executable, "-c", FRAMES], check=True, capture_output=True, text=True, cwd=ROOT)
    assert float(done.stdout) < 90
