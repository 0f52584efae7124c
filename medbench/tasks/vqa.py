"""Task `vqa`: questions about an image, answered in words. Closed answers are compared by accuracy; every answer is stored as it came."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medbench import paths, tables
from medbench.adapt.asked import Asked
from medbench.metrics.diagnosis import STEP
from medbench.metrics.evaluate_modules.vqa_strict.words import STATES, THINK, Tags, yes_or_no
from medbench.metrics.judging import HIGHEST, LOWEST, SCORINGS
from medbench.metrics.measure import Measure, shortage, too_few, with_leak_free
from medbench.stats.raters import Ratings
from medbench.stats.resamples import Groups
from medbench.tables.contract import Column, Table
from medbench.tasks import Method, Scores, Task
from medbench.tasks.reading import is_leak_free, kept

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class SamplesVqa(Table):
    """data/{dataset}/{train,val,test}.parquet of a question-answering data set: one row a question, original text."""

    sample_id = Column(pl.String, key=True)
    group_id = Column(pl.String)
    question = Column(pl.String, min_length=1)
    answer = Column(pl.String, min_length=1)
    answer_type = Column(pl.Enum(["open", "closed"]))  # official where there is one
    is_yes_no = Column(pl.Boolean)  # derived: the reference is yes or no
    image_id = Column(pl.String)
    sex = Column(pl.String, null=True)  # as far as the data set says; so are those below
    age_band = Column(pl.String, null=True)  # 0-17, 18-39, 40-59, 60-79, 80+
    race = Column(pl.String, null=True)
    ethnicity = Column(pl.String, null=True)
    language = Column(pl.String, null=True)


class PredictionsVqa(Table):
    """predictions/{dataset}/{model}/{mode}.parquet of a question-answering cell: all that is needed to score it again."""

    sample_id = Column(pl.String, key=True)
    group_id = Column(pl.String)
    answer_type = Column(pl.Enum(["open", "closed"]))
    is_yes_no = Column(pl.Boolean)
    question = Column(pl.String)
    reference = Column(pl.String)
    answer = Column(pl.String)
    finish_reason = Column(pl.Enum(["stop", "length", "repetition", "refusal", "filter"]))  # model, budget, circle, own refusal, service
    n_tokens = Column(pl.Int32, low=0)


class ScoresVqa(Table):
    """scores/{dataset}/{model}/{mode}.parquet of a question-answering cell: one row a question, one column a metric and scoring."""

    sample_id = Column(pl.String, key=True)
    group_id = Column(pl.String)
    answer_type = Column(pl.Enum(["open", "closed"]))
    state = Column(pl.Enum(list(STATES)), null=True)  # closed: could a choice be read; null for open
    closed_accuracy_strict = Column(pl.Float64, null=True, low=0, high=1)
    exact_match_strict = Column(pl.Float64, low=0, high=1)
    token_precision_strict = Column(pl.Float64, low=0, high=1)
    token_recall_strict = Column(pl.Float64, low=0, high=1)
    token_f1_strict = Column(pl.Float64, low=0, high=1)
    rouge_l_recall_strict = Column(pl.Float64, low=0, high=1)
    rouge_l_f_strict = Column(pl.Float64, low=0, high=1)
    bleu1_strict = Column(pl.Float64, low=0, high=1)
    accuracy_published = Column(pl.Float64, low=0, high=1)
    exact_match_published = Column(pl.Float64, low=0)
    precision_published = Column(pl.Float64, low=0)
    recall_published = Column(pl.Float64, low=0)
    f1_published = Column(pl.Float64, low=0)
    rouge_l_published = Column(pl.Float64, low=0, high=1)
    bleu1_published = Column(pl.Float64, low=0, high=1)


NOTABLE = 0.05
"""Share of the closed questions beyond which `notes` speaks."""

JUDGED = "judge_score"
"""Of open answers what judges gave, of closed ones 1 or 0 by the same scoring: as a share of 100. `_lowest`, `_highest`: with every
judgement that failed at 1 and at 100; `_failed`: their share."""

SUBSETS: dict[tuple[str, str], tuple[str, ...]] = {
    ("closed_accuracy", "strict"): ("closed", "leak-free-closed"),
    ("closed_accuracy_parsed", "strict"): ("closed", "leak-free-closed"),
    ("parsed", "strict"): ("closed", "leak-free-closed"),
    ("accuracy", "published"): ("open", "closed", "leak-free-open", "leak-free-closed"),
    **{(JUDGED, scoring): ("all", "open", "leak-free", "leak-free-open") for scoring in SCORINGS},
    **{(f"{JUDGED}_{what}", scoring): ("open", "leak-free-open") for what in ("lowest", "highest", "failed") for scoring in SCORINGS},
}
"""Subsets of the measures that are not defined on all of them."""


def check_entry(entry: Any) -> None:
    """An entry of `config/datasets.yaml` needs nothing more."""


def counts(frame: pl.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Of a table of samples, for the card: open and closed questions, and those that want yes or no."""
    return {"answer_types": dict(sorted(Counter(frame["answer_type"]).items())), "yes_no": int(frame["is_yes_no"].sum())}


