"""What endpoints will cost: their answers, and their judgements of answers, are paid for by the token."""

from collections.abc import Iterable
from typing import NamedTuple

import polars as pl

from medbench import paths, tables, tasks
from medbench.config import Config, Judging, needs
from medbench.errors import MedbenchError
from medbench.metrics.judging import calibration, scoring
from medbench.remote.endpoint import Stopped, Usage
from medbench.remote.prices import ASKED_TOKENS, Price
from medbench.stages import calibrate, judge

TRACKED = False  # a look ahead is no part of a result
JUDGED_TOKENS = 700  # of a rubric with a question, its reference and an answer


class Estimate(NamedTuple):
    """Of one model over cells that are not made yet: by rough counts of tokens, output at its most."""

    model: str
    questions: int  # or judgements, of a judge
    dollars: float | None  # at most; None where no price is named, or genai-prices does not know it
    said: str


def estimates(config: Config, cells: Iterable[tuple[str, str, str]]) -> list[Estimate]:
    """Of each remote model, then of each remote judge. `cells`: data set, model, mode."""
    asked, grid = dict[str, int](), list(cells)
    for dataset, model, mode in grid:
        if config.models[model].endpoint is not None and not paths.predictions(dataset, model, mode).exists():
            asked[model] = asked.get(model, 0) + needs.test_rows(config, dataset)
    found = []
    for model, n in asked.items():
        budget = config.models[model].max_new_tokens or config.asking.max_new_tokens
        found.append(_of(config, model, n, f"{model}: about {n:,} questions", ASKED_TOKENS, budget))
    if chosen := config.run.judge:
        for name in chosen.models:
            if config.models[name].endpoint is not None and (n := _judgements(config, chosen, name, grid)):
                found.append(_of(config, name, n, f"judge {name}: at most {n:,} judgements", JUDGED_TOKENS, chosen.max_new_tokens))
    return found


def _judgements(config: Config, chosen: Judging, name: str, grid: Iterable[tuple[str, str, str]]) -> int:
    """How often a judge is asked at most: equal answers are asked once, and few replies need another try."""
    n = 0 if paths.calibration(name).exists() else len(calibration.items(calibrate.ITEMS))
    for dataset, model, mode in grid:
        if tasks.get(config.datasets[dataset].task).judged and not paths.judgements(dataset, model, mode).exists():
            n += _open_questions(config, dataset) * chosen.repeats + judge.FLOOR
    return n * sum(int(scoring(one).TRIES) for one in chosen.scorings)


def _open_questions(config: Config, dataset: str) -> int:
    """Of the test split; all of its questions where it is not prepared."""
    schema, path = tasks.get(config.datasets[dataset].task).samples, paths.samples(dataset, "test")
    try:
        types: pl.Series = tables.read(schema, path, ["answer_type"])["answer_type"]
        return int((types == "open").sum())
    except (OSError, MedbenchError):  # not prepared, or damaged: who reads it says so
        return needs.test_rows(config, dataset)


def _of(config: Config, model: str, n: int, what: str, tokens: int, budget: int) -> Estimate:
    """`what`: is asked, in words; `tokens` of each, and `budget`: tokens of a reply."""
    entry, dollars = config.models[model], None
    said = f"{what}, {n * tokens:,} tokens in and at most {n * budget:,} out"
    if entry.endpoint is not None and entry.endpoint.price:
        try:
            dollars = n * Price(entry.endpoint.price, entry.endpoint.batch).of(Usage(tokens, 0, budget, 0))
        except Stopped as error:
            said += f": {error}"
        else:
            said += f": at most {dollars:,.2f} $ by genai-prices; what is kept in {paths.store()} costs nothing"
    return Estimate(model, n, dollars, said)
