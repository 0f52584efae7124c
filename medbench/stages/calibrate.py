"""Calibrate a judge on answers whose truth is known (resources/judge/calibration.csv): one that misses a bar judges nothing.

MODEL is the judge.

Example: python -m medbench calibrate my-judge --configfile my-judged-run.yaml
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from medbench import paths
from medbench.config import Config, needs, require_writer, sources
from medbench.errors import MedbenchError
from medbench.jobs import files
from medbench.jobs.partial import Work
from medbench.jobs.stage import Needs, Stage
from medbench.judging import asking
from medbench.metrics.judging import calibration, scoring
from medbench.models import answering, loading

MINUTES = 240  # some thousand judgements
ITEMS = Path(__file__).parents[2] / "resources" / "judge" / "calibration.csv"


class Params(NamedTuple):
    """What changes a judge's calibration besides the items."""

    source: dict[str, Any]
    max_new_tokens: int
    scorings: tuple[str, ...]


def params(config: Config, model: str) -> Params:
    """Of a judge. Raises MedbenchError in a run without one, and for a model that writes nothing."""
    if config.run.judge is None:
        raise MedbenchError(f"run {config.run.run}", "has no judge", "give `judge: {models: [...]}` in its configuration")
    require_writer(config, model, f"calibrate {model}")
    return Params(sources.source(config, model), config.run.judge.max_new_tokens, config.run.judge.scorings)


def run(params: Params, model: str, work: Work) -> dict[str, Any]:
    """Write `calibration/{model}.json`: of every scoring what the judge made of the items, and the bars that it misses."""
    judge, items = asking.Judge(model, params.source, params.max_new_tokens), calibration.items(ITEMS)
    answerer = asking.load(judge, work.beside)
    triples = [asking.Triple(item.question, item.reference, item.answer) for item in items]
    found, answered_by = {}, set[str]()
    for name in params.scorings:
        given = {triple: one for triple, _, one in asking.judgements(answerer, judge, name, triples, 1)}
        report = calibration.report(items, [given[triple].reading for triple in triples])
        answered_by |= {one.answered_by for one in given.values() if one.answered_by}
        found[name] = {**report._asdict(), "faults": report.faults, "digest": asking.digest(judge, name)}
        if report.n_failed:
            reasons = Counter(one.reading.reason for one in given.values() if one.reading.score is None)
            print(f"{model}, {name}: {report.n_failed} of {report.n} replies give no score; most often: {reasons.most_common(1)[0][0]}")
        for fault in report.faults:
            print(f"{model}, {name}: {fault}", flush=True)
    with files.atomic(paths.calibration(model)) as aside:
        aside.write_text(json.dumps({"scorings": found, "answered_by": sorted(answered_by)}, indent=1) + "\n", encoding="utf-8")
    return {"weights": dict(answerer.weights)}


def uses(params: Params) -> tuple[str, ...]:
    """What puts the items to the judge: its scorings and its architecture."""
    return (answering.speaker(params.source), *loading.modules(params.source), *(scoring(name).__name__ for name in params.scorings))


def needs_of(config: Config, model: str) -> Needs:
    """What a job asks for that asks a judge: memory of a model where it runs here, the network where it runs elsewhere."""
    entry = config.models[model]
    if entry.kind == "remote":
        return Needs(memory_mb=2000, minutes=MINUTES, network=True)
    return Needs(int(needs.BASE_MB + needs.PER_WEIGHT * needs.weights_mb(config, model)), MINUTES, entry.gpus)


STAGE = Stage(
    name="calibrate",
    keys=("model",),
    params=params,
    inputs=lambda params, model: sources.made_here(params.source, model),
    outputs=lambda model: [paths.calibration(model)],
    run=run,
    uses=uses,
    needs=lambda config, model: needs_of(config, model),
    resumes=True,
    beside=sources.reached,
)