UNREAD = (
    "closed answers are not yes/no in a known language, nor an option that the question names",
    "a model is right there where it says the same words; write yes and no, name the options in the question, or give answer_type open",
)
UNASKED = "open answers are yes or no", "they count in no accuracy; give answer_type closed (layout table)"


def notes(frame: pl.DataFrame) -> list[str]:
    """Of a table of samples, where it concerns many: closed questions whose reference is no known option, and open ones of yes or no."""
    from medbench.metrics.evaluate_modules.vqa_strict.options import options_of

    rows = frame.select("question", "answer", pl.col("answer_type").cast(pl.String)).rows()
    closed, opened = ([(question, answer) for question, answer, kind in rows if kind == name] for name in ("closed", "open"))
    unread = [(question, answer) for question, answer in closed if yes_or_no(answer) is None and not options_of(question, answer)]
    binary = [(question, answer) for question, answer in opened if yes_or_no(answer) is not None]
    return [
        f"{len(some):,} of {len(every):,} {found} (first: {some[0][1][:60]!r} to {some[0][0][:80]!r}): {remedy}"
        for some, every, (found, remedy) in ((unread, closed, UNREAD), (binary, opened, UNASKED))
        if len(some) > NOTABLE * len(every)
    ]


def effective_groups(frame: pl.DataFrame, classes: Sequence[str]) -> float:
    """Of a table of samples: those of the closed questions."""
    return Groups(frame["group_id"].to_list()).effective((frame["answer_type"] == "closed").to_numpy())


def strata(classes: Sequence[str]) -> list[tuple[Any, str]]:
    """Values of column `answer_type`, and what a reader calls them."""
    return [("closed", "closed questions"), ("open", "open questions")]


def asked(dataset: str, split: str, left_out: Collection[str] = ()) -> Asked:
    """One split of a question-answering data set, without the samples `left_out`. Raises MedbenchError when nothing is left of it."""
    path = paths.samples(dataset, split)
    frame = kept(tables.read(SamplesVqa, path), path, left_out)
    return Asked(*(frame[column].to_list() for column in ("sample_id", "question", "answer", "image_id")))


def answered(dataset: str, answers: Sequence[tuple[str, str, int]], split: str = "test", left_out: Collection[str] = ()) -> pl.DataFrame:
    """Table `predictions-vqa` of answers (text, finish reason, tokens) in the order of a split without the samples `left_out`."""
    path = paths.samples(dataset, split)
    samples = kept(tables.read(SamplesVqa, path), path, left_out)
    texts, reasons, counts = (list(column) for column in zip(*answers, strict=True))
    schema = tables.columns(PredictionsVqa)
    columns = ("sample_id", "group_id", "answer_type", "is_yes_no", "question")
    return samples.select(*columns, pl.col("answer").alias("reference")).with_columns(
        pl.Series("answer", texts, schema["answer"]),
        pl.Series("finish_reason", reasons, schema["finish_reason"]),
        pl.Series("n_tokens", counts, schema["n_tokens"]),
    )


def score(predictions: pl.DataFrame, where: object, thoughts: Tags = THINK) -> Scores:
    """Table `scores-vqa`: every metric of an answer in both scorings. `thoughts`: the model's marks of its thoughts."""
    from medbench.metrics import vqa as metrics

    given = predictions.select("question", "reference", "answer", pl.col("answer_type") == "closed", "finish_reason")
    rows = [
        metrics.score(question, reference, answer, closed, finish_reason, thoughts)
        for question, reference, answer, closed, finish_reason in given.iter_rows()
    ]
    keys = predictions.select("sample_id", "group_id", "answer_type")
    columns = {name: kind for name, kind in tables.columns(ScoresVqa).items() if name not in keys.columns}
    table = pl.concat([keys, pl.DataFrame(rows, schema=columns)], how="horizontal")
    counts = Counter(table["state"].drop_nulls())
    lost = {state: counts[state] for state in STATES[1:] if counts[state]}
    how = ", ".join(f"{n} {state}" for state, n in lost.items())
    return Scores(table, f"no choice can be read from {sum(lost.values())} closed answers ({how}); they count as wrong" if lost else "")


