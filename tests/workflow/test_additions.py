"""An endpoint, a stage and a kind of task: each is one file and one entry, runs end to end, and reruns nothing that is finished."""

import json
import re

import polars as pl

from tests.conftest import Clone

AGGREGATES = {"gaps nano", "report nano"}

ENDPOINT = '''"""A model behind an address that answers by the colour of the picture."""

from medbench.models.answering import Answer, Answerer


class Echo(Answerer):
    def __init__(self, name, word):
        self.weights, self.word = {"model": name}, word

    def answers(self, questions, done, microbatching):
        for rows in questions.images(questions.image_ids, 16):
            for row in rows:
                places = [place for place, image in enumerate(questions.image_ids) if image == row.image_id and place not in done]
                yield {place: self.answer(questions.query(place, row.image)) for place in places}

    def answer(self, query):
        text = f"{self.word}, {query.image.getpixel((0, 0))[0]}"
        return Answer(text, "stop", len(text.split()))


def answerer(source, change=None):
    return Echo(source.checkpoint, source.options["word"])
'''


def test_an_endpoint_is_one_file_and_one_entry(clone: Clone) -> None:
    (clone.folder / "medbench/models/remote/echo.py").write_text(ENDPOINT)
    clone.append(
        "config/models.yaml",
        "\nparrot:\n  family: parrot\n  role: generalist\n  architecture: echo\n  checkpoint: parrot-1\n  pretrained_on: [everyday]\n"
        '  options: {word: "Yes"}\n',
    )
    clone.edit("config/nano.yaml", "nano-llava-med]", "nano-llava-med, parrot]")
    outcome = clone.snakemake()
    assert outcome.code == 0, outcome.output
    cell = "nano-vqa-radiology/parrot/ots"
    assert outcome.executed == {f"{stage} {cell}" for stage in ("predict", "score", "interval")} | AGGREGATES
    answers = pl.read_parquet(clone.folder / f"results/predictions/{cell}.parquet")
    assert answers["answer"].str.starts_with("Yes, ").all() and answers["answer"].n_unique() > 1
    record = json.loads((clone.folder / f"results/predictions/{cell}.run.json").read_text())
    assert record["weights"] == {"model": "parrot-1"} and record["torch"] is False and record["device"] == "cpu"
    assert clone.plan() == []
    assert "parrot" in (clone.folder / "results/report/nano/index.html").read_text()


STAGE = '''"""agree: how often two runs of a cell's answers are equal."""

from typing import NamedTuple

import polars as pl

from medbench import paths
from medbench.jobs import files
from medbench.jobs.stage import Needs, Stage


class Params(NamedTuple):
    """Nothing changes the result but its inputs."""

    column: str


def output(dataset, model):
    return [paths.RESULTS / "agree" / dataset / f"{model}.parquet"]


def run(params, dataset, model):
    ots, lora = (pl.read_parquet(paths.predictions(dataset, model, mode)) for mode in ("ots", "lora"))
    with files.atomic(output(dataset, model)[0]) as aside:
        pl.DataFrame({"agree": [(ots[params.column] == lora[params.column]).mean()]}).write_parquet(aside)
    return {"compared": len(ots)}


STAGE = Stage(
    name="agree",
    keys=("dataset", "model"),
    params=lambda config, dataset, model: Params("answer"),
    inputs=lambda params, dataset, model: [paths.predictions(dataset, model, mode) for mode in ("ots", "lora")],
    outputs=output,
    run=run,
    needs=lambda config, *names: Needs(memory_mb=500, minutes=5),
)
'''


def test_a_stage_is_one_file_and_one_entry(clone: Clone) -> None:
    (clone.folder / "medbench/stages/agree.py").write_text(STAGE)
    clone.edit("medbench/stages/__init__.py", '"overlap", "report",', '"overlap", "report", "agree",')
    assert clone.plan() == [], "a stage that nothing reads reruns nothing"
    target = "results/agree/nano-vqa-radiology/nano-llava.parquet"
    outcome = clone.snakemake(target)
    assert outcome.code == 0, outcome.output
    assert outcome.executed == {"agree nano-vqa-radiology/nano-llava"}
    assert 0 <= pl.read_parquet(clone.folder / target)["agree"][0] <= 1
    record = json.loads((clone.folder / target.replace(".parquet", ".run.json")).read_text())
    assert record["compared"] > 0 and record["params"]["params"] == {"column": "answer"}
    assert clone.plan(target) == []
    assert re.search(r"mem_mb=500", clone.snakemake("--dry-run", "--forcerun", "agree", target).output)


TASK = '''"""Task `terse`: questions whose answers are compared by their length: the shorter the better."""

import numpy as np
import polars as pl

from dataclasses import replace

from medbench.metrics.measure import Measure
from medbench.stats.resamples import Groups
from medbench.tables.contract import Column, Table
from medbench.tasks import Scores, vqa


class ScoresTerse(Table):
    """scores of a terse cell."""

    sample_id = Column(pl.String, key=True)
    group_id = Column(pl.String)
    brevity_strict = Column(pl.Float64, low=0, high=1)


def score(predictions, where, thoughts):
    words = predictions["answer"].str.split(" ").list.len()
    return Scores(predictions.select("sample_id", "group_id", brevity_strict=1 / words.cast(pl.Float64)))


def scored(scores, duplicates, where, prompt_sets=()):
    every = {"all": np.ones(len(scores), dtype=bool)}
    values = {("brevity", "strict"): scores["brevity_strict"].to_numpy()}
    return vqa.ScoredVqa(scores["sample_id"].to_list(), Groups(scores["group_id"].to_list()), every, values)


TASK = replace(
    vqa.TASK, name="terse", scores=ScoresTerse, score=score, scored=scored, primary=Measure("brevity", "strict", "all"), title="brevity",
    published=None, published_file=None,
)
'''


def test_a_kind_of_task_is_one_file_and_one_entry(clone: Clone) -> None:
    (clone.folder / "medbench/tasks/terse.py").write_text(TASK)
    clone.append(
        "config/datasets.yaml",
        "\nshort-answers:\n  task: terse\n  layout: phantom-vqa\n  modality: x-ray\n  specialty: radiology\n"
        "  options: {kind: radiology, n_patients: {train: 4, val: 2, test: 12}}\n",
    )
    assert clone.plan() == [], "a kind of task that no data set of the run has reruns nothing"
    clone.edit(
        "config/nano.yaml",
        "datasets: [nano-radiology, nano-vqa-radiology]",
        "datasets: [nano-radiology, nano-vqa-radiology, short-answers]",
    )
    outcome = clone.snakemake()
    assert outcome.code == 0, outcome.output
    own = {job for job in outcome.executed if "short-answers" in job}
    assert outcome.executed - own == AGGREGATES | {"overlap nano"}
    assert {job.split()[0] for job in own} == {"prepare", "duplicates", "adapt", "predict", "score", "interval"}
    gaps = pl.read_parquet(clone.folder / "results/gaps/nano/rq1.parquet").filter(pl.col("dataset") == "short-answers")
    assert gaps["metric"].to_list() == ["brevity"] and gaps["gap"].null_count() == 0
    assert "brevity" in (clone.folder / "results/report/nano/index.html").read_text()
    assert clone.plan() == []
