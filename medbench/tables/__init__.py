"""The Parquet contracts: every table's columns as code, checked on write and on read. `INTERFACE.md` is generated from here.

Undefined statistics are null with a reason, never 0. Times, hosts and versions are not here (see `provenance`), so that
equal inputs give byte-equal tables.
"""

from pathlib import Path
from typing import Any

import polars as pl

from medbench.errors import MedbenchError
from medbench.jobs import files
from medbench.tables.contract import Breach, Column, Table, check

LIKENESS = ("exact-image", "exact-pixels", "near-duplicate")


class Images(Table):
    """data/{dataset}/images.parquet: every distinct image of a data set once, in order of first use, bytes as given where possible."""

    image_id = Column(pl.String, key=True)  # SHA-256 of the original bytes
    pixel_digest = Column(pl.String)  # XXH3 of size and pixels as a model sees them: equal for one picture in two encodings
    perceptual_hash = Column(pl.UInt64)  # pHash: images that look alike differ in few of its 64 bits
    image = Column(pl.Binary)  # encoded (PNG, JPEG)
    evaluated = Column(pl.Boolean)  # used by val or test; zero-shot embeddings are made of these


class Samples(Table):
    """What the tables of samples of every task have: data/{dataset}/{train,val,test}.parquet, one row a sample."""

    sample_id = Column(pl.String, key=True)
    group_id = Column(pl.String)  # patient, lesion, slide, ...: never split apart
    image_id = Column(pl.String)  # the first, where there are several (`image_ids`)


class Duplicates(Table):
    """duplicates/{dataset}.parquet: the samples whose image another split of the data set holds too, one row for each such split."""

    split = Column(pl.Enum(["train", "val", "test"]), key=True)
    sample_id = Column(pl.String, key=True)
    other_split = Column(pl.Enum(["train", "val", "test"]), key=True)
    kind = Column(pl.Enum(LIKENESS))  # the closest likeness; the last only where the configuration says so
    other_sample_id = Column(pl.String)  # a sample of the other split with that image: the first of them


class Embeddings(Table):
    """embeddings/{dataset}/{model}.parquet: one row an image."""

    image_id = Column(pl.String, key=True)
    features = Column(pl.List(pl.Float32))  # [d] what a probe reads
    embeddings = Column(pl.List(pl.List(pl.Float32)), null=True)  # [q, e] for zero-shot; null where not evaluated


class Prompts(Table):
    """prompts/{dataset}/{model}.parquet: one row a class prompt."""

    prompt_set = Column(pl.String, key=True)  # `main` decides zero-shot; others show how much wording matters
    label = Column(pl.Int16, key=True, low=0)
    position = Column(pl.Int16, key=True, low=0)  # several prompts of a class are ensembled
    prompt = Column(pl.String)
    embedding = Column(pl.List(pl.Float32))  # [e], unnormalised
    scale = Column(pl.Float32)  # logit = scale * cosine + bias, the model's own
    bias = Column(pl.Float32)


class Judgements(Table):
    """judgements/{dataset}/{model}/{mode}.parquet: what judges said of every open answer. Readable by its owner alone."""

    is_private = True  # a judge repeats what it read

    sample_id = Column(pl.String, key=True)
    scoring = Column(pl.Enum(["strict", "published"]), key=True)
    judge = Column(pl.String, key=True)
    repeat = Column(pl.Int16, key=True, low=0)
    state = Column(pl.Enum(["judged", "exact", "empty", "refused", "failed"]))  # exact, empty, refused: scored unasked
    score = Column(pl.Float64, null=True, low=1, high=100)  # null where the judge gave none that can be read
    reason = Column(pl.String)  # the judge's own words, or why there is no score
    answered_by = Column(pl.String)  # the model's own name as it came back, or its weights; empty where nobody was asked
    request = Column(pl.String)  # key of the answer in the store, of a model that runs here of its prompt; empty likewise


