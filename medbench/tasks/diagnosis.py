"""Task `diagnosis`: which class an image shows. The class-1 score is a softmax over class logits, so cells are compared by AUROC."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medbench import paths, tables
from medbench.adapt.job import Samples
from medbench.errors import MedbenchError
from medbench.metrics import diagnosis
from medbench.metrics.diagnosis import Diagnosis
from medbench.metrics.measure import PROMPTS, Measure, shortage, too_few, with_leak_free
from medbench.stats.raters import Ratings
from medbench.stats.resamples import Groups
from medbench.tables.contract import Column, Table
from medbench.tasks import Method, Scores, Task
from medbench.tasks.reading import is_leak_free, kept

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class SamplesDiagnosis(Table):
    """data/{dataset}/{train,val,test}.parquet of a diagnosis data set: one row a sample."""

    sample_id = Column(pl.String, key=True)
    group_id = Column(pl.String)  # patient, lesion, slide, ...: never split apart
    label = Column(pl.Int16, low=0)  # index into the data set's classes
    image_id = Column(pl.String)
    sex = Column(pl.String, null=True)  # as far as the data set says; so are those below
    age_band = Column(pl.String, null=True)  # 0-17, 18-39, 40-59, 60-79, 80+
    race = Column(pl.String, null=True)
    ethnicity = Column(pl.String, null=True)
    language = Column(pl.String, null=True)


class PredictionsDiagnosis(Table):
    """predictions/{dataset}/{model}/{mode}.parquet of a diagnosis cell: one row a test sample."""

    sample_id = Column(pl.String, key=True)
    group_id = Column(pl.String)
    label = Column(pl.Int16, low=0)
    scores = Column(pl.List(pl.Float64), finite=False)  # [classes] softmax over class logits; not finite: unscored
    draws = Column(pl.List(pl.List(pl.Float64)), null=True)  # [draws, classes] of a few-shot cell, whose `scores` are their mean
    by_prompts = Column(pl.List(pl.List(pl.Float64)), null=True)  # [prompt sets, classes] off the shelf, sets in the order of their names


class ScoresDiagnosis(Table):
    """scores/{dataset}/{model}/{mode}.parquet of a diagnosis cell: one row a test sample."""

    sample_id = Column(pl.String, key=True)
    group_id = Column(pl.String)
    label = Column(pl.Int16, low=0)
    predicted = Column(pl.Int16, null=True, low=0)  # argmax of the scores; null, like what follows, where a score is not finite
    confidence = Column(pl.Float64, null=True, low=0, high=1)  # score of the predicted class
    correct = Column(pl.Float64, null=True, low=0, high=1)


def check_entry(entry: Any) -> None:
    """Raises ValueError for an entry of `config/datasets.yaml` without two classes, or without a prompt of every class."""
    if len(entry.classes) < 2 or len(set(entry.classes)) != len(entry.classes):
        raise ValueError(f"`classes` must name at least two different classes, found {list(entry.classes)}")
    if "main" not in entry.prompts:
        raise ValueError("`prompts` needs a set `main`")
    for name, prompts in entry.prompts.items():
        if set(prompts) != set(entry.classes) or not all(texts and all(map(str.strip, texts)) for texts in prompts.values()):
            raise ValueError(f"prompt set {name!r} must give every class of {list(entry.classes)} a prompt, found {sorted(prompts)}")


def counts(frame: pl.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Of a table of samples, for the card: samples of every class."""
    of_label = Counter(frame["label"])
    return {"classes": {name: of_label[index] for index, name in enumerate(classes)}}


def effective_groups(frame: pl.DataFrame, classes: Sequence[str]) -> float:
    """Of a table of samples: those of the rarest class."""
    groups, labels = Groups(frame["group_id"].to_list()), frame["label"].to_numpy()
    return min(groups.effective(labels == label) for label in range(len(classes)))


def strata(classes: Sequence[str]) -> list[tuple[Any, str]]:
    """Values of column `label`, and what a reader calls them."""
    return list(enumerate(classes))


def samples(dataset: str, split: str, n_classes: int, left_out: Collection[str] = ()) -> Samples:
    """One split of a diagnosis data set, without the samples `left_out`.

    Raises MedbenchError when nothing is left of it, and for a label beyond the classes.
    """
    path = paths.samples(dataset, split)
    frame = kept(tables.read(SamplesDiagnosis, path), path, left_out)
    labels = frame["label"].to_numpy().astype(np.int64)
    if labels.max() >= n_classes:
        row = int(labels.argmax())
        raise MedbenchError(f"{path}, row {row}", f"label {labels[row]}, but there are {n_classes} classes", "run `prepare` again")
    return Samples(frame["sample_id"].to_list(), frame["group_id"].to_list(), labels, frame["image_id"].to_list())


