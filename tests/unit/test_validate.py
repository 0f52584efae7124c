"""What cells reach on validation data: off the shelf, adapted, and where questions are asked."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from medbench import config, paths, tables, tasks
from medbench.analysis import validation
from medbench.analysis.gaps import Estimate
from medbench.errors import MedbenchError
from medbench.predict.job import Params
from medbench.predict.validation import questions
from medbench.stages import adapt, embed, gaps, predict, prompts, score, validate
from tests.unit import asked, tiny

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny.dataset()
    return tmp_path


def reached(task: str, *cell: str) -> tuple[float | None, str | None]:
    """What the gaps read of a cell's validation predictions."""
    path = paths.validation(*cell)
    found = validation.of_predictions(task, tables.read(tasks.get(task).predictions, path), path)
    return found.value, found.reason


def test_off_the_shelf_as_sklearn_has_it(data: Path) -> None:
    source = tiny.source("clip", tiny.checkpoint("clip", data / "model"))._asdict()
    embed.STAGE.execute(embed.Params(source, 16), "tiny", "m")
    prompts.STAGE.execute(prompts.Params(source, tiny.CLASSES, {"main": {name: (f"a {name}",) for name in tiny.CLASSES}}), "tiny", "m")
    params = Params("medbench.predict.validation.zero_shot", "diagnosis", None, tiny.CLASSES, ("embeddings", "prompts"))
    validate.STAGE.execute(params, "tiny", "m", "ots")
    val = pl.read_parquet(paths.samples("tiny", "val"))
    embeddings = pl.read_parquet(paths.embeddings("tiny", "m")).select("image_id", "embeddings")
    images = np.array(val.join(embeddings, on="image_id", how="left", maintain_order="left")["embeddings"].to_list())[:, 0]
    texts = np.array(pl.read_parquet(paths.prompts("tiny", "m")).sort("label")["embedding"].to_list())
    cosine = (images / np.linalg.norm(images, axis=1, keepdims=True)) @ (texts / np.linalg.norm(texts, axis=1, keepdims=True)).T
    expected = roc_auc_score(val["label"], cosine[:, 1] - cosine[:, 0])
    assert reached("diagnosis", "tiny", "m", "ots") == (pytest.approx(expected), None)


def test_an_adapted_model_has_its_chosen_candidates_value(data: Path) -> None:
    source = tiny.source("clip", tiny.checkpoint("clip", data / "model"))._asdict()
    params = adapt.Params("medbench.adapt.contrastive_lora", "diagnosis", source, {**tiny.RECIPE, "epochs": 2}, tiny.CLASSES, 0)
    adapt.STAGE.execute(params, "tiny", "m", "lora")
    certificate = json.loads((paths.adapter("tiny", "m", "lora") / "certificate.json").read_text())
    selection = certificate["selection"]
    assert validation.of_certificate(certificate) == Estimate(selection["candidates"][selection["epoch"] - 1]["auroc"], None)
    selection["candidates"][selection["epoch"] - 1]["auroc"] = None
    assert validation.of_certificate(certificate) == Estimate(None, "a class is absent from the validation data")


def test_closed_validation_questions_are_asked_and_scored_as_those_of_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(2, 3, 3))
    source = {"module": asked.MODULE, "checkpoint": str(asked.checkpoint(tmp_path / "model")), "revision": None, "batch_size": 16}
    common = ("vqa", source, ())
    params = Params("medbench.predict.validation.questions", *common, asking=asked.ASKING._asdict())
    validate.STAGE.execute(params, "d", "m", "ots")
    val = pl.read_parquet(paths.samples("d", "val"))
    closed = val.filter(pl.col("answer_type") == "closed")
    value, reason = reached("vqa", "d", "m", "ots")
    assert pl.read_parquet(paths.validation("d", "m", "ots"))["sample_id"].to_list() == closed["sample_id"].to_list()
    assert 0 < len(closed) < len(val) and reason is None
    # the same questions as a test split, predicted and scored by the usual stages
    val.write_parquet(paths.samples("d", "test"))
    predict.STAGE.execute(Params("medbench.predict.generative", *common, asking=asked.ASKING._asdict()), "d", "m", "ots")
    score.run(score.Params("vqa"), "d", "m", "ots")
    scores = pl.read_parquet(paths.scores("d", "m", "ots")).filter(pl.col("answer_type") == "closed")
    assert value == pytest.approx(scores["closed_accuracy_strict"].mean())
    monkeypatch.setattr(questions, "MOST", 2)
    validate.STAGE.execute(params, "d", "other", "ots")
    assert len(pl.read_parquet(paths.validation("d", "other", "ots"))) == 2
    val.with_columns(answer_type=pl.lit("open", val.schema["answer_type"])).write_parquet(paths.samples("d", "val"))
    validate.STAGE.execute(params, "d", "open", "ots")
    assert reached("vqa", "d", "open", "ots") == (None, "no closed question")


def paper() -> config.Config:
    return config.from_files([ROOT / "config/config.yaml", ROOT / "config/paper.yaml"], ROOT)


def test_only_sides_with_a_choice_are_validated() -> None:
    """CLIP's family has two generalists and four specialists, Qwen's two generalists; SigLIP's, LLaVA's and Gemma's have one a side."""
    chosen = paper()
    params = gaps.params(chosen, "paper")
    assert {chosen.models[model].family for _, model, _ in (*params.validated, *params.certified)} == {"clip", "qwen-vl"}
    assert {mode for _, model, mode in params.certified} == {"lp", "lora"}
    assert {(chosen.models[model].kind, mode) for _, model, mode in params.validated} == {
        ("contrastive", "ots"), ("generative", "ots"), ("generative", "lora")
    }  # fmt: skip
    assert "lingshu" not in {model for _, model, _ in params.validated}
    read = set(gaps.STAGE.inputs(params, "paper"))
    assert {paths.validation("slake", "qwen2-vl", "lora"), paths.adapter("chexpert", "medclip", "lp") / "certificate.json"} < read


def test_a_recipe_without_a_validation_split_is_refused_by_name() -> None:
    with pytest.raises(MedbenchError, match="recipe 'published-probe' predicts no validation split"):
        validate.params(paper(), "chexpert", "clip", "lp-published")