class Intervals(Table):
    """intervals/{dataset}/{model}/{mode}.parquet: one row a metric, scoring, subset and method."""

    metric = Column(pl.String, key=True)
    scoring = Column(pl.String, key=True)  # `standard` for diagnosis, `prompts-{set}` by that wording; answers: `strict` | `published`
    subset = Column(pl.String, key=True)  # all | open | closed, and of each the samples without a duplicate in train or val: leak-free, ...
    method = Column(
        pl.String, key=True
    )  # percentile | logit | bca | published: percentile of 1,000 resamples of samples, never in a verdict
    unit = Column(pl.String)  # what is resampled: group or sample
    level = Column(pl.Float64, low=0, high=1)
    estimate = Column(pl.Float64, null=True)
    sd = Column(pl.Float64, null=True)
    low = Column(pl.Float64, null=True)
    high = Column(pl.Float64, null=True)
    n = Column(pl.Int32, low=0)  # samples the metric is defined on
    n_groups = Column(pl.Int32, low=0)
    n_resamples = Column(pl.Int32, low=0)
    n_undefined = Column(pl.Int32, low=0)  # resamples in which the metric is undefined
    effective_groups = Column(pl.Float64, low=0)  # (sum n)^2 / sum n^2 over groups: of the rarest class where each is needed
    few_groups = Column(pl.Boolean)  # under 30 effective groups: no verdict; under 10 no interval either
    reason = Column(pl.String, null=True)  # why the estimate or the interval is null
    sample_digest = Column(pl.String)  # of the ids of the samples used: equal digests may be paired
    replicates = Column(pl.List(pl.Float64), null=True, null_items=True)  # in resample order, on the percentile row only


class Gaps(Table):
    """gaps/{run}/{rq1,rq2,rq3,rq4,global}.parquet: one row a question, adaptation, family and data set (global: a generalist)."""

    question = Column(pl.Enum(["rq1", "rq2", "rq3", "rq4", "global-rq2", "global-rq3"]), key=True)
    adaptation = Column(pl.String, key=True)  # mode of the adapted side: lp, lora, ...; `ots` for RQ1
    family = Column(pl.String, key=True)  # `all` in the global view
    dataset = Column(pl.String, key=True)
    generalist = Column(pl.String, key=True)  # best by point estimate (global: each); `absent` where no cell of one can be used
    rank = Column(pl.Int16, key=True)  # 1: against the best specialist, 2: the second best (global view)
    metric = Column(pl.String, key=True)
    scoring = Column(pl.String, key=True)
    subset = Column(pl.String, key=True)
    generalist_mode = Column(pl.String)
    specialist = Column(pl.String, null=True)
    specialist_mode = Column(pl.String, null=True)
    n_generalists = Column(pl.Int16, low=1)  # models of the side
    n_specialists = Column(pl.Int16, low=1)
    generalist_estimate = Column(pl.Float64, null=True)
    specialist_estimate = Column(pl.Float64, null=True)
    gap = Column(pl.Float64, null=True)  # generalist - specialist, in the metric's own unit
    sd = Column(pl.Float64, null=True)
    low = Column(pl.Float64, null=True)
    high = Column(pl.Float64, null=True)
    p = Column(pl.Float64, null=True, low=0, high=1)  # two-sided, the published pair, unadjusted
    exceeds = Column(pl.Boolean, null=True)  # the generalist is better (gap > 0; for `ece`, < 0); a tie does not exceed
    p_generalist = Column(pl.Float64, null=True, low=0, high=1)  # set-wise: some generalist beats every specialist
    p_specialist = Column(pl.Float64, null=True, low=0, high=1)
    p_holm = Column(pl.Float64, null=True, low=0, high=1)  # set-wise, adjusted per question and adaptation; null: exploratory
    p_equivalent = Column(pl.Float64, null=True, low=0, high=1)  # set-wise, within the margin (TOST), adjusted likewise
    verdict = Column(pl.Enum(["generalist", "specialist", "equivalent", "undecided"]), null=True)
    minimum_detectable_difference = Column(pl.Float64, null=True)  # by the verdict, adjusted like p_holm; exploratory: by the one pair
    n_pair = Column(pl.Int32, null=True)
    n_groups = Column(pl.Int32, null=True)
    effective_groups = Column(pl.Float64, null=True, low=0)  # as in intervals
    selection_bias = Column(pl.Float64, null=True)  # of best minus best: what the gap would be on average if all models were equal
    reason = Column(pl.String, null=True)  # why there is no gap or no verdict


class Confirmatory(Gaps):
    """gaps/{run}/confirmatory.parquet: as gaps; on each side the one model that validation data chose, tested once on test."""

    generalist_validation = Column(pl.Float64, null=True)  # what it reaches on validation data; null where its side has one model
    specialist_validation = Column(pl.Float64, null=True)


