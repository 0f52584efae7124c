"""Where everything lies: the one place that knows the shape of a path. All are relative to the working directory.

The functions take names or Snakemake's wildcards (`"{dataset}"`), so rules and stages cannot disagree.
"""

import os
import re
from functools import cache
from pathlib import Path

TRACKED = False  # where a file lies is no result

RESULTS = Path("results")
SPLITS = ("train", "val", "test")
WEIGHTS = "weights"  # folder of an adaptation, in its own and in the job's
GAP_TABLES = ("rq1", "rq2", "rq3", "rq4", "global", "confirmatory", "pooled")
LETTERED_TABLES = ("pairs", "roles", "variation", "reliability")
ENDINGS = (".json", ".parquet", ".run", ".safetensors")  # of files: a record `x.run.json` is of one job
SLUG = re.compile(r"[a-z0-9][a-z0-9.-]*")


def slug(name: str) -> str:
    """A name that may stand in a path, as it is. Raises ValueError for another."""
    if not SLUG.fullmatch(name) or ".." in name or name.endswith(ENDINGS):
        raise ValueError(f"{name!r} is an invalid name: use lower-case letters, digits, dots and dashes only, and no file's ending")
    return name


@cache
def model_folder(model: str) -> Path:
    """Hub-format folder of a model that the workflow itself pretrains."""
    return RESULTS / "models" / model


def raw(dataset: str) -> Path:
    """Folder of official files that `fetch` brings, or where a person puts them: below MEDBENCH_DATA, by default `raw`."""
    return Path(os.environ.get("MEDBENCH_DATA") or "raw").expanduser() / dataset


@cache
def fetched(dataset: str) -> Path:
    """What came into that folder: files, digests, revision."""
    return RESULTS / "raw" / f"{dataset}.json"


@cache
def samples(dataset: str, split: str) -> Path:
    """Table `samples-diagnosis` or `samples-vqa` of one split."""
    return RESULTS / "data" / dataset / f"{split}.parquet"


@cache
def images(dataset: str) -> Path:
    """Table `images`: every distinct image of a data set once."""
    return RESULTS / "data" / dataset / "images.parquet"


@cache
def card(dataset: str) -> Path:
    """Data card: counts, drops by reason, digests, duplicates."""
    return RESULTS / "data" / dataset / "card.json"


@cache
def sources(dataset: str) -> Path:
    """The image files that the tables were made of, as they were: no output, since times stand in it."""
    return RESULTS / "data" / dataset / "sources.json"


def data(dataset: str) -> list[Path]:
    """All that `prepare` writes."""
    return [*(samples(dataset, split) for split in SPLITS), images(dataset), card(dataset)]


@cache
def duplicates(dataset: str) -> Path:
    """Table `duplicates`: samples that another split holds too."""
    return RESULTS / "duplicates" / f"{dataset}.parquet"


@cache
def embeddings(dataset: str, model: str) -> Path:
    """Table `embeddings`."""
    return RESULTS / "embeddings" / dataset / f"{model}.parquet"


@cache
def prompts(dataset: str, model: str) -> Path:
    """Table `prompts`."""
    return RESULTS / "prompts" / dataset / f"{model}.parquet"


@cache
def adapter(dataset: str, model: str, mode: str) -> Path:
    """Folder of an adapted cell: weights and certificate."""
    return RESULTS / "adapters" / dataset / model / mode


@cache
def adapter_weights(dataset: str, model: str, mode: str) -> Path:
    """Folder of its weights: a probe's in one file, those of LoRA in PEFT's layout with a file for what else was trained."""
    return adapter(dataset, model, mode) / WEIGHTS


def adapter_files(dataset: str, model: str, mode: str) -> list[Path]:
    """All that `adapt` writes: the certificate, which comes last and stands for it, and the weights."""
    return [adapter(dataset, model, mode) / "certificate.json", adapter_weights(dataset, model, mode)]


@cache
def predictions(dataset: str, model: str, mode: str) -> Path:
    """Table `predictions-diagnosis` or `predictions-vqa`: the cell."""
    return RESULTS / "predictions" / dataset / model / f"{mode}.parquet"