def predictions(
    test: Samples, scores: NDArray[Any], draws: NDArray[Any] | None = None, by_prompts: NDArray[Any] | None = None
) -> pl.DataFrame:
    """Table `predictions-diagnosis` of class scores [n, k] in the order of `test`.

    `draws` [n, draws, k]: of a few-shot cell; `by_prompts` [n, sets, k]: off the shelf, prompt sets in the order of their names.
    """
    return pl.DataFrame(
        {
            "sample_id": test.sample_ids,
            "group_id": test.group_ids,
            "label": test.labels,
            "scores": scores.astype(np.float64).tolist(),
            "draws": None if draws is None else draws.astype(np.float64).tolist(),
            "by_prompts": None if by_prompts is None else by_prompts.astype(np.float64).tolist(),
        },
        schema=tables.columns(PredictionsDiagnosis),
    )


def score(predictions: pl.DataFrame, where: object) -> Scores:
    """Table `scores-diagnosis`: the class with the highest score (the lowest class wins a tie); null where scores are not finite."""
    scores = score_matrix(predictions, where)
    finite = np.logical_and.reduce(np.isfinite(scores), axis=1)
    scores = np.where(finite[:, None], scores, 0.0)
    predicted, is_finite = pl.Series(scores.argmax(axis=1), dtype=pl.Int16), pl.Series(finite)
    table = predictions.select(
        "sample_id",
        "group_id",
        "label",
        predicted=pl.when(is_finite).then(predicted),
        confidence=pl.when(is_finite).then(pl.Series(np.clip(scores.max(axis=1), 0.0, 1.0))),
        correct=pl.when(is_finite).then((predicted == predictions["label"]).cast(pl.Float64)),
    )
    n_null = int((~finite).sum())
    return Scores(table, f"{n_null} of {len(table)} samples have no finite score and stay null" if n_null else "")


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


@dataclass(frozen=True)
class ScoredDiagnosis:
    """`labels` [n] in 0..k-1, `scores` [n, k] (rows that are not finite are null).

    `draws` [draws, n, k]: of a few-shot cell; every measure is then the mean of what it is in each draw. `by_prompts`: the scores [n, k]
    off the shelf by every prompt set, of which AUROC is reported.
    """

    ids: list[str]
    groups: Groups
    subsets: dict[str, Bools]
    labels: NDArray[np.int64]
    scores: Floats
    draws: Floats | None = None
    by_prompts: dict[str, Floats] = field(default_factory=dict)
    ratings: tuple[Ratings, ...] = ()  # nobody rates

    def measures(self) -> list[Measure]:
        made = [Measure(metric, "standard", subset) for subset in self.subsets for metric in Diagnosis._fields]
        return [*made, *(Measure("auroc", f"{PROMPTS}{name}", "all") for name in self.by_prompts)]

    def used(self, measure: Measure) -> Bools:
        return self.subsets[measure.subset] & np.isfinite(self.scores).all(axis=1)

    def effective_groups(self, measure: Measure) -> float:
        use = self.used(measure)
        if measure.metric in diagnosis.OVER_SAMPLES:
            return self.groups.effective(use)
        return min(self.groups.effective(use & (self.labels == label)) for label in range(self.scores.shape[1]))

    def evaluate(self, measures: Sequence[Measure], weights: Floats) -> dict[Measure, Floats]:
        if self.draws is not None:
            each = [replace(self, scores=scores, draws=None).evaluate(measures, weights) for scores in self.draws]
            return {measure: np.mean([one[measure] for one in each], axis=0) for measure in measures}
        results: dict[Measure, Floats] = {}
        for measure in [one for one in measures if not one.is_compared]:
            of_set = replace(self, scores=self.by_prompts[measure.scoring.removeprefix(PROMPTS)])
            standard = measure._replace(scoring="standard")
            results[measure] = of_set.evaluate([standard], weights)[standard]
        measures = [measure for measure in measures if measure.is_compared]
        made: dict[bytes, Diagnosis] = {}  # without a duplicate the leak-free samples are all of them: computed once
        for subset in dict.fromkeys(measure.subset for measure in measures):
            wanted = [measure for measure in measures if measure.subset == subset]
            use = self.used(wanted[0])
            if too_few(subset, use):
                results |= dict.fromkeys(wanted, np.full(weights.shape[1], np.nan))
            elif [measure.metric for measure in wanted] == ["auroc"]:
                results[wanted[0]] = diagnosis.auroc(self.labels[use], self.scores[use], weights[self.groups.index[use]])
            else:
                if use.tobytes() not in made:
                    made[use.tobytes()] = diagnosis.metrics(self.labels[use], self.scores[use], weights[self.groups.index[use]])
                results |= {measure: getattr(made[use.tobytes()], measure.metric) for measure in wanted}
        return results

    def why_undefined(self, measure: Measure) -> str:
        use = self.used(measure)
        if too_few(measure.subset, use):
            return shortage(measure.subset, "sample", use)
        absent = sorted(set(range(self.scores.shape[1])) - set(self.labels[use].tolist()))
        if not use.any():
            return "no sample with a finite score"
        return f"no sample of class {', '.join(map(str, absent))} among {int(use.sum())}"

    def by_sample(self) -> "ScoredDiagnosis":
        return replace(self, groups=Groups(self.ids))

    def without(self, dropped: Bools) -> "ScoredDiagnosis":
        return replace(self, subsets={name: mask & ~dropped for name, mask in self.subsets.items()})


