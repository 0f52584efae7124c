"""Score every sample of a cell from its stored predictions: no model is asked again."""

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medbench import paths, tables
from medbench.errors import MedbenchError

if TYPE_CHECKING:
    from medbench.config import Config, Task

KEYS = ("dataset", "model", "mode")


class Params(NamedTuple):
    """What changes the scores besides the predictions."""

    task: "Task"


def params(config: "Config", dataset: str, model: str, mode: str) -> Params:
    """Parameters of one cell."""
    return Params(config.datasets[dataset].task)


def run(params: Params, dataset: str, model: str, mode: str) -> None:
    """Write `scores/{dataset}/{model}/{mode}.parquet`."""
    path = paths.predictions(dataset, model, mode)
    if params.task == "diagnosis":
        schema: Any = tables.ScoresDiagnosis
        frame = diagnosis(tables.read(tables.PredictionsDiagnosis, path), path)
        n_null = frame["correct"].null_count()
        if n_null:
            print(f"{path}: {n_null} of {len(frame)} samples have no finite score and stay null", file=sys.stderr)
    else:
        schema = tables.ScoresVqa
        frame = vqa(tables.read(tables.PredictionsVqa, path))
        n_unparsed = frame.filter(~pl.col("parsed")).height
        if n_unparsed:
            print(f"{path}: no choice can be read from {n_unparsed} closed answers; they count as wrong", file=sys.stderr)
    tables.write(schema, frame, paths.scores(dataset, model, mode))


def diagnosis(predictions: pl.DataFrame, where: object) -> pl.DataFrame:
    """Table `scores-diagnosis`: the class with the highest score (the lowest class wins a tie); null where scores are not finite."""
    scores = score_matrix(predictions, where)
    finite = np.logical_and.reduce(np.isfinite(scores), axis=1)
    scores = np.where(finite[:, None], scores, 0.0)
    predicted, is_finite = pl.Series(scores.argmax(axis=1), dtype=pl.Int16), pl.Series(finite)
    return predictions.select(
        "sample_id",
        "group_id",
        "label",
        predicted=pl.when(is_finite).then(predicted),
        confidence=pl.when(is_finite).then(pl.Series(np.clip(scores.max(axis=1), 0.0, 1.0))),
        correct=pl.when(is_finite).then((predicted == predictions["label"]).cast(pl.Float64)),
    )


def score_matrix(predictions: pl.DataFrame, where: object) -> NDArray[np.float64]:
    """Scores [n, classes] of table `predictions-diagnosis`. Raises MedbenchError where they do not fit together."""
    if predictions.is_empty():
        raise MedbenchError(where, "holds no sample", "prepare the data set with a test split and predict again")
    widths = predictions["scores"].list.len()
    n_classes = int(widths[0])
    if (row := _first(widths != n_classes)) is not None:
        found = f"row {row} ({predictions['sample_id'][row]}) has {widths[row]} scores, the first has {n_classes}"
        raise MedbenchError(where, found, "predict again")
    if (row := _first(predictions["label"] >= n_classes)) is not None:
        found = f"row {row} ({predictions['sample_id'][row]}) has label {predictions['label'][row]}, but {n_classes} scores"
        raise MedbenchError(where, found, "predict again")
    return predictions["scores"].explode().to_numpy().astype(np.float64).reshape(len(predictions), n_classes)


def _first(mask: pl.Series) -> int | None:
    return mask.arg_max() if mask.any() else None


def vqa(predictions: pl.DataFrame) -> pl.DataFrame:
    """Table `scores-vqa`: every metric of an answer in both scorings."""
    from medbench.metrics import vqa as metrics

    rows = [
        metrics.score(question, reference, answer, answer_type == "closed")
        for question, reference, answer, answer_type in predictions.select("question", "reference", "answer", "answer_type").iter_rows()
    ]
    keys = predictions.select("sample_id", "group_id", "answer_type")
    columns = {name: kind for name, kind in tables.columns(tables.ScoresVqa).items() if name not in keys.columns}
    return pl.concat([keys, pl.DataFrame(rows, schema=columns)], how="horizontal")