@cache
def answers(dataset: str, model: str, mode: str) -> Path:
    """What the model of a cell answered, kept for when a label of a test sample is corrected; no output, and may be deleted."""
    return RESULTS / ".answers" / dataset / model / f"{mode}.parquet"


@cache
def scores(dataset: str, model: str, mode: str) -> Path:
    """Table `scores-diagnosis` or `scores-vqa`: one row a sample."""
    return RESULTS / "scores" / dataset / model / f"{mode}.parquet"


def calibration(model: str) -> Path:
    """What a judge made of answers whose truth is known."""
    return RESULTS / "calibration" / f"{model}.json"


def judgements(dataset: str, model: str, mode: str) -> Path:
    """Table `judgements`: one row an open answer, scoring, judge and repeat."""
    return RESULTS / "judgements" / dataset / model / f"{mode}.parquet"


@cache
def intervals(dataset: str, model: str, mode: str) -> Path:
    """Table `intervals`: every metric of a cell with its replicates."""
    return RESULTS / "intervals" / dataset / model / f"{mode}.parquet"


@cache
def validation(dataset: str, model: str, mode: str) -> Path:
    """As `predictions`, of the validation split."""
    return RESULTS / "validation" / dataset / model / f"{mode}.parquet"


def gaps(run: str) -> list[Path]:
    """The run's gap tables."""
    return [RESULTS / "gaps" / run / f"{name}.parquet" for name in GAP_TABLES]


def controls(run: str) -> Path:
    """What the models of a run gain over themselves without their image, and over baselines."""
    return RESULTS / "gaps" / run / "controls.parquet"


def lettered(run: str) -> list[Path]:
    """Tables of lettered questions: pairs of models, roles by size, a model over data sets, what exceeds the reliability threshold."""
    return [RESULTS / "gaps" / run / f"{name}.parquet" for name in LETTERED_TABLES]


@cache
def overlap(run: str) -> Path:
    """Table `overlap`: what data sets and splits of the run share."""
    return RESULTS / "overlap" / f"{run}.parquet"


@cache
def report(run: str) -> Path:
    """Folder of the run's report; `index.html` stands in it."""
    return RESULTS / "report" / run


def report_files(run: str) -> list[Path]:
    """All that stands in it, the page first; those without a suffix are folders."""
    return [report(run) / name for name in ("index.html", "answer.txt", "facts.json", "cost.csv", "tables", "figures", "contact")]


@cache
def answer(run: str) -> Path:
    """The run's verdicts in a few lines of text, as the page has them at its top."""
    return report(run) / "answer.txt"


@cache
def partial(key: str) -> Path:
    """Folder of unfinished work, outside everything that a rule declares."""
    return RESULTS / ".partial" / key


def store() -> Path:
    """Folder of answers of endpoints, which are paid for: MEDBENCH_STORE, by default `store`. Outside of the results."""
    return Path(os.environ.get("MEDBENCH_STORE") or "store").expanduser()


def gone(dataset: str, model: str, mode: str) -> Path:
    """Note that a retired model left a cell without all of its answers."""
    return RESULTS / ".gone" / dataset / model / mode


@cache
def log(stage: str, *names: str) -> Path:
    """Log file of one job."""
    return Path("logs", stage, *names[:-1], f"{names[-1]}.log")


@cache
def run_record(table: Path) -> Path:
    """Times, host, device and versions of the job that wrote `table`; never part of a digest."""
    return table.with_name(table.name.removesuffix(".parquet").removesuffix(".json").removesuffix(".safetensors") + ".run.json")


@cache
def record_of(file: Path | str) -> Path:
    """Run record of the job that wrote a file of the results: it lies beside the main output of that job."""
    _, kind, *names = str(file).split("/")
    of_folder = {"data": 1, "adapters": 3, "models": 1, "gaps": 1}  # jobs with several outputs: how many names choose one
    return _record_of(kind, *names[: of_folder[kind]]) if kind in of_folder else run_record(Path(file))


@cache
def _record_of(kind: str, *names: str) -> Path:
    if kind == "data":
        return run_record(data(*names)[0])
    if kind == "adapters":
        return run_record(adapter_files(*names)[0])
    return run_record(gaps(*names)[0] if kind == "gaps" else model_folder(*names))
