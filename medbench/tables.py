"""The Parquet contracts: every table's columns as code, checked on write and on read. `INTERFACE.md` is generated from here.

Undefined statistics are null with a reason, never 0. Times, hosts and versions are not here (see `provenance`), so that
equal inputs give byte-equal tables.
"""

from pathlib import Path
from typing import Any, TypeVar

import dataframely as dy
import polars as pl

from medbench import runtime
from medbench.errors import MedbenchError


class Images(dy.Schema):
    """data/{dataset}/images.parquet: every distinct image of a data set once, in order of first use, bytes as given where possible."""

    image_id = dy.String(primary_key=True)  # SHA-256 of the original bytes
    pixel_digest = dy.String()  # XXH3 of size and pixels as a model sees them: equal for one picture in two encodings
    perceptual_hash = dy.UInt64()  # pHash: images that look alike differ in few of its 64 bits
    image = dy.Binary()  # encoded (PNG, JPEG)
    evaluated = dy.Bool()  # used by val or test; zero-shot embeddings are made of these


class SamplesDiagnosis(dy.Schema):
    """data/{dataset}/{train,val,test}.parquet of a diagnosis data set: one row a sample."""

    sample_id = dy.String(primary_key=True)
    group_id = dy.String()  # patient, lesion, slide, ...: never split apart
    label = dy.Int16(min=0)  # index into the data set's classes
    image_id = dy.String()
    sex = dy.String(nullable=True)  # as far as the data set says; so are those below
    age_band = dy.String(nullable=True)  # 0-17, 18-39, 40-59, 60-79, 80+
    race = dy.String(nullable=True)
    ethnicity = dy.String(nullable=True)
    language = dy.String(nullable=True)


class SamplesVqa(dy.Schema):
    """data/{dataset}/{train,val,test}.parquet of a question-answering data set: one row a question, original text."""

    sample_id = dy.String(primary_key=True)
    group_id = dy.String()
    question = dy.String(min_length=1)
    answer = dy.String(min_length=1)
    answer_type = dy.Enum(["open", "closed"])  # official where there is one
    is_yes_no = dy.Bool()  # derived: the reference is yes or no
    image_id = dy.String()
    sex = dy.String(nullable=True)  # as far as the data set says; so are those below
    age_band = dy.String(nullable=True)  # 0-17, 18-39, 40-59, 60-79, 80+
    race = dy.String(nullable=True)
    ethnicity = dy.String(nullable=True)
    language = dy.String(nullable=True)


class Twins(dy.Schema):
    """twins/{dataset}.parquet: the samples whose image another split of the data set holds too, one row for each such split."""

    split = dy.Enum(["train", "val", "test"], primary_key=True)
    sample_id = dy.String(primary_key=True)
    other_split = dy.Enum(["train", "val", "test"], primary_key=True)
    kind = dy.Enum(["exact-image", "exact-pixels", "near-duplicate"])  # the closest likeness; the last only where the configuration says so
    other_sample_id = dy.String()  # a sample of the other split with that image: the first of them


class Embeddings(dy.Schema):
    """embeddings/{dataset}/{model}.parquet: one row an image."""

    image_id = dy.String(primary_key=True)
    features = dy.List(dy.Float32())  # [d] what a probe reads
    embeddings = dy.List(dy.List(dy.Float32()), nullable=True)  # [q, e] for zero-shot; null where not evaluated


class Prompts(dy.Schema):
    """prompts/{dataset}/{model}.parquet: one row a class prompt."""

    prompt_set = dy.String(primary_key=True)  # `main` decides zero-shot; others feed the spread
    label = dy.Int16(primary_key=True, min=0)
    position = dy.Int16(primary_key=True, min=0)  # several prompts of a class are ensembled
    prompt = dy.String()
    embedding = dy.List(dy.Float32())  # [e], unnormalised
    scale = dy.Float32()  # logit = scale * cosine + bias, the model's own
    bias = dy.Float32()


class Spread(dy.Schema):
    """spread/{dataset}/{model}.parquet: zero-shot AUROC on the test split by every prompt set; the spread over sets is a result."""

    prompt_set = dy.String(primary_key=True)  # `main` is the one that counts elsewhere
    prompts = dy.Int32(min=1)  # of all classes together; several of a class are ensembled
    auroc = dy.Float64(nullable=True, min=0, max=1)  # macro one-vs-rest; null where a class is absent
    n = dy.Int32(min=0)  # samples


class PredictionsDiagnosis(dy.Schema):
    """predictions/{dataset}/{model}/{mode}.parquet of a diagnosis cell: one row a test sample."""

    sample_id = dy.String(primary_key=True)
    group_id = dy.String()
    label = dy.Int16(min=0)
    scores = dy.List(dy.Float64(allow_nan=True, allow_inf=True))  # [classes] softmax over class logits; not finite: unscored
    draws = dy.List(dy.List(dy.Float64()), nullable=True)  # [draws, classes] of a few-shot cell, whose `scores` are their mean