class PooledGaps(Table):
    """gaps/{run}/pooled.parquet: a family's gap over its data sets (random effects, Hartung-Knapp); null below three data sets."""

    question = Column(pl.Enum(["rq1", "rq2", "rq3", "rq4"]), key=True)
    adaptation = Column(pl.String, key=True)
    family = Column(pl.String, key=True)
    metric = Column(pl.String, key=True)
    scoring = Column(pl.String, key=True)
    k = Column(pl.Int32, low=0)  # data sets
    gap = Column(pl.Float64, null=True)
    low = Column(pl.Float64, null=True)
    high = Column(pl.Float64, null=True)
    tau2 = Column(pl.Float64, null=True)  # variance between data sets
    reason = Column(pl.String, null=True)


class Controls(Table):
    """gaps/{run}/controls.parquet: a model off the shelf against itself in a control mode (grey image, another's, none), and against the
    baselines off the shelf; paired."""

    dataset = Column(pl.String, key=True)
    model = Column(pl.String, key=True)
    mode = Column(pl.String)
    control = Column(pl.String, key=True)  # its mode, or the baseline
    kind = Column(pl.Enum(["mode", "baseline"]), key=True)
    metric = Column(pl.String, key=True)
    scoring = Column(pl.String, key=True)
    subset = Column(pl.String, key=True)
    estimate = Column(pl.Float64, null=True)
    control_estimate = Column(pl.Float64, null=True)
    gain = Column(pl.Float64, null=True)  # estimate - control_estimate, on the samples that both have
    sd = Column(pl.Float64, null=True)
    low = Column(pl.Float64, null=True)
    high = Column(pl.Float64, null=True)
    p = Column(pl.Float64, null=True, low=0, high=1)  # two-sided, unadjusted
    n_pair = Column(pl.Int32, null=True)
    n_groups = Column(pl.Int32, null=True)
    reason = Column(pl.String, null=True)  # why there is no gain or no interval


class Pairs(Table):
    """gaps/{run}/pairs.parquet: every generalist against every specialist off the shelf on lettered questions, paired. Unadjusted."""

    dataset = Column(pl.String, key=True)
    generalist = Column(pl.String, key=True)
    specialist = Column(pl.String, key=True)
    metric = Column(pl.String, key=True)  # accuracy, macro_accuracy; reasoning_gap, reasoning_gap_by_length
    scoring = Column(pl.String, key=True)
    subset = Column(pl.String, key=True)
    generalist_size = Column(pl.Int64, null=True)  # parameters; null where the registry does not say
    specialist_size = Column(pl.Int64, null=True)
    generalist_estimate = Column(pl.Float64, null=True)
    specialist_estimate = Column(pl.Float64, null=True)
    gap = Column(pl.Float64, null=True)  # generalist - specialist, on the samples that both have
    sd = Column(pl.Float64, null=True)
    low = Column(pl.Float64, null=True)
    high = Column(pl.Float64, null=True)
    p = Column(pl.Float64, null=True, low=0, high=1)  # two-sided, unadjusted
    n_pair = Column(pl.Int32, null=True)
    n_groups = Column(pl.Int32, null=True)
    reason = Column(pl.String, null=True)  # why there is no gap or no interval


class Roles(Table):
    """gaps/{run}/roles.parquet: mean of the generalists minus mean of the specialists off the shelf, by data set, size and skill."""

    dataset = Column(pl.String, key=True)  # `all`: the mean over the data sets that have it
    size = Column(pl.String, key=True)  # class of both sides by their parameters; `all`: of any or unknown size
    metric = Column(pl.String, key=True)
    scoring = Column(pl.String, key=True)
    subset = Column(pl.String, key=True)  # all, skill-reasoning, skill-understanding, ...
    n_datasets = Column(pl.Int16, low=1)
    n_generalists = Column(pl.Int16, low=1)  # `all` data sets: at the most
    n_specialists = Column(pl.Int16, low=1)
    generalist_estimate = Column(pl.Float64, null=True)
    specialist_estimate = Column(pl.Float64, null=True)
    gap = Column(pl.Float64, null=True)
    sd = Column(pl.Float64, null=True)
    low = Column(pl.Float64, null=True)
    high = Column(pl.Float64, null=True)
    p = Column(pl.Float64, null=True, low=0, high=1)
    reason = Column(pl.String, null=True)


