"""The score stage: one row a sample, nulls where a model gave no finite score, planted faults."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medbench import config, paths, tables, tasks
from medbench.errors import MedbenchError
from medbench.metrics.evaluate_modules.vqa_strict.words import THINK
from medbench.stages import predict, score
from medbench.tasks.diagnosis import PredictionsDiagnosis, ScoresDiagnosis
from medbench.tasks.vqa import PredictionsVqa, ScoresVqa
from tests.conftest import ROOT
from tests.unit import written

CELL = "data", "model", "lp"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def diagnosis(scores: list[list[float]], labels: list[int]) -> pl.DataFrame:
    names = [f"s{i}" for i in range(len(labels))]
    columns = {"sample_id": names, "group_id": names, "label": labels, "scores": scores, "draws": None, "by_prompts": None}
    return pl.DataFrame(columns, schema=tables.columns(PredictionsDiagnosis))


def test_predicted_class_confidence_and_correctness() -> None:
    nan = float("nan")
    frame = diagnosis([[0.7, 0.3], [0.5, 0.5], [0.2, 0.8], [nan, 0.1], [0.0, float("inf")]], [0, 1, 1, 0, 1])
    written.predictions("diagnosis", frame, *CELL)
    score.run(score.Params("diagnosis"), *CELL)
    made = tables.read(ScoresDiagnosis, paths.scores(*CELL))
    assert made["predicted"].to_list() == [0, 0, 1, None, None]  # the lower class wins a tie
    assert made["confidence"].to_list() == [0.7, 0.5, 0.8, None, None]
    assert made["correct"].to_list() == [1.0, 0.0, 1.0, None, None]


def vqa() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "sample_id": ["a", "b", "c"],
            "group_id": ["1", "1", "2"],
            "answer_type": ["closed", "open", "closed"],
            "is_yes_no": [True, False, True],
            "question": ["is it?", "where?", "is it?"],
            "reference": ["yes", "left lung", "no"],
            "answer": ["Yes.", "lung", "perhaps"],
            "finish_reason": ["stop", "length", "stop"],
            "n_tokens": [2, 1, 1],
        },
        schema=tables.columns(PredictionsVqa),
    )


def test_answers_are_scored_twice_and_unparsed_ones_counted(capsys: pytest.CaptureFixture[str]) -> None:
    written.predictions("vqa", vqa(), *CELL)
    score.run(score.Params("vqa", THINK), *CELL)
    made = tables.read(ScoresVqa, paths.scores(*CELL))
    assert made["state"].to_list() == ["parsed", None, "unparsed"]
    assert made["closed_accuracy_strict"].to_list() == [1.0, None, 0.0]
    assert made["exact_match_published"].to_list() == [1.0, 1.0, 0.0]
    assert made["exact_match_strict"].to_list() == [1.0, 0.0, 0.0]
    assert "no choice can be read from 1 closed answers (1 unparsed); they count as wrong" in capsys.readouterr().err


def test_marks_of_thoughts_come_from_the_registry() -> None:
    """Where the task asks questions; empty marks, which would stand everywhere, are refused."""
    chosen = config.from_files([ROOT / "config" / "config.yaml"], ROOT)
    assert score.params(chosen, "phantom-vqa-radiology", "mini-llava", "ots") == score.Params("vqa", THINK)
    assert score.params(chosen, "phantom-radiology", "mini-clip", "ots") == score.Params("diagnosis")
    entry = chosen.models["mini-llava"].model_dump()
    own = config.Model.model_validate({**entry, "thoughts": [["[T]", "[/T]"], *THINK]})
    changed = chosen._replace(models={**chosen.models, "mini-llava": own})
    assert score.params(changed, "phantom-vqa-radiology", "mini-llava", "ots").thoughts == (("[T]", "[/T]"), *THINK)
    cell = "phantom-vqa-radiology", "mini-llava", "ots"
    assert predict.params(changed, *cell) == predict.params(chosen, *cell)
    with pytest.raises(ValueError, match="at least 1 character"):
        config.Model.model_validate({**entry, "thoughts": [["<think>", ""]]})


def test_marks_of_thoughts_are_those_of_the_model() -> None:
    """The stored answer is the raw one: other marks score it again, and no model is asked."""
    answers = ["[T]no[/T]yes", "<think>no</think>no", "[T]no"]
    kinds = tables.columns(PredictionsVqa)
    alike = {"answer_type": "closed", "reference": "yes", "finish_reason": "stop"}
    frame = vqa().with_columns(pl.Series("answer", answers), **{name: pl.lit(value, kinds[name]) for name, value in alike.items()})
    written.predictions("vqa", frame, *CELL)
    found = {}
    for name, thoughts in (("own", (("[T]", "[/T]"),)), ("default", THINK)):
        score.run(score.Params("vqa", thoughts), *CELL)
        found[name] = tables.read(ScoresVqa, paths.scores(*CELL)).select("state", "exact_match_strict").rows()
    assert found["own"] == [("parsed", 1.0), ("parsed", 0.0), ("truncated", 0.0)]
    assert found["default"] == [("parsed", 0.0)] * 3  # the thoughts of the others are taken for their answers


def test_scores_of_different_widths_name_the_row() -> None:
    written.predictions("diagnosis", diagnosis([[0.5, 0.5], [0.2, 0.3, 0.5]], [0, 1]), *CELL)
    with pytest.raises(MedbenchError, match=r"row 1 \(s1\) has 3 scores, the first has 2"):
        score.run(score.Params("diagnosis"), *CELL)


def test_a_label_beyond_the_scores_names_the_row() -> None:
    written.predictions("diagnosis", diagnosis([[0.5, 0.5], [0.2, 0.8]], [0, 2]), *CELL)
    with pytest.raises(MedbenchError, match=r"row 1 \(s1\) has label 2, but 2 scores"):
        score.run(score.Params("diagnosis"), *CELL)


def test_no_sample_and_no_table_are_errors() -> None:
    with pytest.raises(MedbenchError, match="does not exist"):
        score.run(score.Params("diagnosis"), *CELL)
    written.predictions("diagnosis", tables.empty(PredictionsDiagnosis), *CELL)
    with pytest.raises(MedbenchError, match="holds no sample"):
        score.run(score.Params("diagnosis"), *CELL)


def test_a_duplicate_sample_breaks_the_contract() -> None:
    frame = diagnosis([[0.5, 0.5], [0.2, 0.8]], [0, 1]).with_columns(sample_id=pl.lit("s0"))
    with pytest.raises(MedbenchError, match=r"sample_id .the primary key. is duplicated in 2 of 2 rows"):
        written.predictions("diagnosis", frame, *CELL)


def test_scores_and_metrics_agree() -> None:
    """Accuracy of the table is the accuracy of the metrics."""
    from medbench.metrics import diagnosis as metrics

    generator = np.random.default_rng(0)
    scores, labels = generator.dirichlet(np.ones(3), 50), generator.integers(0, 3, 50)
    made = tasks.get("diagnosis").score(diagnosis(scores.tolist(), labels.tolist()), "here").table
    assert made["correct"].mean() == pytest.approx(metrics.metrics(labels, scores, np.ones((50, 1))).accuracy[0])