class PredictionsVqa(dy.Schema):
    """predictions/{dataset}/{model}/{mode}.parquet of a question-answering cell: all that is needed to score it again."""

    sample_id = dy.String(primary_key=True)
    group_id = dy.String()
    answer_type = dy.Enum(["open", "closed"])
    is_yes_no = dy.Bool()
    question = dy.String()
    reference = dy.String()
    answer = dy.String()
    finish_reason = dy.Enum(["stop", "length", "repetition"])  # the model ended it, the budget did, it went round in circles
    n_tokens = dy.Int32(min=0)


class ScoresDiagnosis(dy.Schema):
    """scores/{dataset}/{model}/{mode}.parquet of a diagnosis cell: one row a test sample."""

    sample_id = dy.String(primary_key=True)
    group_id = dy.String()
    label = dy.Int16(min=0)
    predicted = dy.Int16(nullable=True, min=0)  # argmax of the scores; null, like what follows, where a score is not finite
    confidence = dy.Float64(nullable=True, min=0, max=1)  # score of the predicted class
    correct = dy.Float64(nullable=True, min=0, max=1)


class ScoresVqa(dy.Schema):
    """scores/{dataset}/{model}/{mode}.parquet of a question-answering cell: one row a question, one column a metric and scoring."""

    sample_id = dy.String(primary_key=True)
    group_id = dy.String()
    answer_type = dy.Enum(["open", "closed"])
    parsed = dy.Bool(nullable=True)  # closed: could a choice be read; null for open, and where a question names no options
    closed_accuracy_strict = dy.Float64(nullable=True, min=0, max=1)
    exact_match_strict = dy.Float64(min=0, max=1)
    token_precision_strict = dy.Float64(min=0, max=1)
    token_recall_strict = dy.Float64(min=0, max=1)
    token_f1_strict = dy.Float64(min=0, max=1)
    rouge_l_recall_strict = dy.Float64(min=0, max=1)
    rouge_l_f_strict = dy.Float64(min=0, max=1)
    bleu1_strict = dy.Float64(min=0, max=1)
    accuracy_published = dy.Float64(min=0, max=1)
    exact_match_published = dy.Float64(min=0)
    precision_published = dy.Float64(min=0)
    recall_published = dy.Float64(min=0)
    f1_published = dy.Float64(min=0)
    rouge_l_published = dy.Float64(min=0, max=1)
    bleu1_published = dy.Float64(min=0, max=1)


class Intervals(dy.Schema):
    """intervals/{dataset}/{model}/{mode}.parquet: one row a metric, scoring, subset and method."""

    metric = dy.String(primary_key=True)
    scoring = dy.String(primary_key=True)  # `standard` for diagnosis; `strict` or `published` for answers
    subset = dy.String(primary_key=True)  # all | open | closed | clean | clean-open | clean-closed; clean: without a twin in train or val
    method = dy.String(primary_key=True)  # percentile | logit | bca
    unit = dy.String()  # what is resampled: group or sample
    level = dy.Float64(min=0, max=1)
    estimate = dy.Float64(nullable=True)
    sd = dy.Float64(nullable=True)
    low = dy.Float64(nullable=True)
    high = dy.Float64(nullable=True)
    n = dy.Int32(min=0)  # samples the metric is defined on
    n_groups = dy.Int32(min=0)
    n_resamples = dy.Int32(min=0)
    n_undefined = dy.Int32(min=0)  # resamples in which the metric is undefined
    few_groups = dy.Bool()  # under 30 groups: no verdict
    reason = dy.String(nullable=True)  # why the estimate or the interval is null
    sample_digest = dy.String()  # of the ids of the samples used: equal digests may be paired
    replicates = dy.List(dy.Float64(nullable=True), nullable=True)  # in resample order, on the percentile row only