class Variation(Table):
    """gaps/{run}/variation.parquet: how far a model's accuracies lie apart over the data sets of lettered questions, off the shelf."""

    model = Column(pl.String, key=True)
    mode = Column(pl.String, key=True)
    scoring = Column(pl.String, key=True)
    k = Column(pl.Int16, low=0)  # data sets
    mean = Column(pl.Float64, null=True)
    mean_low = Column(pl.Float64, null=True)
    mean_high = Column(pl.Float64, null=True)
    sd = Column(pl.Float64, null=True)  # of the accuracies over data sets; their sampling errors are a part of it
    low = Column(pl.Float64, null=True)
    high = Column(pl.Float64, null=True)
    sd_between = Column(pl.Float64, null=True)  # without that part: root of sd^2 less the mean sampling variance, 0 at the least
    lowest = Column(pl.String, null=True)  # data set
    highest = Column(pl.String, null=True)
    reason = Column(pl.String, null=True)


class Reliability(Table):
    """gaps/{run}/reliability.parquet: cells of lettered questions whose lower bound exceeds `reliability_threshold`, and the others."""

    dataset = Column(pl.String, key=True)
    model = Column(pl.String, key=True)
    mode = Column(pl.String, key=True)
    scoring = Column(pl.String, key=True)
    estimate = Column(pl.Float64, null=True)  # accuracy
    low = Column(pl.Float64, null=True)  # on the logit scale
    high = Column(pl.Float64, null=True)
    threshold = Column(pl.Float64, low=0, high=1)
    is_reliable = Column(pl.Boolean)  # low > threshold
    reason = Column(pl.String, null=True)


class Overlap(Table):
    """overlap/{run}.parquet: what two splits share, within and across the data sets of a run. Pairs that share nothing have no row."""

    kind = Column(pl.Enum([*LIKENESS, "group"]), key=True)  # near: without those of equal pixels
    dataset = Column(pl.String, key=True)
    split = Column(pl.Enum(["train", "val", "test"]), key=True)
    other_dataset = Column(pl.String, key=True)
    other_split = Column(pl.Enum(["train", "val", "test"]), key=True)
    shared = Column(pl.Int32, low=1)  # distinct images (or groups) of `split` that are also in `other_split`
    total = Column(pl.Int32, low=1)  # distinct images (or groups) of `split`
    examples = Column(pl.List(pl.String))  # sample ids of `split`, at most five


TABLES: dict[str, type[Table]] = {
    "images": Images,
    "duplicates": Duplicates,
    "embeddings": Embeddings,
    "prompts": Prompts,
    "judgements": Judgements,
    "intervals": Intervals,
    "gaps": Gaps,
    "confirmatory": Confirmatory,
    "pooled-gaps": PooledGaps,
    "controls": Controls,
    "pairs": Pairs,
    "roles": Roles,
    "variation": Variation,
    "reliability": Reliability,
    "overlap": Overlap,
}


def write(schema: type[Table], frame: pl.DataFrame, path: Path) -> None:
    """Check `frame` and write it to `path` in one step: a reader sees the whole table or none. Zstandard, statistics off: byte-equal."""
    checked = _validate(schema, frame, path)
    with files.atomic(path, schema.is_private) as aside:
        checked.write_parquet(aside, compression="zstd")


def read(schema: type[Table], path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """Read and check a whole table, or some columns (then unchecked beyond their presence).

    Raises MedbenchError naming the file when it is absent, no Parquet, or breaks its contract.
    """
    try:
        frame = pl.read_parquet(path, columns=columns, glob=False)
    except FileNotFoundError:
        raise MedbenchError(path, "the table does not exist", f"run `snakemake --cores all {path}`") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise MedbenchError(path, f"not a readable table ({str(error).splitlines()[0]})", "delete it and run again") from None
    return frame if columns is not None else _validate(schema, frame, path)


def _validate(schema: type[Table], frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    try:
        return check(schema, frame)
    except Breach as error:
        raise MedbenchError(path, f"breaks the contract of table {schema.__name__}: {error}", "see INTERFACE.md") from None


def empty(schema: type[Table]) -> pl.DataFrame:
    """A table of no rows with the schema's columns."""
    return pl.DataFrame(schema=columns(schema))


def columns(schema: type[Table]) -> dict[str, Any]:
    """Column name -> polars type, in order."""
    return {name: column.dtype for name, column in schema.columns().items()}