@dataclass(frozen=True)
class ScoredVqa:
    """`values`: column of the scores table -> [n], NaN where null. Every measure is a mean of a column over a subset."""

    ids: list[str]
    groups: Groups
    subsets: dict[str, Bools]
    values: dict[tuple[str, str], Floats]  # (metric, scoring) -> [n]
    ratings: tuple[Ratings, ...] = ()  # of judges

    def measures(self) -> list[Measure]:
        """Accuracies are defined per answer type, and have no overall value (PROTOCOL.md section 3)."""
        return [
            Measure(metric, scoring, subset)
            for subset in self.subsets
            for metric, scoring in self.values
            if subset in SUBSETS.get((metric, scoring), self.subsets)
        ]

    def used(self, measure: Measure) -> Bools:
        return self.subsets[measure.subset] & np.isfinite(self.values[measure.metric, measure.scoring])

    def effective_groups(self, measure: Measure) -> float:
        return self.groups.effective(self.used(measure))

    def evaluate(self, measures: Sequence[Measure], weights: Floats) -> dict[Measure, Floats]:
        masks = {measure: self.used(measure) for measure in measures}
        # without a duplicate the leak-free samples are all of them: every column and mask is computed once
        keys = {measure: (measure.metric, measure.scoring, mask.tobytes()) for measure, mask in masks.items()}
        first = {key: measure for measure, key in reversed(keys.items())}
        used = np.array([masks[measure] for measure in first.values()])
        values = np.array([self.values[measure.metric, measure.scoring] for measure in first.values()])
        steps = np.rint(np.where(used, values, 0.0) * STEP)
        sums = self._by_group(steps) @ weights  # whole numbers, exact in float64 up to two million samples
        counts = self._by_group(used.astype(np.float64)) @ weights
        with np.errstate(invalid="ignore", divide="ignore"):
            made = dict(zip(first, sums / counts / STEP, strict=True))
        undefined = np.full(weights.shape[1], np.nan)
        return {measure: undefined if too_few(measure.subset, masks[measure]) else made[key] for measure, key in keys.items()}

    def why_undefined(self, measure: Measure) -> str:
        use = self.used(measure)
        if too_few(measure.subset, use):
            return shortage(measure.subset, "question", use)
        if not self.subsets[measure.subset].any():
            return "no question" if measure.subset == "all" else f"no {measure.subset} question"
        return f"no {measure.subset} question has a value"

    def by_sample(self) -> "ScoredVqa":
        return replace(self, groups=Groups(self.ids))

    def without(self, dropped: Bools) -> "ScoredVqa":
        return replace(self, subsets={name: mask & ~dropped for name, mask in self.subsets.items()})

    def _by_group(self, rows: Floats) -> Floats:
        """Sums [m, groups] of rows [m, n]."""
        return np.array([np.bincount(self.groups.index, weights=row, minlength=len(self.groups)) for row in rows])


def scored(scores: pl.DataFrame, duplicates: pl.Series, where: object, prompt_sets: Sequence[str] = ()) -> ScoredVqa:
    """From table `scores-vqa` and the ids of questions whose image train or val holds too.

    Of `state` come two measures: `parsed`, the share of closed answers from which a choice could be read, and `closed_accuracy_parsed`,
    the accuracy of these alone.
    """
    kinds = scores["answer_type"].to_numpy()
    is_parsed = pl.col("state") == "parsed"
    numbers = scores.select(
        is_parsed.cast(pl.Float64).alias("parsed_strict"),
        pl.when(is_parsed).then("closed_accuracy_strict").alias("closed_accuracy_parsed_strict"),
        pl.col("^.*_(strict|published)$"),
    ).fill_null(np.nan)
    values = {(metric, scoring): numbers[name].to_numpy() for name in numbers.columns for metric, _, scoring in [name.rpartition("_")]}
    subsets = {"all": np.ones(len(scores), dtype=bool), "open": kinds == "open", "closed": kinds == "closed"}
    leak_free = with_leak_free(subsets, is_leak_free(scores, duplicates))
    return ScoredVqa(scores["sample_id"].to_list(), Groups(scores["group_id"].to_list()), leak_free, values)


