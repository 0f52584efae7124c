"""Judge the open answers of a cell: a language model compares each with its reference. Equal answers of all cells are asked once.

Example: python -m medbench judge vqa-rad llava-1.5 ots --configfile my-judged-run.yaml
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from medbench import paths, tables, tasks
from medbench.config import Config, sources
from medbench.errors import MedbenchError
from medbench.jobs.partial import Work
from medbench.jobs.stage import Needs, Stage
from medbench.judging import asking
from medbench.judging.asking import Judge, Judgement, Triple
from medbench.metrics.evaluate_modules.vqa_strict.words import tokens
from medbench.metrics.judging import scoring
from medbench.models import answering, loading
from medbench.stages import calibrate
from medbench.tasks.reading import require_test

FLOOR = 30
"""Answers that a judge sees against the reference of another question: what it gives them is its floor."""


class Params(NamedTuple):
    """What changes the judgements besides the answers and the calibration of the judges."""

    task: str
    judges: dict[str, dict[str, Any]]  # name -> fields of Source
    max_new_tokens: int
    scorings: tuple[str, ...]
    repeats: int
    thoughts: tuple[tuple[str, str], ...]  # the answering model's marks of its thoughts


def params(config: Config, dataset: str, model: str, mode: str) -> Params:
    """Of one cell. Raises MedbenchError in a run without a judge, and for a task whose answers are not judged."""
    chosen, task = config.run.judge, config.datasets[dataset].task
    if chosen is None or tasks.get(task).judged is None:
        found = "the run has no judge" if chosen is None else f"answers of task {task} are not judged"
        raise MedbenchError(f"judge {dataset}/{model}/{mode}", found, "give `judge: {models: [...]}`, and a data set with open questions")
    judges = {name: sources.source(config, name) for name in chosen.models}
    return Params(task, judges, chosen.max_new_tokens, chosen.scorings, chosen.repeats, config.models[model].thoughts)


def inputs(params: Params, *cell: str) -> list[Path]:
    """Answers, the test split, and what the judges made of answers whose truth is known."""
    return [paths.samples(cell[0], "test"), paths.predictions(*cell), *(paths.calibration(name) for name in params.judges)]


def run(params: Params, dataset: str, model: str, mode: str, work: Work) -> dict[str, Any]:
    """Write `judgements/{dataset}/{model}/{mode}.parquet`; facts: who judged, refused judges, floors."""
    task, path = tasks.get(params.task), paths.predictions(dataset, model, mode)
    frame = tables.read(task.predictions, path)
    require_test(frame, path, dataset, task.repeated)
    asked = triples(frame, params.thoughts)
    rows, facts = list[dict[str, Any]](), dict[str, Any]()
    for name, source in params.judges.items():
        judge = Judge(name, source, params.max_new_tokens)
        known = json.loads(paths.calibration(name).read_bytes())["scorings"]
        admitted = [one for one in params.scorings if not known[one]["faults"]]
        facts[name] = {
            one: {"refused": known[one]["faults"]} if one not in admitted else {"digest": asking.digest(judge, one)}
            for one in params.scorings
        }
        if not admitted or not asked:
            continue
        answerer = asking.load(judge, work.beside.get(name))
        for one in admitted:
            given: dict[tuple[Triple, int], Judgement] = {
                (triple, repeat): found for triple, repeat, found in asking.judgements(answerer, judge, one, asked.values(), params.repeats)
            }
            places = [(sample, triple, repeat) for sample, triple in asked.items() for repeat in range(params.repeats)]
            rows += [_row(sample, one, name, repeat, given[triple, repeat]) for sample, triple, repeat in places]
            facts[name][one] |= _floor(asking.judgements(answerer, judge, one, _mismatched(asked), 1))
    table = pl.DataFrame(rows, schema=tables.columns(tables.Judgements))
    tables.write(tables.Judgements, table, paths.judgements(dataset, model, mode))
    return {"judges": facts}


def triples(frame: pl.DataFrame, thoughts: tuple[tuple[str, str], ...]) -> dict[str, Triple]:
    """Sample -> what a judge sees of it, of the open questions of a table of predictions."""
    from medbench.metrics.evaluate_modules.vqa_strict.choices import is_refusal, without_thoughts

    rows = frame.filter(pl.col("answer_type") == "open").select("sample_id", "question", "reference", "answer", "finish_reason")
    found = {}
    for sample, question, reference, answer, finish_reason in rows.iter_rows():
        said = without_thoughts(answer, thoughts)[0].strip()
        found[sample] = Triple(question, reference, said, finish_reason == "refusal" or is_refusal(said, question, thoughts, reference))
    return found


def _row(sample: str, name: str, judge: str, repeat: int, found: Judgement) -> dict[str, Any]:
    state, score, reason = found.reading
    return {
        "sample_id": sample, "scoring": name, "judge": judge, "repeat": repeat, "state": state, "score": score, "reason": reason,
        "answered_by": found.answered_by, "request": found.request,
    }  # fmt: skip


def _mismatched(asked: Mapping[str, Triple]) -> list[Triple]:
    """Some answers, each with the reference of the next question that has another one; chosen by the samples' names alone."""
    order = sorted(asked, key=lambda name: hashlib.sha256(name.encode()).digest())
    found = []
    for place, name in enumerate(order):
        one = asked[name]
        others = (asked[order[(place + step) % len(order)]].reference for step in range(1, len(order)))
        wrong = next((other for other in others if tokens(other) not in (tokens(one.reference), tokens(one.answer))), None)
        if wrong is not None:
            found.append(one._replace(reference=wrong))
    return found[:FLOOR]


def _floor(given: Any) -> dict[str, Any]:
    scores = [found.reading.score for _, _, found in given if found.reading.score is not None]
    return {"floor": sum(scores) / len(scores), "floor_n": len(scores)} if scores else {}


def uses(params: Params) -> tuple[str, ...]:
    """The tables of the task, the scorings, and the architectures of the judges."""
    task = tasks.get(params.task).code("samples", "predictions")
    models = [use for source in params.judges.values() for use in (answering.speaker(source), *loading.modules(source))]
    return (*task, *dict.fromkeys(models), *(scoring(name).__name__ for name in params.scorings))


def needs(config: Config, *cell: str) -> Needs:
    """The most that one of its judges needs: they are loaded one after another."""
    each = [calibrate.needs_of(config, name) for name in config.run.judges]
    return Needs(*(max(values) for values in zip(*each, strict=True))) if each else Needs()


def beside(config: Config, *cell: str) -> dict[str, Any]:
    """How the judges are reached."""
    return {name: sources.reached(config, name, cell[0]) for name in config.run.judges}


STAGE = Stage(
    name="judge",
    keys=("dataset", "model", "mode"),
    params=params,
    inputs=inputs,
    outputs=lambda *cell: [paths.judgements(*cell)],
    run=run,
    uses=uses,
    needs=needs,
    resumes=True,
    beside=beside,
)
