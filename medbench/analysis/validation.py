"""What a cell reaches on validation data, by the measure that decides: of the models of one side, the best is then tested on test."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from medbench import tasks
from medbench.analysis.gaps import Estimate
from medbench.stats.table import estimates

if TYPE_CHECKING:
    from medbench.metrics.evaluate_modules.vqa_strict.words import Tags


def of_certificate(certificate: Mapping[str, Any]) -> Estimate:
    """What the candidate reached that was chosen (a value of C, an epoch). A probe's is the mean over folds of train and val."""
    chosen = certificate["selection"]
    key = next(name for name in ("C", "epoch") if name in chosen)
    auroc = next(one["auroc"] for one in chosen["candidates"] if one[key] == chosen[key])
    return Estimate(auroc, "a class is absent from the validation data" if auroc is None else None)


def of_predictions(task: str, predictions: pl.DataFrame, where: object, thoughts: "Tags" = ()) -> Estimate:
    """Of predictions of the validation split, scored as those of test are. `thoughts`: the model's marks of its thoughts."""
    chosen = tasks.get(task)
    frame = chosen.score(predictions, where, thoughts).table if chosen.is_scored_first else predictions
    scored = chosen.scored(frame, pl.Series([], dtype=pl.String), where, ())
    value = estimates(scored, [chosen.primary])[chosen.primary]
    return Estimate(None, scored.why_undefined(chosen.primary)) if math.isnan(value) else Estimate(value, None)