def judged(scored: ScoredVqa, judgements: pl.DataFrame, scorings: Sequence[str], minimum: int) -> ScoredVqa:
    """With measures of table `judgements`: a judge's score is the mean of its repeats, a panel's that of at least `minimum` judges.

    What is drawn anew in a resample is the judges' scores where several gave one, else the repeats of the one judge.
    """
    values, ratings, is_open = dict(scored.values), list[Ratings](), scored.subsets["open"]
    ordered = judgements.with_columns(pl.col("scoring").cast(pl.String)).sort("sample_id", "scoring", "judge", "repeat")
    by_judge = ordered.group_by("sample_id", "scoring", "judge", maintain_order=True).agg(
        pl.col("score").mean(), pl.col("score").drop_nulls().alias("repeats"), "request"
    )
    panel = by_judge.group_by("sample_id", "scoring", maintain_order=True).agg(
        pl.col("score").mean(), pl.col("score").count().alias("judges"), pl.col("score").drop_nulls().alias("means"),
        pl.col("repeats", "request").list.explode(),
    )  # fmt: skip
    for scoring in scorings:
        enough = panel.filter(pl.col("scoring") == scoring, pl.col("judges") >= minimum)
        ratings.append(_ratings(scored.ids, enough, scoring))
        given = dict(enough.select("sample_id", "score").iter_rows())
        score = np.array([given.get(name, np.nan) for name in scored.ids]) / HIGHEST
        has_failed = np.isnan(score)
        closed = values["closed_accuracy" if scoring == "strict" else "accuracy", scoring]
        values[JUDGED, scoring] = np.where(is_open, score, closed)
        values[f"{JUDGED}_lowest", scoring] = np.where(is_open, np.where(has_failed, LOWEST / HIGHEST, score), np.nan)
        values[f"{JUDGED}_highest", scoring] = np.where(is_open, np.where(has_failed, 1.0, score), np.nan)
        values[f"{JUDGED}_failed", scoring] = np.where(is_open, has_failed.astype(np.float64), np.nan)
    return replace(scored, values=values, ratings=tuple(one for one in ratings if one.keys))


def _ratings(ids: list[str], panel: pl.DataFrame, scoring: str) -> Ratings:
    """Of the samples whose ratings differ. Equal triples of question, reference and answer were the same requests to the judges."""
    rated = pl.when(pl.col("judges") > 1).then("means").otherwise("repeats")
    rows = panel.select("sample_id", pl.col("request").list.join("\n"), rated.alias("rated"))
    differ = rows.filter(pl.col("rated").list.min() < pl.col("rated").list.max())
    things = {key: np.array(own) / HIGHEST for key, own in differ.select("request", "rated").iter_rows()}
    number, place = {key: index for index, key in enumerate(things)}, {name: index for index, name in enumerate(ids)}
    known = [(place[name], number[key]) for name, key in differ.select("sample_id", "request").iter_rows() if name in place]
    places, of_things = np.array(known, dtype=np.int64).reshape(-1, 2).T
    columns = frozenset((f"{JUDGED}{end}", scoring) for end in ("", "_lowest", "_highest"))
    return Ratings(columns, places, of_things, list(things), list(things.values()))


TASK = Task(
    name="vqa",
    rows="questions",
    answered_by=("generative", "remote"),
    noun="question",
    samples=SamplesVqa,
    predictions=PredictionsVqa,
    scores=ScoresVqa,
    repeated={
        **{name: name for name in ("sample_id", "group_id", "answer_type", "is_yes_no", "question")},
        "reference": "answer",
    },
    predicted_by={
        ("baseline", "zero-shot"): Method("medbench.predict.question_baseline", ("train", "model")),
        ("generative", "zero-shot"): Method("medbench.predict.generative", ("images", "model")),
        ("remote", "zero-shot"): Method("medbench.predict.generative", ("images", "model")),
        ("generative", "lora"): Method("medbench.predict.generative", ("images", "model")),
    },
    adapted_by={("generative", "lora"): Method("medbench.adapt.generative_lora", ("images", "model"))},
    validated_by=dict.fromkeys(
        (("generative", "zero-shot"), ("remote", "zero-shot"), ("generative", "lora")),
        Method("medbench.predict.validation.questions", ("images", "model")),
    ),
    primary=Measure("closed_accuracy", "strict", "closed"),
    secondary=Measure(JUDGED, "strict", "open"),
    judged=judged,
    title="closed accuracy",
    chance=None,  # depends on the questions
    stratum="answer_type",
    strata=strata,
    check_entry=check_entry,
    counts=counts,
    notes=notes,
    effective_groups=effective_groups,
    score=score,
    scored=scored,
    is_scored_first=True,
    asked=asked,
    answered=answered,
    published=Measure("accuracy", "published", "closed"),
    published_file=("vqa_closed_accuracy.csv", "accuracy"),
)