class Gaps(dy.Schema):
    """gaps/{run}/{rq1,rq2,rq3,global}.parquet: one row a question, adaptation, family and data set (global: a generalist)."""

    question = dy.Enum(["rq1", "rq2", "rq3", "global-rq2", "global-rq3"], primary_key=True)
    adaptation = dy.String(primary_key=True)  # mode of the adapted side: lp, lora, ...; `ots` for RQ1
    family = dy.String(primary_key=True)  # `all` in the global view
    dataset = dy.String(primary_key=True)
    generalist = dy.String(primary_key=True)  # best by point estimate (global: each); `absent` where no cell of one can be used
    rank = dy.Int16(primary_key=True)  # 1: against the best specialist, 2: the second best (global view)
    metric = dy.String(primary_key=True)
    scoring = dy.String(primary_key=True)
    subset = dy.String(primary_key=True)
    generalist_mode = dy.String()
    specialist = dy.String(nullable=True)
    specialist_mode = dy.String(nullable=True)
    generalist_estimate = dy.Float64(nullable=True)
    specialist_estimate = dy.Float64(nullable=True)
    gap = dy.Float64(nullable=True)  # generalist - specialist, in the metric's own unit
    sd = dy.Float64(nullable=True)
    low = dy.Float64(nullable=True)
    high = dy.Float64(nullable=True)
    p = dy.Float64(nullable=True, min=0, max=1)  # two-sided, the published pair, unadjusted
    exceeds = dy.Bool(nullable=True)  # the generalist is better (gap > 0; for `ece`, < 0); a tie does not exceed
    p_generalist = dy.Float64(nullable=True, min=0, max=1)  # set-wise: some generalist beats every specialist
    p_specialist = dy.Float64(nullable=True, min=0, max=1)
    p_holm = dy.Float64(nullable=True, min=0, max=1)  # set-wise, adjusted per question and adaptation; null: exploratory
    verdict = dy.Enum(["generalist", "specialist", "equivalent", "undecided"], nullable=True)
    smallest_gap = dy.Float64(nullable=True)  # the smallest gap this comparison could have shown
    n_pair = dy.Int32(nullable=True)
    n_groups = dy.Int32(nullable=True)
    reason = dy.String(nullable=True)  # why there is no gap or no verdict


class PooledGaps(dy.Schema):
    """gaps/{run}/pooled.parquet: a family's gap over its data sets (random effects, Hartung-Knapp); null below three data sets."""

    question = dy.Enum(["rq1", "rq2", "rq3"], primary_key=True)
    adaptation = dy.String(primary_key=True)
    family = dy.String(primary_key=True)
    metric = dy.String(primary_key=True)
    scoring = dy.String()
    k = dy.Int32(min=0)  # data sets
    gap = dy.Float64(nullable=True)
    low = dy.Float64(nullable=True)
    high = dy.Float64(nullable=True)
    tau2 = dy.Float64(nullable=True)  # variance between data sets
    reason = dy.String(nullable=True)


class Ledger(dy.Schema):
    """ledger/{run}.parquet: what two splits share, within and across the data sets of a run. Pairs that share nothing have no row."""

    kind = dy.Enum(["exact-image", "exact-pixels", "near-duplicate", "group"], primary_key=True)  # near: without those of equal pixels
    dataset = dy.String(primary_key=True)
    split = dy.Enum(["train", "val", "test"], primary_key=True)
    other_dataset = dy.String(primary_key=True)
    other_split = dy.Enum(["train", "val", "test"], primary_key=True)
    shared = dy.Int32(min=1)  # distinct images (or groups) of `split` that are also in `other_split`
    total = dy.Int32(min=1)  # distinct images (or groups) of `split`
    examples = dy.List(dy.String())  # sample ids of `split`, at most five


TABLES: dict[str, type[dy.Schema]] = {
    "images": Images,
    "samples-diagnosis": SamplesDiagnosis,
    "samples-vqa": SamplesVqa,
    "twins": Twins,
    "embeddings": Embeddings,
    "prompts": Prompts,
    "spread": Spread,
    "predictions-diagnosis": PredictionsDiagnosis,
    "predictions-vqa": PredictionsVqa,
    "scores-diagnosis": ScoresDiagnosis,
    "scores-vqa": ScoresVqa,
    "intervals": Intervals,
    "gaps": Gaps,
    "pooled-gaps": PooledGaps,
    "ledger": Ledger,
}

S = TypeVar("S", bound=dy.Schema)


def write(schema: type[S], frame: pl.DataFrame, path: Path) -> None:
    """Check `frame` and write it to `path` in one step: a reader sees the whole table or none. Zstandard, statistics off: byte-equal."""
    checked = _validate(schema, frame, path)
    with runtime.whole(path) as aside:
        checked.write_parquet(aside, compression="zstd")


def read(schema: type[S], path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """Read and check a whole table, or some columns (then unchecked beyond their presence).

    Raises MedbenchError naming the file when it is absent, no Parquet, or breaks its contract.
    """
    try:
        frame = pl.read_parquet(path, columns=columns)
    except FileNotFoundError:
        raise MedbenchError(path, "the table does not exist", f"run `snakemake --cores all {path}`") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise MedbenchError(path, f"not a readable table ({str(error).splitlines()[0]})", "delete it and run again") from None
    return frame if columns is not None else _validate(schema, frame, path)


def _validate(schema: type[S], frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    try:
        return schema.validate(frame, cast=False)
    except (dy.exc.ValidationError, dy.exc.SchemaError) as error:
        detail = " ".join(str(error).split())
        raise MedbenchError(path, f"breaks the contract of table {schema.__name__}: {detail}", "see INTERFACE.md") from None


def empty(schema: type[S]) -> pl.DataFrame:
    """A table of no rows with the schema's columns."""
    return schema.create_empty()


def columns(schema: type[dy.Schema]) -> dict[str, Any]:
    """Column name -> polars type, in order."""
    return {name: column.dtype for name, column in schema.columns().items()}