def scored(predictions: pl.DataFrame, duplicates: pl.Series, where: object, prompt_sets: Sequence[str] = ()) -> ScoredDiagnosis:
    """From table `predictions-diagnosis` and the ids of samples that train or val holds too; `where` names the table in errors.

    `prompt_sets`: those of a cell off the shelf, by name.
    """
    everything = np.ones(len(predictions), dtype=bool)
    return ScoredDiagnosis(
        predictions["sample_id"].to_list(),
        Groups(predictions["group_id"].to_list()),
        with_leak_free({"all": everything}, is_leak_free(predictions, duplicates)),
        predictions["label"].to_numpy().astype(np.int64),
        score_matrix(predictions, where),
        None if predictions["draws"].null_count() else np.array(predictions["draws"].to_list(), dtype=np.float64).transpose(1, 0, 2),
        dict(zip(prompt_sets, np.array(predictions["by_prompts"].to_list(), dtype=np.float64).swapaxes(0, 1), strict=True))
        if prompt_sets
        else {},
    )


TASK = Task(
    name="diagnosis",
    rows="labels",
    answered_by=("contrastive",),
    noun="sample",
    samples=SamplesDiagnosis,
    predictions=PredictionsDiagnosis,
    scores=ScoresDiagnosis,
    repeated={"sample_id": "sample_id", "group_id": "group_id", "label": "label"},
    predicted_by={
        ("baseline", "probe"): Method("medbench.predict.probe", ("embeddings",)),
        ("contrastive", "zero-shot"): Method("medbench.predict.zero_shot", ("embeddings", "prompts")),
        ("contrastive", "probe"): Method("medbench.predict.probe", ("embeddings",)),
        ("contrastive", "few-shot"): Method("medbench.predict.few_shot", ("embeddings",)),
        ("baseline", "few-shot"): Method("medbench.predict.few_shot", ("embeddings",)),
        ("contrastive", "lora"): Method("medbench.predict.contrastive_lora", ("images", "model")),
    },
    adapted_by={
        ("baseline", "probe"): Method("medbench.adapt.probe", ("embeddings",)),
        ("contrastive", "probe"): Method("medbench.adapt.probe", ("embeddings",)),
        ("baseline", "published-probe"): Method("medbench.adapt.published_probe", ("embeddings",)),
        ("contrastive", "published-probe"): Method("medbench.adapt.published_probe", ("embeddings",)),
        ("baseline", "few-shot"): Method("medbench.adapt.few_shot", ("embeddings",)),
        ("contrastive", "few-shot"): Method("medbench.adapt.few_shot", ("embeddings",)),
        ("contrastive", "lora"): Method("medbench.adapt.contrastive_lora", ("images", "model")),
    },
    validated_by={("contrastive", "zero-shot"): Method("medbench.predict.validation.zero_shot", ("embeddings", "prompts"))},
    certified=(("contrastive", "probe"), ("contrastive", "lora")),
    primary=Measure("auroc", "standard", "all"),
    title="AUROC",
    chance=0.5,
    stratum="label",
    strata=strata,
    check_entry=check_entry,
    counts=counts,
    effective_groups=effective_groups,
    score=score,
    read_samples=samples,
    scored=scored,
    uncalibrated=("accuracy", "balanced_accuracy", "f1"),  # they take the class with the highest score, calibrated or not
    published=Measure("auroc", "standard", "all"),
    published_file=("diagnosis_auroc.csv", "auroc"),
)
